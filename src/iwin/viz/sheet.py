"""Clips with captions in one picture: their frames side by side, or moving."""

import contextlib
import importlib.util
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from iwin.data.annotations import composed
from iwin.files import write_atomically

MARGIN = 6
"""Pixels around clips and captions."""

TEXT = 13
"""Height of the letters in pixels."""

_LINE = TEXT + 5
_PIECES = re.compile(r"(?:\+ )?[^ /]+[ /]*")
"""What a line of text may end after."""

_WIDE = "DejaVuSans.ttf"


def _load_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font with the most letters: matplotlib's, the system's of that name, or Pillow's, which has ASCII alone."""
    package = importlib.util.find_spec("matplotlib")
    own = [Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / _WIDE] if package and package.origin else []
    for name in (*map(str, own), _WIDE):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, TEXT)
    return ImageFont.load_default(TEXT)


_FONT = _load_font()
_PAPER, _INK, _FAINT = "white", "black", "#666666"


@dataclass(frozen=True)
class Seen:
    """A clip as a model sees it.

    Attributes:
        clip: uint8 (T, H, W, 3).
        title: what it shows.
        source: where it comes from.
    """

    clip: Tensor
    title: str
    source: str


def draw_sheet(clips: Sequence[Seen], path: Path, *, columns: int = 8) -> None:
    """Write a still picture: a row a clip, its frames from left to right, its caption above them.

    Args:
        clips: of one height and width.
        path: the picture; the suffix chooses its format.
        columns: frames of a clip that are shown at most, evenly spread.
    """
    height, width = clips[0].clip.shape[1:3]
    shown = min(columns, max(len(seen.clip) for seen in clips))
    sheet_width = shown * (width + MARGIN) + MARGIN
    captions = [_caption(seen, width=sheet_width - 2 * MARGIN) for seen in clips]
    room = max(map(len, captions)) * _LINE
    row = room + height + MARGIN
    sheet = Image.new("RGB", (sheet_width, len(clips) * row + MARGIN), _PAPER)
    for number, (seen, caption) in enumerate(zip(clips, captions, strict=True)):
        top = MARGIN + number * row
        _write(sheet, caption, left=MARGIN, top=top)
        places = torch.linspace(0, len(seen.clip) - 1, min(shown, len(seen.clip))).round().long()
        for column, frame in enumerate(seen.clip[places]):
            sheet.paste(Image.fromarray(frame.numpy()), (MARGIN + column * (width + MARGIN), top + room))
    write_atomically(path, lambda temporary: sheet.save(temporary, format=_format(path)))


def draw_moving(clips: Sequence[Seen], path: Path, *, frames_per_second: float = 8.0) -> None:
    """Write an animated GIF: clips beside and below each other, all moving, their captions below them.

    Args:
        clips: of one height and width.
        path: the GIF.
        frames_per_second: how fast it moves.
    """
    height, width = clips[0].clip.shape[1:3]
    columns = math.ceil(math.sqrt(len(clips)))
    rows = math.ceil(len(clips) / columns)
    captions = [_caption(seen, width=width) for seen in clips]
    cell_x, cell_y = width + MARGIN, height + max(map(len, captions)) * _LINE + MARGIN
    paper = Image.new("RGB", (columns * cell_x + MARGIN, rows * cell_y + MARGIN), _PAPER)
    corners = [
        (MARGIN + number % columns * cell_x, MARGIN + number // columns * cell_y) for number in range(len(clips))
    ]
    for caption, (left, top) in zip(captions, corners, strict=True):
        _write(paper, caption, left=left, top=top + height)
    pictures = []
    for t in range(max(len(seen.clip) for seen in clips)):
        picture = paper.copy()
        for seen, corner in zip(clips, corners, strict=True):
            picture.paste(Image.fromarray(seen.clip[t % len(seen.clip)].numpy()), corner)
        pictures.append(picture)
    duration = 1000 / frames_per_second
    first, *others = pictures
    write_atomically(
        path,
        lambda temporary: first.save(
            temporary, format="GIF", save_all=True, append_images=others, duration=duration, loop=0
        ),
    )


def _format(path: Path) -> str:
    """Pillow's name of the format; the temporary file's own suffix says nothing."""
    return Image.registered_extensions()[path.suffix.lower()]


def _caption(seen: Seen, *, width: int) -> list[tuple[str, str]]:
    """The lines of a caption and their colours."""
    texts = ((_drawable(seen.title), _INK), (_drawable(seen.source), _FAINT))
    return [(line, colour) for text, colour in texts for line in _lines(text, width)]


def _drawable(text: str) -> str:
    r"""A text in which letters that the font lacks are escaped, as in `\u8df3`, rather than all the same empty box."""
    return "".join(
        letter if _has(letter) else letter.encode("ascii", "backslashreplace").decode() for letter in composed(text)
    )


@cache
def _has(letter: str) -> bool:
    if letter.isascii():
        return True
    lacking = "\uffff"  # which is no letter
    return letter.isprintable() and bytes(_FONT.getmask(letter)) != bytes(_FONT.getmask(lacking))


def _lines(text: str, width: int) -> list[str]:
    """A text in lines that fit, broken between words and folders; what does not fit by itself is cut."""
    lines: list[str] = []
    for piece in _PIECES.findall(text):
        if lines and _FONT.getlength((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(_fitting(piece, width))
    return lines


def _fitting(piece: str, width: int) -> str:
    whole = cut = piece.rstrip()
    while cut and _FONT.getlength(cut if cut == whole else cut + "…") > width:
        cut = cut[:-1]
    return piece if cut == whole else f"{cut}… "


def _write(sheet: Image.Image, caption: list[tuple[str, str]], *, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    for number, (line, colour) in enumerate(caption):
        draw.text((left, top + number * _LINE + 1), line, fill=colour, font=_FONT)
