import pathlib
import sys

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    StandardOptions,
    WorkerOptions,
)
from etils import epath

import beam_jobs
from beam_jobs.dataset.key_salts import with_key_salt
from beam_jobs.dataset.options import (
    JobOptions,
    new_parser,
    pipeline_options,
    require_known_options,
    require_seen_by_workers,
    run_job_command,
    running_pipeline,
)
from medclip_keras.sources import csv


def options(tmp_path, **more):
    return JobOptions(**{"source": "csv", "input": str(tmp_path), "output": str(tmp_path) + "-out", **more})


@pytest.mark.parametrize("output", ["gs://bucket/records/images", "gs://bucket/records/images/"])
def test_the_salt_of_records_on_a_bucket_is_kept_beside_them(output, tmp_path, monkeypatch):
    monkeypatch.setattr(type(epath.Path(output)), "exists", lambda path: path.name == "studies.csv")
    monkeypatch.chdir(tmp_path)
    given = JobOptions(source="csv", input="gs://bucket/studies.csv", output=output)
    assert with_key_salt(given, csv).new_salt_path == "gs://bucket/records/key_salt.txt"


def test_local_runner_is_the_one_that_needs_no_download():
    assert pipeline_options(()).view_as(StandardOptions).runner == "FnApiRunner"


def test_beam_options_pass_through():
    told = pipeline_options(("--runner=DataflowRunner", "--direct_num_workers=3"))
    assert told.view_as(StandardOptions).runner == "DataflowRunner"
    assert told.view_as(DirectOptions).direct_num_workers == 3


def test_dask_runner_is_refused():
    sentence = r"`runner` must be one that keeps all the data. Received: 'DaskRunner'"
    with pytest.raises(ValueError, match=sentence):
        pipeline_options(("--runner=DaskRunner",))


@pytest.mark.parametrize(
    ("flag", "near"),
    [
        ("--concept=x", "--concepts"),
        ("--direct_num_worker=2", "--direct_num_workers"),
        ("--keep_id", "--keep_ids"),
    ],
)
def test_unknown_option_gets_the_near_names(tmp_path, flag, near):
    sentence = f"`{flag.partition('=')[0]}` must be an option .*Near names: .*{near}"
    with pytest.raises(ValueError, match=sentence):
        options(tmp_path, beam_options=(flag,))


def test_template_of_dataflow_options_is_read_from_its_file():
    template = pathlib.Path(beam_jobs.__file__).with_name("dataflow.args")
    own = ["--source=csv", "--input=gs://in", "--output=gs://out", "--key_salt=s"]
    known, beam_options = new_parser("job", "Does.", JobOptions).parse_known_args([*own, f"@{template}"])
    require_known_options(beam_options, vars(known))
    told = pipeline_options(beam_options)
    assert told.view_as(StandardOptions).runner == "DataflowRunner"
    assert told.view_as(GoogleCloudOptions).project == "PROJECT"
    assert told.view_as(WorkerOptions).sdk_container_image == "IMAGE"
    assert told.view_as(WorkerOptions).use_public_ips is False


def test_image_of_dataflow_workers_has_the_beam_of_this_environment():
    (first, *_) = [
        line
        for line in pathlib.Path(beam_jobs.__file__).with_name("Dockerfile").read_text().splitlines()
        if line.startswith("FROM")
    ]
    python = "{}.{}".format(*sys.version_info)
    assert first == f"FROM apache/beam_python{python}_sdk:{beam.__version__} AS beam"


def test_dataflow_job_on_the_files_of_this_machine_gets_the_sentence(tmp_path):
    sentence = "`{}` must be on a bucket.*Received: '{}'"
    with pytest.raises(ValueError, match=sentence.format("input", tmp_path)):
        options(tmp_path, beam_options=("--runner=DataflowRunner",))
    with pytest.raises(ValueError, match=sentence.format("reports", "here")):
        require_seen_by_workers("DataflowRunner", input="gs://in", mentions="", reports="here")
    require_seen_by_workers("FlinkRunner", input="/shared/in", output="/shared/out")


def test_runner_with_a_job_server_may_know_more_options(tmp_path):
    options(tmp_path, beam_options=("--runner=PortableRunner", "--job_endpoint=embed", "--surprise=1"))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("input", "/nowhere", "`input` must be a file or folder that exists. Received: '/nowhere'"),
        ("output", "", "`output` must be a folder"),
        ("split_fractions", (0.5, 0.4, 0.2), "`split_fractions` must be three shares"),
        ("max_bad_fraction", 1.5, r"`max_bad_fraction` must be in \[0, 1\]"),
        ("records_per_shard", 0, "`records_per_shard` must be at least 1"),
    ],
)
def test_wrong_option_gets_the_sentence(tmp_path, field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        options(tmp_path, **{field: value})


def test_output_inside_the_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`output` must be a folder outside of the input"):
        options(tmp_path, output=str(tmp_path / "records"))


def test_command_line_gives_the_fields_of_the_options(tmp_path):
    seen = {}
    argv = [
        "--source=csv",
        f"--input={tmp_path}",
        "--output",
        f"{tmp_path}-out",
        "--split_fractions=0.5,0.25,0.25",
    ]
    parser = new_parser("job", "Does.", JobOptions)
    assert (
        run_job_command(
            lambda **told: seen.update(told), parser, [*argv, "--keep_ids", "--runner", "FnApiRunner"]
        )
        == 0
    )
    told = JobOptions(**seen)
    assert told.split_fractions == (0.5, 0.25, 0.25)
    assert told.keep_ids
    assert told.beam_options == ("--runner", "FnApiRunner")
    assert told.concepts == "chest21"


def test_identifiers_are_hashed_by_default(capsys):
    parser = new_parser("job", "Does.", JobOptions)
    told = ["--source=a", "--input=b", "--output=c"]
    kept = [parser.parse_args([*told, *flags]).keep_ids for flags in ([], ["--hash_ids"], ["--keep_ids"])]
    assert kept == [False, False, True]
    with pytest.raises(SystemExit):
        parser.parse_args([*told, "--hash_ids", "--keep_ids"])
    assert "argument --keep_ids: not allowed with argument --hash_ids" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("`x` must be y. Received: z."), 1, "job: `x` must be y. Received: z."),
        (KeyboardInterrupt(), 130, "job: interrupted. The same command resumes the work."),
    ],
)
def test_command_line_ends_with_one_line_and_no_traceback(error, status, line, capsys):
    def run(**_):
        raise error

    argv = ["--source=csv", "--input=a", "--output=b"]
    assert run_job_command(run, new_parser("job", "Does.", JobOptions), argv) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_interrupt_of_a_step_is_a_keyboard_interrupt():
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), running_pipeline(()) as pipeline:
        _ = pipeline | beam.Create([1]) | beam.Map(stop)


def test_help_of_a_source_says_what_to_download(capsys):
    parser = new_parser("beam_jobs.label_reports", "Reports.", JobOptions)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--source", "padchest", "--help"])
    assert stopped.value.code == 0
    assert "https://bimcv.cipf.es/bimcv-projects/padchest/" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "bimcv" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--source", "padchests", "-h"])
    assert stopped.value.code == 2
    assert "Near names: padchest." in capsys.readouterr().err


def test_command_line_refuses_invalid_fractions(capsys):
    with pytest.raises(SystemExit):
        new_parser("job", "Does.", JobOptions).parse_args(
            ["--source=a", "--input=b", "--output=c", "--split_fractions=a,b"]
        )
    assert "--split_fractions" in capsys.readouterr().err
