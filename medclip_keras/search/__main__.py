"""Build and ask an index: `python -m medclip_keras.search`.

    python -m medclip_keras.search build --embeddings DIR --output INDEX
    python -m medclip_keras.search build --sentences FILE --model PATH --output INDEX
    python -m medclip_keras.search query --index INDEX --model PATH --image FILE --without "pleural effusion"

DIR is a folder that `beam_jobs.embed_images` wrote. A query prints a line a row: the cosine, and the name of
the row. `--text` and `--without` may be given several times and beside `--image`;
`medclip_keras.search.queries` says what they compute.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from medclip_keras.command import new_parser, run_command
from medclip_keras.errors import require
from medclip_keras.search import index as indexes
from medclip_keras.search.index import Rows, SearchIndex
from medclip_keras.search.queries import TEXT_WEIGHT, WITHOUT_WEIGHT, ask


def build(options: argparse.Namespace) -> None:
    """Build an index of embeddings or of the lines of a file.

    Raises:
        ValueError: a wrong option or input.
    """
    indexes.faiss()  # before any work
    if options.embeddings:
        require(not options.model, "--model", "left out beside --embeddings", options.model)
        rows = Rows.of_folder(options.embeddings)
    else:
        require(bool(options.model), "--model", "given beside --sentences", options.model)
        require(
            options.sentences.is_file(),
            "--sentences",
            "a text file, a sentence a line",
            str(options.sentences),
        )
        lines = [line.strip() for line in options.sentences.read_text(encoding="utf-8").splitlines()]
        sentences = [line for line in lines if line]
        require(bool(sentences), "--sentences", "a file with at least one sentence", str(options.sentences))
        rows = Rows.of_sentences(sentences, _load(options.model))
    manifest = indexes.build(rows, options.output)
    measured = ", ".join(f"{value:.3f} ({name})" for name, value in manifest.recall.items()) or "exact"
    size = sum(manifest.sizes.values()) / 2**20
    print(f"search: {manifest.num_rows:,} rows, {manifest.method}, {size:.0f} MiB, recall@10 {measured}")
    if manifest.recall and min(manifest.recall.values()) < indexes.TARGET_RECALL:
        print(f"search: the recall stays under {indexes.TARGET_RECALL}: 8 bits do not tell these rows apart.")
    print(f"search: {options.output}")


def query(options: argparse.Namespace) -> None:
    """Print the nearest rows.

    Raises:
        ValueError: a wrong option, an unreadable image, or another model than the index's.
    """
    asked = bool(options.text or options.image)
    require(asked, "query", "an image or a text to be near to", "none", "Add --text or --image.")
    index = SearchIndex.open(options.index)
    matches = ask(
        index,
        _load(options.model),
        image=options.image,
        texts=options.text,
        without=options.without,
        k=options.k,
        text_weight=options.text_weight,
        without_weight=options.without_weight,
    )
    for match in matches:
        line = {"score": round(match.score, 4), index.manifest.key: match.name, **match.columns}
        print(json.dumps(line, ensure_ascii=False) if options.json else f"{match.score:.4f}  {match.name}")


def _load(path: str):
    from medclip_keras.inference import load

    return load(path)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = new_parser("medclip_keras.search", __doc__.partition(":")[2])
    commands = parser.add_subparsers(dest="command", required=True)
    add = (building := commands.add_parser("build", allow_abbrev=False)).add_argument
    building.set_defaults(work=build)
    rows = building.add_mutually_exclusive_group(required=True)
    rows.add_argument("--embeddings", metavar="DIR", help="made by beam_jobs.embed_images")
    rows.add_argument(
        "--sentences", metavar="FILE", type=pathlib.Path, help="a sentence a line; needs --model"
    )
    add("--model", default="", metavar="PATH", help="embeds the sentences")
    add("--output", required=True, metavar="INDEX", help="a folder for the index")
    add = (querying := commands.add_parser("query", allow_abbrev=False)).add_argument
    querying.set_defaults(work=query)
    add("--index", required=True, metavar="INDEX", help="made by build")
    add("--model", required=True, metavar="PATH", help="the model that made the embeddings")
    add("--image", metavar="FILE", help="be near to this picture")
    add("--text", action="append", default=[], metavar="SENTENCE", help="be near to these words")
    add("--without", action="append", default=[], metavar="SENTENCE", help="be far from these words")
    add("-k", type=int, default=10, help="rows to print (default %(default)s)")
    add(
        "--text_weight",
        type=float,
        default=TEXT_WEIGHT,
        help="of --text beside --image (default %(default)s)",
    )
    add("--without_weight", type=float, default=WITHOUT_WEIGHT, help="of --without (default %(default)s)")
    add("--json", action="store_true", help="print a JSON object a line, with all columns")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.search", lambda: options.work(options))


if __name__ == "__main__":
    sys.exit(main())
