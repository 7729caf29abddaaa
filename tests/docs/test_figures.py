"""The figures and claims of the documents against the program."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from docs._generate import not_supported

from iwin.config import load_run_config, shipped_configs
from iwin.models.flops import Cost, model_cost
from iwin.models.zoo import PUBLISHED, SIZES, build_named
from tests.docs.pages import ROOT, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
ZOO = (ROOT / "docs" / "model_zoo.md").read_text(encoding="utf-8")


def cost(name: str, *, frames: int = 32) -> Cost:
    with torch.device("meta"):
        return model_cost(build_named(name), frames=frames, height=224, width=224)


def rows(text: str, start: str) -> list[list[str]]:
    """Cells of the table rows that begin with a pattern."""
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(rf"\| {start}", line)]
    return [[cell.strip() for cell in row] for row in found]


def test_the_sizes_are_those_of_the_models() -> None:
    found = rows(ZOO, "iwin_")
    assert [row[0] for row in found] == [f"iwin_{size}" for size in SIZES]
    for name, *figures in found:
        count = cost(name)
        values = (count.params / 1e6, count.published / 1e9, count.macs / 1e9)
        assert figures == [f"{value:.1f} {unit}" for value, unit in zip(values, "MGG", strict=True)]


def test_the_parts_of_the_cost_of_a_pass() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    stages = zip(
        (56, 28, 14, 7), (96, 192, 384, 768), (2, 2, 6, 2), strict=True
    )  # sides, channels and depths of Iwin-T
    attention = sum(2 * depth * (side // 7) ** 2 * (16 * 7 * 7) ** 2 * channels for side, channels, depth in stages)
    macs = cost("iwin_tiny").macs
    ((_, first, share), (_, rest, rest_share)) = (*rows(text, "attention products"), *rows(text, "everything else"))
    assert (first, share) == (f"{attention / 1e9:.1f} G", f"{100 * attention / macs:.0f} %")
    assert (rest, rest_share) == (f"{(macs - attention) / 1e9:.1f} G", f"{100 * (macs - attention) / macs:.0f} %")


def test_the_costs_by_clip_length() -> None:
    found = rows(ZOO, r"\d+ \|")
    assert [int(row[0]) for row in found] == [8, 16, 32, 64]
    for frames, *figures in found:
        count = cost("iwin_tiny", frames=int(frames))
        assert figures == [f"{count.published / 1e9:.1f} G", f"{count.macs / 1e9:.1f} G"]


@pytest.mark.parametrize("text", [README, ZOO], ids=["README.md", "model_zoo.md"])
def test_the_results_are_those_reported_and_say_so(text: str) -> None:
    assert "reported by the" in text
    for row, size, accuracies in zip(
        rows(text, "Iwin-"), ("tiny", "small"), (["79.1", "93.8"], ["80.0", "94.1"]), strict=True
    ):
        count = cost(f"iwin_{size}")
        assert row[1:6] == ["ImageNet-1K", "30ep", "224", *accuracies]
        assert row[6] == f"{count.params / 1e6:.1f}M"
        digits = 0 if text is README else 1
        costs = re.findall(r"[\d.]+(?=G)", " ".join(row[7:9]))
        assert costs == [f"{count.published / 1e9:.{digits}f}", f"{count.macs / 1e9:.{digits}f}"]
        config = f"configs/recognition/iwin/iwin_{size}_patch244_window77_kinetics400_1k.py"
        assert row[-2] == f"[config]({config if text is README else '#recipes'})"
        assert row[-1] == f"[github]({PUBLISHED[size]['kinetics400']})"


def test_the_recipes_are_those_of_the_configs() -> None:
    found = rows(ZOO, "`iwin_")
    listed = {row[0].strip("`") for row in found}
    assert listed == {name for name in shipped_configs() if "window877" not in name and "nano" not in name}
    for config, size, classes, _, *figures in found:
        run, _ = load_run_config(config.strip("`"))
        assert run.model.backbone.embed_dim == SIZES[size.removeprefix("iwin_")].embed_dim
        assert run.model.num_classes == int(classes)
        settings = (run.optim.lr, run.optim.weight_decay, run.model.backbone.drop_path_rate, run.epochs)
        assert figures == [str(setting) for setting in settings]
        assert run.data.train
        assert run.data.train.batch_size == 8


def test_the_citation_is_the_same_everywhere() -> None:
    pages = (ROOT / "README.md", ROOT / "docs" / "citation.md")
    entries = {block.text for page in pages for block in blocks(page) if block.language == "bibtex"}
    assert len(entries) == 1
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    entry = entries.pop()
    assert cited["title"] in entry
    assert cited["url"] in entry
    assert all(author["family-names"] in entry for author in cited["authors"])


def test_the_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix(">=")
    pytorch = next(name for name in project["dependencies"] if name.startswith("torch>=")).removeprefix("torch>=")
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    cuda = re.search(r"^cuda-toolkit==(\d+)", (ROOT / "locks" / "run.txt").read_text(), re.MULTILINE)
    assert f"Python {python} or newer" in README
    assert f"Python {python} or newer" in install
    assert cuda
    assert f"brings CUDA {cuda[1]}," in install
    assert f"Python {python} or newer, PyTorch {pytorch} or newer" in page("migrating.md")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "claim", "setting"),
    [
        (
            "migrating.md",
            "| understood, not supported yet |\n| `FormatShape`",
            "data.<split>.transforms.random_erasing",
        ),
        ("migrating.md", "trackers are not supported yet", "trackers"),
    ],
)
def test_what_is_called_unsupported_is_so(name: str, claim: str, setting: str) -> None:
    assert (claim in page(name)) == (setting in not_supported())


def test_paths_of_the_file_tree_exist() -> None:
    tree = next(block.text for block in blocks(ROOT / "README.md") if block.text.startswith("src/iwin/"))
    for line in tree.splitlines():
        name = line.split()[0]
        assert (Path(ROOT, "src/iwin", name) if line.startswith(" ") else ROOT / name).exists(), name


def test_the_views_of_the_demo() -> None:
    run, _ = load_run_config("iwin_nano_demo")
    assert run.data.test
    assert [step.kind for step in run.data.test.transforms] == ["resize", "three_crop"]
    assert f"tests it with {3 * run.data.test.sampling.num_clips} views a video" in README
    side = run.data.test.transforms[-1].model_dump()["size"][0]
    assert f"{run.data.test.sampling.clip_len} frames of {side} x {side}" in page("getting_started.md")
    assert f"for {run.epochs} epochs" in page("getting_started.md")
