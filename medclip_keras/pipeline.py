"""All stages of a run, from raw files to a served model: `python -m medclip_keras.pipeline --run NAME`.

    phantom → label_reports → decode_images → validate_records → train → evaluate → export

Each stage writes `stages/NAME.json` with the fingerprints of its inputs. A stage runs again only if its
inputs changed or its output is missing.
"""

import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Sequence

from etils import epath
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import DataConfig, RawInput, RunConfig, override, to_dict
from medclip_keras.errors import Interrupted, require, require_no_pattern
from medclip_keras.files import absolute
from medclip_keras.locks import sole_writer
from medclip_keras.provenance import file_sha256
from medclip_keras.runs import RUNS, get_run
from medclip_keras.stages import Stage, Stages, move_aside


class Pipeline:
    """A run and its workdir; `run` brings every stage up to date.

    Args:
        config: the run, with `data.phantom` or `data.raw`.
        workdir: receives raw/, records/, stages/ and the outputs of training, evaluation and export.
        beam_options: passed on to Apache Beam.
        console: prints the stages' names and progress.
    """

    def __init__(
        self,
        config: RunConfig,
        workdir: epath.PathLike,
        beam_options: Sequence[str] = (),
        console: Console | None = None,
    ):
        require(
            bool(config.data.raw or config.data.phantom),
            "data.raw",
            f"named in a run that starts from raw files (of the named ones: {', '.join(_raw_runs())})",
            config.name,
            "With records of your own, call medclip_keras.fit with --images and --texts.",
        )
        self.config, self.workdir = config, epath.Path(workdir)
        self.beam_options, self.console = tuple(beam_options), console or Console()
        self._stages = Stages(self.workdir, self.console)
        self._evaluates = False  # whether the model is evaluated after its training

    def run(self, until: str = "") -> list[str]:
        """Run the stages that are not up to date; returns their names.

        Args:
            until: the kind of the last stage, one of `KINDS`; empty: all stages.

        Raises:
            ValueError: an unknown stage, a missing archive; before any work.
        """
        require_no_pattern("--workdir", self.workdir)
        require(until in ("", *KINDS), "--until", f"one of {', '.join(KINDS)}", until)
        wanted = KINDS[: KINDS.index(until) + 1] if until else KINDS
        raw = self._find_raw()
        if "train" in wanted:
            self._check_model()
        self._evaluates = "evaluate" in wanted
        with sole_writer(self.workdir, "--workdir"):
            for kind in wanted:
                for stage in getattr(self, f"_{kind}")(raw):
                    self._stages.bring_up_to_date(stage)
        return self._stages.ran

    def _check_model(self) -> None:
        """Refuse a model that training or the export would refuse, before the first stage."""
        from medclip_keras.evaluation.comparison import check_thresholds
        from medclip_keras.training.presets import check_presets, with_architectures

        check_thresholds(self.config)
        check_presets(with_architectures(self.config, self.workdir).model)

    def stale(self, kind: str) -> list[str]:
        """Names of the stages of a kind that are not up to date; earlier stages must have run."""
        return [
            s.name for s in getattr(self, f"_{kind}")(self._find_raw()) if not self._stages.is_up_to_date(s)
        ]

    @property
    def trained(self) -> RunConfig:
        """The run with the folders of its own records."""
        raw = self._find_raw()
        images = tuple(str(self._records("images", k)) for k, r in enumerate(raw) if r.images)
        texts = tuple(str(self._records("reports", k)) for k, r in enumerate(raw) if r.reports)
        data = dataclasses.replace(self.config.data, images=images, texts=texts)
        return dataclasses.replace(self.config, data=data)

    def _find_raw(self) -> list[RawInput]:
        found = []
        if self.config.data.phantom:
            made = str(self.workdir / "raw" / "phantom")
            found.append(RawInput("phantom", images=made, reports=made))
        for number, raw in enumerate(self.config.data.raw):
            paths = {k: os.path.expandvars(getattr(raw, k)) for k in ("images", "reports")}
            for path in filter(None, paths.values()):
                require(
                    "$" not in path,
                    f"data.raw[{number}]",
                    "a path whose environment variables are set",
                    path,
                    "Set MEDCLIP_DATA to the folder that holds the public downloads; the docstring of "
                    f"medclip_keras.runs.{self.config.name} names them and their layout.",
                )
                require(epath.Path(path).exists(), f"data.raw[{number}]", "a path that exists", path)
            found.append(dataclasses.replace(raw, **paths))
        return found

    def _records(self, kind: str, number: int) -> epath.Path:
        return self.workdir / "records" / f"{kind}-{number}"

    def _phantom(self, raw):
        from medclip_keras.sources import phantom

        if self.config.data.phantom is None:
            return
        target, options = epath.Path(raw[0].images), dataclasses.asdict(self.config.data.phantom)

        def work():
            target.rmtree(missing_ok=True)
            phantom.write_phantom(target, seed=self.config.seed, **options)
            return options

        yield Stage("phantom", {"seed": self.config.seed, **options}, target / "reports.csv", work)

    def _label_reports(self, raw):
        from beam_jobs import label_reports

        for number, archive in enumerate(raw):
            if archive.reports:
                options = label_reports.LabelOptions(**self._job_options("reports", number, archive))
                yield self._beam_stage(label_reports, options, number)

    def _decode_images(self, raw):
        from beam_jobs import decode_images

        for number, archive in enumerate(raw):
            if archive.images:
                options = decode_images.DecodeOptions(
                    **self._job_options("images", number, archive),
                    image_size=self.config.data.stored_image_size,
                    reports=str(self._records("reports", number)) if archive.reports else "",
                )
                yield self._beam_stage(decode_images, options, number)

    def _job_options(self, kind: str, number: int, archive: RawInput) -> dict:
        return {
            "source": archive.source,
            "input": getattr(archive, kind),
            "output": str(self._records(kind, number)),
            "concepts": self.config.data.concepts,
            "hold_out": tuple(os.path.expandvars(name) for name in archive.hold_out),
            "split_fractions": self.config.data.split_fractions,
            "beam_options": self.beam_options,
        }

    def _beam_stage(self, module, options, number: int) -> Stage:
        from beam_jobs.dataset.job import describe_making, find_current, run_job

        job = module.make_job(options)
        making = describe_making(job)

        def work():
            manifest = run_job(job)
            return {"fingerprint": manifest.fingerprint, **manifest.counts}

        inputs = {k: v for k, v in making.items() if k not in ("input", "versions")}
        output = epath.Path(options.output) / "manifest.json"
        return Stage(
            f"{job.name}-{number}",
            inputs,
            output,
            work,
            is_whole=lambda: find_current(job, making["fingerprint"]) is not None,
        )

    def _validate_records(self, raw):
        from beam_jobs import validate_records

        data = self.trained.data
        for directory in (*data.images, *data.texts):
            output = validation_output(directory, self.workdir)

            def work(directory=directory):
                return validate_folder(directory, data, self.workdir, self.console, self.beam_options)

            inputs = {
                "records": _fingerprint(directory),
                "schema_sha256": _sha256_of_named(validate_records.schema_in_force(directory, output)),
                "allow_anomalies": data.allow_anomalies,
                "code_sha256": validate_records.own_code_sha256(),
            }
            name = f"validate_records-{epath.Path(directory).name}"
            yield Stage(name, inputs, output / validate_records.RESULT_NAME, work)

        inputs = {
            "records": self._record_fingerprints(self.trained),
            "allow_anomalies": data.allow_anomalies,
            "code_sha256": validate_records.own_code_sha256(),
        }
        output = self.workdir / "validation" / validate_records.COMPARISON_NAME
        work = functools.partial(compare_folders, data, self.workdir, self.console)
        yield Stage("validate_records-together", inputs, output, work)

    def _train(self, raw):
        from medclip_keras.preflight import require_evaluable
        from medclip_keras.training.run_json import differences, input_hashes
        from medclip_keras.training.train import train

        config = self.trained
        settings = {name: values for name, values in to_dict(config).items() if name != "export"}
        inputs = {"config": settings, "records": self._record_fingerprints(config)}
        inputs |= {name: h for name, h in input_hashes(config).items() if name.startswith("model.")}
        done = self.workdir / "checkpoints" / "last"

        def work():
            if self._evaluates:
                require_evaluable(config)
            changed = differences(config, self.workdir)
            if changed:
                kept = move_aside(self.workdir)
                said = f"The run changed in {', '.join(changed)}; the earlier model is kept in {kept}."
                self.console.print(said, highlight=False, soft_wrap=True)
            outcome = train(config, self.workdir, self.console)
            if not outcome.finished:
                raise Interrupted(outcome.step, outcome.total_steps, outcome.step)
            return {"steps": outcome.step}

        yield Stage("train", inputs, done, work)

    def _evaluate(self, raw):
        from medclip_keras.measure import evaluate_workdir

        def work():
            evaluate_workdir(self.workdir, console=self.console)
            return {}

        inputs = {
            "weights": self._weights_sha256(),
            "records": self._record_fingerprints(self.trained),
            "evaluation": to_dict(self.config)["evaluation"],
            "prompts_sha256": _sha256_of_named(self.config.evaluation.prompts),
        }
        yield Stage("evaluate", inputs, self.workdir / "evaluation" / "metrics.json", work)

    def _export(self, raw):
        from medclip_keras.release import export_workdir
        from medclip_keras.training.run_json import write_run_json

        target = self.workdir / "export"

        def work():
            write_run_json(self.trained, self.workdir)  # with the thresholds of this call
            return {"version": export_workdir(self.workdir, target, console=self.console).name}

        inputs = {"weights": self._weights_sha256(), "export": to_dict(self.config)["export"]}
        if self.config.export.thresholds:
            inputs["metrics_sha256"] = _sha256_of_named(str(self.workdir / "evaluation" / "metrics.json"))
        yield Stage("export", inputs, target, work)

    def _weights_sha256(self) -> str:
        from beam_jobs.dataset.inputs import input_sha256

        return input_sha256(str(self.workdir / "checkpoints"), ())

    def _record_fingerprints(self, config: RunConfig) -> list[str]:
        return [_fingerprint(path) for path in (*config.data.images, *config.data.texts)]


