"""A mirror on this machine that answers as a test or chance tells it, down to the single byte."""

import gzip
import re
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Send = Callable[[bytes], object]
Answer = Callable[[bytes, int | None, Send], object]
"""What answers a request for a content, from a byte on or (None) for all of it, by sending bytes."""


@dataclass
class Mirror:
    """A server, and what it does next."""

    content: bytes
    answers: list[Answer] = field(default_factory=list)
    """Of the next requests; afterwards, and while there are none, it answers as it should."""
    always: Answer | None = None
    """Of all others."""
    address: str = ""
    requests: list[str] = field(default_factory=list)
    """Path and range of each request."""
    sent: int = 0
    """Bytes, headers among them."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over, for answers that would never end."""


@contextmanager
def serve(content: bytes, certificate: Path | None = None) -> Iterator[Mirror]:
    """A mirror that has `content` under any name; with a `certificate` and its key, over https."""
    mirror = Mirror(content)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = [line.decode("latin-1").strip() for line in iter(self.rfile.readline, b"\r\n") if line]
            if not request:
                return
            wanted = next((line for line in request if line.lower().startswith("range:")), "")
            match = re.search(r"bytes=(\d+)-$", wanted)
            mirror.requests.append(f"{request[0].split()[1]} {match[0] if match else ''}".strip())
            answer = mirror.answers.pop(0) if mirror.answers else (mirror.always or whole)
            with suppress(ConnectionError, ssl.SSLError):  # whoever asked may well hang up
                answer(mirror.content, int(match[1]) if match else None, self._send)

        def _send(self, content: bytes) -> None:
            if mirror.over.is_set():
                raise ConnectionResetError
            self.wfile.write(content)
            mirror.sent += len(content)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: object) -> None:
            """Say nothing: a handshake may fail on purpose."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        mirror.address = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield mirror
        mirror.over.set()
        server.shutdown()
        thread.join()


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode("latin-1")


def part_head(content: bytes, start: int) -> bytes:
    span = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
    return head("206 Partial Content", span, f"Content-Length: {len(content) - start}")


# Answers


def whole(content: bytes, start: int | None, send: Send) -> None:
    """As it should be."""
    cut(len(content))(content, start, send)


def cut(size: int) -> Answer:
    """As it should be, up to so many bytes of the body."""

    def answer(content: bytes, start: int | None, send: Send) -> None:
        if start is not None and start >= len(content):
            send(head("416 Range Not Satisfiable"))
        elif start is None:
            send(head("200 OK", f"Content-Length: {len(content)}") + content[:size])
        else:
            send(part_head(content, start) + content[start : start + size])

    return answer


def without_ranges(content: bytes, _: int | None, send: Send) -> None:
    send(head("200 OK", f"Content-Length: {len(content)}") + content)


def of_length(announced: int | str, sent: int) -> Answer:
    """The first bytes of the content, and any number announced."""
    return lambda content, _, send: send(head("200 OK", f"Content-Length: {announced}") + content[:sent])


def page(_: bytes, __: int | None, send: Send) -> None:
    """As a hotel's network answers."""
    send(head("200 OK", "Content-Type: text/html") + b"<html>Please sign in</html>")


def redirect(address: str) -> Answer:
    return lambda _, __, send: send(head("302 Found", f"Location: {address}", "Content-Length: 0"))


def status(line: str, body: bytes = b"words") -> Answer:
    return lambda _, __, send: send(head(line, f"Content-Length: {len(body)}") + body)


def part_from(other: int) -> Answer:
    """A part that begins elsewhere than asked for, and says so."""
    return lambda content, _, send: send(part_head(content, other % len(content)) + content[other % len(content) :])


def part_without_range(content: bytes, start: int | None, send: Send) -> None:
    rest = content[start or 0 :]
    send(head("206 Partial Content", f"Content-Length: {len(rest)}") + rest)


def part_that_lies(content: bytes, start: int | None, send: Send) -> None:
    """It says that it begins where it was asked to, and has other bytes."""
    at = min(start or 0, len(content) - 1)
    send(part_head(content, at) + bytes(len(content) - at))


def trickle(seconds: float) -> Answer:
    """A byte now and then, for ever."""

    def answer(content: bytes, _: int | None, send: Send) -> None:
        send(head("200 OK", f"Content-Length: {len(content)}"))
        for byte in content:
            send(bytes([byte]))
            time.sleep(seconds)

    return answer


def endless(content: bytes, _: int | None, send: Send) -> None:
    """The content, and more, and more."""
    send(head("200 OK"))
    while True:
        send(content)


def endless_chunks(content: bytes, _: int | None, send: Send) -> None:
    send(head("200 OK", "Transfer-Encoding: chunked"))
    while True:
        send(b"%x\r\n%b\r\n" % (len(content), content))


def chunked(content: bytes, _: int | None, send: Send) -> None:
    send(head("200 OK", "Transfer-Encoding: chunked"))
    for at in range(0, len(content), 10_000):
        piece = content[at : at + 10_000]
        send(b"%x\r\n%b\r\n" % (len(piece), piece))
    send(b"0\r\n\r\n")


def gzipped(content: bytes, _: int | None, send: Send) -> None:
    """Packed, though it was asked for as it is."""
    body = gzip.compress(content, 1)
    send(head("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(body)}") + body)


def called_gzip(content: bytes, _: int | None, send: Send) -> None:
    """As it is; for a file that is an archive itself, servers name that as the encoding."""
    send(head("200 OK", "Content-Encoding: x-gzip", f"Content-Length: {len(content)}") + content)


def raw(answer: bytes) -> Answer:
    """Any bytes in the place of an answer."""
    return lambda _, __, send: send(answer)


def flipped(at: int) -> Answer:
    """One bit is another."""

    def answer(content: bytes, _: int | None, send: Send) -> None:
        wrong = bytearray(content)
        wrong[at % len(content)] ^= 1
        send(head("200 OK", f"Content-Length: {len(content)}") + wrong)

    return answer
