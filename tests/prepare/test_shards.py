"""Tar files with an index: what went in comes out, by tarfile and by a seek."""

import json
import tarfile
from pathlib import Path

import pytest

from iwin.data.annotations import Annotations, Sample
from iwin.errors import DataError
from iwin.prepare.shards import Plan, _write_shard, is_finished, plan_shards, write_shards
from iwin.prepare.splits import Split
from tests.users import public_folder, refused

SIZES = [0, 1, 511, 512, 513, 5000, 20_000, 700]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Files of several sizes, the first empty; the last but one has two labels."""
    samples = []
    for number, size in enumerate(SIZES):
        path = tmp_path / "in" / f"class {number % 2}" / f"{number}.MP4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * size)
        samples.append(Sample(str(path), (0, 1) if number == 6 else (number % 2,)))
    return Split("train", Annotations(tuple(samples), ("x", "y"), tmp_path / "in"), tmp_path / "in")


def plan(split: Split, out: Path, *, max_size: int = 31_000, max_count: int = 3, seed: int | None = None) -> Plan:
    return plan_shards(split, out, max_size=max_size, max_count=max_count, seed=seed)


def write(made: Plan, out: Path) -> None:
    assert len(list(write_shards(made, out, processes=2, time_limit=60))) == len(made.shards)


def test_a_tar_reader_finds_every_sample(split: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = plan(split, out)
    assert made.lacking == (f"{split.samples[0].path}: the file is empty; it is left out",)
    write(made, out)
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        assert path.stat().st_size <= 31_000
        with tarfile.open(path) as tar:
            for header in tar:
                key, _, kind = header.name.partition(".")
                file = tar.extractfile(header)
                assert file is not None
                found.setdefault(key, {})[kind] = file.read()
    assert list(found) == [f"{number:06}" for number in range(7)]
    for members, sample, number in zip(found.values(), split.samples[1:], range(1, 8), strict=True):
        assert members["mp4"] == Path(sample.path).read_bytes()
        note = json.loads(members["json"])
        assert note == {"path": f"class {number % 2}/{number}.MP4", "labels": list(sample.labels)}
        assert members.get("cls") == (None if number == 6 else str(sample.label).encode())


def test_the_index_leads_to_every_video(split: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(plan(split, out, seed=3), out)
    index = json.loads((out / "index.json").read_text())
    assert {name: index[name] for name in ("format", "version", "num_samples", "classes", "seed")} == {
        "format": "iwin-shards",
        "version": 1,
        "num_samples": 7,
        "classes": ["x", "y"],
        "seed": 3,
    }
    assert index["num_bytes"] == sum(SIZES)
    order = []
    for shard in index["shards"]:
        data = (out / shard["name"]).read_bytes()
        assert len(data) == shard["num_bytes"]
        for sample in shard["samples"]:
            source = tmp_path / "in" / sample["path"]
            assert data[sample["offset"] :][: sample["size"]] == source.read_bytes()
            assert len(source.read_bytes()) == sample["size"]
            order.append((sample["member"], source.name))
    assert [member for member, _ in order] == [f"{number:06}.mp4" for number in range(7)]
    assert [name for _, name in order] != sorted(name for _, name in order)


def test_shards_keep_their_bounds(split: Split, tmp_path: Path) -> None:
    counts = [len(shard.members) for shard in plan(split, tmp_path, max_size=10**9).shards]
    assert counts == [3, 3, 1]
    (whole,) = plan(split, tmp_path, max_size=50 * 1024, max_count=9).shards
    assert len(whole.members) == 7
    assert len(plan(split, tmp_path, max_size=50 * 1024 - 1, max_count=9).shards) == 2
    assert [len(shard.members) for shard in plan(split, tmp_path, max_size=1).shards] == [1] * 7


def test_the_same_files_give_the_same_bytes(split: Split, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(plan(split, tmp_path / name, seed=1), tmp_path / name)
        for path in (tmp_path / "in").rglob("*.MP4"):
            path.touch()
    for path in (tmp_path / "a").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_second_run_does_what_is_left(split: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = plan(split, out)
    writing = write_shards(made, out, processes=1, time_limit=60)
    first = next(writing).target
    del writing  # as an interrupted command leaves it
    assert [path.suffix for path in out.iterdir() if path != out / "plan.json"] == [".tar"]
    assert not is_finished(made, out)
    (out / ".shard-000001.tar.77.tmp").touch()
    before = first.stat().st_mtime_ns
    write(plan(split, out), out)
    assert first.stat().st_mtime_ns == before
    assert is_finished(plan(split, out), out)
    assert sorted(path.name for path in out.iterdir()) == [
        "index.json",
        *(shard.target.name for shard in made.shards),
    ]


def test_shards_of_something_else_are_left_alone(split: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(plan(split, out), out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    for other in (plan(split, out, max_count=2), plan(split, out, seed=1)):
        assert not is_finished(other, out)
        with pytest.raises(DataError, match="holds shards of other videos or bounds"):
            next(write_shards(other, out, processes=1, time_limit=60))
    Path(split.samples[3].path).write_bytes(b"changed")
    with pytest.raises(DataError, match="holds shards of other videos or bounds"):
        next(write_shards(plan(split, out), out, processes=1, time_limit=60))
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_video_that_may_not_be_read_is_not_taken_for_the_shard() -> None:
    with public_folder() as folder:
        video = folder / "a.mp4"
        video.write_bytes(b"video")
        samples = (Sample(str(video), (0,)),)
        (shard,) = plan(Split("train", Annotations(samples, None, folder), folder), folder).shards
        video.chmod(0)
        folder.chmod(0o777)
        with refused():
            error = _write_shard(shard)
        assert str(error).startswith(f"{video}: cannot be read (Permission denied); see to its permissions")


def test_a_file_that_changes_meanwhile_is_told(split: Split, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = plan(split, out)
    Path(split.samples[2].path).write_bytes(b"longer than it was" * 100)
    with pytest.raises(DataError, match="was changed while it was packed"):
        list(write_shards(made, out, processes=1, time_limit=60))
    Path(split.samples[2].path).unlink()
    with pytest.raises(DataError, match="was taken away while it was packed"):
        list(write_shards(made, out, processes=1, time_limit=60))
    assert not any(path.name.startswith(".") for path in out.iterdir())
