"""The evaluation sets through `tfds.load`: sizes, patients, bytes, metadata, refusals."""

import collections
import dataclasses
import io
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import decode_images
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records import tfds_builders
from medclip_keras.records.manifest import read_manifest, verify
from medclip_keras.sources import covid
from medclip_keras.sources.evaluation_sets import COMPETITION_FINDINGS, EVALUATION_SETS

SMALL = tfds_builders.RecordsConfig("small", image_size=16, concepts="chexpert14", keep_ids=True)
PATIENTS_OF_FINDING = 404


def image_file(seed, kind="jpeg"):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (14, 20), np.uint8)
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory) -> pathlib.Path:
    """CheXpert with 404 patients of each of the five findings, each with a second study that shows none."""
    root = tmp_path_factory.mktemp("archive") / "CheXpert-v1.0-small"
    labels, other = labels_of("chexpert"), image_file(5000)
    lines = [",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels))]
    for patient in range(5 * PATIENTS_OF_FINDING):
        for study, finding in enumerate((COMPETITION_FINDINGS[patient % 5], "Fracture"), 1):
            image = f"train/patient{patient:05d}/study{study}/view1_frontal.jpg"
            codes = ("1.0" if label == finding else "" for label in labels)
            lines.append(",".join((f"{root.name}/{image}", "Female", "50", "Frontal", "PA", *codes)))
            (root / image).parent.mkdir(parents=True)
            (root / image).write_bytes(image_file(patient) if study == 1 else other)
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    return root


def load(name, manual_dir, data_dir, config=None, **told):
    told = {"manual_dir": str(manual_dir), **told}
    return tfds.load(
        name,
        data_dir=str(data_dir),
        builder_kwargs={"config": config} if config else {},
        download_and_prepare_kwargs={"download_config": tfds.download.DownloadConfig(**told)},
        with_info=True,
    )


@pytest.fixture(scope="module")
def prepared(chexpert, tmp_path_factory):
    """What `tfds.load` gives of CheXpert-5x200, and where it is."""
    data_dir = tmp_path_factory.mktemp("tfds")
    splits, info = load("medclip_chexpert_5x200", chexpert, data_dir, SMALL)
    records = {split: list(tfds.as_numpy(dataset)) for split, dataset in splits.items()}
    return records, info, data_dir / "medclip_chexpert_5x200" / "small" / "1.0.0"


def test_load_gives_200_images_per_class_of_disjoint_patients(prepared, chexpert, tmp_path):
    records, info, _ = prepared
    positions = [load_table("chexpert14").index(name) for name in COMPETITION_FINDINGS]
    patients = {}
    for split in ("train", "test"):
        states = np.stack([record["label_states"] for record in records[split]])
        assert (states[:, positions] == LabelState.POSITIVE).sum(axis=0).tolist() == [200] * 5
        assert {record["split"] for record in records[split]} == {split.encode()}
        patients[split] = {record["patient_id"] for record in records[split]}
        assert info.splits[split].num_examples == len(patients[split]) == 1000
    assert not patients["train"] & patients["test"]
    # What a model may train on: all that CheXpert has of other patients.
    told = {"source": "chexpert", "input": str(chexpert), "output": str(tmp_path / "rest"), "image_size": 16}
    manifest = decode_images.run(hold_out=("chexpert_5x200",), keep_ids=True, **told)
    assert (manifest.counts["held_out_rows"], manifest.num_records) == (4000, 40)
    rest = tfds.as_numpy(tfds.builder_from_directory(told["output"]).as_dataset(split="train"))
    assert not {record["patient_id"] for record in rest} & (patients["train"] | patients["test"])


def test_a_prepared_set_is_read_again_without_the_archive(prepared, tmp_path):
    records, _, folder = prepared
    _, info = load("medclip_chexpert_5x200", tmp_path / "gone", folder.parents[2], SMALL)
    assert info.splits["test"].num_examples == 1000
    builder = tfds.builder("medclip_chexpert_5x200", data_dir=str(folder.parents[2]), config=SMALL)
    first = next(iter(tfds.as_numpy(builder.as_dataset(split="test[:10]"))))
    assert first["record_key"] == records["test"][0]["record_key"]


def test_records_are_those_of_the_job_byte_for_byte(tmp_path, monkeypatch):
    few = dataclasses.replace(EVALUATION_SETS["covid"], sizes={"test": (2, 3)})
    monkeypatch.setitem(EVALUATION_SETS, "covid", few)
    archive = tmp_path / "covid"
    for folder in covid.FOLDERS:
        (archive / folder / "images").mkdir(parents=True)
        for number in range(4):
            content = image_file(len(folder) + number, "png")
            (archive / folder / "images" / f"{folder}-{number}.png").write_bytes(content)
    splits, _ = load("medclip_covid", archive, tmp_path / "tfds")
    told = {"source": "covid", "input": str(archive), "concepts": "thorax", "evaluation_set": "covid"}
    made = decode_images.run(output=str(tmp_path / "set"), **told)
    prepared = tmp_path / "tfds/medclip_covid/thorax_256/1.0.0"
    assert read_manifest(prepared) == made
    verify(prepared)  # a folder of records like any other
    assert made.shard_names
    for name in made.shard_names:
        assert (prepared / name).read_bytes() == (tmp_path / "set" / name).read_bytes()
    records = list(tfds.as_numpy(splits["test"]))
    theirs = tfds.as_numpy(tfds.builder_from_directory(tmp_path / "set").as_dataset(split="test"))
    for one, other in zip(records, theirs, strict=True):
        np.testing.assert_array_equal(one.pop("image"), other.pop("image"))
        assert str(one) == str(other)
    position = load_table("thorax").index("COVID-19")
    found = collections.Counter(int(record["label_states"][position]) for record in records)
    assert found == {LabelState.POSITIVE: 2, LabelState.NEGATIVE: 3}


@pytest.mark.parametrize("name", sorted(EVALUATION_SETS))
def test_every_set_has_a_builder_with_its_metadata(name, tmp_path):
    builder = tfds.builder(f"medclip_{name}", data_dir=str(tmp_path))
    assert builder.info.citation.startswith(EVALUATION_SETS[name].citation)
    assert name in builder.info.description
    assert builder.info.redistribution_info.license
    assert str(builder.version) == "1.0.0"
    assert "Layout on disk" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    concepts = builder.builder_config.concepts
    assert builder.info.features["label_states"].shape == (len(load_table(concepts)),)
    missing = {"covid": "COVID-19", "rsna": "Pneumonia"}.get(EVALUATION_SETS[name].source, "Edema")
    assert missing in load_table(concepts).names


def test_sets_that_cannot_be_prepared_get_the_sentence(chexpert, tmp_path):
    with pytest.raises(AssertionError, match=r"Manual directory .* does not exist or is empty"):
        load("medclip_chexpert_5x200", tmp_path / "nowhere", tmp_path, SMALL)
    with pytest.raises(ValueError, match="`max_examples_per_split` must be None: a set is recorded whole"):
        load("medclip_chexpert_5x200", chexpert, tmp_path, SMALL, max_examples_per_split=3)
    lines = (chexpert / "train.csv").read_text().splitlines()
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "train.csv").write_text("\n".join([lines[0], *lines[1:21]]))
    with pytest.raises(ValueError, match=r"`input` must be an archive with enough .*_gloria: .*'Edema': 2"):
        load("medclip_chexpert_5x200_gloria", tmp_path / "few", tmp_path, SMALL)
    assert not list(tmp_path.glob("medclip*/small/*/*"))


def test_beams_options_reach_the_job():
    config = tfds.download.DownloadConfig(
        beam_runner="FnApiRunner",
        beam_options=PipelineOptions(["--direct_num_workers=2", "--save_main_session", "--experiments=a"]),
    )
    flags = ("--runner=FnApiRunner", "--direct_num_workers=2", "--save_main_session", "--experiments=a")
    assert set(tfds_builders._beam_flags(config)) == set(flags)
    assert tfds_builders._beam_flags(tfds.download.DownloadConfig()) == ()
    with pytest.raises(ValueError, match=r"`beam_runner` must be the name of a runner.*Received: 'object'"):
        tfds_builders._beam_flags(tfds.download.DownloadConfig(beam_runner=object()))
