"""Options that the jobs share: their own, and those that pass through to Apache Beam.

Locally the jobs run on Beam's FnApiRunner, in this process and without a network. Beam's own options follow
the job's, for example

- `--workers=4`: four local processes, of about 1 GB each;
- `--runner=FlinkRunner --job_endpoint=SERVER:8099 --parallelism=8 --environment_type=EXTERNAL
  --environment_config=localhost:50000 --environment_cache_millis=60000`: Apache Flink. SERVER runs the class
  `FlinkJobServerDriver --job-host=SERVER --flink-master=…` of Beam's `beam-runners-flink-1.19`; beside each
  task manager runs `python -m apache_beam.runners.worker.worker_pool_main --service_port=50000`, with this
  package installed; `--input` and `--output` are the same paths for all. Where Beam's jars lie in Flink's
  `lib` folder, and `classloader.resolve-order` is `parent-first`, Python workers are kept from one stage to
  the next;
- `@beam_jobs/dataflow.args`: Google Dataflow, with `--input` and `--output` on a bucket. That file is a
  template of the options; `beam_jobs/Dockerfile` makes the workers' image.

`@FILE` stands for the options in a file; a `#` begins a comment.
"""

import argparse
import dataclasses
import difflib
import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from etils import epath

from beam_jobs.dataset.local_workers import LOCAL_RUNNER, ask_for_workers
from medclip_keras.errors import require
from medclip_keras.records.shards import RECORDS_PER_SHARD
from medclip_keras.records.splits import DEFAULT_FRACTIONS, require_fractions

# These ask a job server for more options, so that a name unknown here may be known there.
_RUNNERS_WITH_OPTIONS_OF_THEIR_OWN = ("PortableRunner", "FlinkRunner", "SparkRunner", "PrismRunner")


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What both jobs are told; `add_arguments` says what each means."""

    source: str
    input: str
    output: str
    concepts: str = "chest21"
    split_fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    split_salt: str = ""
    key_salt: str = "medclip_keras"
    keep_ids: bool = False
    max_bad_fraction: float = 0.01
    records_per_shard: int = RECORDS_PER_SHARD
    hold_out: tuple[str, ...] = ()
    beam_options: tuple[str, ...] = ()

    def __post_init__(self):
        require_fractions(self.split_fractions)
        require(0 <= self.max_bad_fraction <= 1, "max_bad_fraction", "in [0, 1]", self.max_bad_fraction)
        require(self.records_per_shard >= 1, "records_per_shard", "at least 1", self.records_per_shard)
        require(bool(self.output), "output", "a folder", self.output)
        require(epath.Path(self.input).exists(), "input", "a file or folder that exists", self.input)
        require(
            not lies_within(self.output, self.input),
            "output",
            "a folder outside of the input",
            self.output,
            "What the job writes there would count as changed input.",
        )
        require_known_options(self.beam_options, [field.name for field in dataclasses.fields(self)])
        runner = pipeline_options(self.beam_options).view_as(StandardOptions).runner
        names = ("input", "output", "reports", "mentions")  # the last two of some jobs
        require_seen_by_workers(runner, **{name: getattr(self, name, "") for name in names})


def require_seen_by_workers(runner: str, **paths: str) -> None:
    """Refuses paths of this machine where the workers are other ones."""
    advice = "Dataflow's workers do not see the files of this machine."
    for name, path in paths.items():
        seen = not path or "://" in path or runner != "DataflowRunner"
        require(seen, name, "on a bucket, such as gs://…, for the DataflowRunner", path, advice)


def lies_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it."""
    path, folder = epath.Path(path).resolve(), epath.Path(folder).resolve()
    return path == folder or folder in path.parents


