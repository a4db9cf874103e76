"""Labels found by the extractor beside those that people coded, on Open-i reports.

    python tests/benchmarks/labels.py [--part tune|rest|all]

Reads `$MEDCLIP_DATA/openi`. Prints precision, recall and F1 of each finding and their micro average over the
13 findings that occur (Hernia does not), with uncertain counted as negative and as positive, and the speed.
`tune` are the reports whose identifier hashes to the lower 70 %: only these were looked at while the
extractor was written.
"""

import argparse
import csv
import hashlib
import os
import pathlib
import time

import numpy as np

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import openi

# Gold column → concept; Hernia is left out because it has no positive.
FINDINGS = {
    name: {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}.get(name, name)
    for name in (
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
        *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    )
}


def is_tuning(report_id: str) -> bool:
    """Whether a report belongs to the 70 % that may be looked at."""
    return int(hashlib.sha256(report_id.encode()).hexdigest(), 16) % 100 < 70


def read_gold(folder: pathlib.Path, part: str) -> dict[str, np.ndarray]:
    """Report id to (13,) bool, what people coded."""
    with open(folder / "gold14_dev.csv", newline="") as file:
        return {
            row["filename"]: np.array([row[name] == "1" for name in FINDINGS])
            for row in csv.DictReader(file)
            if part == "all" or is_tuning(row["filename"]) == (part == "tune")
        }


def label_reports(folder: pathlib.Path, wanted) -> tuple[dict[str, np.ndarray], float]:
    """Report id to (13,) int8 states, and the reports a second."""
    labeller = ReportLabeller(load_table("chest21"))
    columns = [labeller.table.index(name) for name in FINDINGS.values()]
    rows = [
        row for row in openi.report_rows(str(folder / "NLMCXR_reports_dev.tgz")) if row.report_id in wanted
    ]
    reports = [(row.report_id, openi.read_report(row)) for row in rows]
    start = time.perf_counter()
    found = {report_id: labeller.label(sections).states[columns] for report_id, sections in reports}
    return found, len(reports) / (time.perf_counter() - start)


def score(gold: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of two bool arrays of one shape."""
    hits = (gold & found).sum()
    precision, recall = hits / max(found.sum(), 1), hits / max(gold.sum(), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=["tune", "rest", "all"], default="all")
    part = parser.parse_args().part
    folder = pathlib.Path(os.environ.get("MEDCLIP_DATA", "")) / "openi"
    if not (folder / "gold14_dev.csv").is_file():
        parser.error("`MEDCLIP_DATA` must be a folder that holds openi/gold14_dev.csv.")
    gold_by_id = read_gold(folder, part)
    states_by_id, reports_per_second = label_reports(folder, gold_by_id)
    keys = sorted(gold_by_id.keys() & states_by_id.keys())
    gold = np.stack([gold_by_id[key] for key in keys])
    states = np.stack([states_by_id[key] for key in keys])
    print(f"{part}: {len(keys)} of {len(gold_by_id)} coded reports, {reports_per_second:,.0f} reports/s")
    mappings = {
        "uncertain = negative": states == LabelState.POSITIVE,
        "uncertain = positive": (states == LabelState.POSITIVE) | (states == LabelState.UNCERTAIN),
    }
    print(f"{'':20}{'gold':>5}" + "".join(f"   {name:>23}" for name in mappings))
    print(f"{'':20}{'':>5}" + f"   {'P':>7} {'R':>7} {'F1':>7}" * len(mappings))
    for column, name in [*enumerate(FINDINGS), (slice(None), "micro")]:
        scores = [score(gold[:, column], found[:, column]) for found in mappings.values()]
        figures = "".join("   " + " ".join(f"{value:7.3f}" for value in one) for one in scores)
        print(f"{name:20}{gold[:, column].sum():5}{figures}")


if __name__ == "__main__":
    main()
