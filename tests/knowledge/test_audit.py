"""The audit: a draw with known probabilities, a sheet that a person corrects, scores of the whole archive."""

import csv
import io

import numpy as np
import pytest

from beam_jobs import label_reports
from medclip_keras.knowledge.audit.__main__ import describe, main
from medclip_keras.knowledge.audit.estimates import rate, scores
from medclip_keras.knowledge.audit.population import LINKED, RARE, LabelledReport, stratify
from medclip_keras.knowledge.audit.sampling import draw, inclusion
from medclip_keras.knowledge.audit.sheet import COLUMNS, Line, read_sheet, write_sheet
from medclip_keras.knowledge.concepts import Concept, ConceptTable
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import Section

POPULATION = [["a", "c"]] * 4 + [["b", "c"]] * 36 + [["c"]] * 60 + [[]] * 300


def test_each_stratum_has_its_share_and_the_weights_add_up_to_the_archive():
    counts, totals = np.zeros(len(POPULATION)), []
    for seed in range(300):
        drawn, weights = draw(POPULATION, 40, seed)
        assert len(drawn) == len(set(drawn)) == 40
        assert sum(k < 4 for k in drawn) == 4  # c is above 4: the rarest stratum is drawn whole
        counts[drawn] += 1
        totals.append(weights.sum())
    rarest = np.array([4] * 4 + [36] * 36 + [100] * 60 + [400] * 300, float)
    expected = inclusion(rarest, 40)
    assert expected.sum() == pytest.approx(40)
    for group in (slice(0, 4), slice(4, 40), slice(40, 100), slice(100, 400)):
        assert counts[group].mean() / 300 == pytest.approx(expected[group.start], rel=0.05)
    assert np.mean(totals) == pytest.approx(400, rel=0.02)


def test_a_sample_as_large_as_the_archive_is_the_archive():
    drawn, weights = draw(POPULATION, 1000)
    assert sorted(drawn) == list(range(400))
    assert weights.tolist() == [1.0] * 400


def test_scores_of_a_weighted_sample_are_those_of_the_archive():
    """Of rare said cells 1 in 2 is wrong, and 1 in 60 reports is a miss; the plain sample shows neither."""
    rng = np.random.default_rng(0)
    said = np.arange(3000) < 120
    true = np.where(said, rng.random(3000) < 0.5, rng.random(3000) < 1 / 60)
    strata = [["said"] if one else [] for one in said]
    recall = (said & true).sum() / true.sum()
    estimates, plain, inside = [], [], 0
    for seed in range(200):
        drawn, weights = draw(strata, 300, seed)
        found = scores(weights, said[drawn, None], true[drawn, None])
        estimates.append(found.recall.value)
        plain.append((said & true)[drawn].sum() / true[drawn].sum())
        inside += found.recall.low <= recall <= found.recall.high
    assert np.mean(estimates) == pytest.approx(recall, abs=0.04)
    assert np.mean(plain) > recall + 0.2
    assert inside >= 0.9 * 200


def test_wilson_interval_and_f1_by_hand():
    z2 = 1.959964**2
    found = rate(np.ones(20), np.arange(20) < 15, np.ones(20))
    centre = (0.75 + z2 / 40) / (1 + z2 / 20)
    assert (found.low + found.high) / 2 == pytest.approx(centre)
    doubled = rate(np.full(20, 3.0), np.arange(20) < 15, np.ones(20))
    assert doubled == pytest.approx(found)  # the scale of the weights does not count
    uneven = rate(np.array([19.0] + [1.0] * 19), np.ones(20), np.ones(20))
    assert uneven.low < found.low  # one report that stands for many tells less
    said, true = np.eye(2, dtype=bool), np.ones((2, 2), bool)
    assert scores(np.ones(2), said, true).f1.value == pytest.approx(2 * 1 * 0.5 / 1.5)


TABLE = ConceptTable(
    "two",
    (Concept("C0032227", "Pleural Effusion", ("effusion", "pleural fluid")), Concept("C0034063", "Edema")),
)


def reports_of(texts, states):
    sections = [tuple(Section("findings", part) for part in text.split("|")) for text in texts]
    pairs = enumerate(zip(sections, states, strict=True))
    return [LabelledReport(str(k), own, np.array(state, np.int8)) for k, (own, state) in pairs]


def test_strata_are_states_linked_spellings_and_rare_rules():
    texts = ["Effusion.|No edema."] * 3 + ["Plueral effusion."] * 2 + ["Pleural fluid."] + ["Clear."] * 1000
    states = [[1, 2]] * 3 + [[1, 0]] * 2 + [[3, 0]] + [[0, 0]] * 1000
    strata = stratify(ReportLabeller(TABLE, Linking()), reports_of(texts, states))
    assert strata.of_report[0] == {"Pleural Effusion positive", "Edema negative"}
    assert strata.of_report[3] == {"Pleural Effusion positive", LINKED, RARE}
    assert strata.of_report[5] == {"Pleural Effusion uncertain", RARE}
    assert strata.of_report[6] == set()
    assert strata.num_differing == 1  # the records say uncertain


