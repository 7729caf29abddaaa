from pathlib import Path

import pytest
from PIL import Image

from tests.commands import iwin
from tests.servers import silent_server


@pytest.mark.parametrize(
    ("options", "wrote", "clip"),
    [
        (["--num", "3"], "sheet.png: 3 clips", "16x56x56"),
        (["--split", "test", "--out", "test.gif", "--num", "5"], "test.gif: 5 clips", "16x56x56"),
        (["--split", "val"], "sheet.png: 6 clips", "16x56x56"),
    ],
)
def test_a_config_is_shown(trained: Path, tmp_path: Path, options: list[str], wrote: str, clip: str) -> None:
    clips = [f"data.{split}.data_prefix={trained}/clips/{split}" for split in ("train", "val")]
    data = ["--cfg-options", *clips, f"data.test.data_prefix={trained}/clips/val"]
    result = iwin("data", "show", "iwin_nano_demo", *options, *data, cwd=tmp_path)
    assert result.status == 0, result.err
    assert result.out == f"wrote {wrote} of {clip}\n"
    assert "bad video" in result.err or "val" not in options  # of the others the first suffice: it may not be met
    with Image.open(tmp_path / wrote.partition(":")[0]) as sheet:
        assert getattr(sheet, "n_frames", 1) == (16 if wrote.startswith("test.gif") else 1)


@pytest.mark.parametrize(("num", "places"), [(4, 4), (14, 6)])
def test_clips_are_of_as_many_videos_and_different_views(trained: Path, num: int, places: int) -> None:
    from iwin.cli.data.show import seen_clips
    from iwin.config import load_run_config

    options = [f"data.test.data_prefix={trained}/clips/val", "data.workers_per_gpu=0"]
    config, _ = load_run_config("iwin_nano_demo", options)
    sources = [seen.source.split(", view ") for seen in seen_clips(config, "test", epoch=0, num=num)]
    videos = list(dict.fromkeys(name for name, _ in sources))
    assert len(videos) == places
    if num == 4:
        assert [view for _, view in sources] == ["1/6", "2/6", "3/6", "4/6"]
    else:  # of seven videos one is broken
        assert len(sources) == len({tuple(source) for source in sources}) == 12


@pytest.mark.slow
def test_a_video_that_hangs_is_left_out(trained: Path, tmp_path: Path) -> None:
    good = trained / "clips" / "val" / "class 0"
    with silent_server() as hangs:
        (tmp_path / "val.txt").write_text(f"{good}/0.mp4 0\n{hangs} 1\n{good}/1.mp4 2\n")
        limits = ["--cfg-options", "data.bad_videos.time_limit=1"]
        result = iwin("data", "show", "val.txt", "--split", "val", *limits, cwd=tmp_path)
    assert result.status == 0, result.err
    assert result.out == "wrote sheet.png: 2 clips of 32x224x224\n"
    assert f"bad video: {hangs}: nothing came for 1 seconds" in result.err


def test_mixed_clips_are_shown_with_their_shares(trained: Path) -> None:
    from iwin.cli.data.show import seen_clips
    from iwin.config import load_run_config

    blending = ["model.train_cfg.blending.type=MixupBlending", "model.train_cfg.blending.num_classes=3"]
    options = [f"data.train.data_prefix={trained}/clips/train", "data.workers_per_gpu=0", *blending]
    config, _ = load_run_config("iwin_nano_demo", [*options, "model.train_cfg.blending.alpha=5.0"])
    titles = {seen.title for seen in seen_clips(config, "train", epoch=0, num=9)}
    assert any(title.count("class ") == 2 and title.startswith("0.") for title in titles)
    again = {seen.title for seen in seen_clips(config, "train", epoch=1, num=9)}
    assert titles != again


def test_a_folder_is_shown_as_a_published_recipe_sees_it(trained: Path, tmp_path: Path) -> None:
    result = iwin("data", "show", trained / "clips" / "train", "--num", "1", "--out", "a.png", cwd=tmp_path)
    assert result.out == "wrote a.png: 1 clips of 32x224x224\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--out", "sheet.jpg"], ".png or .gif"),
        (["--num", "0"], "--num takes a number from 1"),
        (["--cfg-options", "data.train=None"], "the config has no data.train"),
        (["--cfg-options", "data.train.data_prefix=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_sentence(tmp_path: Path, options: list[str], problem: str) -> None:
    result = iwin("data", "show", "iwin_nano_demo", *options, cwd=tmp_path)
    assert result.status == 1
    assert problem in result.err
    assert not list(tmp_path.iterdir())
