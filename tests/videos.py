"""Real, tiny videos for tests: every frame carries its number in black and white blocks that survive lossy coding.

    frames = numbered_frames(40)
    write_video(tmp_path / "clip.mp4", frames, gop=12, bframes=2)
    assert [read_number(f) for f in decode_all(tmp_path / "clip.mp4")] == list(range(40))

``decode_all`` is the reference for "frame k": the k-th frame of a plain sequential decode, with PyAV and nothing else.
"""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias, cast

import av
import numpy as np
import torch

ROWS, COLUMNS = 2, 4  # the blocks of a frame's number: eight bits, the highest at top left

# x265 and SVT-AV1 write to stderr by themselves unless told not to.
QUIET = {"libx265": {"x265-params": "log-level=none"}}
os.environ.setdefault("SVT_LOG", "0")

Packet: TypeAlias = "av.Packet[av.VideoStream]"
Packets: TypeAlias = "list[bytes | av.Packet[av.VideoStream]]"


def numbered_frames(count: int, *, height: int = 64, width: int = 96, first: int = 0) -> np.ndarray[Any, Any]:
    """``count`` frames, uint8 (T, H, W, 3), that show the numbers ``first``, ``first + 1`` … (up to 255)."""
    assert first + count <= 256, "eight blocks hold numbers up to 255"
    frames = np.zeros((count, height, width, 3), np.uint8)
    for t, number in enumerate(range(first, first + count)):
        for bit in range(8):
            row, column = divmod(bit, COLUMNS)
            shade = 230 if number >> (7 - bit) & 1 else 20
            rows = slice(row * height // ROWS, (row + 1) * height // ROWS)
            columns = slice(column * width // COLUMNS, (column + 1) * width // COLUMNS)
            frames[t, rows, columns] = shade
    # A slanted texture that moves with time, so that frames differ everywhere and motion is worth coding.
    y, x, t_ = np.ogrid[:height, :width, :count]
    texture = ((x + 2 * y + 3 * t_) % 16).transpose(2, 0, 1)
    frames[..., 1] += texture.astype(np.uint8)
    return frames


def read_number(frame: torch.Tensor) -> int:
    """The number that a decoded frame (H, W, 3) shows."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(8):
        row, column = divmod(bit, COLUMNS)
        centre = frame[(2 * row + 1) * height // (2 * ROWS), (2 * column + 1) * width // (2 * COLUMNS)]
        number = number << 1 | int(centre.float().mean() > 128)
    return number


def write_video(
    path: Path,
    frames: np.ndarray[Any, Any],
    *,
    codec: str = "libx264",
    fps: int = 25,
    gop: int = 12,
    bframes: int | None = None,
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    audio: bool = False,
) -> Path:
    """Write ``frames``, uint8 (T, H, W, 3), to ``path``; the suffix chooses the container.

    Args:
        path: where to write.
        frames: the pictures.
        codec: an encoder that the PyAV wheel carries.
        fps: frames per second, for videos of constant rate.
        gop: the largest distance between keyframes, in frames.
        bframes: how many B-frames may stand in a row; None leaves it to the encoder.
        pix_fmt: what the pictures are stored as.
        pts: presentation times in milliseconds, one a frame, for videos of variable rate.
        options: encoder options.
        container_options: muxer options.
        rotation: degrees counter-clockwise that a player turns the picture before showing it.
        hflip: whether a player mirrors the picture after turning it.
        audio: whether to add a track of silence.

    Returns:
        ``path``.
    """
    with av.open(str(path), "w", options={**(container_options or {})}) as container:
        stream = container.add_stream(codec, rate=fps, options={**QUIET.get(codec, {}), **(options or {})})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.thread_count = 1  # the same bytes on every machine
        if bframes is not None:
            stream.max_b_frames = bframes
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None or hflip:
            stream.set_display_rotation(rotation or 0, hflip=hflip)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for t, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = t if pts is None else pts[t]
            frame.time_base = Fraction(1, fps) if pts is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(_silence(t, 16000 // fps)))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def remux(source: Path, target: Path, edit: Callable[[int, Packet], Packets]) -> Path:
    """Copy the video of ``source`` packet by packet into ``target``, without coding anything anew.

    Args:
        source: the video.
        target: where to write; the suffix chooses the container.
        edit: takes the number of a packet and the packet, returns what to write in its place. The first bytes take
            over its times, further ones have to be packets with times of their own.

    Returns:
        ``target``.
    """
    # -autobsf: the muxer shall not mend what ``edit`` spoils.
    options = {"fflags": "-autobsf"}
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in reading.demux(stream) if packet.size):
            for edited in edit(number, packet):
                new: Any = edited if isinstance(edited, av.Packet) else packet_like(packet, edited)
                new.stream = copy
                writing.mux(new)
    return target


def packet_like(packet: Packet, data: bytes, *, delay: int = 0) -> Packet:
    """A packet with other data, ``delay`` (in the stream's time base) after ``packet``."""
    new: Any = av.Packet(data)
    new.pts = None if packet.pts is None else packet.pts + delay
    new.dts = None if packet.dts is None else packet.dts + delay
    new.time_base, new.duration, new.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
    return cast("Packet", new)


def write_audio(path: Path, *, seconds: int = 1) -> Path:
    """Write ``seconds`` of silence and no video at all."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        for t in range(25 * seconds):
            container.mux(sound.encode(_silence(t, 640)))
        container.mux(sound.encode(None))
    return path


def _silence(t: int, samples: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="fltp", layout="mono", samples=samples)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate, frame.pts, frame.time_base = 16000, t * samples, Fraction(1, 16000)
    return frame


def decode_all(path: Path) -> torch.Tensor:
    """Every frame of the first video stream, uint8 (T, H, W, 3), by a plain sequential decode; not rotated."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures).astype(np.uint8))
