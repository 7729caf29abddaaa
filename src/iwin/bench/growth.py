"""How speed and memory grow with the frames, the pixels and the number of clips."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from iwin.bench.report import AXES
from iwin.bench.session import Say, complaint, measure
from iwin.bench.subjects import Job

FACTORS = {
    "frames": (1 / 4, 1 / 2, 1, 2, 4),
    "pixels": (1 / 2, 1, 10 / 7, 2, 20 / 7),  # of a side; around 112 these give 160, 224 and 320, too
    "batch": (1 / 4, 1 / 2, 1, 2, 4, 8),
}
"""What is tried, as multiples of the middle."""


def steps(middle: Job) -> dict[str, list[Job]]:
    """The jobs around a middle, one number changed at a time; where a multiple is less than 1, it is 1."""

    def times(number: int, factor: float) -> int:
        return max(1, round(number * factor))

    found = {
        "frames": [replace(middle, frames=times(middle.frames, factor)) for factor in FACTORS["frames"]],
        "pixels": [
            replace(middle, height=times(middle.height, factor), width=times(middle.width, factor))
            for factor in FACTORS["pixels"]
        ],
        "batch": [replace(middle, batch=times(middle.batch, factor)) for factor in FACTORS["batch"]],
    }
    return {axis: list(dict.fromkeys(jobs)) for axis, jobs in found.items()}


def measure_growth(middle: Job, variants: Sequence[str], *, rounds: int, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Measure variants with frames, side and batch changed one at a time around a job.

    Returns:
        For "frames", "pixels" and "batch": points with that number, "size" (the side of a frame, or height x width),
        "variant", "seconds" of a clip (median over rounds), "seconds_min", "seconds_max" and "peak_bytes". What could
        not run is said and has no point.
    """
    result: dict[str, list[dict[str, Any]]] = {}
    for axis, jobs in steps(middle).items():
        result[axis] = []
        for job in jobs:
            value = {"frames": job.frames, "pixels": job.height * job.width, "batch": job.batch}[axis]
            size = f"{job.height}" if job.height == job.width else f"{job.height}x{job.width}"
            say(f"growth: {AXES[axis]} {size if axis == 'pixels' else value}")
            entries = measure([replace(job, variant=name) for name in variants], rounds=rounds, say=lambda _: None)
            for entry in entries:
                if entry.error:
                    say(complaint(entry))
            result[axis] += [
                {
                    "variant": entry.job.variant,
                    axis: value,
                    "size": size,
                    "seconds": 1 / median(entry.speeds),
                    "seconds_min": 1 / max(entry.speeds),
                    "seconds_max": 1 / min(entry.speeds),
                    "peak_bytes": entry.facts["peak_bytes"],
                }
                for entry in entries
                if entry.rounds
            ]
    return result
