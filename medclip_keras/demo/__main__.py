"""A page to try a model: `python -m medclip_keras.demo`.

    python -m medclip_keras.demo --model PATH [--index INDEX] [--port 8000]

It is at http://127.0.0.1:8000, for this machine alone: drop a picture or click on a drawn one, type
sentences, and see their similarities, the regions that carry them, and the nearest rows of an index of
`medclip_keras.search`. Pictures stay in memory until their answer; nothing is written, and nothing is loaded
from the network.
"""

import argparse
import socket
import sys
from collections.abc import Sequence

from medclip_keras.command import new_parser, run_command
from medclip_keras.errors import refusal, require

HOST = "127.0.0.1"


def serve(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ValueError: a wrong option, a model or an index that cannot be used, or a missing package.
    """
    try:
        import uvicorn

        from medclip_keras.demo.app import create_app
        from medclip_keras.search import SearchIndex
    except ModuleNotFoundError as error:
        advice = "pip install 'medclip_keras[demo]'"
        raise refusal(str(error.name), "installed with the extra demo", "no such package", advice) from None
    from medclip_keras.inference import load

    with open_socket(options.port) as listening:
        index = SearchIndex.open(options.index) if options.index else None
        app = create_app(load(options.model), index)
        # Its own logging configuration would close other handlers' streams.
        config = uvicorn.Config(app, log_config=None, access_log=False, limit_concurrency=32)
        print(f"demo: http://{HOST}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            print("demo: ended")


def open_socket(port: int) -> socket.socket:
    """A socket of this machine alone.

    Raises:
        ValueError: a port that is no number of one, or is taken.
    """
    form, advice = "a free port, 1 to 65535, or 0 for any", "Name another one."
    require(0 <= port <= 65535, "--port", form, port)
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
    except OSError as error:
        opened.close()
        raise refusal("--port", form, f"{port}: {error.strerror}", advice) from None
    return opened


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = new_parser("medclip_keras.demo", __doc__.partition(":")[2])
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="a workdir, or a version that export wrote")
    add("--index", default="", metavar="INDEX", help="made by medclip_keras.search build with this model")
    add("--port", type=int, default=8000, help="of 127.0.0.1 (default %(default)s)")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.demo", lambda: serve(options))


if __name__ == "__main__":
    sys.exit(main())
