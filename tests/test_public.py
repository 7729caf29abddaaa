import subprocess
import sys

import pytest

import iwin


def test_public_names_are_these() -> None:
    assert iwin.__all__ == ["IwinError", "Predictor", "__version__", "create_model", "list_models", "open_video"]
    assert all(hasattr(iwin, name) for name in iwin.__all__)
    assert set(iwin.__all__) <= set(dir(iwin))


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        iwin.creat_model  # noqa: B018


def test_the_command_line_answers_without_loading_pytorch() -> None:
    code = "import sys, iwin.cli; iwin.cli.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_models_run_without_loading_the_compiler() -> None:
    code = """
import sys, torch, iwin
for name in ("iwin_nano", "iwin_tiny"):
    with torch.inference_mode():
        iwin.create_model(name, num_classes=2).eval()(torch.zeros(1, 3, 4, 32, 32))
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
