"""Make a video small and quick to read at random: H.264 with a given short side and dense keyframes.

Training asks for a few frames from somewhere in the middle. A decoder has to begin at the keyframe before them, so the
distance between keyframes decides how many frames it decodes in vain, and the size of the pictures what each costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from iwin.data.decode import open_video
from iwin.data.pictures import Orientation
from iwin.data.workers import report_progress
from iwin.errors import VideoError
from iwin.files import write_atomically
from iwin.prepare.convert import Facts, Task

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""x264's own, from quick to small."""


@dataclass(frozen=True)
class Recipe:
    """What a video is made into.

    Attributes:
        short_side: of the picture, in pixels; even. Smaller videos keep their size.
        keyframe_interval: frames from one keyframe to the next; 1 makes every frame one.
        crf: x264's quality, 0 (lossless) to 51; about 6 less doubles the bytes.
        preset: one of `PRESETS`.
        bframes: pictures in a row that lean on both neighbours: fewer bytes, but slower to read at random.
        fast_decode: leave out the coding tools that are slow to decode (CABAC, deblocking), for some more bytes.
        upscale: enlarge smaller videos to the short side too.
    """

    short_side: int = 256
    keyframe_interval: int = 16
    crf: int = 23
    preset: str = "medium"
    bframes: int = 0
    fast_decode: bool = True
    upscale: bool = False

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for a video of this size: the same aspect as far as even numbers allow."""
        short = min(height, width)
        wanted = self.short_side if self.upscale else min(self.short_side, short)
        return _even(height * wanted / short), _even(width * wanted / short)

    def options(self) -> dict[str, str]:
        """x264's options."""
        options = {"crf": str(self.crf), "preset": self.preset, "x264-params": "scenecut=0:open-gop=0"}
        return options | ({"tune": "fastdecode"} if self.fast_decode else {})


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


@dataclass(frozen=True)
class Timing:
    """When the frames of a video are shown.

    Attributes:
        time_base: seconds of one tick.
        times: of each frame in ticks, rising from 0.
    """

    time_base: Fraction
    times: Sequence[int]


def make_video(task: Task, *, recipe: Recipe) -> Facts:
    """Do a task of `convert` with `transcode`."""
    num_frames = transcode(task.sample.path, task.target, recipe)
    return {"num_frames": num_frames, "num_bytes": task.target.stat().st_size}


def is_whole(target: Path, facts: Facts) -> bool:
    """Whether a video is there as it was made."""
    return target.is_file() and target.stat().st_size == facts["num_bytes"]


def transcode(source: str | Path, target: Path, recipe: Recipe) -> int:
    """Make a video into an MP4 file of its frames, each shown when it was, turned as it was displayed, without sound.

    The result is checked before it gets its name: it has as many frames as the source, of the right size, and its
    first, middle and last decode.

    Args:
        source: the video.
        target: the MP4 file; it is there whole or not at all.
        recipe: what to make.

    Returns:
        Frames in both.

    Raises:
        VideoError: if the source cannot be decoded to its end.
        IwinError: if the file cannot be written.
    """
    with open_video(source) as video:
        num_frames, size, duration = video.num_frames, recipe.size_of(video.height, video.width), video.duration
    timing = _read_timing(source, num_frames, duration)

    def write(temporary: Path) -> None:
        try:
            _encode(source, temporary, timing, size, recipe)
        except av.FFmpegError as error:
            raise VideoError(
                f"{source}: cannot be decoded to its end ({error.strerror}); take it off the list"
            ) from error
        _verify(source, temporary, num_frames, size)

    write_atomically(target, write)
    return num_frames


def _open(source: str | Path) -> tuple[InputContainer, av.VideoStream]:
    container = av.open(str(source), metadata_errors="replace")
    return container, next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)


def _read_timing(source: str | Path, num_frames: int, duration: float) -> Timing:
    """The frames' own times where the file has them, else even ones."""
    container, stream = _open(source)
    with container:
        times = sorted(
            packet.pts
            for packet in container.demux(stream)
            if packet.size and packet.pts is not None and not packet.is_discard
        )
        # AVI has no presentation times, FFmpeg guesses them.
        if len(set(times)) == num_frames == len(times) and container.format.name != "avi" and stream.time_base:
            return Timing(stream.time_base, [time - times[0] for time in times])
    rate = Fraction(num_frames / duration).limit_denominator(1001)
    return Timing(1 / rate, range(num_frames))


def _encode(source: str | Path, target: Path, timing: Timing, size: tuple[int, int], recipe: Recipe) -> None:
    height, width = size
    reformatter = VideoReformatter()
    container, stream = _open(source)
    with container, av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as made:
        made_stream = made.add_stream("libx264", rate=25, options=recipe.options())
        assert isinstance(made_stream, av.VideoStream)
        made_stream.height, made_stream.width, made_stream.pix_fmt = height, width, "yuv420p"
        codec = made_stream.codec_context
        codec.gop_size, codec.max_b_frames, codec.thread_count = recipe.keyframe_interval, recipe.bframes, 1
        codec.time_base = timing.time_base
        for number, picture in enumerate(container.decode(stream)):
            orientation = Orientation.of(picture)
            if number == 0:
                _copy_colours(picture, codec)
            rows, columns = orientation.turn(size)
            small = reformatter.reformat(picture, columns, rows, "yuv420p", interpolation="BICUBIC", threads=1)
            frame = _turn(small, orientation)
            if number == len(timing.times):
                raise VideoError(f"{source}: decodes to more frames than it seemed to have; take it off the list")
            frame.pts, frame.time_base = timing.times[number], timing.time_base
            made.mux(made_stream.encode(frame))
            report_progress()
        made.mux(made_stream.encode(None))


def _copy_colours(picture: av.VideoFrame, codec: Any) -> None:
    """What the numbers mean as colours stays as it is: they are not converted."""
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(codec, name, int(getattr(picture, name)))


def _turn(picture: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """A picture in yuv420p as it is displayed, each plane turned by itself."""
    if orientation == (False, False, False):
        return picture
    luma = picture.height * picture.width
    flat = cast(npt.NDArray[np.uint8], picture.to_ndarray()).ravel()  # a plane after the other: luma, chroma, chroma
    planes = [
        orientation.apply(flat[begin:end].reshape(-1, columns, 1))
        for begin, end, columns in (
            (0, luma, picture.width),
            (luma, luma * 5 // 4, picture.width // 2),
            (luma * 5 // 4, luma * 3 // 2, picture.width // 2),
        )
    ]
    turned = np.concatenate([plane.ravel() for plane in planes])
    return av.VideoFrame.from_ndarray(turned.reshape(-1, planes[0].shape[1]), format="yuv420p")


def _verify(source: str | Path, made: Path, num_frames: int, size: tuple[int, int]) -> None:
    with open_video(made) as video:
        found = (video.num_frames, video.height, video.width)
        if found != (num_frames, *size):
            raise VideoError(
                f"{source}: gave {found[0]} frames of {found[1]} x {found[2]} instead of {num_frames} of "
                f"{size[0]} x {size[1]}; it is damaged, take it off the list"
            )
        video.get_frames([0, num_frames // 2, num_frames - 1])