KINDS = (
    "phantom", "label_reports", "decode_images", "validate_records", "train", "evaluate", "export",
)  # fmt: skip


def validate_folder(
    directory: str,
    data: DataConfig,
    workdir: epath.Path,
    console: Console,
    beam_options: Sequence[str] = (),
) -> dict:
    """Validate a folder of records before training; unchanged records are not read again.

    The schema is the one that the owner edited beside the records or in the workdir's validation/, else an
    inferred one.

    Returns:
        The number of anomalies.

    Raises:
        ValueError: there are anomalies, and `data.allow_anomalies` is not set.
    """
    from beam_jobs import validate_records

    output = validation_output(directory, workdir)
    schema = validate_records.schema_in_force(directory, output)
    result = validate_records.run(
        input=directory, schema=schema, output=str(output), beam_options=tuple(beam_options)
    )
    if not data.allow_anomalies:
        edit = f"edit {schema or output / 'schema.json'} and start again"
        result.require_valid(
            f"Correct the records; or {edit}; or accept them: --set data.allow_anomalies=true."
        )
    found = len(result.anomalies)
    said = f"anomalies, allowed: {found}" if found else "no anomaly"
    page = output / validate_records.PAGE_NAME
    console.print(f"{directory}: {said}; {page}", highlight=False, soft_wrap=True)
    return {"anomalies": found, **result.num_records}


