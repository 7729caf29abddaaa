import contextlib

import pytest

from iwin.cli import main
from iwin.cli.launch import choose_gpu, first_host, launch_environment
from iwin.errors import ConfigError

SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "gpu[003-004]",
    "SLURM_JOB_ID": "1234",
    "SLURM_CPUS_PER_TASK": "5",
}


def environment(launcher: str | None, **environ: str) -> dict[str, str]:
    return launch_environment(launcher, local_rank=None, environ=environ)


def test_slurm_says_who_the_processes_are() -> None:
    assert environment("slurm", **SLURM) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu003",
        "MASTER_PORT": "11234",
        "OMP_NUM_THREADS": "5",
    }


def test_what_the_user_sets_comes_before_slurms() -> None:
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "2"}
    assert environment("slurm", **SLURM, **given).items() >= given.items()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("a,b", "a"),
        ("gpu[003-006,010],cpu1", "gpu003"),
        ("node-1-[7,9]", "node-1-7"),
        ("rack[1-2]n[05-06]", "rack1n05"),
        ("n[12]-ib,n3", "n12-ib"),
    ],
)
def test_the_first_machine_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_mpi_says_who_the_processes_are() -> None:
    mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    found = environment("mpi", **mpi, OMPI_COMM_WORLD_LOCAL_SIZE="2")
    assert [found[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")] == ["1", "2", "1", "127.0.0.1"]
    with pytest.raises(ConfigError, match="set MASTER_ADDR"):
        environment("mpi", **mpi, OMPI_COMM_WORLD_LOCAL_SIZE="1")


@pytest.mark.parametrize("launcher", ["slurm", "mpi", "pytorch"])
def test_a_launcher_that_did_not_start_the_process_is_told_of(launcher: str) -> None:
    with pytest.raises(ConfigError, match=f"--launcher {launcher}: .* start with"):
        environment(launcher)


def test_torchrun_needs_no_help_and_old_launchers_pass_the_local_rank() -> None:
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert environment(None, **torchrun) == environment("pytorch", **torchrun) == {}
    old = {"RANK": "1", "WORLD_SIZE": "2"}
    assert launch_environment("pytorch", local_rank=1, environ=old) == {"LOCAL_RANK": "1"}


# ------------------------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize("count", [None, 1])
def test_one_process_needs_no_choice(count: int | None) -> None:
    environ: dict[str, str] = {}
    assert choose_gpu(None, count, environ) == []
    assert environ == {}


@pytest.mark.parametrize(("ids", "count"), [([0, 1], None), (None, 2), (None, 0)])
def test_a_process_uses_one_gpu(ids: list[int] | None, count: int | None) -> None:
    with pytest.raises(ConfigError, match=r"one GPU, not .* tools/dist_train\.sh CONFIG"):
        choose_gpu(ids, count, {})


def test_among_several_processes_the_launcher_chooses() -> None:
    environ = {"WORLD_SIZE": "2"}
    (note,) = choose_gpu([1], None, environ)
    assert "no effect" in note
    assert "CUDA_VISIBLE_DEVICES" not in environ


def test_a_gpu_is_chosen_among_the_visible_ones() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "4,6"}
    with pytest.raises(ConfigError, match="no such GPU here"):  # where these tests run by default
        choose_gpu([1], None, environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "6"
    with pytest.raises(ConfigError, match="lists 2 GPUs"):
        choose_gpu([2], None, {"CUDA_VISIBLE_DEVICES": "4,6"})


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("rank", "waits"), [("0", 0), ("1", 1)])
@pytest.mark.parametrize("mistake", [["trainn"], ["flops", "iwin_tinny"]])
def test_the_first_process_tells_of_a_mistake(
    rank: str, waits: int, mistake: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said_before_waiting: list[str] = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("time.sleep", lambda _: said_before_waiting.append(capsys.readouterr().err))
    with contextlib.suppress(SystemExit):
        main(mistake)
    assert said_before_waiting == [""] * waits
    assert mistake[-1] in capsys.readouterr().err
