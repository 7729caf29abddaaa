import json
from pathlib import Path

import pytest

from iwin.cli import main


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
    ],
)
def test_what_cannot_be_measured_is_told_at_once(
    options: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "model", *options]) == 1
    assert hint in capsys.readouterr().err


@pytest.mark.slow
def test_command_writes_record_and_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--frames", "4", "--size", "32", "--device", "cpu", "--rounds", "2", "--out", str(tmp_path)]
    assert main(["bench", "model", "iwin_nano", *options, "--variants", "fp32", "bf16-cast", "--name", "small"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small_memory.png", "small_speed.png"]
    found = json.loads((tmp_path / "small.json").read_text())
    assert set(found["variants"]) == {"fp32", "bf16-cast", "matmul-fp32", "matmul-bf16"}
    assert found["machine"]["cpu"]
    assert "fp32" in capsys.readouterr().out
