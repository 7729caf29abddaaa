"""How a command finds the processes that run beside it, and its own GPU.

torchrun, `accelerate launch` and everything like them leave RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT
in the environment, where PyTorch reads them. Slurm and MPI leave the same facts under names of their own.
"""

import argparse
import os
import re
import time
from collections.abc import Mapping, MutableMapping

from iwin.errors import ConfigError

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")

_GRACE = 2.0
"""Seconds that other processes than the first wait before they tell of an error."""


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """`--launcher` and `--local_rank`."""
    parser.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        help="what started this process; only slurm and mpi need to be named, torchrun is found by itself",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, metavar="N", help="set by old launchers")


def join_processes(args: argparse.Namespace) -> None:
    """Bring what the launcher left in the environment into the form that PyTorch reads; before PyTorch is imported.

    Raises:
        ConfigError: if the launcher that was named did not start this process.
    """
    os.environ.update(launch_environment(args.launcher, local_rank=args.local_rank, environ=os.environ))


def launch_environment(launcher: str | None, *, local_rank: int | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that PyTorch reads and that the launcher left under other names, or as an option.

    Args:
        launcher: one of `LAUNCHERS`, or None where none was named.
        local_rank: the process among those of its machine, from launchers that pass it as an option.
        environ: the environment.

    Raises:
        ConfigError: if the launcher that was named did not start this process.
    """
    match launcher:
        case "slurm":
            return _slurm_environment(environ)
        case "mpi":
            return _mpi_environment(environ)
        case "pytorch":
            if not {"RANK", "WORLD_SIZE"} <= environ.keys():
                raise ConfigError(
                    "--launcher pytorch: this process was not started by torchrun, which sets RANK and WORLD_SIZE; "
                    "leave --launcher out, or start with torchrun or tools/dist_train.sh and tools/dist_test.sh"
                )
            return {"LOCAL_RANK": str(local_rank or 0)} if "LOCAL_RANK" not in environ else {}
    return {}


def _slurm_environment(environ: Mapping[str, str]) -> dict[str, str]:
    def slurm(name: str) -> str:
        if name not in environ:
            raise ConfigError(f"--launcher slurm: {name} is not set; start with srun or tools/slurm_train.sh")
        return environ[name]

    # Jobs that share a machine must not share a port; all tasks of a job find the same one.
    port = 10_000 + (int(environ.get("SLURM_JOB_ID", 0)) + int(environ.get("SLURM_STEP_ID", 0))) % 20_000
    nodes = environ.get("SLURM_STEP_NODELIST") or slurm("SLURM_NODELIST")
    return {
        "RANK": slurm("SLURM_PROCID"),
        "WORLD_SIZE": slurm("SLURM_NTASKS"),
        "LOCAL_RANK": slurm("SLURM_LOCALID"),
        "MASTER_ADDR": environ.get("MASTER_ADDR", first_host(nodes)),
        "MASTER_PORT": environ.get("MASTER_PORT", str(port)),
        "OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", environ.get("SLURM_CPUS_PER_TASK", "1")),
    }


def first_host(nodes: str) -> str:
    """The first machine of a Slurm node list: "gpu003" of "gpu[003-006,010],cpu1"."""
    head = re.match(r"(\[[^\]]*\]|[^,\[])+", nodes)
    if head is None:
        raise ConfigError(f"--launcher slurm: the node list {nodes!r} names no machine; set MASTER_ADDR")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", head[0])


_MPI = {
    "RANK": ("OMPI_COMM_WORLD_RANK", "PMI_RANK"),
    "WORLD_SIZE": ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
    "LOCAL_RANK": ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"),
    "LOCAL_WORLD_SIZE": ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"),
}


def _mpi_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, theirs in _MPI.items():
        values = [environ[their] for their in theirs if their in environ]
        if not values:
            raise ConfigError(f"--launcher mpi: {theirs[0]} is not set; start with mpirun")
        found[name] = values[0]
    several = found["LOCAL_WORLD_SIZE"] != found["WORLD_SIZE"]
    if several and "MASTER_ADDR" not in environ:
        raise ConfigError("--launcher mpi: set MASTER_ADDR to the machine of the first process")
    found["MASTER_ADDR"] = environ.get("MASTER_ADDR", "127.0.0.1")
    found["MASTER_PORT"] = environ.get("MASTER_PORT", "29500")
    found["OMP_NUM_THREADS"] = environ.get("OMP_NUM_THREADS", "1")
    return found


def choose_gpu(ids: list[int] | None, count: int | None, environ: MutableMapping[str, str]) -> list[str]:
    """Honour --gpu-ids and --gpus; before PyTorch is imported, which reads CUDA_VISIBLE_DEVICES once.

    Args:
        ids: numbers of GPUs, counted within CUDA_VISIBLE_DEVICES where that is set.
        count: number of GPUs.
        environ: the environment, in which the choice is made.

    Returns:
        What is to be said about options without effect.

    Raises:
        ConfigError: if they ask for several GPUs but there is one process, or for a GPU that is not there.
    """
    if ids is None and count is None:
        return []
    if int(environ.get("WORLD_SIZE", 1)) > 1:
        return ["--gpus and --gpu-ids have no effect here: the launcher gives every process its GPU"]
    several = count if ids is None else len(ids)
    if several != 1:
        raise ConfigError(
            f"a process uses one GPU, not {several}; start one process a GPU with `bash tools/dist_train.sh CONFIG "
            f"{several} …` or `torchrun --nproc-per-node {several} -m iwin train CONFIG …`"
        )
    if ids is None:
        return []
    visible = environ["CUDA_VISIBLE_DEVICES"].split(",") if environ.get("CUDA_VISIBLE_DEVICES") else None
    if visible and not 0 <= ids[0] < len(visible):
        raise ConfigError(f"--gpu-ids {ids[0]}: CUDA_VISIBLE_DEVICES lists {len(visible)} GPUs, counted from 0")
    environ["CUDA_VISIBLE_DEVICES"] = visible[ids[0]] if visible else str(ids[0])

    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"--gpu-ids {ids[0]}: there is no such GPU here; leave it out to run on what there is")
    return []


def is_first() -> bool:
    """Whether this is the first process of the command, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def let_the_first_speak() -> None:
    """Give the launcher a moment to end this process, unless it is the first.

    A mistake on the command line fails in every process alike. The launcher ends the others as soon as one has failed,
    so only the first tells of it. An error that the first does not have is told after that moment.
    """
    if not is_first():
        time.sleep(_GRACE)
