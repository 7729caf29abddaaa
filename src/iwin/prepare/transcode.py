"""Make a video small and quick to read at random: H.264 with dense keyframes, or MPEG-2 of nothing but keyframes.

Training asks for a few frames from somewhere in the middle. A decoder has to begin at the keyframe before them, so the
distance between keyframes decides how many frames it decodes in vain, and the size of the pictures what each costs.
Where all frames are keyframes, H.264 has lost what it gains by prediction in time: MPEG-2 takes as many bytes for the
same quality, and half the time to decode.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, VideoReformatter

from iwin.data.decode import open_video
from iwin.data.pictures import Orientation
from iwin.data.workers import report_progress
from iwin.errors import VideoError
from iwin.files import write_atomically
from iwin.prepare.convert import Facts, Task
from iwin.prepare.probe import check_whole

CODECS = ("h264", "mpeg2")

MPEG2_CRF = range(7, 37)
"""What MPEG-2's quantisers, 1 to 31, come to on x264's scale of qualities."""

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""x264's own, from quick to small."""


@dataclass(frozen=True)
class Recipe:
    """What a video is made into.

    Attributes:
        short_side: of the picture, in pixels; even. Smaller videos keep their size.
        keyframe_interval: frames from one keyframe to the next; 1 makes every frame one.
        crf: x264's quality, 0 (lossless) to 51; about 6 less doubles the bytes. For MPEG-2, one of `MPEG2_CRF`; its
            pictures come as close to the source as x264's.
        preset: one of `PRESETS`; for H.264 alone, as the next two.
        bframes: pictures in a row that lean on both neighbours: fewer bytes, but slower to read at random. There are
            none where every frame is a keyframe.
        fast_decode: leave out the coding tools that are slow to decode (CABAC, deblocking), for some more bytes.
        upscale: enlarge smaller videos to the short side too.
        codec: one of `CODECS`, MPEG-2 for an interval of 1 alone; None for the one that is quicker to decode.
    """

    short_side: int = 256
    keyframe_interval: int = 16
    crf: int = 23
    preset: str = "medium"
    bframes: int = 0
    fast_decode: bool = True
    upscale: bool = False
    codec: str | None = None

    @property
    def is_mpeg2(self) -> bool:
        """Whether it is MPEG-2 that is made."""
        if self.codec is None:
            return self.keyframe_interval == 1 and self.fast_decode and self.crf in MPEG2_CRF
        return self.codec == "mpeg2"

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for a video of this size: the same aspect as far as even numbers allow."""
        short = min(height, width)
        wanted = self.short_side if self.upscale else min(self.short_side, short)
        return _even(height * wanted / short), _even(width * wanted / short)

    @property
    def encoder(self) -> str:
        """FFmpeg's name of it."""
        return "mpeg2video" if self.is_mpeg2 else "libx264"

    def options(self) -> dict[str, str]:
        """The encoder's options."""
        if self.is_mpeg2:
            # Measured: quantiser 6.6 is as good as quality 23; both double what they round to with every 6 of quality.
            quantiser = str(round(6.6 * 2 ** ((self.crf - 23) / 6)))
            # Without low_delay the decoder waits for B-pictures, which there are not.
            return {"flags": "+qscale+low_delay", "qmin": quantiser, "qmax": quantiser}
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
        VideoError: if the source lacks what it announces, or a frame of it is damaged or cannot be decoded.
        IwinError: if the file cannot be written.
    """
    with open_video(source) as video:
        check_whole(source)
        num_frames, size, duration = video.num_frames, recipe.size_of(video.height, video.width), video.duration
    timing = _read_timing(source, num_frames, duration)

    def write(temporary: Path) -> None:
        try:
            _encode(source, temporary, timing, size, recipe)
        except av.FFmpegError as error:  # of what is written: those of what is read are VideoErrors already
            if isinstance(error, OSError):  # the disk's fault, which all videos would meet
                raise OSError(error.errno, error.strerror) from error
            raise VideoError(f"{source}: cannot be encoded ({error.strerror}); take it off the list") from error
        _verify(source, temporary, num_frames, size)

    write_atomically(target, write)
    return num_frames


def _open(source: str | Path) -> tuple[InputContainer, av.VideoStream]:
    container = av.open(str(source), metadata_errors="replace")
    stream = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    stream.codec_context.thread_count = 1  # among several, FFmpeg forgets which pictures it decoded in part only
    return container, stream


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
    # MPEG-2 knows few rates: its encoder counts pictures, and the container is told when they are shown.
    told = Timing(Fraction(1, 25), range(len(timing.times))) if recipe.is_mpeg2 else timing
    container, stream = _open(source)
    with container, av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as made:
        made_stream = made.add_stream(recipe.encoder, rate=25, options=recipe.options())
        assert isinstance(made_stream, av.VideoStream)
        made_stream.height, made_stream.width, made_stream.pix_fmt = height, width, "yuv420p"
        made_stream.time_base = timing.time_base
        codec = made_stream.codec_context
        codec.gop_size, codec.thread_count = recipe.keyframe_interval, 1
        codec.max_b_frames = recipe.bframes if recipe.keyframe_interval > 1 else 0
        codec.time_base = told.time_base

        def write(frame: av.VideoFrame | None) -> None:
            for packet in made_stream.encode(frame):
                if recipe.is_mpeg2:
                    assert packet.pts is not None
                    packet.pts = packet.dts = timing.times[packet.pts]
                    packet.time_base, packet.duration = timing.time_base, 0
                made.mux(packet)

        for number, picture in enumerate(_decode(source, container, stream)):
            if picture.is_corrupt:
                raise VideoError(f"{source}: frame {number} is damaged; download it again or take it off the list")
            orientation = Orientation.of(picture)
            if number == 0:
                _copy_colours(picture, codec)
                if recipe.is_mpeg2:
                    codec.color_range = ColorRange.MPEG
            rows, columns = orientation.turn(size)
            small = reformatter.reformat(picture, columns, rows, "yuv420p", interpolation="BICUBIC", threads=1)
            if recipe.is_mpeg2 and small.color_range == ColorRange.JPEG:  # which MPEG-2 has no means to tell
                small = _limit_range(small)
            frame = _turn(small, orientation)
            if number == len(timing.times):
                raise VideoError(f"{source}: decodes to more frames than it seemed to have; take it off the list")
            frame.pts, frame.time_base = told.times[number], told.time_base
            write(frame)
            report_progress()
        write(None)


def _decode(source: str | Path, container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    try:
        for packet in container.demux(stream):
            packet.is_corrupt = False  # a mere suspicion: see iwin.data.pyav
            yield from packet.decode()
    except av.FFmpegError as error:
        raise VideoError(f"{source}: cannot be decoded to its end ({error.strerror}); take it off the list") from error


def _copy_colours(picture: av.VideoFrame, codec: Any) -> None:
    """What the numbers mean as colours stays as it is: they are not converted."""
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(codec, name, int(getattr(picture, name)))


_LIMITED_LUMA = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)
_LIMITED_CHROMA = np.rint(128 + (np.arange(256) - 128) * 224 / 255).astype(np.uint8)


def _limit_range(picture: av.VideoFrame) -> av.VideoFrame:
    """A picture in yuv420p whose numbers use all of a byte, in those of video: 16 to 235, and 16 to 240 for chroma.

    libswscale, asked for the same, rounds up: colours would drift by a level or two.
    """
    luma, chroma = np.vsplit(picture.to_ndarray(), [picture.height])
    planes = (_LIMITED_LUMA[luma], _LIMITED_CHROMA[chroma])
    return av.VideoFrame.from_ndarray(np.concatenate(planes), format="yuv420p")


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
