from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iwin.viz.sheet import MARGIN, Seen, _lines, draw_moving, draw_sheet


def seen(shade: int, *, frames: int = 4, title: str = "rise") -> Seen:
    """A clip of 20 x 30 pixels whose frame t has one grey level."""
    levels = torch.arange(frames, dtype=torch.uint8) * 10 + shade
    return Seen(levels[:, None, None, None].expand(frames, 20, 30, 3).clone(), title, "rise/000.mp4")


@pytest.mark.parametrize(("columns", "levels"), [(8, [50, 60, 70, 80]), (2, [50, 80])])
def test_a_row_shows_frames_from_left_to_right(tmp_path: Path, columns: int, levels: list[int]) -> None:
    draw_sheet([seen(0), seen(50)], tmp_path / "sheet.png", columns=columns)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == len(levels) * (30 + MARGIN) + MARGIN
        found = [sheet.getpixel((MARGIN + 15 + place * (30 + MARGIN), sheet.height - 2 * MARGIN - 10))
                 for place in range(len(levels))]  # fmt: skip
        assert found == [(level,) * 3 for level in levels]
        caption = sheet.crop((0, 0, sheet.width, 18)).convert("L")
        assert np.asarray(caption).min() < 50


def test_a_gif_moves(tmp_path: Path) -> None:
    draw_moving([seen(0), seen(100), seen(200, title="a name wider than its clip")], tmp_path / "sheet.gif")
    with Image.open(tmp_path / "sheet.gif") as sheet:
        assert getattr(sheet, "n_frames", 1) == 4
        assert sheet.size[0] == 2 * (30 + MARGIN) + MARGIN
        for t in range(4):
            sheet.seek(t)
            corner = sheet.convert("RGB").getpixel((MARGIN + 30 + MARGIN + 15, MARGIN + 10))
            assert corner == (100 + 10 * t,) * 3


@pytest.mark.parametrize("draw", [draw_moving, draw_sheet])
def test_a_title_wider_than_its_clip_is_continued_below(tmp_path: Path, draw: Callable[..., None]) -> None:
    """Two classes of a mix: both have to be readable."""
    heights = {}
    for title in ("rise", "rise fall"):
        draw([seen(0, frames=1, title=title)], tmp_path / "sheet.gif")
        with Image.open(tmp_path / "sheet.gif") as sheet:
            heights[title] = sheet.height
    assert heights["rise fall"] > heights["rise"]


def test_captions_break_between_words_and_folders() -> None:
    def lines(text: str, width: int) -> list[str]:
        return [line.rstrip() for line in _lines(text, width)]

    assert lines("0.61 rise + 0.39 fall", 200) == ["0.61 rise + 0.39 fall"]
    assert lines("0.61 rise + 0.39 fall", 72) == ["0.61 rise", "+ 0.39 fall"]
    assert lines("shrink/000.mp4, view 1/6", 64) == ["shrink/", "000.mp4,", "view 1/6"]
    first, cut, last = lines("a much_too_long_name b", 60)
    assert (first, cut[:4], cut[-1], last) == ("a", "much", "…", "b")


def test_letters_of_other_languages_can_be_told_apart(tmp_path: Path) -> None:
    """Each is drawn as itself or escaped, whatever fonts there are; none is the box of all that a font lacks."""
    pictures = set()
    titles = ["\xe4", "\u2603", "\u8df3", "\u9ad8", "\udcff", "\udcfe"]
    for title in titles:
        draw_sheet([seen(0, title=title)], tmp_path / "sheet.png")
        pictures.add((tmp_path / "sheet.png").read_bytes())
    assert len(pictures) == len(titles)
    draw_sheet([seen(0, title="a\u0308")], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() in pictures