def validate_together(data: DataConfig, workdir: epath.Path, console: Console) -> None:
    """Validate all folders of a run, and compare them with each other; raises as both do."""
    for directory in (*data.images, *data.texts):
        validate_folder(directory, data, workdir, console)
    compare_folders(data, workdir, console)


def compare_folders(data: DataConfig, workdir: epath.Path, console: Console) -> dict:
    """Compare the validated folders of a run with each other; unchanged records are not compared again.

    Returns:
        The number of leaks between their splits.

    Raises:
        ValueError: there are leaks, and `data.allow_anomalies` is not set.
    """
    from beam_jobs import validate_records

    outputs = {path: validation_output(path, workdir) for path in (*data.images, *data.texts)}
    found = validate_records.compare(outputs, epath.Path(workdir) / "validation")
    if not data.allow_anomalies:
        advice = "Leave these records out of one split; or accept them: --set data.allow_anomalies=true."
        validate_records.require_no_leak(found, advice)
    said = f"leaks between splits, allowed: {len(found)}" if found else "no patient or picture in two splits"
    console.print(f"All {len(outputs)} folders: {said}", highlight=False, soft_wrap=True)
    return {"leaks": len(found)}


def validation_output(directory: str, workdir: epath.Path) -> epath.Path:
    """Output folder of a record folder's validation; same-named folders get separate output paths."""
    mark = hashlib.sha256(str(absolute(directory)).encode()).hexdigest()[:8]
    return epath.Path(workdir) / "validation" / f"{epath.Path(directory).name}-{mark}"


def _raw_runs() -> list[str]:
    runs = {name: make() for name, make in RUNS.items()}
    return [name for name, run in runs.items() if run.data.raw or run.data.phantom]


def _fingerprint(records: str) -> str:
    from medclip_keras.records.manifest import read_manifest

    return read_manifest(records).fingerprint


def _sha256_of_named(path: str) -> str:
    return file_sha256(path) if path else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = new_parser("medclip_keras.pipeline", __doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help=f"{', '.join(_raw_runs())}, or a run.json")
    parser.add_argument("--set", action="extend", default=[], metavar="a.b=c", dest="assignments", nargs="+")
    parser.add_argument("--workdir", default="", help="default: workdir/RUN")
    parser.add_argument("--until", default="", help=f"the last stage: {', '.join(KINDS)}")
    arguments, beam_options = parser.parse_known_args(argv)

    def work() -> None:
        config = override(get_run(arguments.run), arguments.assignments)
        workdir = arguments.workdir or f"workdir/{config.name}"
        Pipeline(config, workdir, beam_options).run(arguments.until)

    return run_command("medclip_keras.pipeline", work)


if __name__ == "__main__":
    sys.exit(main())
