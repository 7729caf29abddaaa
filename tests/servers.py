"""Real servers on loopback for tests: files over HTTP, and storage that speaks S3's protocol."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest


class FileServer(ThreadingHTTPServer):
    """Serves a folder, listings included; parts of files it does not give.

    Attributes:
        failures: status codes with which the next requests are refused.
        requests: how many files were asked for.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.failures: list[int] = []
        self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.failures:
            self.send_error(HTTPStatus(self.server.failures.pop(0)))
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[FileServer]:
    """Serve a folder over HTTP."""
    with FileServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The address of a video whose server takes the question and never answers: reading it hangs."""
    pytest.importorskip("aiohttp", reason="needs the extra http")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hangs.mp4"


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3-compatible server; inside, s3:// addresses mean it. Gives s3fs's file system, with a bucket `bucket`."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto's server mode")
    from fsspec.core import url_to_fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    # What it stores outlives it, within a process.
    urlopen(Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    file_system, _ = url_to_fs("s3://bucket", skip_instance_cache=True)
    try:
        file_system.mkdir("bucket")
        type(file_system).clear_instance_cache()
        yield file_system
    finally:
        type(file_system).clear_instance_cache()
        server.stop()
