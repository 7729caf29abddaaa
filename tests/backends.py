"""Reading frames through each decoder, torchcodec in a process of its own.

torchcodec takes FFmpeg's libraries from the system. Where there are none, those that PyAV's wheel carries do: a folder
gives them the names that torchcodec looks for, and PyAV, imported first, brings what they in turn need.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import files
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from iwin.data.decode import Box, DecoderName, Framing, open_video

LIBRARIES = ("avutil", "avcodec", "avformat", "avdevice", "avfilter", "swscale", "swresample")


def read_frames(
    path: str, orders: Sequence[Sequence[int]], *, decoder: DecoderName, box: Box | None = None
) -> tuple[int, bool, list[npt.NDArray[np.uint8]]]:
    """The number of frames, whether PyAV read them, and the frames of each order."""
    with open_video(path, decoder=decoder, strict=decoder == "pyav") as video:  # as training opens them
        frames = [video.get_frames(order, Framing(box)).numpy() for order in orders]
        return video.num_frames, getattr(video._reader, "is_exact", True), frames


def torchcodec_problem() -> str | None:
    """Why torchcodec cannot be used in this process."""
    import av  # noqa: F401  (first, see above)

    from iwin.data.torchcodec import load_problem

    return load_problem()


@contextmanager
def torchcodec_process(folder: Path) -> Iterator[ProcessPoolExecutor]:
    """A process in which torchcodec works, with the FFmpeg of PyAV's wheel; how that is lent is Linux's alone."""
    if sys.platform != "linux":
        pytest.skip("PyAV's FFmpeg is lent to torchcodec by the names that shared libraries have on Linux")
    for file in files("av") or ():
        found = re.fullmatch(r"lib(\w+)-[0-9a-f]+\.so\.(\d+)[.\d]*", file.name)
        if found and found[1] in LIBRARIES:
            (folder / f"lib{found[1]}.so.{found[2]}").symlink_to(file.locate())
    before = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = f"{before}:{folder}" if before else str(folder)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            assert pool.submit(torchcodec_problem).result() is None
            yield pool
    finally:
        if before is None:
            del os.environ["LD_LIBRARY_PATH"]
        else:
            os.environ["LD_LIBRARY_PATH"] = before
