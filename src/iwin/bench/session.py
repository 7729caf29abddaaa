"""One measurement: processes for all variants, the check that they compute the same, rounds in turn, the record."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from iwin.bench.subjects import Job
from iwin.bench.variants import Variant, baseline, find_variant

TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2, "bf16-cast": 5e-2, "fp16": 1e-2}
"""Largest difference from the reference in fp32 that a variant may have, by its precision: of the logits, over their
largest one; in training of the loss, over the loss, and of all gradients as one vector, by its length."""

LOG_LINES = 12
"""How many of the last lines that a process wrote are kept if it fails: the end of a traceback."""

Say = Callable[[str], None]


@dataclass
class Entry:
    """What is known of one variant.

    Attributes:
        job: what was asked.
        facts: what its process told when it was ready (`worker.prepare`).
        error: why it was not measured; empty if it was.
        log: the last lines that its process wrote, if that failed.
        difference: its largest difference from the reference, as in `TOLERANCES`; None for models of other authors.
        settling: seconds of the passes before the rounds, until they got no faster.
        rounds: seconds of each pass, round by round.
    """

    job: Job
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    log: str = ""
    difference: float | None = None
    settling: list[float] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def variant(self) -> Variant:
        """The variant."""
        return find_variant(self.job.variant)

    @property
    def speeds(self) -> list[float]:
        """Clips a second in each round, by the median of its passes."""
        return [self.facts["clips"] / median(seconds) for seconds in self.rounds]


class Worker:
    """The process of one variant.

    Args:
        job: what it measures.
        scratch: folder for what it computes.
    """

    def __init__(self, job: Job, scratch: Path) -> None:
        self.output = scratch / f"{job.variant}.pt"
        self.log = scratch / f"{job.variant}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "iwin.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.job = job

    def prepare(self) -> dict[str, Any]:
        """Make the variant ready; what `worker.prepare` tells."""
        return self.ask({"job": asdict(self.job), "output": str(self.output)})

    def ask(self, message: object) -> dict[str, Any]:
        """Send a line; the answer, or `{"error": …, "log": …}` if the variant failed or its process ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:  # it ended before it was asked
            line = ""
        answer = json.loads(line) if line else {"error": f"its process ended with {ending(self.process.wait())}"}
        if "error" in answer:
            answer["log"] = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return answer

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        with suppress(BrokenPipeError):  # a line that it never read
            self.process.communicate()


def ending(status: int) -> str:
    """How a process ended."""
    if status >= 0:
        return f"status {status}"
    name = signal.Signals(-status).name
    return f"signal {name}" + (", as the system sends where memory runs out" if name == "SIGKILL" else "")


def measure(jobs: Sequence[Job], *, rounds: int, say: Say) -> list[Entry]:
    """Measure variants in turn: every round, each does its passes while the others wait.

    Nothing is timed before it is known to compute what the reference in fp32 computes, which is started for that even
    if it is not among the jobs; what differs is not timed at all.
    """
    entries = [Entry(job) for job in jobs]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        workers: dict[str, Worker] = {}
        started = with_reference(entries)
        for entry in started:  # all at once, since importing takes longer than most else
            workers[entry.job.variant] = Worker(entry.job, scratch)
            stack.callback(workers[entry.job.variant].stop)
        for entry in started:
            say(f"getting {entry.job.variant} ready")
            entry.facts = workers[entry.job.variant].prepare()
            entry.error, entry.log = entry.facts.pop("error", ""), entry.facts.pop("log", "")
        check(entries, scratch)
        for entry in started:
            if entry.error:
                say(complaint(entry))
        say("waiting until all are steady")
        for entry in entries:
            entry.settling = time_passes(entry, workers[entry.job.variant], "settle", say)
        for index in range(rounds):
            say(f"round {index + 1} of {rounds}")
            for entry in entries:
                if seconds := time_passes(entry, workers[entry.job.variant], "round", say):
                    entry.rounds.append(seconds)
    return entries


