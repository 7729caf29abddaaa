"""Clips with captions in one picture: their frames side by side, or moving."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from iwin.files import write_atomically

MARGIN = 6
"""Pixels around clips and captions."""

TEXT = 13
"""Height of the letters in pixels."""

_LINE = TEXT + 5
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
    row = height + 2 * _LINE + MARGIN
    sheet = Image.new("RGB", (shown * (width + MARGIN) + MARGIN, len(clips) * row + MARGIN), _PAPER)
    for number, seen in enumerate(clips):
        top = MARGIN + number * row
        _write_caption(sheet, seen, left=MARGIN, top=top, width=sheet.width - 2 * MARGIN)
        places = torch.linspace(0, len(seen.clip) - 1, min(shown, len(seen.clip))).round().long()
        for column, frame in enumerate(seen.clip[places]):
            sheet.paste(Image.fromarray(frame.numpy()), (MARGIN + column * (width + MARGIN), top + 2 * _LINE))
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
    cell_x, cell_y = width + MARGIN, height + 2 * _LINE + MARGIN
    paper = Image.new("RGB", (columns * cell_x + MARGIN, rows * cell_y + MARGIN), _PAPER)
    corners = [
        (MARGIN + number % columns * cell_x, MARGIN + number // columns * cell_y) for number in range(len(clips))
    ]
    for seen, (left, top) in zip(clips, corners, strict=True):
        _write_caption(paper, seen, left=left, top=top + height, width=width)
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


def _write_caption(sheet: Image.Image, seen: Seen, *, left: int, top: int, width: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT)
    for line, (text, colour) in enumerate(((seen.title, _INK), (seen.source, _FAINT))):
        draw.text((left, top + line * _LINE + 1), _fitting(text, font, width), fill=colour, font=font)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text, cut where it is wider than its place."""
    cut = text
    while cut and font.getlength(cut if cut == text else cut + "…") > width:
        cut = cut[:-1]
    return cut if cut == text else cut + "…"
