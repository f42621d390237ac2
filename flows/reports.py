"""Serves the reports' folder, and nothing outside it: `python -m flows.reports HOST PORT FOLDER`."""

import socket
import sys
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Reports(SimpleHTTPRequestHandler):
    """Files below `directory`; links that lead out of it are not there."""

    def send_head(self) -> Any:  # noqa: ANN401 (an open file, or None)
        """Open what is asked for, as Python's own handler does, if it lies in the folder."""
        try:
            inside = Path(self.translate_path(self.path)).resolve().is_relative_to(Path(self.directory).resolve())
        except (ValueError, RuntimeError):  # a NUL; a link to itself
            inside = False
        if not inside:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()


class Server(ThreadingHTTPServer):
    """A server on an address of either kind."""

    daemon_threads = True


def main(arguments: Sequence[str]) -> None:
    """Serve until the process is ended."""
    host, port, folder = arguments
    Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    Server((host, int(port)), partial(Reports, directory=folder)).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
