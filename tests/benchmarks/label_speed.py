"""Measure reports per second on one core and peak memory of the labeller, without and with linking.

    python tests/benchmarks/label_speed.py [--concepts NAME …] [--reports N] [--peer negspacy|medspacy|none]
        [--environments DIR]

Reports of 60 words are generated from sentence templates. One report in five has a misspelled word, one in
ten an unknown word. Sentences hardly repeat, so the cache does not help; on Open-i 60 % of the sentences
repeat, so some rows have the same share of repeated sentences.

Each row runs in a new process on one thread: processor seconds for labelling, without construction, and peak
memory, for N and 2 N reports to show growth, and the time that detecting the language adds. The peer reads the same reports: spaCy's sentencizer and
PhraseMatcher with the table's phrases, then the peer's assertion.
"""

import json
import pathlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator

from shared import new_parser, run_apart

from medclip_keras.knowledge.aliases import PRESENT, parse_alias
from medclip_keras.knowledge.concepts import NO_FINDING, ConceptTable, load_table
from medclip_keras.knowledge.detection import detect
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import Section

NUM_WORDS = 60
REPEATED = 0.6
_CHUNK = 500
_SIZES = ("small", "moderate", "large", "mild", "subtle", "extensive", "minimal", "chronic", "new", "stable")
_SIDES = ("left", "right", "bilateral")
_PLACES = ("upper lobe", "lower lobe", "base", "apex", "perihilar region", "lung", "midlung zone")
_FRAMES = (
    "There is {size} {finding} in the {side} {place}, measuring {number} mm.",
    "No {finding} or {other} is seen on image {number}.",
    "{Size} {side} {finding} has not changed since the study of {number} days ago.",
    "Opacity of {number} mm in the {side} {place} may represent {finding} or {other}.",
    "{Finding} at the {side} {place} has resolved, now at level {number}.",
    "The tip lies {number} mm above the carina without evidence of {finding}.",
    "Heart and mediastinum are within normal limits, ratio of {number} percent.",
    "{Size} {finding} cannot be excluded in the {side} {place} on view {number}.",
)


def write_sentence(names: list[str], rng: random.Random) -> str:
    """Fill a random template."""
    finding, size = rng.choice(names), rng.choice(_SIZES)
    return rng.choice(_FRAMES).format(
        size=size,
        Size=size.capitalize(),
        finding=finding,
        Finding=finding.capitalize(),
        other=rng.choice(names),
        side=rng.choice(_SIDES),
        place=rng.choice(_PLACES),
        number=rng.randrange(1, 100_000) / 10,
    )


def write_reports(table: ConceptTable, num_reports: int, repeated: float, seed: int = 0) -> Iterator[str]:
    """Generate texts of about 60 words; the share `repeated` of sentences comes from 300 fixed ones."""
    rng = random.Random(seed)
    names = [concept.name.lower() for concept in table.concepts if concept.name != NO_FINDING]
    often = [write_sentence(names, rng) for _ in range(300)]
    for _ in range(num_reports):
        sentences, num_words = [], 0
        while num_words < NUM_WORDS:
            again = rng.random() < repeated
            sentences.append(rng.choice(often) if again else write_sentence(names, rng))
            num_words += len(sentences[-1].split())
        words = " ".join(sentences).split()
        if rng.random() < 0.2:
            _misspell(words, rng)
        if rng.random() < 0.1:
            words.insert(0, "".join(rng.choices("bcdfghklmnprstv", k=7)).capitalize())
        yield " ".join(words)


def _misspell(words: list[str], rng: random.Random) -> None:
    """Swap two neighbouring letters in a long word."""
    long_words = [k for k, word in enumerate(words) if len(word) > 6 and word.isalpha()]
    k = rng.choice(long_words)
    cut = rng.randrange(1, len(words[k]) - 2)
    words[k] = words[k][:cut] + words[k][cut + 1] + words[k][cut] + words[k][cut + 2 :]


