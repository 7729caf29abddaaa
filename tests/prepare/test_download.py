"""Downloads arrive whole or not at all, and go on from where they stopped."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from iwin.prepare.addresses import DATA_SETS, find_data_set, mirrored
from iwin.prepare.download import DownloadError, Remote, ask, fetch
from tests.prepare.server import Site, serving

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"/data/file.bin": CONTENT})) as site:
        yield site


def gets(site: Site) -> list[str]:
    return [line.rpartition(" ")[2] for line in site.log if line.startswith("GET")]


def test_a_file_is_fetched_whole(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(f"{site.url}/data/file.bin", tmp_path / "new" / "file.bin", progress=lambda *at: seen.append(at))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in path.parent.iterdir()] == ["file.bin"]
    fetch(f"{site.url}/data/file.bin", path)
    assert len(site.log) == 1  # what is there is not fetched again


def test_the_size_is_asked_for_without_fetching(site: Site) -> None:
    assert ask(f"{site.url}/data/file.bin") == Remote(len(CONTENT), f'"{len(CONTENT)}"')
    assert gets(site) == []


def test_a_broken_connection_is_continued_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.break_after = [300_000, 200_000]
    path = fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin", wait=0)
    assert path.read_bytes() == CONTENT
    assert gets(site) == ["-", "bytes=300000-", "bytes=500000-"]


def test_a_later_run_continues_what_an_earlier_one_left(site: Site, tmp_path: Path) -> None:
    site.break_after = [300_000, 0, 0]
    with pytest.raises(DownloadError, match=r"ended after 300000 of 1024000 bytes; run the command again to go on"):
        fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin", attempts=1, wait=0)
    assert (tmp_path / "file.bin.part").stat().st_size == 300_000
    assert not (tmp_path / "file.bin").exists()
    site.break_after = []
    assert fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin").read_bytes() == CONTENT
    assert gets(site)[-1] == "bytes=300000-"


@pytest.mark.parametrize("change", ["tag", "url", "no ranges", "no state"])
def test_another_file_is_not_appended_to_the_part(change: str, site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    state = {"url": f"{site.url}/data/file.bin", "size": len(CONTENT), "tag": f'"{len(CONTENT)}"'}
    if change == "tag":
        state["tag"] = '"old"'
    elif change == "url":
        state["url"] = "http://elsewhere/file.bin"
    elif change == "no ranges":
        site.ranges = False
    (tmp_path / "file.bin.part.json").write_text("" if change == "no state" else json.dumps(state))
    assert fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * (len(CONTENT) + 1))
    state = {"url": f"{site.url}/data/file.bin", "size": None, "tag": f'"{len(CONTENT)}"'}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(state))
    assert fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin", wait=0).read_bytes() == CONTENT


def test_a_part_that_is_complete_is_only_moved(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    state = {"url": f"{site.url}/data/file.bin", "size": len(CONTENT), "tag": f'"{len(CONTENT)}"'}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(state))
    assert fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin").read_bytes() == CONTENT
    assert site.log == []


def test_a_sum_that_is_known_is_checked(site: Site, tmp_path: Path) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()
    fetch(f"{site.url}/data/file.bin", tmp_path / "a.bin", sha256=right)
    with pytest.raises(DownloadError, match=f"its SHA-256 sum is {right}, not 00"):
        fetch(f"{site.url}/data/file.bin", tmp_path / "b.bin", sha256="00")
    assert not list(tmp_path.glob("b.bin*"))


def test_a_busy_server_is_waited_for_and_a_missing_file_is_not(site: Site, tmp_path: Path) -> None:
    site.busy = 2
    assert fetch(f"{site.url}/data/file.bin", tmp_path / "file.bin", wait=0).read_bytes() == CONTENT
    site.log.clear()
    with pytest.raises(DownloadError, match="the server says 404"):
        fetch(f"{site.url}/data/none.bin", tmp_path / "none.bin", wait=0)
    assert len(site.log) == 1
    site.busy = 9
    with pytest.raises(DownloadError, match="the server says 503"):
        ask(f"{site.url}/data/file.bin", attempts=2, wait=0)


def test_a_server_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with serving(Site({})) as site:
        address = site.url
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch(f"{address}/file.bin", tmp_path / "file.bin", attempts=2, wait=0)
    with pytest.raises(DownloadError, match="no http or https address"):
        fetch("file:///etc/hosts", tmp_path / "file.bin")


def test_a_folder_that_cannot_be_written_gets_a_sentence(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(f"{site.url}/data/file.bin", tmp_path / "file" / "file.bin")


def test_the_addresses_are_addresses() -> None:
    for data_set in DATA_SETS:
        assert data_set.page.startswith(("http://", "https://"))
        assert data_set.parts or data_set.advice
        for part in data_set.parts:
            assert bool(part.urls) != bool(part.index)
            assert all(url.startswith(("http://", "https://")) and "." in url.rpartition("/")[2] for url in part.urls)
    assert find_data_set("UCF101").name == "ucf101"
    assert (
        mirrored("https://s3.amazonaws.com/kinetics/400/a.csv", "http://here:1/") == "http://here:1/kinetics/400/a.csv"
    )