def with_reference(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, the reference in fp32 among them if anything is to be compared with it."""
    compared = [entry for entry in entries if entry.variant.family in ("iwin", "reference")]
    if not compared or any(entry.job.variant == "reference-fp32" for entry in entries):
        return list(entries)
    return [Entry(replace(compared[0].job, variant="reference-fp32")), *entries]


def time_passes(entry: Entry, worker: Worker, which: Literal["settle", "round"], say: Say) -> list[float]:
    """Seconds of the passes before the first round, or of a round; none of a variant that has failed."""
    if entry.error:
        return []
    answer = worker.ask(which)
    if "error" in answer:
        entry.error, entry.log = answer["error"], answer["log"]
        say(complaint(entry))
        return []
    found: list[float] = answer["seconds"]
    return found


def complaint(entry: Entry) -> str:
    """Why an entry is not measured, with the last lines that its process wrote."""
    return "\n    ".join([f"{entry.job.variant} is not timed: {entry.error}", *entry.log.splitlines()])


def check(entries: Sequence[Entry], scratch: Path) -> None:
    """Compare what the variants computed with the reference in fp32; those that differ get an error."""
    import torch

    compared = [entry for entry in entries if entry.variant.family in ("iwin", "reference") and not entry.error]
    if not compared:
        return
    path = scratch / "reference-fp32.pt"
    if not path.exists():
        for entry in compared:
            entry.error = "the reference in fp32, which says what is right, could not run"
        return
    right = torch.load(path)
    for entry in compared:
        found = torch.load(scratch / f"{entry.job.variant}.pt")
        result, gradients = found["result"] - right["result"], found["gradients"] - right["gradients"]
        entry.difference = (result.abs().max() / right["result"].abs().max()).item()
        if entry.job.train:
            entry.difference = max(entry.difference, (gradients.norm() / right["gradients"].norm()).item())
        tolerance = TOLERANCES[entry.variant.precision]
        if not entry.difference <= tolerance:
            entry.error = f"differs from the reference by {entry.difference:.2g}, more than {tolerance:.2g}"


def ratios(entry: Entry, base: Entry) -> list[float]:
    """How many times as fast an entry is as another, round by round."""
    return [fast / slow for fast, slow in zip(entry.speeds, base.speeds, strict=False)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def peak_rates(entries: Sequence[Entry]) -> dict[str, float]:
    """Multiply-adds a second of the bare matrix product, by precision: the best round's."""
    return {
        entry.variant.precision: entry.facts["macs"] * max(entry.speeds)
        for entry in entries
        if entry.variant.family == "matmul" and entry.rounds
    }


def describe(entry: Entry, entries: Sequence[Entry]) -> dict[str, Any]:
    """What is told of an entry.

    "job" and what `worker.prepare` told; "difference" as in `Entry`; "settling_seconds" and "rounds_seconds", every
    sample; medians, minima and maxima over the rounds of "clips_per_second" and of "times_NAME", the same over a
    reference's; "memory_of_NAME" and "saved_of_NAME", shares of the reference's bytes; "gmacs_per_second", and
    "share_of_matmul", that over the best round of a matrix product in the same precision. Or "error" and "log".
    """
    told: dict[str, Any] = {"job": asdict(entry.job), **entry.facts, "difference": entry.difference}
    if entry.error or not entry.rounds:
        return {**told, "error": entry.error, "log": entry.log}
    by_name = {other.job.variant: other for other in entries if other.rounds}
    told |= {"settling_seconds": entry.settling, "rounds_seconds": entry.rounds}
    told["clips_per_second"] = summary(entry.speeds)
    for name in dict.fromkeys((baseline(entry.variant), "reference-fp32")):
        if name in by_name and entry.variant.family == "iwin":
            told[f"times_{name}"] = summary(ratios(entry, by_name[name]))
            for share, size in (("memory", "peak_bytes"), ("saved", "saved_bytes")):
                if entry.facts[size] and by_name[name].facts[size]:  # a small pass may fit what is free already
                    told[f"{share}_of_{name}"] = entry.facts[size] / by_name[name].facts[size]
    # A backward pass multiplies twice as much as its forward pass; a bare matrix product has none.
    passes = 3 if entry.job.train and entry.variant.family != "matmul" else 1
    rate = told["clips_per_second"]["median"] * passes * entry.facts["macs"]
    peak = peak_rates(entries).get("bf16" if entry.variant.precision == "bf16-cast" else entry.variant.precision)
    return {**told, "gmacs_per_second": rate / 1e9, "share_of_matmul": rate / peak if peak else None}


def record(command: Sequence[str], entries: Sequence[Entry], growth: dict[str, Any]) -> dict[str, Any]:
    """All that a later reader needs: where, with what, when, every sample."""
    from iwin.bench.machine import describe_machine, environment

    return {
        "command": " ".join(command),
        "environment": environment(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe_machine(),
        "tolerances": TOLERANCES,
        "matmul_gmacs_per_second": {name: rate / 1e9 for name, rate in peak_rates(entries).items()},
        "variants": {entry.job.variant: describe(entry, entries) for entry in entries},
        "growth": growth,
    }
