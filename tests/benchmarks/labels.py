"""Compare the extractor's labels with Open-i's hand-coded labels, and with other labellers on the same
reports.

    python tests/benchmarks/labels.py [--part tune|rest|all|each] [--concepts NAME or FILE] [--linking T]
        [--peers all|none|NAME …] [--environments DIR]

Reads `$MEDCLIP_DATA/openi`. For each part of the reports it prints

- precision, recall and F1 of each finding and their micro average over the 13 findings that occur (Hernia
  does not), with 95 % bootstrap intervals over reports, uncertain counted as negative and as positive;
- micro averages of others on the same reports: the same dictionary with negspaCy's and with medspaCy's
  assertion (each installed into a separate environment below DIR).

`tune` are the 70 % of reports, by hash of the identifier, that were read while the extractor was written.
With a wider table than chest21, descendants of a finding count for it unless chest21 lists them.
"""

import csv
import hashlib
import os
import pathlib
import sys
import time

import numpy as np

from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.linking import THRESHOLD, Linking
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import openi

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import label_peers
from shared import new_parser

# Gold column → concept; Hernia is left out because it has no positive.
FINDINGS = {
    name: {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}.get(name, name)
    for name in (
        *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
        *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    )
}
_NUM_RESAMPLES = 2000
# The strongest of several states: positive, uncertain, negative, not mentioned.
_RANKS = np.array([0, 3, 1, 2])  # of LabelState 0 to 3
_BY_RANK = np.argsort(_RANKS)


def is_tuning(report_id: str) -> bool:
    """Whether a report belongs to the 70 % for tuning."""
    return int(hashlib.sha256(report_id.encode()).hexdigest(), 16) % 100 < 70


def read_gold(folder: pathlib.Path, part: str) -> dict[str, np.ndarray]:
    """Hand-coded labels: report id → (13,) bool."""
    with open(folder / "gold14_dev.csv", newline="") as file:
        return {
            row["filename"]: np.array([row[name] == "1" for name in FINDINGS])
            for row in csv.DictReader(file)
            if part == "all" or is_tuning(row["filename"]) == (part == "tune")
        }


def kinds_of(table: ConceptTable, finding: str, named: frozenset[str]) -> list[int]:
    """Positions of a finding and its descendants, without those in `named` and below."""
    kinds = {table.index(finding)}
    for position in table.order:
        parents = {table.index(name) for name in table.concepts[position].parents}
        if table.names[position] not in named and kinds & parents:
            kinds.add(position)
    return sorted(kinds)


def findings_of(states: np.ndarray, table: ConceptTable) -> np.ndarray:
    """(num_reports, num_concepts) states → (num_reports, 13), the strongest of a finding's kinds."""
    named = frozenset(load_table("chest21").names)
    columns = [kinds_of(table, finding, named) for finding in FINDINGS.values()]
    return np.stack([_BY_RANK[_RANKS[states[:, kinds]].max(1)] for kinds in columns], 1)


