"""Checkpoints from paths, a web server on this machine, and a stand-in for the Hub; nothing leaves the machine."""

import concurrent.futures
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from iwin.build import create_model
from iwin.checkpoint import source
from iwin.checkpoint.io import save_weights
from iwin.checkpoint.source import open_weights, resolve, shown
from iwin.errors import CheckpointError, ModelError
from iwin.models.zoo import SIZES, published_url


@dataclass
class Answer:
    """What the server sends: `body`, of which it breaks off after `sent` bytes."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None


@dataclass
class Site:
    """A web server on this machine."""

    address: str
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def put(self, path: str, body: bytes, *, sent: int | None = None, **headers: str) -> str:
        """Serve a file; returns its address."""
        self.answers[path] = Answer(body, 200, {name.replace("_", "-"): value for name, value in headers.items()}, sent)
        return f"{self.address}{path}"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            here.requests.append(f"{self.command} {path}")
            answer = here.answers.get(path, Answer(status=404, headers={"X-Error-Code": "EntryNotFound"}))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.body[: answer.sent])

        do_HEAD = do_GET  # noqa: N815 - the name that http.server wants

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield here
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_weights(path, create_model("iwin_nano").state_dict(), {"classes": "null"})
    return path


def cached(tmp_path: Path) -> list[str]:
    """Names of the files in the cache."""
    return sorted(path.name for path in (tmp_path / "home").rglob("*") if path.is_file() and path.name != ".lock")


# ------------------------------------------------------------------------------------------- the web


def test_an_address_is_downloaded_once(site: Site, weights_file: Path, tmp_path: Path) -> None:
    url = site.put("/files/nano.safetensors", weights_file.read_bytes())
    first, second = open_weights(url), open_weights(url + "?")
    assert len(site.requests) == 1
    assert first.path == second.path
    assert first.path.read_bytes() == weights_file.read_bytes()
    assert cached(tmp_path) == ["nano.safetensors", "nano.safetensors.sha256"]
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert first.path.with_name("nano.safetensors.sha256").read_text() == f"{digest}  nano.safetensors\n"


def test_of_many_who_want_a_file_one_downloads_it(site: Site, weights_file: Path) -> None:
    url = site.put("/nano.safetensors", weights_file.read_bytes())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(resolve, [url] * 8))) == 1
    assert len(site.requests) == 1


def test_a_model_starts_from_an_address(site: Site, weights_file: Path) -> None:
    url = site.put("/nano.safetensors", weights_file.read_bytes())
    model = create_model("iwin_nano", pretrained=url)
    state = open_weights(weights_file).state
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_cached_file_is_used_without_the_server(site: Site, weights_file: Path) -> None:
    url = site.put("/nano.safetensors", weights_file.read_bytes())
    path = resolve(url)
    site.answers.clear()
    assert resolve(url) == path


def test_two_addresses_of_one_name_are_two_files(site: Site, weights_file: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other")
    one = resolve(site.put("/one/latest.pth", weights_file.read_bytes()))
    two = resolve(site.put("/two/latest.pth", (tmp_path / "other").read_bytes()))
    assert one != two
    assert one.name == two.name == "latest.pth"


def test_a_damaged_copy_is_downloaded_again(site: Site, weights_file: Path) -> None:
    url = site.put("/nano.safetensors", weights_file.read_bytes())
    path = resolve(url)
    content = bytearray(weights_file.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert resolve(url).read_bytes() == weights_file.read_bytes()
    assert len(site.requests) == 2


def test_a_damaged_copy_is_never_used(site: Site, weights_file: Path) -> None:
    url = site.put("/nano.safetensors", weights_file.read_bytes())
    resolve(url).write_bytes(b"")
    site.answers.clear()
    with pytest.raises(CheckpointError, match=r"404: .*; its copy .* does not have the right checksum"):
        resolve(url)


def test_a_broken_download_leaves_nothing(site: Site, weights_file: Path, tmp_path: Path) -> None:
    url = site.put("/nano.safetensors", weights_file.read_bytes(), sent=5000)
    with pytest.raises(CheckpointError, match=r"broke off after 5,000 of [\d,]+ bytes; try again"):
        resolve(url)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("by", ["name", "fragment"])
def test_a_checksum_is_verified(by: str, site: Site, weights_file: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()

    def address(digits: str) -> str:
        path = f"/nano-{digits}.safetensors" if by == "name" else "/nano.safetensors"
        return site.put(path, weights_file.read_bytes()) + ("" if by == "name" else f"#sha256={digits.upper()}")

    assert resolve(address(digest[:8])).is_file()
    before = cached(tmp_path)
    wrong = f"{int(digest[:8], 16) ^ 1:08x}"
    with pytest.raises(CheckpointError, match=rf"begins with {digest[:8]}, not with {wrong}"):
        resolve(address(wrong))
    assert cached(tmp_path) == before
    assert resolve(address(digest[:8])).is_file()


def test_a_date_in_a_name_is_no_checksum(site: Site, weights_file: Path) -> None:
    assert resolve(site.put("/nano-20250712.safetensors", weights_file.read_bytes())).is_file()


def test_what_is_no_checkpoint_is_not_kept(site: Site, tmp_path: Path) -> None:
    url = site.put("/nano.pth", b"<!DOCTYPE html><p>Sign in to go on")
    with pytest.raises(CheckpointError, match="something that is no checkpoint"):
        resolve(url)
    assert cached(tmp_path) == []


def test_a_missing_file_is_told_with_its_status(site: Site) -> None:
    with pytest.raises(CheckpointError, match=r"nano\.pth: cannot be downloaded \(HTTP Error 404: Not Found\)"):
        resolve(f"{site.address}/nano.pth?token=secret")


def test_a_silent_server_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TIMEOUT", 0.2)
    with (
        http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent,  # answers nobody
        pytest.raises(CheckpointError, match="timed out"),
    ):
        resolve(f"http://127.0.0.1:{silent.server_port}/nano.pth")
    assert site.requests == []


def test_a_server_that_is_not_there_is_told(site: Site) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as gone:
        port = gone.server_port
    with pytest.raises(CheckpointError, match="refused"):
        resolve(f"http://127.0.0.1:{port}/nano.pth")
    assert site.requests == []


def test_a_cache_that_cannot_be_written_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, where a folder is wanted")
    with pytest.raises(CheckpointError, match="set TORCH_HOME"):
        resolve(f"{site.address}/nano.pth")


def test_secrets_of_an_address_are_not_shown(site: Site, weights_file: Path) -> None:
    address = site.put("/nano.safetensors", weights_file.read_bytes())
    assert resolve(f"{address}?token=secret").is_file()
    assert shown(f"{address}?token=secret#sha256=00000000") == address
    with pytest.raises(CheckpointError, match="user name") as refusal:
        resolve("https://me:secret@example.org/nano.pth")
    assert "secret" not in str(refusal.value)


# ------------------------------------------------------------------------------------------- files and names


def test_a_file_address_is_the_file(weights_file: Path) -> None:
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert resolve(f"{weights_file.as_uri()}#sha256={digest}") == weights_file
    with pytest.raises(CheckpointError, match="not with 00000000"):
        resolve(f"{weights_file.as_uri()}#sha256=00000000")
    with pytest.raises(CheckpointError, match="of this machine"):
        resolve("file://server/nano.pth")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("s3://bucket/nano.pth", "cannot come from s3://"),
        ("https://example.org/nano.pth#md5=00", "#md5=00 is not understood"),
        ("https://[::1/nano.pth", "is no address"),
        ("hf://nano", "is not understood; write hf://org/name"),
        ("hf://org/name@main/file@main", "is not understood"),
    ],
)
def test_an_address_that_is_not_understood_is_refused(name: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=hint):
        resolve(name)


@pytest.mark.parametrize("name", ["nano.pth", "runs/best.safetensors", "runs/clips", "../a/b", "a/b/c", "/a/b"])
def test_a_slip_in_a_path_asks_no_server(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match="there is no such checkpoint file"):
        open_weights(name)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder; name a checkpoint file in it, such as best\.safetensors"):
        open_weights(str(tmp_path))


def test_names_of_published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(address: str) -> Path:
        asked.append(address)
        raise CheckpointError("not here")

    monkeypatch.setattr(source, "_from_web", record)
    with pytest.raises(CheckpointError, match="not here"):
        create_model("iwin_tiny", pretrained="kinetics400")
    assert [url.rpartition("/")[2] for url in asked] == ["iwin_tiny_patch244_window77_kinetics400_1k.pth"]


def test_weights_that_were_not_published_are_refused() -> None:
    with pytest.raises(ModelError, match="no 'imagenet1k' weights for a model of this size; there are none"):
        create_model("iwin_nano", pretrained="imagenet1k")
    base = SIZES["base"]
    with pytest.raises(ModelError, match="there are imagenet1k, imagenet22k"):
        published_url("kinetics400", embed_dim=base.embed_dim, depths=base.depths, image=False)
    tiny = SIZES["tiny"]
    with pytest.raises(ModelError, match=r"there are imagenet1k$"):
        published_url("kinetics400", embed_dim=tiny.embed_dim, depths=tiny.depths, image=True)
    url = published_url("imagenet1k", embed_dim=tiny.embed_dim, depths=tiny.depths, image=True)
    assert url is not None
    assert url.endswith("iwin_tiny_patch4_window7_224.pth")
    assert published_url("weights.pth", embed_dim=24, depths=(1, 1, 2, 1), image=False) is None


# ------------------------------------------------------------------------------------------- the Hub

COMMIT = "a" * 40


def hub_run(sources: list[str], *, offline: bool, endpoint: str, home: Path) -> list[str]:
    """What each source resolves to, or the error, in a process of its own: the Hub's settings are read once."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    code = """
