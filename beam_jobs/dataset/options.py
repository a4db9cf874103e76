"""Options that the jobs share: their own, and those that pass through to Apache Beam.

Locally the jobs run on Beam's FnApiRunner, in this process and without a network. Beam's own options follow
the job's, for example

- `--workers=4`: four local processes, of about 1 GB each;
- `--runner=FlinkRunner --job_endpoint=SERVER:8099 --parallelism=8 --environment_type=EXTERNAL
  --environment_config=localhost:50000 --environment_cache_millis=60000`: Apache Flink. SERVER runs the class
  `FlinkJobServerDriver --job-host=SERVER --flink-master=…` of Beam's `beam-runners-flink-1.19`; beside each
  task manager runs `python -m apache_beam.runners.worker.worker_pool_main --service_port=50000`, with this
  package installed; `--input` and `--output` are the same paths on all machines. With Beam's jars in Flink's
  `lib` folder and `classloader.resolve-order: parent-first`, Flink keeps Python workers between stages;
- `@beam_jobs/dataflow.args`: Google Dataflow, with `--input` and `--output` on a bucket. That file is a
  template of the options; `beam_jobs/Dockerfile` makes the workers' image.

`@FILE` stands for the options in a file; a `#` begins a comment.
"""

import argparse
import contextlib
import dataclasses
import functools
import logging
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from etils import epath

from beam_jobs.dataset.local_workers import LOCAL_RUNNER, request_workers
from medclip_keras import command
from medclip_keras.errors import near_names, refusal, require
from medclip_keras.records.shards import RECORDS_PER_SHARD
from medclip_keras.records.splits import DEFAULT_FRACTIONS, require_fractions
from medclip_keras.sources import get_source

PUBLIC_KEY_SALT = "medclip_keras"
# These ask a job server for more options, so that a name unknown here may be known there.
_RUNNERS_WITH_OWN_OPTIONS = ("PortableRunner", "FlinkRunner", "SparkRunner", "PrismRunner")


# In the text of a failure; Beam adds the name of the step.
_SENTENCE = re.compile(r"^(?:\w+: )*ValueError: (`.+ must be .+?)(?: \[while running .*)?$", re.MULTILINE)
_SYSTEM_ERROR = re.compile(r"\w*Error: (\[Errno \d+\] [^:\n\[]+?)(?=[:\n]| \[|$)")


def option(help: str, default: Any = dataclasses.MISSING, **argument: Any) -> Any:
    """A field of options that is an argument of the command line, with its help and argparse's settings."""
    return dataclasses.field(default=default, metadata={"help": help, **argument})


def _fractions(text: str) -> tuple[float, ...]:
    try:
        fractions = tuple(float(share) for share in text.split(","))
        require_fractions(fractions)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return fractions


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of both jobs that make records."""

    source: str = option(
        "name of the archive's layout: openi, nih_chestxray14, csv, …; --source NAME --help describes it"
    )
    input: str = option("file or folder that holds the archive")
    output: str = option("folder for the records")
    concepts: str = option("a shipped concept table, or a .jsonl file", "chest21")
    split_fractions: tuple[float, ...] = option(
        "shares of the patients, if the archive publishes no split (default 0.8,0.1,0.1)",
        DEFAULT_FRACTIONS,
        type=_fractions,
        metavar="TRAIN,VALID,TEST",
    )
    split_salt: str = option("another salt gives another split of the patients", "")
    hold_out: tuple[str, ...] = option(
        "evaluation sets (medclip_keras.sources.evaluation_sets) whose patients are left out; PATH is the "
        "folder of a set's own archive, if not --input: MIMIC-CXR-JPG for reports, convirt_8x200 for "
        "chexpert_8x200",
        (),
        action="extend",
        type=lambda names: names.split(","),
        metavar="NAME[=PATH],…",
    )
    key_salt: str = option(
        "salt of the SHA-256 keys that replace identifiers, a secret: with a known salt, trying all short "
        "identifiers reveals them. Jobs that are to be joined need the same salt. Default: "
        f"{PUBLIC_KEY_SALT!r} for published archives; for your own a random one, kept beside the records "
        "(beam_jobs.dataset.key_salts)",
        "",
    )
    keep_ids: bool = False
    max_bad_fraction: float = option(
        "the job fails if a larger share of the rows cannot be read (default %(default)s)", 0.01
    )
    records_per_shard: int = option(
        "approximate size (default %(default)s); small splits get up to four shards", RECORDS_PER_SHARD
    )
    beam_options: tuple[str, ...] = ()
    # Of one of the jobs each; "" and 0 are none.
    reports: str = ""
    mentions: str = ""
    image_size: int = 0
    new_salt_path: str = ""  # of the file for a key_salt that the job made

    def __post_init__(self) -> None:
        require_fractions(self.split_fractions)
        require(0 <= self.max_bad_fraction <= 1, "max_bad_fraction", "in [0, 1]", self.max_bad_fraction)
        require(self.records_per_shard >= 1, "records_per_shard", "at least 1", self.records_per_shard)
        require(bool(self.output), "output", "a folder", self.output)
        require(epath.Path(self.input).exists(), "input", "a file or folder that exists", self.input)
        advice = "The job's files would count as changed input."
        outside = not lies_within(self.output, self.input)
        require(outside, "output", "a folder outside of the input", self.output, advice)
        require_known_options(self.beam_options, [field.name for field in dataclasses.fields(self)])
        runner = pipeline_options(self.beam_options).view_as(StandardOptions).runner
        names = ("input", "output", "reports", "mentions")
        require_seen_by_workers(runner, **{name: getattr(self, name) for name in names})

    @property
    def salt(self) -> str:
        """The salt of the keys."""
        return self.key_salt or PUBLIC_KEY_SALT


def require_seen_by_workers(runner: str, **paths: str) -> None:
    """Refuse local paths for workers on other machines."""
    advice = "Dataflow's workers cannot read the files of this machine."
    for name, path in paths.items():
        seen = not path or "://" in path or runner != "DataflowRunner"
        require(seen, name, "on a bucket, such as gs://…, for the DataflowRunner", path, advice)


def lies_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it."""
    resolved, parent = epath.Path(path).resolve(), epath.Path(folder).resolve()
    return resolved == parent or parent in resolved.parents