def counts_of(gold: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(3, num_reports, 13) float: hits, found, gold, of two bool arrays (num_reports, 13)."""
    return np.stack([gold & found, found, gold]).astype(float)


def scores_of(counts: np.ndarray) -> np.ndarray:
    """(3, …) sums of hits, found, gold → (3, …) precision, recall, F1."""
    hits, found, gold = counts
    return np.stack(
        [hits / np.maximum(found, 1), hits / np.maximum(gold, 1), 2 * hits / np.maximum(found + gold, 1)]
    )


def with_intervals(counts: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of each finding and, last, their micro average, with 95 % intervals over reports.

    (3, num_reports, 13) → (3, 14) precision, recall, F1, and (2, 3, 14) their 2.5 and 97.5 percentiles.
    """
    num_reports = counts.shape[1]
    draws = np.random.default_rng(seed).multinomial(
        num_reports, np.full(num_reports, 1 / num_reports), _NUM_RESAMPLES
    )
    sums = np.einsum("nr,crf->cnf", draws, counts, optimize=True)  # (3, num_resamples, 13)
    sums = np.concatenate([sums, sums.sum(2, keepdims=True)], 2)
    total = counts.sum(1)
    total = np.concatenate([total, total.sum(1, keepdims=True)], 1)
    return scores_of(total), np.percentile(scores_of(sums), [2.5, 97.5], axis=1)


def as_bools(states: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean labels, with uncertain as negative and as positive."""
    positive = states == LabelState.POSITIVE
    return {
        "uncertain = negative": positive,
        "uncertain = positive": positive | (states == LabelState.UNCERTAIN),
    }


def label(labeller: ReportLabeller, reports) -> tuple[np.ndarray, float]:
    """(num_reports, 13) states, and the reports a second of one core."""
    start = time.process_time()
    states = np.stack([labeller.label(sections).states for _, sections in reports])
    seconds = time.process_time() - start
    return findings_of(states, labeller.table), len(reports) / seconds


def print_findings(gold: np.ndarray, states: np.ndarray) -> None:
    """Print a row per finding and the micro average, with intervals."""
    for name, found in as_bools(states).items():
        scores, bounds = with_intervals(counts_of(gold, found))
        print(f"\n{name:24}{'gold':>5}" + "".join(f"{column:^22}" for column in ("P", "R", "F1")))
        for k, finding in enumerate([*FINDINGS, "micro"]):
            number = gold.sum() if finding == "micro" else gold[:, k].sum()
            figures = "".join(
                f"  {scores[c, k]:.3f} ({bounds[0, c, k]:.3f}-{bounds[1, c, k]:.3f})" for c in range(3)
            )
            print(f"{finding:24}{number:5}{figures}")


def print_micro(gold: np.ndarray, states_by_way: dict[str, np.ndarray | str]) -> None:
    """Print a row per labeller: precision, recall, F1 with interval; or its error."""
    print(f"\n{'micro average':40}" + f"{'P':>7}{'R':>7}{'F1':>7}{'':16}" * 2)
    print(f"{'':40}{'uncertain = negative':^37}{'uncertain = positive':^37}")
    for way, states in states_by_way.items():
        if isinstance(states, str):
            print(f"{way:40}{states}")
            continue
        line = f"{way:40}"
        for found in as_bools(states).values():
            scores, bounds = with_intervals(counts_of(gold, found))
            precision, recall, f1 = scores[:, -1]
            line += (
                f"{precision:7.3f}{recall:7.3f}{f1:7.3f} ({bounds[0, 2, -1]:.3f}-{bounds[1, 2, -1]:.3f})  "
            )
        print(line)


def compare(table: ConceptTable, reports, peers, environments) -> dict[str, np.ndarray | str]:
    """Other labellers: name → (num_reports, 13) states, or an error message."""
    ways: dict[str, np.ndarray | str] = {}
    given = label_peers.dictionary_reports(table, reports) if peers else []
    for peer in peers:
        try:
            by_id = label_peers.assert_by_peer(peer, table, given, environments)
            states = np.stack([by_id[report_id] for report_id, _ in reports])
            ways[f"our dictionary, {peer}'s assertion"] = findings_of(states, table)
        except label_peers.PeerError as error:
            ways[f"our dictionary, {peer}'s assertion"] = str(error)
    return ways


def print_part(part: str, folder: pathlib.Path, labellers: dict[str, ReportLabeller], arguments) -> None:
    """Print the scores of one part of the reports."""
    gold_by_id = read_gold(folder, part)
    rows = [r for r in openi.report_rows(str(folder / "NLMCXR_reports_dev.tgz")) if r.report_id in gold_by_id]
    reports = [(row.report_id, openi.read_report(row)) for row in rows]
    gold = np.stack([gold_by_id[report_id] for report_id, _ in reports])
    print(f"\n==== {part}: {len(reports)} of {len(gold_by_id)} coded reports")
    ways, table = {}, None
    for name, labeller in labellers.items():
        ways[name], speed = label(labeller, reports)
        table = labeller.table
        print(f"{name}: {speed:,.0f} reports/s a core")
    print_findings(gold, ways[name])
    print_micro(gold, ways | compare(table, reports, arguments.peers, arguments.environments))


def main() -> None:
    """Print the tables of the selected parts."""
    parser = new_parser(__doc__)
    parser.add_argument("--part", choices=["tune", "rest", "all", "each"], default="each")
    parser.add_argument("--concepts", default="chest21", help="a shipped concept table, or a .jsonl file")
    parser.add_argument("--linking", type=float, default=THRESHOLD, help="its threshold; 0: none")
    parser.add_argument("--peers", nargs="*", default=["all"], help="negspacy, medspacy, all, none")
    parser.add_argument("--environments", type=pathlib.Path, help="folder for the peers' environments")
    arguments = parser.parse_args()
    folder = pathlib.Path(os.environ.get("MEDCLIP_DATA", "")) / "openi"
    if not (folder / "gold14_dev.csv").is_file():
        parser.error("`MEDCLIP_DATA` must be a folder that holds openi/gold14_dev.csv.")
    if "all" in arguments.peers:
        arguments.peers = list(label_peers.PEERS)
    arguments.peers = [peer for peer in arguments.peers if peer != "none"]
    table = load_table(arguments.concepts)
    labellers = {f"{table.name}, dictionary": ReportLabeller(table)}
    if arguments.linking:
        name = f"{table.name}, with linking at {arguments.linking}"
        labellers[name] = ReportLabeller(table, Linking(arguments.linking))
    for part in ("tune", "rest", "all") if arguments.part == "each" else (arguments.part,):
        print_part(part, folder, labellers, arguments)


if __name__ == "__main__":
    main()