import json, sys
from iwin.checkpoint.source import resolve
from iwin.errors import CheckpointError
def attempt(source):
    try:
        return str(resolve(source))
    except CheckpointError as error:
        return str(error)
print(json.dumps([attempt(source) for source in sys.argv[1:]]))
"""
    command = [sys.executable, "-c", code, *sources]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    answers: list[str] = json.loads(result.stdout)
    return answers


def serve_repository(site: Site, repo: str, files: dict[str, bytes]) -> None:
    """Serve a repository of the Hub, as far as downloading asks for it."""
    for name, body in files.items():
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        site.put(f"/{repo}/resolve/main/{name}", body, ETag=etag, X_Repo_Commit=COMMIT)
    tree = [{"type": "file", "path": name, "oid": "0" * 40, "size": len(body)} for name, body in files.items()]
    site.put(f"/api/models/{repo}/tree/main", json.dumps(tree).encode(), Content_Type="application/json")
    siblings = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    site.put(f"/api/models/{repo}", json.dumps(siblings).encode(), Content_Type="application/json")


@pytest.mark.slow
def test_the_hub(site: Site, weights_file: Path, tmp_path: Path) -> None:
    body = weights_file.read_bytes()
    serve_repository(site, "org/usual", {"model.safetensors": body, "other.pth": body})
    serve_repository(site, "org/nano", {"README.md": b"", "best.safetensors": body, "best.pth": body})
    serve_repository(site, "org/many", {"a.safetensors": body, "b.safetensors": body})
    serve_repository(site, "org/none", {"README.md": b""})
    home = tmp_path / "hub"
    usual, nano, again, file, many, none, missing = hub_run(
        [
            "hf://org/usual",
            "org/nano",
            "hf://org/nano@main/best.safetensors",
            "hf://org/many/b.safetensors@main",
            "hf://org/many",
            "org/none",
            "hf://org/nano/missing.pth",
        ],
        offline=False,
        endpoint=site.address,
        home=home,
    )
    assert Path(usual).name == "model.safetensors"
    assert Path(nano).name == "best.safetensors"
    assert Path(nano).read_bytes() == body
    assert nano == again
    assert Path(file).name == "b.safetensors"
    assert many == "hf://org/many: org/many holds several files of weights; name one: a.safetensors, b.safetensors"
    assert none.startswith("org/none: is no file here, and as a Hub repository: org/none holds no file of weights")
    assert missing == "hf://org/nano/missing.pth: org/nano has no file missing.pth"

    Path(usual).resolve().write_bytes(b"damaged")
    site.requests.clear()
    assert hub_run(["org/nano", "org/usual", "org/new"], offline=True, endpoint=site.address, home=home) == [
        nano,
        "org/usual: is no file here, and as a Hub repository: the copy of org/usual in the cache is damaged; "
        f"delete {Path(usual).resolve()} and try again",
        "org/new: is no file here, and as a Hub repository: org/new is not in the cache, and the Hub cannot be reached",
    ]
    assert site.requests == []
