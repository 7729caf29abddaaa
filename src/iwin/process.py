"""What the `iwin` command sets for its process, and a library must not: how threads wait, what is done with memory."""

import ctypes
import os
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt
_MOST = 2**31 - 1  # bytes; it takes no more
_MOST_MAPPED = 2**25  # bytes; older versions take no higher threshold for pieces that are mapped by themselves


def spare_cores() -> None:
    """Have PyTorch's threads, where they wait for each other, spin for a moment and then sleep.

    By themselves they spin for milliseconds, which starves the decoders that they share the cores with. If they sleep
    at once, waking them costs small layers more than their work. GNU's OpenMP, which PyTorch has on Linux, takes a
    number of turns, here about a tenth of a millisecond. Whoever has set OMP_WAIT_POLICY is left alone. It is read when
    PyTorch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def keep_memory() -> bool:
    """Have the C library keep what is freed, up to 2 GB in one piece, for whoever asks for memory next.

    By itself it gives large pieces back to the system, which then has to find and clear their pages anew. A training
    step on a CPU asks for the same memory as the step before it, and spends up to a fifth of its time on that. Whoever
    has set the allocator by MALLOC_… or GLIBC_TUNABLES is left alone, and so are other C libraries than GNU's.

    Returns:
        Whether it does.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # To set one threshold stops the other from rising by itself; where it then stays low, every tensor would be mapped.
    if not (mallopt(_MMAP_THRESHOLD, _MOST) or mallopt(_MMAP_THRESHOLD, _MOST_MAPPED)):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _MOST))
