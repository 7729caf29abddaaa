"""Devices, processes, precision and trackers."""

import os
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import get_available_trackers

from iwin.config import schema
from iwin.errors import ConfigError
from iwin.models.native.common import has_half


def device_named(name: str | torch.device | None) -> torch.device:
    """A device by PyTorch's name for it, such as "cuda:0"; None takes a GPU where there is one.

    Raises:
        ConfigError: if there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device {str(name)!r} cannot be used here ({reason}); choose cpu, or leave it out") from None
    return device


def slow_precision(device: torch.device, precision: str) -> list[str]:
    """What to tell of a precision, "bf16", "fp16" or "no", that is slower on a device than full precision, if it is.

    A CPU that does not multiply in half precision turns every number around, and was seen to take ten times as long.
    """
    if precision == "no" or device.type != "cpu" or not torch.backends.mkldnn.is_available() or has_half(precision):
        return []
    return [f"this CPU does not multiply in {precision}, which is much slower here than --precision no"]


def build_accelerator(
    config: schema.RunConfig, *, precision: str | None = None, cpu: bool = False, track_in: Path | None = None
) -> Accelerator:
    """Devices, processes and precision.

    Args:
        config: the run; its `optim.mixed_precision` asks for bf16 (fp16 where a GPU has no bf16). A CPU keeps full
            precision unless `precision` says otherwise: few are faster in bf16.
        precision: "bf16", "fp16" or "no"; overrules the config.
        cpu: stay on the CPU even where there is a GPU.
        track_in: folder for the files of the config's experiment trackers; None runs without trackers.

    Raises:
        ConfigError: if a tracker is not installed.
    """
    trackers = list(config.trackers) if track_in is not None else []
    missing = set(trackers) - {tracker.value for tracker in get_available_trackers()}
    if missing:
        raise ConfigError(
            f"log_config.hooks: the tracker {min(missing)} is not installed; `pip install {min(missing)}`, or leave "
            "its hook out"
        )
    if precision is None:
        precision = "no"
        if config.optim.mixed_precision and torch.cuda.is_available() and not cpu:
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and (
        torch.backends.mps.is_available() or not torch.accelerator.is_available()
    ):
        cpu = True  # Accelerate would let each of several processes run alone where none has a GPU of its own
    ddp = DistributedDataParallelKwargs(find_unused_parameters=config.find_unused_parameters)
    accelerator = Accelerator(
        mixed_precision=precision, cpu=cpu, kwargs_handlers=[ddp], log_with=trackers or None, project_dir=track_in
    )
    if track_in is not None and trackers:
        accelerator.init_trackers(track_in.name)
    return accelerator
