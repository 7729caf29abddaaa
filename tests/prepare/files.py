"""Damaged and odd files, made from real ones."""

from pathlib import Path

from tests.videos import Packet, Packets, numbered_frames, remux, write_audio, write_video


def write_clip(path: Path, *, first: int = 0, count: int = 24, height: int = 64, width: int = 96) -> Path:
    """A good MP4 file with its index in front, as downloads have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = numbered_frames(count, first=first, height=height, width=width)
    return write_video(path, frames, container_options={"movflags": "faststart"})


def write_truncated(path: Path) -> Path:
    """A download that broke off: the index announces frames that are not there."""
    data = write_clip(path).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def write_overwritten(path: Path) -> Path:
    """A file whose second half is zeros, as a failing disk gives it."""
    data = write_clip(path).read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    return path


def write_in_part(path: Path, *, number: int = 15) -> Path:
    """A file of 40 frames that all come out, of which one lacks the last of its four slices; a keyframe every 12."""
    whole = path.with_name(f"whole-{path.name}")
    write_video(whole, numbered_frames(40), gop=12, bframes=0, options={"x264-params": "slices=4"})

    def cut(place: int, packet: Packet) -> Packets:
        data = bytes(packet)
        sizes: list[int] = []
        while sum(sizes) < len(data):  # of the slices, each behind its length
            sizes.append(4 + int.from_bytes(data[sum(sizes) : sum(sizes) + 4]))
        return [data[: -sizes[-1]] if place == number else data]

    remux(whole, path, cut)
    whole.unlink()
    return path


def write_hole(path: Path) -> Path:
    """A Matroska file of which some bytes in the middle are gone."""
    write_video(path, numbered_frames(80, height=128, width=192), codec="libvpx-vp9")
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + data[middle + len(data) // 8 :])
    return path


def write_text(path: Path) -> Path:
    """An error page that was saved as a video."""
    path.write_text("<html>404</html>")
    return path


def write_empty(path: Path) -> Path:
    """No bytes at all."""
    path.touch()
    return path


def write_endless(path: Path) -> Path:
    """A file that takes far longer to look into than tests wait: the same transport stream thousands of times."""
    part = path.with_name("part.ts")
    write_video(part, numbered_frames(60, height=256, width=256))
    path.write_bytes(part.read_bytes() * 2000)
    part.unlink()
    return path


BAD = {
    "cut off": write_truncated,
    "undecodable": write_overwritten,
    "unreadable": write_text,
    "empty": write_empty,
}
"""What is wrong, and how to write such a file."""

__all__ = ["BAD", "write_audio", "write_clip", "write_endless"]