class _Help(argparse.Action):
    """Print the help of the job, and after it the documentation of the source that is given before."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *values: Any
    ) -> NoReturn:
        """Print and exit."""
        parser.print_help()
        if source := getattr(namespace, "source", None):
            try:
                print(f"\n--source {source}\n\n{get_source(source).__doc__}")
            except ValueError as error:
                parser.error(str(error))
        parser.exit()


def new_parser(
    module: str, description: str | None, options: type[JobOptions] | None = None
) -> argparse.ArgumentParser:
    """A parser for a job, with an argument for each field of its options."""
    epilog = f"Beam options: {__doc__.partition('.')[2].strip()}"
    settings = {"epilog": epilog, "fromfile_prefix_chars": "@", "add_help": False}
    parser = command.new_parser(module, description or "", **settings)
    parser.add_argument(
        "-h",
        "--help",
        action=_Help,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show this help, and that of --source",
    )
    parser.convert_arg_line_to_args = functools.partial(shlex.split, comments=True)  # type: ignore[method-assign]
    for field in dataclasses.fields(options) if options else ():
        if field.metadata:
            _add_argument(parser, field)
    if options:
        ids = parser.add_mutually_exclusive_group()
        ids.add_argument("--keep_ids", action="store_true", help="write the archive's identifiers unchanged")
        hashed = "write salted hashes instead of the archive's identifiers: the default"
        ids.add_argument("--hash_ids", dest="keep_ids", action="store_false", default=False, help=hashed)
    return parser


def _add_argument(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    settings: dict[str, Any] = {"type": field.type, **field.metadata}
    if field.type is bool:
        settings = {**field.metadata, "action": "store_true"}
    elif field.default is dataclasses.MISSING:
        settings["required"] = True
    else:
        settings["default"] = [] if settings.get("action") == "extend" else field.default
    parser.add_argument(f"--{field.name}", **settings)


def run_job_command(
    run: Callable[..., object], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Run a job with the options of `argv`; unknown options go to Beam. Returns the exit status."""
    known, beam_options = parser.parse_known_args(argv)

    def work() -> None:
        run(**vars(known), beam_options=tuple(beam_options))

    return command.run_command(parser.prog.removeprefix("python -m "), work)


def pipeline_options(beam_options: Sequence[str]) -> PipelineOptions:
    """Beam's options; the default is the local runner.

    Raises:
        ValueError: the DaskRunner, which loses data silently, or workers that the runner does not have.
    """
    options = PipelineOptions(list(beam_options))
    standard = options.view_as(StandardOptions)
    standard.runner = standard.runner or LOCAL_RUNNER
    advice = f"Beam's DaskRunner drops outputs silently; {LOCAL_RUNNER} with --workers runs locally."
    is_dask = "dask" in standard.runner.lower()
    require(not is_dask, "runner", "one that keeps all the data", standard.runner, advice)
    request_workers(options)
    return options


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Whether a failure that Beam logs is neither a Ctrl-C nor an error with a sentence of ours."""
    message = record.getMessage()  # with the error's type or without
    told = sentence_of(message) or sentence_of(f"ValueError: {message}")
    return "KeyboardInterrupt" not in message and not told


@contextlib.contextmanager
def running_pipeline(beam_options: Sequence[str]) -> Iterator[beam.Pipeline]:
    """A pipeline that runs at the end of the block.

    Raises:
        KeyboardInterrupt: Ctrl-C, which Beam wraps into a RuntimeError when it interrupts a step.
        ValueError: a step's own error sentence, or one of the system's, such as a full disk.
    """
    logging.getLogger("apache_beam.runners.common").addFilter(_is_unexpected)  # it logs a traceback
    try:
        with beam.Pipeline(options=pipeline_options(beam_options)) as pipeline:
            yield pipeline
    except (RuntimeError, ValueError, OSError) as error:
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        sentence = sentence_of(f"{type(error).__name__}: {error}")
        if sentence:
            raise ValueError(sentence) from None
        raise


def sentence_of(failure: str) -> str:
    """Extract the error sentence from Beam's message on a failed step, or "".

    Of the system's errors, which may name files of patients, only number and reason are kept.
    """
    if found := _SENTENCE.findall(failure):
        return found[-1]
    if found := _SYSTEM_ERROR.findall(failure):
        advice = "Make room, or name another folder, and start the same command again."
        return str(refusal("output", "a folder in which the job can write and read", found[-1], advice))
    return ""


def require_known_options(beam_options: Sequence[str], own_names: Sequence[str]) -> None:
    """Refuse options that neither the job nor Beam knows; Beam itself would drop them."""
    beam_names = PipelineOptions([]).get_all_options()
    given = PipelineOptions(list(beam_options)).get_all_options(retain_unknown_options=True)
    unknown = [] if given["runner"] in _RUNNERS_WITH_OWN_OPTIONS else [*(given.keys() - beam_names.keys())]
    for name in unknown:
        near = near_names(f"--{name}", [f"--{known}" for known in (*own_names, *beam_names)])
        advice = near if near.startswith("Near") else "See --help."
        raise refusal(f"--{name}", "an option of the job or of Apache Beam", given[name], advice)
