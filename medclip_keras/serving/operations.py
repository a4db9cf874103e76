"""python -m medclip_keras.serving.operations: compare a SavedModel's operations with TensorFlow Serving's.

A server loads a SavedModel only if it knows every operation in it. `tensorflow_serving/operations_2.20.0.txt`
lists those of the pinned release and says where the list is from; `tensorflow_serving/operations.csv` is the
table of those that both SavedModels of a run need.
"""

import argparse
import csv
import io
import pathlib
from collections.abc import Mapping

from tensorflow.core.protobuf import saved_model_pb2

CONFIGURATION = pathlib.Path(__file__).parent / "tensorflow_serving"
SERVER_RELEASE = "2.20.0"


def operations_of(saved_model: str | pathlib.Path) -> set[str]:
    """The names of the operations that a SavedModel's graph and functions call."""
    content = (pathlib.Path(saved_model) / "saved_model.pb").read_bytes()
    graphs = [meta.graph_def for meta in saved_model_pb2.SavedModel.FromString(content).meta_graphs]
    functions = [function for graph in graphs for function in graph.library.function]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for function in functions for node in function.node_def]
    return {node.op for node in nodes} - {function.signature.name for function in functions}


def server_operations() -> set[str]:
    """The operations that the pinned release knows."""
    lines = (CONFIGURATION / f"operations_{SERVER_RELEASE}.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def table(needed: Mapping[str, set[str]]) -> str:
    """CSV with a row an operation and a column a SavedModel.

    >>> print(table({"medclip": {"Add", "Exp"}, "medclip_tokens": {"Add"}}), end="")
    operation,medclip,medclip_tokens
    Add,needed,needed
    Exp,needed,
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["operation", *needed])
    for name in sorted(set().union(*needed.values())):
        writer.writerow([name, *("needed" if name in of_one else "" for of_one in needed.values())])
    return file.getvalue()


def main() -> int:
    """The command line; returns 1 if the pinned release does not know an operation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[2])
    parser.add_argument("saved_models", nargs="+", metavar="MODELS_DIR/N", help="versions to compare")
    needed = {folder: operations_of(folder) for folder in parser.parse_args().saved_models}
    unknown = set().union(*needed.values()) - server_operations()
    print(table(needed), end="")
    for name in sorted(unknown):
        print(f"TensorFlow Serving {SERVER_RELEASE} does not know {name}.")
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main())
