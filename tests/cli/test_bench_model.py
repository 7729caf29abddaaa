import argparse
import json
from pathlib import Path

import pytest

from iwin.bench.variants import Variant
from iwin.cli import build_parser, main
from iwin.cli.bench.model import base_job, choose, default_name


def parse(*options: str) -> argparse.Namespace:
    return build_parser().parse_args(["bench", "model", "iwin_nano", "--device", "cpu", *options])


def all_names(*options: str) -> list[str]:
    args = parse(*options)
    return [variant.name for variant in choose(args, base_job(args))]


def names(*options: str) -> list[str]:
    return [name for name in all_names(*options) if not name.startswith("matmul")]


def test_list_names_the_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "model", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"reference-fp32", "fp32", "bf16-compiled"} <= {line.split()[0] for line in lines}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["iwin_huge"], "there is no video model iwin_huge"),
        (["--variants", "fp33"], "there is no variant fp33"),
        (["--variants", "bf16-cudagraphs", "--device", "cpu"], "bf16-cudagraphs cannot be run on cpu"),
        (["--train", "--variants", "fp32-exported", "--device", "cpu"], "fp32-exported cannot be trained on cpu"),
        (["--rounds", "0"], "--rounds takes"),
        (["--size", "1", "2", "3"], "--size takes"),
        (["--growth", "--variants", "matmul-fp32"], "--growth measures variants of ours and of the reference"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(
    options: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "model", *options]) == 1
    assert hint in capsys.readouterr().err


def test_a_variant_that_is_named_twice_is_measured_once() -> None:
    assert names("--variants", "fp32", "bf16", "fp32") == ["fp32", "bf16"]


def test_matrix_products_are_measured_in_the_precisions_that_are_asked_for() -> None:
    assert all_names("--variants", "reference-fp32") == ["reference-fp32", "matmul-fp32"]
    assert all_names("--variants", "bf16-cast") == ["bf16-cast", "matmul-bf16"]


@pytest.mark.parametrize("options", [[], ["--train"], ["--growth"], ["--peers"]], ids=str)
def test_bf16_is_left_out_where_a_cpu_has_none_of_it(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("iwin.models.native.common.has_half", lambda _precision: False)
    found = all_names(*options)
    assert {"reference-fp32", "fp32", "matmul-fp32"} <= set(found)
    assert not [name for name in found if "bf16" in name]
    assert "bf16 is left out" in capsys.readouterr().err
    assert all_names("--variants", "bf16") == ["bf16", "matmul-bf16"]


def test_growth_takes_the_variants_and_the_size_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.models.native.common.has_half", lambda _precision: True)
    assert names("--growth", "--variants", "bf16-cast") == ["bf16-cast"]
    assert names("--growth") == ["reference-fp32", "fp32", "bf16"]
    usual, asked = (base_job(parse("--growth", *rest)) for rest in ([], ["--frames", "8", "--size", "64", "96"]))
    assert (usual.frames, usual.height, usual.width) == (16, 112, 112)
    assert (asked.frames, asked.height, asked.width) == (8, 64, 96)


def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install = "transformers: pip install 'iwin[bench]'"
    missing = property(lambda variant: install if "transformers" in variant.needs else "")
    monkeypatch.setattr(Variant, "missing", missing)
    assert "swin3d_t-fp32" in names("--peers")
    said = capsys.readouterr().err
    assert f"videomae_b-fp32 is left out: it needs {install}" in said
    assert main(["bench", "model", "--device", "cpu", "--variants", "videomae_b-bf16"]) == 1
    assert f"videomae_b-bf16 needs {install}" in capsys.readouterr().err


def test_missing_packages_come_with_the_command() -> None:
    assert Variant("x", "peer", needs=("torch",)).missing == ""
    assert Variant("x", "peer", needs=("torch", "no_such")).missing == "no_such: pip install 'iwin[bench]'"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "iwin_nano_32x224_infer_cpu"),
        (["--frames", "8", "--size", "112", "--train"], "iwin_nano_8x112_train_cpu"),
        (["--size", "112", "160", "--batch", "4"], "iwin_nano_32x112x160_batch4_infer_cpu"),
    ],
)
def test_every_size_has_a_file_of_its_own(options: list[str], name: str) -> None:
    assert default_name(base_job(parse(*options))) == name


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("iwin.bench.session.measure", lambda *_, **__: pytest.fail("it measured"))
    (tmp_path / "file").touch()
    assert main(["bench", "model", "iwin_nano", "--device", "cpu", "--out", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_command_writes_record_and_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--frames", "4", "--size", "32", "--device", "cpu", "--rounds", "2", "--out", str(tmp_path)]
    assert main(["bench", "model", "iwin_nano", *options, "--variants", "fp32", "bf16-cast", "--name", "small"]) == 0
    files = ["small.json", "small_memory.png", "small_rate.png", "small_speed.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    found = json.loads((tmp_path / "small.json").read_text())
    assert set(found["variants"]) == {"fp32", "bf16-cast", "matmul-fp32", "matmul-bf16"}
    assert found["machine"]["cpu"]
    assert "fp32" in capsys.readouterr().out
