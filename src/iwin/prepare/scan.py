"""Look into many video files at the same time, and remember what was seen."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from iwin.data.annotations import Sample
from iwin.data.workers import Lost
from iwin.prepare.journal import Journal
from iwin.prepare.pool import run_all
from iwin.prepare.probe import Depth, Probe, Problem, VideoFacts, probe

_DEPTHS: tuple[Depth, ...] = ("open", "places", "all")

_NOT_FINAL: tuple[Problem, ...] = ("hang", "crash")
"""What may have been the machine's fault: these files are looked at again."""


def scan(
    samples: Sequence[Sample],
    *,
    depth: Depth = "places",
    digests: bool = False,
    processes: int,
    time_limit: float = 60.0,
    journal: Path | None = None,
) -> Iterator[VideoFacts]:
    """Look into files, each once, whatever befalls the decoder.

    Args:
        samples: the videos, no path twice.
        depth: what is decoded of each.
        digests: whether files that have their size in common with another are hashed, so that equal ones are found.
        processes: how many files are looked into at the same time.
        time_limit: seconds without progress after which a decode is killed and its file called hung.
        journal: a file that keeps what was found out. Files in it whose size and time have not changed are not looked
            into again, except those at which the decoder hung or crashed.

    Yields:
        The facts of each file, in the order in which they become known.

    Raises:
        DataError: if the journal cannot be written.
    """
    stated = [VideoFacts.of_sample(sample) for sample in samples]
    sizes = Counter(facts.size for facts in stated if facts.size)
    with Journal(journal) if journal is not None else nullcontext() as known:
        waiting: list[tuple[VideoFacts, Probe]] = []
        for facts, sample in zip(stated, samples, strict=True):
            digest = digests and facts.size is not None and sizes[facts.size] > 1
            seen = _recall(facts, known, depth=depth, digest=digest) if known is not None else None
            if facts.problem is not None or seen is not None:
                yield seen or facts
            else:
                waiting.append((facts, Probe(sample, depth, digest)))
        jobs = [job for _, job in waiting]
        for index, found in run_all(probe, jobs, processes=processes, time_limit=time_limit):
            facts = _add(waiting[index][0], found)
            if known is not None:
                entry = {name: value for name, value in facts.to_dict().items() if value is not None}
                known.add(str(Path(facts.path).absolute()), {**entry, "depth": depth})
            yield facts


def _add(facts: VideoFacts, found: dict[str, Any] | Lost) -> VideoFacts:
    if not isinstance(found, Lost):
        return replace(facts, **found)
    problems: dict[str, Problem] = {"hang": "hang", "crash": "crash", "error": "undecodable"}
    return replace(facts, problem=problems[found.kind], reason=f"{facts.path}: {found.reason}; take it off the list")


def _recall(facts: VideoFacts, known: Journal, *, depth: Depth, digest: bool) -> VideoFacts | None:
    """What the journal says of a file, if that is still true and all that is asked for."""
    entry = known.entries.get(str(Path(facts.path).absolute()))
    if entry is None or facts.mtime_ns is None or entry.get("mtime_ns") != facts.mtime_ns:
        return None
    if entry.get("size") != facts.size:
        return None
    names = {field.name for field in fields(VideoFacts)}
    seen = VideoFacts(**{name: value for name, value in entry.items() if name in names})
    if seen.problem in _NOT_FINAL or (digest and seen.digest is None):
        return None
    deep_enough = _DEPTHS.index(entry.get("depth", "open")) >= _DEPTHS.index(depth)
    return replace(seen, path=facts.path) if deep_enough else None
