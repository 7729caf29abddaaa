"""A file server on the loopback that keeps, breaks or withholds what a test tells it to."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Site:
    """What the server gives.

    Attributes:
        files: content by path.
        tags: ETags by path; a file without one has a tag of its length.
        break_after: bytes of one answer after which the connection is closed, for as many answers as there are.
        busy: how many answers are 503.
        ranges: whether parts can be asked for.
        log: "METHOD path range" of every request.
    """

    files: dict[str, bytes]
    tags: dict[str, str] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    busy: int = 0
    ranges: bool = True
    log: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(None)

        def answer(self, body: bytes | None) -> None:
            site.log.append(f"{self.command} {self.path} {self.headers.get('Range', '-')}")
            if site.busy:
                site.busy -= 1
                self.send_error(503)
                return
            content = site.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            tag = site.tags.get(self.path, f'"{len(content)}"')
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if site.ranges else None
            start = int(asked[1]) if asked and self.headers.get("If-Range", tag) == tag else 0
            if start > len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", tag)
            self.end_headers()
            if body is None:
                part = content[start:]
                if site.break_after:
                    part = part[: site.break_after.pop(0)]
                self.wfile.write(part)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
