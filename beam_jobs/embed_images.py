"""Images → embeddings, by Beam's RunInference with a trained model.

    python -m beam_jobs.embed_images --model MODELS_DIR/1 --input PATH --output DIR [Beam options]

PATH is a folder of JPEG, PNG and DICOM files with all below it, a pattern, a CSV file with a column `path`,
or records of decode_images; on a bucket, a folder or records. DIR receives Parquet shards with a row an
image: `path`, or the keys and the split of a record, and `embedding`, floats of unit length.
`unreadable.jsonl` lists the files that cannot be read with their reasons. `manifest.json`, written last, has
counts, checksums, the model and the inputs.

A shard is a function of the list of images. A killed job leaves its finished shards in `DIR.incomplete-…`;
the same command makes the others, and ends in the same bytes as an unbroken run.

`python -m medclip_keras.predict` scores a folder on one machine. This job writes the embeddings that
`python -m medclip_keras.search` reads, and runs on any number of workers.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import StandardOptions
from etils import epath
from rich.console import Console

from beam_jobs.dataset import inputs, writing
from beam_jobs.dataset import options as jobs
from beam_jobs.dataset.local_workers import tied_workers
from beam_jobs.dataset.progress import Progress
from beam_jobs.embedding import plan as planning
from beam_jobs.embedding import steps
from beam_jobs.embedding.plan import Plan, Workplace, open_workplace, plan_files, plan_records
from medclip_keras import embeddings, image_files, inference
from medclip_keras.embeddings import MANIFEST_NAME, UNREADABLE_NAME, EmbeddingManifest, ModelProbe
from medclip_keras.errors import refusal, require
from medclip_keras.inference import InferenceModel
from medclip_keras.locks import sole_writer
from medclip_keras.predict import SUFFIXES, list_images
from medclip_keras.preprocess import images, orientation
from medclip_keras.provenance import code_sha256, sha256_of, versions
from medclip_keras.records import schema
from medclip_keras.records.manifest import read_manifest
from medclip_keras.sources import codestreams, dicom, dicom_jpeg, dicom_picture, rows
from medclip_keras.sources.files import is_hidden

NAME = "embed_images"
_CODE = (
    images, image_files, orientation, dicom, dicom_picture, dicom_jpeg, codestreams, rows, inference, schema,
    embeddings,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Options of the job; `--help` explains them."""

    model: str
    input: str
    output: str
    images_per_shard: int = 1024
    max_bad_fraction: float = 0.01
    allow_annotation: bool = False
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(0 <= self.max_bad_fraction <= 1, "--max_bad_fraction", "in [0, 1]", self.max_bad_fraction)
        require(self.images_per_shard >= 1, "--images_per_shard", "at least 1", self.images_per_shard)
        advice = "The job's files would count as images."
        outside = not jobs.lies_within(self.output, self.input)
        require(outside, "--output", "a folder outside of the input", self.output, advice)
        jobs.require_known_options(self.beam_options, [one.name for one in dataclasses.fields(self)])
        runner = jobs.pipeline_options(self.beam_options).view_as(StandardOptions).runner
        names = ("model", "input", "output")
        jobs.require_seen_by_workers(runner, **{name: getattr(self, name) for name in names})


class EmbedProgress(Progress):
    """Progress by the summaries of the finished shards."""

    def __init__(self, workplace: Workplace):
        super().__init__(NAME, workplace.folder)
        self._workplace = workplace

    def counts(self) -> tuple[int, int]:
        """Finished shards, and all."""
        return len(self._workplace.finished()), self._workplace.num_parts


def make_plan(options: EmbedOptions, model: InferenceModel) -> Plan:
    """List the images of the input.

    Raises:
        ValueError: nothing to embed, or records that do not fit.
    """
    if (epath.Path(options.input) / MANIFEST_NAME).exists():
        stored = model.config.data.stored_image_size
        return plan_records(options.input, read_manifest(options.input), stored, options.images_per_shard)
    if "://" in options.input:
        root = options.input.rstrip("/") + "/"
        listed = (name for name, _, _ in inputs.list_folder(root) if name.lower().endswith(SUFFIXES))
        names = [name for name in listed if not is_hidden(name)]
        require(bool(names), "--input", "a folder with at least one image", options.input)
        return plan_files({name: root + name for name in names}, options.images_per_shard)
    return plan_files(list_images(options.input, Console(), "--input"), options.images_per_shard)


def describe_making(options: EmbedOptions, plan: Plan, model: InferenceModel) -> dict[str, Any]:
    """What the embeddings are made from, with one fingerprint over all that decides their bytes."""
    making = {
        "job": NAME,
        "input_sha256": plan.input_sha256,
        "names_sha256": sha256_of(list(plan.files)),
        "model": {name: model.made_from.get(name, "") for name in ("run", "weights", "version")},
        "images_per_shard": options.images_per_shard,
        "allow_annotation": options.allow_annotation,
        "code_sha256": code_sha256([*_CODE, planning, steps, sys.modules[__name__]]),
    }
    return {**making, "input": options.input, "versions": versions(), "fingerprint": sha256_of(making)}