def measure(concepts: str, linking: str, num_reports: str, repeated: str) -> dict[str, float]:
    """Label reports in this process; arguments as on the command line."""
    num_reports = int(num_reports)
    table = load_table(concepts)
    started = time.perf_counter()
    labeller = ReportLabeller(table, Linking() if linking == "True" else None)
    labeller.label([Section("findings", "Plueral effusion.")])
    start_seconds = time.perf_counter() - started
    reports, seconds, detection = write_reports(table, num_reports, float(repeated)), 0.0, 0.0
    for _ in range(0, num_reports, _CHUNK):
        chunk = [(Section("findings", text),) for _, text in zip(range(_CHUNK), reports, strict=False)]
        started = time.process_time()
        for sections in chunk:
            labeller.label(sections)
        seconds += time.process_time() - started
        started = time.process_time()
        for (section,) in chunk:
            detect(section.text)
        detection += time.process_time() - started
    remembered = labeller._extractor._read.cache_info()
    return {
        "reports_per_second": num_reports / seconds,
        "start_seconds": start_seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "detection": detection / seconds,
        "repeated": remembered.hits / (remembered.hits + remembered.misses),
    }


def time_peer(
    peer: str, table: ConceptTable, num_reports: int, repeated: float, environments: pathlib.Path | None
) -> float:
    """Reports per second of the peer with the table's one-part phrases; raises `PeerError`."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import label_peers

    aliases = [parse_alias(text) for c in table.concepts for text in (c.name, *c.aliases)]
    phrases = {p.lower() for a in aliases if a.role == PRESENT and len(a.parts) == 1 for p in a.parts[0]}
    texts = "\n".join(json.dumps(text) for text in write_reports(table, num_reports, repeated))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(sorted(phrases)))
        file.flush()
        answer = label_peers.run_worker(peer, ["time", file.name], texts, environments)
    return num_reports / json.loads(answer)["seconds"]


def print_table(concepts: str, arguments) -> None:
    """Measure and print the rows of one concept table."""
    table, num = load_table(concepts), arguments.reports
    print(f"\n{concepts}: {len(table)} concepts, reports of {NUM_WORDS} words, one core")
    print(
        f"{'':26}{'reports':>9}{'reports/s':>11}{'start':>8}{'peak':>10}{'growth':>8}{'repeated':>10}{'detection':>11}"
    )
    speed = {}
    for repeated, linking, sizes in (
        (0.0, False, (num, 2 * num)),
        (0.0, True, (num, 2 * num)),
        (REPEATED, False, (num,)),
        (REPEATED, True, (num,)),
    ):
        peak, name = None, "the same, with linking" if linking else "dictionary, assertion"
        for num_reports in sizes:
            command = ("--measure", concepts, linking, num_reports, repeated)
            found = run_apart(__file__, *command, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
            growth = f"{found['peak_mib'] / peak - 1:+8.1%}" if peak else f"{'':8}"
            peak = peak or found["peak_mib"]
            speed[repeated, linking] = found["reports_per_second"]
            print(
                f"{name:26}{num_reports:9}{found['reports_per_second']:11,.0f}{found['start_seconds']:7.1f}s"
                f"{found['peak_mib']:6.0f} MiB{growth}{found['repeated']:10.1%}{found['detection']:11.1%}",
                flush=True,
            )
    for repeated in (0.0, REPEATED) if arguments.peer != "none" else ():
        num_reports = min(num, 1000)
        peer_speed = time_peer(arguments.peer, table, num_reports, repeated, arguments.environments)
        ours = " and ".join(f"{speed[repeated, linking] / peer_speed:.1f}" for linking in (False, True))
        print(
            f"{arguments.peer + ', same phrases':26}{num_reports:9}{peer_speed:11,.0f}{'':25}{repeated:10.0%}"
            f"  ours without and with linking: {ours} times as fast"
        )


def main() -> None:
    """Print the measurements of each concept table."""
    parser = new_parser(__doc__)
    parser.add_argument("--concepts", nargs="+", default=["chest21", "thorax"])
    parser.add_argument("--reports", type=int, default=10_000)
    parser.add_argument("--peer", choices=["negspacy", "medspacy", "none"], default="negspacy")
    parser.add_argument("--environments", type=pathlib.Path, help="folder for the peer's environment")
    arguments = parser.parse_args()
    for concepts in arguments.concepts:
        print_table(concepts, arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main()
