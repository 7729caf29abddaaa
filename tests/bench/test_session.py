import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import iwin
from iwin.bench.growth import measure_growth, steps
from iwin.bench.machine import commit
from iwin.bench.report import cells, growth_table
from iwin.bench.session import TOLERANCES, Entry, Worker, check, complaint, describe, ending, measure, record
from iwin.bench.subjects import Job, Subject
from iwin.bench.worker import settle, time_round

SMALL = Job(variant="fp32", model="iwin_nano", frames=4, height=32, width=32)


def entry(variant: str, rounds: list[list[float]], peak: int = 100) -> Entry:
    facts = {"clips": 2, "macs": 10**9, "peak_bytes": peak, "process_peak_bytes": 1000, "saved_bytes": None}
    return Entry(replace(SMALL, variant=variant), facts=facts, difference=0.0, rounds=rounds)


def outputs(folder: Path, **results: list[float]) -> list[Entry]:
    for name, values in results.items():
        logits = torch.tensor(values)
        torch.save({"result": logits, "gradients": torch.empty(0)}, folder / f"{name.replace('_', '-')}.pt")
    return [Entry(replace(SMALL, variant=name.replace("_", "-"))) for name in results]


def test_what_differs_from_the_reference_is_refused(tmp_path: Path) -> None:
    entries = outputs(tmp_path, reference_fp32=[4.0, 1.0], fp32=[4.001, 1.0], bf16=[4.1, 1.0], bf16_sdpa=[5.0, 1.0])
    check(entries, tmp_path)
    differences = [entry.difference for entry in entries]
    assert differences == pytest.approx([0, 2.5e-4, 0.025, 0.25], rel=1e-3)
    assert [bool(entry.error) for entry in entries] == [False, True, False, True]
    assert "differs from the reference by 0.00025, more than 0.0001" in entries[1].error


def test_what_is_not_a_number_is_refused(tmp_path: Path) -> None:
    entries = outputs(tmp_path, reference_fp32=[4.0], fp32=[float("nan")])
    check(entries, tmp_path)
    assert "differs" in entries[1].error


def test_nothing_is_timed_without_the_reference(tmp_path: Path) -> None:
    entries = outputs(tmp_path, fp32=[4.0])
    check(entries, tmp_path)
    assert "the reference in fp32" in entries[0].error


def test_gradients_are_compared_too(tmp_path: Path) -> None:
    job = replace(SMALL, train=True)
    for name, gradient in (("reference-fp32", [3.0, 4.0]), ("fp32", [3.0, 4.1])):
        torch.save({"result": torch.tensor(2.0), "gradients": torch.tensor(gradient)}, tmp_path / f"{name}.pt")
    entries = [Entry(replace(job, variant=name)) for name in ("reference-fp32", "fp32")]
    check(entries, tmp_path)
    assert entries[1].difference == pytest.approx(0.1 / 5, rel=1e-4)
    assert entries[1].error


