import json

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import read_manifest

TEXT = "Large left pleural effusion. No pneumothorax."


def test_reports_are_read_in_their_language_and_others_are_counted(
    archive, job, concepts, tmp_path, capsys, records_of
):
    texts = ["Kein Pneumothorax. Pleuraerguss links.", "Sin neumotórax. Derrame pleural.", TEXT]
    texts += ["Absence de pneumothorax. Pneumonie droite.", "Geen pneumothorax."]
    for patient, text in enumerate(texts):
        archive.add_report(patient, 1, text)
    manifest = job(mentions=str(tmp_path / "mentions"))
    counts = {"other_language_reports": 2, "de_reports": 1, "es_reports": 1}
    assert manifest.counts == {"rows": 5, "records": 3, "bad_rows": 0, "unusable_reports": 0, **counts}
    assert read_manifest(tmp_path / "records").counts == manifest.counts
    assert "other language reports 2" in capsys.readouterr().out
    said = [0] * len(load_table(concepts))
    said[load_table(concepts).index("Pleural Effusion")] = LabelState.POSITIVE
    said[load_table(concepts).index("Pneumothorax")] = LabelState.NEGATIVE
    assert [r["label_states"].tolist() for r in records_of(tmp_path / "records")] == [said] * 3
    shards = (tmp_path / "mentions").iterdir()
    lines = [json.loads(line) for path in shards for line in path.read_text().splitlines()]
    assert sorted(len(line["mentions"]) for line in lines) == [0, 0, 2, 2, 2]


def test_language_of_reports_can_be_given(archive, job):
    archive.add_report(1, 1, TEXT)
    archive.add_report(2, 1, "Geen pneumothorax.")
    assert job(language="en").counts == {"rows": 2, "records": 2, "bad_rows": 0, "unusable_reports": 0}
