"""Evaluation sets as `tensorflow_datasets` builders; the import of this module registers them.

    import tensorflow_datasets as tfds
    import medclip_keras.records.tfds_builders

    config = tfds.download.DownloadConfig(manual_dir="ARCHIVES/CheXpert-v1.0-small")
    test = tfds.load(
        "medclip_chexpert_5x200",
        split="test",
        data_dir=DIR,
        download_and_prepare_kwargs={"download_config": config},
    )

Each of `medclip_keras.sources.evaluation_sets` has a builder, `medclip_` and its name. `manual_dir` is the
archive as its source reads it: nothing is downloaded. `beam_jobs.decode_images --evaluation_set` writes the
records, and the prepared folder (`DIR/medclip_chexpert_5x200/chest21_256/1.0.0`) is a folder of records.

Another side, concept table or salt is another config, with its own name:

    builder_kwargs={"config": RecordsConfig("small", image_size=64, concepts="chexpert14")}
"""

import dataclasses

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.records.manifest import split_infos
from medclip_keras.records.schema import image_features
from medclip_keras.sources import evaluation_sets, get_source


@dataclasses.dataclass(eq=False)
class RecordsConfig(tfds.core.BuilderConfig):
    """Options of `decode_images`; `name` is a folder of the prepared data."""

    image_size: int = 256  # side of the stored images, pixels
    concepts: str = "chest21"  # a concept table's name or file
    key_salt: str = "medclip_keras"  # salt of the keys that replace identifiers
    keep_ids: bool = False  # write the archive's identifiers instead
    allow_annotation: bool = False  # take DICOM files with words burned into the picture


class EvaluationSetBuilder(FileReaderBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS is untyped
    """Prepare and read one evaluation set; `_register` makes a subclass for each."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The images of medclip_keras.sources.evaluation_sets, as decoded pixels."}  # noqa: RUF012
    evaluation_set: evaluation_sets.EvaluationSet

    def _info(self) -> tfds.core.DatasetInfo:
        config, archive = self.builder_config, get_source(self.evaluation_set.source)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_describe(self.evaluation_set),
            homepage="https://arxiv.org/abs/2210.10163",
            features=image_features(config.image_size, len(load_table(config.concepts))),
            citation=f"{self.evaluation_set.citation}; {archive.CITATION}",
            license=archive.LICENCE,
        )

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: tfds.download.DownloadConfig
    ) -> None:
        from beam_jobs import decode_images

        limit = download_config.max_examples_per_split
        require(limit is None, "max_examples_per_split", "None: a set is recorded whole", limit)
        config = self.builder_config
        manifest = decode_images.run(
            source=self.evaluation_set.source,
            input=str(dl_manager.manual_dir),
            output=self.data_dir,
            evaluation_set=self.evaluation_set.name,
            beam_options=_beam_flags(download_config),
            **{
                name: getattr(config, name)
                for name in ("image_size", "concepts", "key_salt", "keep_ids", "allow_annotation")
            },
        )
        infos = split_infos(manifest, lambda split: self._get_filename_template(split_name=split))
        self.info.set_splits(tfds.core.splits.SplitDict(infos))


def _describe(evaluation_set: evaluation_sets.EvaluationSet) -> str:
    classes = ", ".join(evaluation_set.classes)
    of_source = f"{evaluation_set.name}, of images of {evaluation_set.source}. Classes: {classes}."
    return f"{of_source}\n\n{evaluation_sets.__doc__}"


def _beam_flags(download_config: tfds.download.DownloadConfig) -> tuple[str, ...]:
    """Beam's options as arguments of the job."""
    runner, options = download_config.beam_runner, download_config.beam_options
    require(
        runner is None or isinstance(runner, str),
        "beam_runner",
        "the name of a runner, such as FnApiRunner",
        type(runner).__name__,
    )
    flags = [f"--runner={runner}"] if runner else []
    given = options.get_all_options(drop_default=True) if options is not None else {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{name}" if one is True else f"--{name}={one}" for one in values]
    return tuple(flags)


def _register(evaluation_set: evaluation_sets.EvaluationSet) -> type[EvaluationSetBuilder]:
    """Make the builder of a set; TFDS registers a class when it is made."""
    concepts = "thorax" if evaluation_set.source == "covid" else "chest21"  # only thorax has COVID-19
    members = {
        "__module__": __name__,
        "__doc__": f"{evaluation_set.name} of {evaluation_set.source}.",
        "name": f"medclip_{evaluation_set.name}",
        "evaluation_set": evaluation_set,
        "BUILDER_CONFIGS": [RecordsConfig(f"{concepts}_256", concepts=concepts)],
        "MANUAL_DOWNLOAD_INSTRUCTIONS": get_source(evaluation_set.source).__doc__,
    }
    return type(f"Medclip_{evaluation_set.name}", (EvaluationSetBuilder,), members)


BUILDERS = {builder.name: builder for builder in map(_register, evaluation_sets.EVALUATION_SETS.values())}