def test_ratios_are_taken_round_by_round() -> None:
    entries = [entry("reference-fp32", [[4.0], [8.0], [6.0]], peak=400), entry("fp32", [[2.0], [2.0], [2.0]])]
    told = describe(entries[1], entries)
    assert told["times_reference-fp32"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert told["clips_per_second"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert told["memory_of_reference-fp32"] == 0.25
    assert told["rounds_seconds"] == [[2.0], [2.0], [2.0]]
    assert told["share_of_matmul"] is None


def test_share_of_the_machines_matrix_product() -> None:
    product = entry("matmul-bf16", [[1.0], [2.0]])
    entries = [entry("bf16-cast", [[4.0]]), product]
    assert describe(entries[0], entries)["share_of_matmul"] == pytest.approx(0.25)  # of its best round
    entries[0].job = replace(entries[0].job, train=True)
    assert describe(entries[0], entries)["share_of_matmul"] == pytest.approx(0.75)  # three passes of multiply-adds


def test_record_tells_where_and_with_what_it_was_measured() -> None:
    found = record(["iwin", "bench", "model"], [entry("fp32", [[1.0]])], {})
    assert found["command"] == "iwin bench model"
    assert torch.__version__.startswith(found["machine"]["versions"]["torch"])
    assert found["machine"]["memory_bytes"] > 2**28
    assert found["machine"]["versions"]["iwin"] == iwin.__version__  # even where no package metadata tells it
    assert found["tolerances"] == TOLERANCES
    assert len(cells("fp32", found["variants"]["fp32"])) == 9


def test_commit_is_that_of_the_checkout_itself(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    assert commit(tmp_path) is None  # nothing is committed yet
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").touch()
    git("add", ".")
    git("commit", "-m", "a")
    clean = commit(tmp_path)
    assert clean
    assert len(clean) == 40
    (tmp_path / "record.json").touch()
    assert commit(tmp_path) == clean
    (tmp_path / "src" / "a.py").write_text("changed")
    assert commit(tmp_path) == f"{clean}-dirty"
    assert commit(tmp_path / "src") is None


def test_only_the_reference_of_its_own_precision_stands_beside_a_variant() -> None:
    entries = [entry("reference-fp32", [[4.0]], peak=400), entry("fp32", [[2.0]]), entry("bf16", [[1.0]])]
    plain, half = (cells(one.job.variant, describe(one, entries)) for one in entries[1:])
    assert plain[1:3] == ["2 (2-2)", "2 (2-2)"]
    assert half[1:3] == ["", "4 (4-4)"]
    assert (plain[4], half[4]) == ("0.25", "")


def test_a_pass_that_takes_no_memory_of_its_own_is_compared_with_none() -> None:
    entries = [entry("reference-fp32", [[1.0]], peak=0), entry("fp32", [[1.0]])]
    assert "memory_of_reference-fp32" not in describe(entries[1], entries)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_variants_are_measured_in_processes_of_their_own(train: bool) -> None:
    said: list[str] = []
    names = ["fp32", "fp32-sdpa", "matmul-fp32"]
    entries = measure([replace(SMALL, variant=name, train=train) for name in names], rounds=2, say=said.append)
    assert [entry.error for entry in entries] == ["", "", ""]
    assert [len(entry.rounds) for entry in entries] == [2, 2, 2]
    assert all(second > 0 for entry in entries for seconds in entry.rounds for second in seconds)
    assert all(entry.difference is not None and entry.difference < 1e-4 for entry in entries[:2])
    assert said[-3:] == ["waiting until all are steady", "round 1 of 2", "round 2 of 2"]
    assert all(len(entry.settling) >= 3 for entry in entries)


def test_growth_is_around_the_size_that_was_asked_for() -> None:
    small = steps(replace(SMALL, frames=16, height=112, width=112))
    assert [job.frames for job in small["frames"]] == [4, 8, 16, 32, 64]
    assert [job.height for job in small["pixels"]] == [56, 112, 160, 224, 320]
    assert [job.batch for job in small["batch"]] == [1, 2, 4, 8]
    wide = steps(replace(SMALL, frames=2, height=224, width=448, batch=4, variant="bf16"))
    assert [job.frames for job in wide["frames"]] == [1, 2, 4, 8]  # half a frame rounds to one, like a quarter
    assert [(job.height, job.width) for job in wide["pixels"]][:2] == [(112, 224), (224, 448)]
    assert [job.batch for job in wide["batch"]] == [1, 2, 4, 8, 16, 32]


def test_growth_table_has_a_row_for_every_size_and_tells_sides() -> None:
    points = [
        {"variant": "fp32", "pixels": 56 * 56, "size": "56", "seconds": 0.25, "peak_bytes": 2**20},
        {"variant": "bf16", "pixels": 56 * 56, "size": "56", "seconds": 0.125, "peak_bytes": None},
        {"variant": "fp32", "pixels": 112 * 160, "size": "112x160", "seconds": 2.0, "peak_bytes": 2**30},
    ]
    batch = [{"variant": "fp32", "batch": 2, "seconds": 1, "peak_bytes": 0}]
    middle = record(["iwin"], [entry("fp32", [[1.0]])], {"pixels": points, "batch": batch})
    found = growth_table(middle)
    assert str(found.title).startswith("iwin_nano, inference, growth around one clip of 4 x 32")
    rows = list(zip(*(column.cells for column in found.columns), strict=True))
    assert rows == [
        ("side 56", "0.25 s, 1 MiB", "0.125 s"),
        ("side 112x160", "2 s, 1,024 MiB", "not measured"),
        ("clips at once 2", "1 s, 0 MiB", "not measured"),
    ]


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    worker = Worker(SMALL, tmp_path)
    worker.process.kill()
    worker.process.wait()
    worker.log.write_text("one\ntwo\n")
    found = worker.ask("go")
    worker.stop()
    assert found["error"].startswith("its process ended with signal SIGKILL")
    assert ending(3) == "status 3"
    failed = Entry(SMALL, error=found["error"], log=found["log"])
    assert complaint(failed).splitlines()[1:] == ["    one", "    two"]
    assert describe(failed, [failed])["log"] == "one\ntwo"


@pytest.mark.slow
def test_memory_that_cannot_be_kept_is_not_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    worker = Worker(replace(SMALL, variant="fp32-kept-memory"), tmp_path)
    try:
        assert "not where MALLOC_… or GLIBC_TUNABLES is set" in worker.prepare()["error"]
    finally:
        worker.stop()


@pytest.mark.parametrize(
    ("times", "passes"), [([4, 3, 2, 2, 2, 1], 5), ([1, 1, 1, 1], 3), ([50, 40, 30], 2), ([2, 2.5, 1, 1.5, 1.2, 1], 5)]
)
def test_passes_are_repeated_until_they_get_no_faster(
    times: list[float], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(times)
    monkeypatch.setattr("iwin.bench.worker.time_round", lambda _job, _subject: [next(left)])
    assert settle(SMALL, Subject(torch.Tensor, torch.Tensor, 1, 1)) == times[:passes]


@pytest.mark.parametrize(("takes", "passes"), [(0.2, 3), (0.6, 1), (0.125, 4)])
def test_passes_fill_a_turn(takes: float, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.bench.worker.seconds", lambda _step: takes)
    assert time_round(SMALL, Subject(torch.Tensor, torch.Tensor, 1, 1)) == [takes] * passes


def test_variables_that_change_what_is_measured_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "0")
    monkeypatch.setenv("A_SECRET", "word")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found = record(["iwin"], [entry("fp32", [[1.0]])], {})["environment"]
    assert found["MALLOC_MMAP_MAX_"] == "0"
    assert "A_SECRET" not in found
    assert "OMP_WAIT_POLICY" not in found, "the program sets it for all"


@pytest.mark.slow
def test_what_differs_from_the_reference_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCES, "bf16", 1e-9)
    said: list[str] = []
    entries = measure([replace(SMALL, variant=name) for name in ("fp32", "bf16")], rounds=1, say=said.append)
    assert len(entries[0].rounds) == 1
    assert not entries[1].rounds
    assert not entries[1].settling
    assert "differs from the reference" in entries[1].error


@pytest.mark.slow
def test_a_variant_that_fails_does_not_cost_the_others() -> None:
    said: list[str] = []
    jobs = [replace(SMALL, variant="fp32"), replace(SMALL, variant="bf16", model="none")]
    entries = measure(jobs, rounds=1, say=said.append)
    assert len(entries[0].rounds) == 1
    assert entries[1].error
    assert any(line.startswith("bf16 is not timed") for line in said)


@pytest.mark.slow
def test_a_failure_comes_with_the_end_of_its_traceback() -> None:
    said: list[str] = []
    jobs = [replace(SMALL, variant="fp32"), replace(SMALL, variant="bf16", batch=-1)]
    entries = measure(jobs, rounds=1, say=said.append)
    assert "RuntimeError" in entries[1].log
    assert "File" in entries[1].log
    assert any(entries[1].log.splitlines()[-1] in line for line in said)


@pytest.mark.slow
def test_growth_has_a_point_for_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.bench.growth.FACTORS", {"frames": (0.5, 1), "pixels": (0.5, 1), "batch": (1,)})
    said: list[str] = []
    found = measure_growth(SMALL, ["fp32"], rounds=1, say=said.append)
    assert [line for line in said if line.startswith("growth")] == [
        *("growth: frames 2", "growth: frames 4", "growth: side 16", "growth: side 32", "growth: clips at once 1")
    ]
    assert [(axis, point[axis]) for axis, points in found.items() for point in points] == [
        ("frames", 2),
        ("frames", 4),
        ("pixels", 256),
        ("pixels", 1024),
        ("batch", 1),
    ]


@pytest.mark.slow
def test_growth_says_what_could_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.bench.growth.FACTORS", {"frames": (1,), "pixels": (), "batch": ()})
    said: list[str] = []
    found = measure_growth(replace(SMALL, model="none"), ["fp32"], rounds=1, say=said.append)
    assert found == {"frames": [], "pixels": [], "batch": []}
    assert any("fp32 is not timed: there is no video model none" in line for line in said)