def run(*, model: str, input: str, output: str, **options: Any) -> EmbeddingManifest:
    """Embed images; `options` are the fields of `EmbedOptions`. Returns the manifest of the embeddings.

    Raises:
        ValueError: an option, a model or an input that cannot be used; too many unreadable images.
    """
    job = EmbedOptions(model=model, input=input, output=output, **options)
    writing.require_replaceable(output, _is_ours)
    loaded = steps.load_once(model)
    plan = make_plan(job, loaded)
    made_from = describe_making(job, plan, loaded)
    if manifest := find_current(output, made_from["fingerprint"]):
        print(f"{NAME}: nothing to do, {output} holds these {manifest.num_rows:,} embeddings already.")
        return manifest
    with sole_writer(output):
        workplace = open_workplace(epath.Path(output), plan, made_from["fingerprint"])
        try:
            embed(job, plan, workplace, loaded.config.data.stored_image_size)
        except KeyboardInterrupt:
            done = f"interrupted after {len(workplace.finished())} of {workplace.num_parts} shards"
            raise KeyboardInterrupt(done) from None
        manifest = finish(job, plan, workplace, loaded, made_from)
    print(f"{NAME}: {manifest.num_rows:,} embeddings of {manifest.counts['images']:,} images: {output}")
    return manifest


def find_current(output: str, fingerprint: str) -> EmbeddingManifest | None:
    """The manifest of the output if a run would write the same, else None."""
    try:
        manifest = EmbeddingManifest.read(output)
    except ValueError:
        return None
    return manifest if manifest.made_from["fingerprint"] == fingerprint else None


def embed(job: EmbedOptions, plan: Plan, workplace: Workplace, image_size: int) -> None:
    """Embed the parts that no earlier start has finished."""
    finished = set(workplace.finished())
    missing = [part for part in plan.parts if part.index not in finished]
    if finished:
        print(f"{NAME}: {len(finished)} of {len(plan.parts)} shards are finished already.", flush=True)
    files = iter(plan.files.items())
    for part in plan.parts if plan.files else ():
        own = list(itertools.islice(files, part.num_images))
        if part.index not in finished:
            text = json.dumps(list(zip(*own, strict=True)))
            embeddings.write_bytes(workplace.listing(part.index), text.encode())
    if not missing:
        return
    with tied_workers(), EmbedProgress(workplace), jobs.running_pipeline(job.beam_options) as pipeline:
        _ = (
            pipeline
            | "Parts" >> beam.Create(missing)
            | "SpreadParts" >> beam.Reshuffle()
            | "ReadPictures" >> beam.ParDo(steps.ReadPicturesFn(workplace, image_size, job.allow_annotation))
            | "Embed" >> RunInference(steps.EmbeddingHandler(job.model))
            | "WriteShard" >> beam.ParDo(steps.WriteShardFn(workplace))
        )


def finish(
    job: EmbedOptions, plan: Plan, workplace: Workplace, model: InferenceModel, made_from: Mapping[str, Any]
) -> EmbeddingManifest:
    """Complete the folder in the workplace, and move it to the output.

    Raises:
        ValueError: too many unreadable images; the finished shards stay.
    """
    summaries = [json.loads(workplace.summary(part.index).read_text()) for part in plan.parts]
    bad = [one for summary in summaries for one in summary["bad"]]
    num_images = sum(part.num_images for part in plan.parts)
    lines = "".join(json.dumps(one) + "\n" for one in bad).encode()
    unreadable = epath.Path(f"{job.output.rstrip('/')}.{UNREADABLE_NAME}")
    if len(bad) > job.max_bad_fraction * num_images or len(bad) == num_images:
        embeddings.write_bytes(unreadable, lines)
        share = f"{job.max_bad_fraction} for {len(bad)} unreadable of {num_images} images"
        advice = f"{unreadable} lists them. A larger fraction goes on from here."
        raise refusal("--max_bad_fraction", "at least the share of unreadable images", share, advice)
    unreadable.unlink(missing_ok=True)
    embeddings.write_bytes(workplace.dataset / UNREADABLE_NAME, lines)
    shards = [summary["shard"] for summary in summaries]
    num_rows = sum(shard["num_rows"] for shard in shards)
    manifest = EmbeddingManifest(
        key=plan.key,
        dim=model.config.model.projection_dim,
        num_rows=num_rows,
        model=dataclasses.asdict(ModelProbe.of(model)),
        shards=shards,
        counts={"images": num_images, "embedded": num_rows, "unreadable": len(bad)},
        made_from=made_from,
    )
    manifest.write(workplace.dataset)
    writing.replace_files(workplace.dataset, epath.Path(job.output), _is_ours)
    workplace.folder.rmtree()
    return manifest


def _is_ours(path: epath.Path) -> bool:
    shard = path.name.startswith("embeddings-") and path.name.endswith(".parquet")
    return shard or path.name in (MANIFEST_NAME, UNREADABLE_NAME)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job from a command line, and return the exit status."""
    parser = jobs.new_parser(f"beam_jobs.{NAME}", __doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="a version that export wrote, or a workdir")
    add("--input", required=True, metavar="PATH", help="image files, or records of decode_images")
    add("--output", required=True, metavar="DIR", help="receives the embeddings")
    add("--images_per_shard", type=int, default=1024, help="rows of a shard (default %(default)s)")
    bad = "allowed share of unreadable images (default %(default)s)"
    add("--max_bad_fraction", type=float, default=0.01, help=bad)
    add("--allow_annotation", action="store_true", help="accept DICOM files with words burned into the image")
    return jobs.run_job_command(run, parser, argv)


if __name__ == "__main__":
    # Under its own name, so that other processes can import what is pickled.
    from beam_jobs import embed_images

    sys.exit(embed_images.main())