def corrected(text, change):
    """A sheet as a person saves it."""
    rows = list(csv.DictReader(io.StringIO(text)))
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, delimiter=";")
    writer.writeheader()
    for row in rows:
        change(row)
        writer.writerow(row)
    return file, writer


def test_a_corrected_sheet_gives_the_scores():
    edema = [Line("Edema", "positive")]
    drawn = [("k1", 2.0, edema), ("k2", 1.5, edema), ("k3", 9.0, [])]

    def change(row):
        row["weight"] = row["weight"].replace(".", ",")
        row["checked"] = "x" if row["report"] in ("1", "2") else ""
        if row["report"] == "2" and row["finding"]:
            row["truth"] = "Not mentioned"

    file, writer = corrected(write_sheet(drawn), change)
    writer.writerow({"report": "2", "finding": "Nodule", "truth": "positive"})
    reports, number = read_sheet(file.getvalue(), ["Edema", "Nodule"])
    assert number == 3
    assert [(one.weight, one.cells) for one in reports] == [
        (2.0, {"Edema": ("positive", "positive")}),
        (1.5, {"Edema": ("positive", "not_mentioned"), "Nodule": ("not_mentioned", "positive")}),
    ]
    edema, nodule, everything = describe(reports).splitlines()[1:]
    assert edema.split()[:3] == ["Edema", "positive", "2"]
    assert f"{2 / 3.5:.2f} [" in edema  # precision
    assert nodule.split()[:4] == ["Nodule", "positive", "0", "1"]
    assert everything.count(f"{2 / 3.5:.2f} [") == 3  # recall misses the nodule of the second


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("truth", "wahr", "with the columns report, record_key, weight, checked, finding, said, truth"),
        (",positive,positive", ",positive,yes", "row 3: 'yes'"),
        (",2,", ",two,", "weights are as written. Received: \"row 2: 'two'\""),
        ("1,,,,Edema", "7,,,,Edema", "name their report. Received: 'row 3'"),
        ("1,,,,Edema", "1,,,,Edemma", "Near names: Edema"),
    ],
)
def test_wrong_sheets_are_refused_with_the_row(old, new, sentence):
    text = write_sheet([("k1", 2.0, [Line("Edema", "positive")])])
    assert old in text
    with pytest.raises(ValueError, match="must be a sheet") as error:
        read_sheet(text.replace(old, new), ["Edema", "Nodule"])
    assert sentence in str(error.value)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Twelve reports in the records of the job."""
    folder = tmp_path_factory.mktemp("audit")
    secrets = [
        f"Large effusion of patient Q{n}." if n % 3 else f"No edema of patient Q{n}." for n in range(12)
    ]
    rows = "\n".join(f'p{n},s{n},"FINDINGS: {text} Plueral fluid."' for n, text in enumerate(secrets))
    (folder / "reports.csv").write_text(f"patient_id,study_id,report\n{rows}\n")
    (folder / "two.jsonl").write_text(TABLE.to_jsonl())
    options = {"concepts": str(folder / "two.jsonl"), "output": str(folder / "records")}
    label_reports.run(source="csv", input=str(folder / "reports.csv"), **options)
    return folder / "records"


@pytest.mark.parametrize("show_text", [False, True])
def test_the_command_draws_and_reads_back(records, tmp_path, capsys, show_text):
    output = tmp_path / "audit"
    options = ["--sample", "8", "--output", str(output), *(["--show_text"] if show_text else [])]
    assert main(["--records", str(records), *options]) == 0
    assert "8 of 12 reports, 3 strata" in capsys.readouterr().out
    sheet, page = (output / "audit.csv").read_text("utf-8-sig"), (output / "audit.html").read_text()
    assert ("patient Q" in sheet) == ("patient Q" in page) == show_text
    assert "linked: pleural fluid" in sheet
    assert "linking decided</td><td>12</td><td>8" in page.replace("\n", "")
    assert main(["--read", str(output / "audit.csv")]) == 1  # nothing is checked
    assert "none of 8" in capsys.readouterr().err
    file, _ = corrected(sheet, lambda row: row.update(checked="x"))
    (output / "done.csv").write_text("\ufeff" + file.getvalue(), encoding="utf-8")
    assert main(["--read", str(output / "done.csv"), "--records", str(records)]) == 0
    shown = capsys.readouterr().out
    assert "8 of 8 reports are checked" in shown
    assert "1.00 [" in shown.splitlines()[-1]


def test_wrong_arguments_are_refused(tmp_path, capsys):
    def refused(*arguments):
        assert main([*arguments]) == 1
        return capsys.readouterr().err

    assert "`--records` must be a folder of report records, or --read" in refused()
    assert "a folder of records with a manifest.json" in refused("--records", str(tmp_path))
    assert "`--sample` must be at least 1" in refused("--records", str(tmp_path), "--sample", "0")
    assert "`--read` must be a sheet in UTF-8 that exists" in refused("--read", str(tmp_path / "x.csv"))
