"""A process that holds one variant and measures it when it is told to.

`python -m iwin.bench.worker` reads a line of JSON, a `Job`, makes the variant ready and answers with a line about it;
for every further line on its input it times one round and answers with the seconds of each pass. It ends with its
input.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from iwin.bench.machine import forget_peak, resident_bytes
from iwin.bench.subjects import Job, Subject, build_subject
from iwin.bench.variants import Variant, find_variant
from iwin.errors import IwinError


def main() -> int:
    """Serve one job."""
    answers = os.fdopen(os.dup(1), "w")  # what a library prints must not come between the answers
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    job = Job(**request["job"])
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        variant = find_variant(job.variant)
        subject = build_subject(variant, job)
        answer(answers, prepare(variant, job, subject, Path(request["output"])))
        for _ in sys.stdin:
            answer(answers, {"seconds": time_round(job, subject)})
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
        torch.save({"result": result.float().cpu(), "gradients": gradients}, output)
        del gradients
    del result
    subject.step()
    told = {
        "job": asdict(job),
        "clips": subject.clips,
        "macs": subject.macs,
        "first_seconds": first,
        "saved_bytes": saved_bytes(subject) if subject.model else None,
        **peak_memory(job, subject),
    }
    if variant.keeps_memory:
        told["peak_bytes"] = None
    if job.device == "cuda":
        torch.cuda.empty_cache()  # the variants share the card
    return told


def peak_memory(job: Job, subject: Subject) -> dict[str, int]:
    """Bytes of a pass above those of the model and its clips, and all that the process ever took.

    A process's resident memory on a CPU, the allocator's on a GPU. The pass is not the first one, so libraries are
    loaded and compilers are done. A training step begins without gradients and with the optimiser's state.
    """
    if subject.model is not None:
        subject.model.zero_grad(set_to_none=True)
    if job.device == "cuda":
        torch.cuda.synchronize()
        ever = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        subject.step()
        return {"peak_bytes": torch.cuda.max_memory_allocated() - before, "process_peak_bytes": ever}
    ever = resident_bytes(peak=True)
    forget_peak()
    before = resident_bytes()
    subject.step()
    return {"peak_bytes": resident_bytes(peak=True) - before, "process_peak_bytes": ever}


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


def time_round(job: Job, subject: Subject) -> list[float]:
    """Seconds of each pass of a round."""
    if job.device != "cuda":
        return [seconds(subject.step) for _ in range(job.iterations)]
    subject.step()  # what others did in between has cooled the caches and the clock
    events = [torch.cuda.Event(enable_timing=True) for _ in range(job.iterations + 1)]
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
