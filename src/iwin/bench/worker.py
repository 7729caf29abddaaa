"""A process that holds one variant and measures it when it is told to.

`python -m iwin.bench.worker` reads a line of JSON, a `Job`, makes the variant ready and answers with a line about it;
for every further line on its input it times passes and answers with their seconds: for "settle" as many as it takes
until they get no faster, for "round" a round's. It ends with its input.
"""

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TextIO

import torch
from torch import Tensor

from iwin.bench.machine import forget_peak, resident_bytes
from iwin.bench.subjects import Job, Subject, build_subject
from iwin.bench.variants import Variant, find_variant
from iwin.errors import ConfigError, IwinError
from iwin.models.native.block import forget_room
from iwin.process import keep_memory

STEADY = 0.03
"""A variant is steady when twice in a row its passes are not faster than all before them by this share."""

PATIENCE = 60
"""Seconds after which a variant is taken as it is."""

TURN = 0.5
"""Seconds that the passes of a turn take at least: a short pass by itself tells of caches that others have used."""

PEAKS = 3
"""Passes whose memory is looked at."""


def main() -> int:
    """Serve one job."""
    answers = os.fdopen(os.dup(1), "w")  # what a library prints must not come between the answers
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    job = Job(**request["job"])
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        variant = find_variant(job.variant)
        if variant.how == "kept-memory" and not keep_memory():
            raise ConfigError(
                "memory is kept by GNU's C library alone, and not where MALLOC_… or GLIBC_TUNABLES is set"
            )
        subject = build_subject(variant, job)
        answer(answers, prepare(variant, job, subject, Path(request["output"])))
        for line in sys.stdin:
            work = settle if json.loads(line) == "settle" else time_round
            answer(answers, {"seconds": work(job, subject)})
    except (IwinError, torch.OutOfMemoryError) as error:
        answer(answers, {"error": str(error).splitlines()[0]})
    except Exception as error:  # one variant that fails must not cost the others
        traceback.print_exc()
        answer(answers, {"error": f"{type(error).__name__}: {error}".splitlines()[0]})
    return 0


def answer(answers: TextIO, value: dict[str, Any]) -> None:
    """Write a line of JSON."""
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def prepare(variant: Variant, job: Job, subject: Subject, output: Path) -> dict[str, Any]:
    """First passes: what comes out, for the check of equality, and memory."""
    begun = time.perf_counter()
    result = subject.first()
    first = time.perf_counter() - begun
    if variant.family != "matmul":
        gradients = subject.gradients if job.train else torch.empty(0)
        result = result.float().cpu()
        if (
            variant.family == "iwin" and not job.train
        ):  # what is timed is a later pass: of a graph, one that is replayed
            subject.step()
            result = subject.step().float().cpu()
        torch.save({"result": result, "gradients": gradients}, output)
        del gradients
    del result
    subject.step()
    told = {
        "job": asdict(job),
        "clips": subject.clips,
        "macs": subject.macs,
        "first_seconds": first,
        **peak_memory(job, subject),
        "saved_bytes": saved_bytes(subject) if subject.model else None,
    }
    if variant.keeps_memory:
        told["peak_bytes"] = None
    if job.device == "cuda":
        torch.cuda.empty_cache()  # the variants share the card
    return told


def peak_memory(job: Job, subject: Subject) -> dict[str, int]:
    """The most bytes in use during a pass: above those of the model and its clips, and of the whole process.

    A process's resident memory on a CPU, the allocator's on a GPU: of `PEAKS` passes the median, and of the whole
    process the most. They are not the first passes, so libraries are loaded and compilers are done. A training step
    begins without gradients and with the optimiser's state.
    """
    found = [one_peak(job, subject) for _ in range(PEAKS)]
    return {
        "peak_bytes": int(median(above for above, _ in found)),
        "process_peak_bytes": max(all_ for _, all_ in found),
    }


def one_peak(job: Job, subject: Subject) -> tuple[int, int]:
    """The same of one pass."""
    if subject.model is not None:
        subject.model.zero_grad(set_to_none=True)
    if job.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        subject.step()
        peak = torch.cuda.max_memory_allocated()
    else:
        forget_room()  # else what a pass keeps for the next one would be no part of it
        forget_peak()
        before = resident_bytes()
        subject.step()
        peak = resident_bytes(peak=True)
    return peak - before, peak


def saved_bytes(subject: Subject) -> int:
    """Bytes that autograd keeps for the backward pass of a step: each storage once, without weights."""
    assert subject.model is not None
    weights = {parameter.untyped_storage().data_ptr() for parameter in subject.model.parameters()}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses from being used again
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        if (address := tensor.untyped_storage().data_ptr()) not in weights:
            kept.setdefault(address, tensor)
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        nonlocal total
        if not total:  # the backward pass begins; what recomputation keeps from here on is another matter
            total = sum(kept_tensor.untyped_storage().nbytes() for kept_tensor in kept.values())
            kept.clear()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        subject.step()
    return total


def settle(job: Job, subject: Subject) -> list[float]:
    """Seconds of the passes until they get no faster.

    The first ones can take twice as long as later ones: large tensors take pages that the system, or the host of a
    virtual machine, has yet to provide.
    """
    times: list[float] = []
    level = 0  # passes in a row that were not faster
    while level < 2 and sum(times) < PATIENCE:
        took = median(time_round(job, subject))
        level = level + 1 if times and took > (1 - STEADY) * min(times) else 0
        times.append(took)
    return times


def time_round(job: Job, subject: Subject) -> list[float]:
    """Seconds of each pass of a round, as many as fill a turn."""
    times: list[float] = []
    if job.device != "cuda":
        while sum(times) < TURN:
            times.append(seconds(subject.step))
        return times
    begun = time.perf_counter()
    subject.step()  # what others did in between has cooled the caches and the clock
    torch.cuda.synchronize()
    passes = math.ceil(TURN / (time.perf_counter() - begun))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(passes + 1)]
    events[0].record()
    for event in events[1:]:
        subject.step()
        event.record()
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)]
    torch.cuda.empty_cache()
    return times


def seconds(step: Callable[[], Tensor]) -> float:
    """Seconds of one pass."""
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
