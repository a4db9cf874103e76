"""Score images with a served model: `python -m medclip_keras.serving.client`.

    python -m medclip_keras.serving.client --url http://HOST:8501 image.png --classes "Edema,Pleural Effusion"

A line an image is printed, a score a class: higher is more likely, scores are no probabilities. Classes are
names of findings with shipped prompts; without --classes they are those of the export. With --json, one JSON
object is printed. Images that cannot be read are named on stderr, and the exit status is then 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from medclip_keras.command import FAILED, new_parser, run_command
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.image_files import read_file
from medclip_keras.inference import UNDECODED, served_model
from medclip_keras.serving.client.address import DEFAULT_MODEL
from medclip_keras.serving.client.served_model import ATTEMPTS, TIMEOUT, ServedModel, connect

_MODULE = "medclip_keras.serving.client"


def scores_of(
    served: ServedModel, images: Sequence[str], classes: Sequence[str] = ()
) -> tuple[Sequence[str], Floats, list[str]]:
    """Score images.

    Args:
        served: the model.
        images: paths of JPEG, PNG and DICOM files.
        classes: findings with shipped prompts; none: the classes of the export.

    Returns:
        The classes; float32 (num_readable, num_classes); for each image "" or why it cannot be read.

    Raises:
        ServingError: see `failures`.
    """
    if classes:
        model = served_model(served)
        classifier = model.classifier(classes)
        embeddings, reasons = model.encode_readable(images)
        return classes, classifier(embeddings), reasons
    reasons, files = [""] * len(images), {}
    for i, image in enumerate(images):
        try:
            files[i] = read_file(image)
        except ValueError as error:
            reasons[i] = str(error)
    found = served.zero_shot(list(files.values()) or [b""])  # for the names of the classes
    for i, decoded in zip(files, found.decoded, strict=bool(files)):
        reasons[i] = "" if decoded else UNDECODED
    named = [
        f"{image!r} cannot be read: {why}" if why else "" for image, why in zip(images, reasons, strict=True)
    ]
    return found.classes, found.scores, named


def show(options: argparse.Namespace) -> int:
    """Score the images that the command line names, and print the scores; return the exit status."""
    served = connect(
        options.url,
        model=options.model,
        version=options.version,
        label=options.label,
        timeout=options.timeout,
        attempts=options.attempts,
    )
    chosen = [name.strip() for name in options.classes.split(",") if name.strip()]
    classes, scores, reasons = scores_of(served, options.images, chosen)
    readable = iter(scores.tolist())
    rows = [dict(zip(classes, next(readable), strict=True)) if not why else None for why in reasons]
    if options.json:
        images = [
            {"image": image, "scores": row} if row else {"image": image, "error": why}
            for image, row, why in zip(options.images, rows, reasons, strict=True)
        ]
        print(json.dumps({**served_model(served).made_from, "images": images}, indent=2))
    else:
        for image, row in zip(options.images, rows, strict=True):
            if row:
                print(f"{image}: {', '.join(f'{name} {value:.2f}' for name, value in row.items())}")
    for why in filter(None, reasons):
        print(f"{_MODULE}: {why}", file=sys.stderr)
    return FAILED if any(reasons) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = new_parser(_MODULE, __doc__.partition(":")[2])
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="JPEG, PNG and DICOM files")
    add("--url", required=True, help="http(s)://HOST:8501 for REST, grpc(s)://HOST:8500 for gRPC")
    add("--model", metavar="NAME", help=f"name of the served model (default {DEFAULT_MODEL})")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--version", type=int, metavar="N", help="of the model (default: the newest)")
    chosen.add_argument("--label", help="of a version, such as stable")
    add("--classes", default="", metavar="NAME,…", help="findings with shipped prompts")
    add("--json", action="store_true", help="print one JSON object")
    add("--timeout", type=float, default=TIMEOUT, metavar="S", help=f"of an attempt (default {TIMEOUT:g})")
    add("--attempts", type=int, default=ATTEMPTS, metavar="N", help=f"at most (default {ATTEMPTS})")
    options = parser.parse_args(argv)
    return run_command(_MODULE, lambda: show(options))


if __name__ == "__main__":
    sys.exit(main())
