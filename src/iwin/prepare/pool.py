"""Work on many items in processes of their own, any of which may hang or crash without harm to the others.

    for index, result in run_all(measure, paths, processes=8, time_limit=60):
        if isinstance(result, Lost):
            print(paths[index], result.reason)

Unlike in training, an item is tried once: a file that costs a process its life is what the user wants to know of.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from iwin.data.workers import Lost, Workers

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_processes() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], *, processes: int, time_limit: float
) -> Iterator[tuple[int, Result | Lost]]:
    """Apply a function to every item, some at the same time.

    Leaving the iteration early, by an exception or Ctrl-C, ends the processes at once.

    Args:
        function: what to do; a module's function or a `functools.partial` of one, since processes import it.
        items: what to do it on.
        processes: how many work at the same time.
        time_limit: seconds that may pass without a result or a `report_progress` before a process is killed.

    Yields:
        The place of an item and its result, in the order in which they are done. An error that the function raises is a
        result too: `Lost`.
    """
    count = min(processes, len(items))
    waiting = iter(enumerate(items))
    with Workers(partial(_attempt, function), count=count, time_limit=time_limit, tries=1) as workers:
        for _ in range(count):
            workers.submit(*next(waiting))
        left = len(items)
        while left:
            for index, result in workers.receive():
                left -= 1
                yield index, result  # noted before more is begun: a run that dies loses one result a process at most
                following = next(waiting, None)
                if following is not None:
                    workers.submit(*following)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | Lost:
    try:
        return function(item)
    except Exception as error:  # whatever a file does to a library is a matter of that file
        return Lost("error", f"{type(error).__name__}: {error}")