def new_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of `JobOptions`."""
    parser = argparse.ArgumentParser(
        name,
        description=description,
        epilog=f"Beam options: {__doc__.partition('.')[2].strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        fromfile_prefix_chars="@",
    )
    parser.convert_arg_line_to_args = functools.partial(shlex.split, comments=True)
    add = parser.add_argument
    add("--source", required=True, help="name of the archive's layout: openi, nih_chestxray14, csv, …")
    add("--input", required=True, help="file or folder that holds the archive")
    add("--output", required=True, help="folder for the records")
    add("--concepts", default="chest21", help="a shipped concept table, or a .jsonl file")
    _add_split_arguments(parser)
    _add_key_arguments(parser)
    add(
        "--max_bad_fraction",
        type=float,
        default=0.01,
        help="the job fails where more of the rows cannot be read (default 0.01)",
    )
    add(
        "--records_per_shard",
        type=int,
        default=RECORDS_PER_SHARD,
        help="about so many (default 2000); small splits get up to four shards all the same",
    )
    return parser


def _add_split_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--split_fractions",
        type=_fractions,
        default=DEFAULT_FRACTIONS,
        metavar="TRAIN,VALID,TEST",
        help="shares of the patients, where the archive publishes no split (default 0.8,0.1,0.1)",
    )
    add("--split_salt", default="", help="another salt divides the patients in another way")
    add(
        "--hold_out",
        action="extend",
        type=lambda names: names.split(","),
        default=[],
        metavar="NAME[=PATH],…",
        help="evaluation sets (medclip_keras.sources.evaluation_sets) whose patients are left out; PATH is "
        "where a set's own archive lies, if not at --input: MIMIC-CXR-JPG for reports, convirt_8x200 for "
        "chexpert_8x200",
    )


def _add_key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key_salt",
        default="medclip_keras",
        help="identifiers become SHA-256 keys under this salt. Choose your own and keep it to yourself: with "
        "a known salt, short identifiers are found again by trying them all. Jobs that are to be joined need "
        "the same one",
    )
    ids = parser.add_mutually_exclusive_group()
    ids.add_argument(
        "--hash_ids",
        dest="keep_ids",
        action="store_false",
        default=False,
        help="write salted hashes instead of the archive's identifiers: the default",
    )
    ids.add_argument("--keep_ids", action="store_true", help="write the archive's identifiers as they are")


def run_or_exit(
    run: Callable[..., object], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> None:
    """Runs a job with what `argv` says; what the parser does not know goes to Beam.

    Raises:
        SystemExit: with the sentence of a `ValueError`, which needs no traceback.
    """
    known, beam_options = parser.parse_known_args(argv)
    try:
        run(**vars(known), beam_options=tuple(beam_options))
    except ValueError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None


def pipeline_options(beam_options: Sequence[str]) -> PipelineOptions:
    """Beam's options, on the local runner where they name none.

    Raises:
        ValueError: the DaskRunner, which loses data without a word, or workers that the runner does not have.
    """
    options = PipelineOptions(list(beam_options))
    standard = options.view_as(StandardOptions)
    standard.runner = standard.runner or LOCAL_RUNNER
    require(
        "dask" not in standard.runner.lower(),
        "runner",
        "one that keeps all the data",
        standard.runner,
        f"Beam's DaskRunner drops outputs silently; {LOCAL_RUNNER} with --workers runs locally.",
    )
    ask_for_workers(options)
    return options


def require_known_options(beam_options: Sequence[str], own_names: Sequence[str]) -> None:
    """Refuses options that neither the job nor Beam knows; Beam itself would drop them."""
    beam_names = PipelineOptions([]).get_all_options()
    given = PipelineOptions(list(beam_options)).get_all_options(retain_unknown_options=True)
    if given["runner"] in _RUNNERS_WITH_OPTIONS_OF_THEIR_OWN:
        return
    for name in given.keys() - beam_names.keys():
        near = difflib.get_close_matches(name, [*own_names, *beam_names], 3)
        advice = f"Near names: {', '.join('--' + n for n in near)}." if near else "See --help."
        require(False, f"--{name}", "an option of the job or of Apache Beam", given[name], advice)


def _fractions(text: str) -> tuple[float, ...]:
    try:
        fractions = tuple(float(share) for share in text.split(","))
        require_fractions(fractions)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return fractions
