"""How speed and memory grow with the frames, the pixels and the number of clips."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from iwin.bench.session import Say, measure
from iwin.bench.subjects import Job

STEPS = {"frames": (4, 8, 16, 32, 64), "side": (56, 112, 160, 224, 320), "batch": (1, 2, 4, 8)}
"""What is tried: frames, side of a square frame in pixels, clips at once."""


def measure_growth(base: Job, variants: Sequence[str], *, rounds: int, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Measure variants with frames, side and batch changed one at a time around a job of 16 frames of 112 x 112.

    Returns:
        For "frames", "pixels" and "batch": points with that number, "variant", "seconds" of a clip (median over rounds)
        and "peak_bytes". What could not run has no point.
    """
    small = replace(base, frames=16, height=112, width=112, batch=1)
    steps = {
        "frames": [replace(small, frames=frames) for frames in STEPS["frames"]],
        "pixels": [replace(small, height=side, width=side) for side in STEPS["side"]],
        "batch": [replace(small, batch=batch) for batch in STEPS["batch"]],
    }
    result: dict[str, list[dict[str, Any]]] = {}
    for axis, jobs in steps.items():
        result[axis] = []
        for job in jobs:
            value = {"frames": job.frames, "pixels": job.height * job.width, "batch": job.batch}[axis]
            say(f"growth with {axis}: {value}")
            entries = measure([replace(job, variant=name) for name in variants], rounds=rounds, say=lambda _: None)
            result[axis] += [
                {
                    "variant": entry.job.variant,
                    axis: value,
                    "seconds": 1 / median(entry.speeds),
                    "peak_bytes": entry.facts["peak_bytes"],
                }
                for entry in entries
                if entry.rounds
            ]
    return result
