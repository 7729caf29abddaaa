import sysconfig
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from iwin.models.iwin import IwinTransformer
from iwin.models.kernels import ops
from iwin.models.windows import Windows
from tests.models.kernels.calls import Calls


@pytest.mark.skipif(ops.DEVICE == "cpu", reason="the interpreter runs the kernels on the CPU")
def test_a_cpu_keeps_to_its_own_attention() -> None:
    assert not ops.takes(torch.empty(1, 1, 2, 2, 32, dtype=torch.bfloat16), 1)


@pytest.mark.parametrize(
    ("channels", "heads", "dtype", "expected"),
    [
        (96, 3, torch.bfloat16, True),
        (96, 6, torch.float16, True),
        (96, 3, torch.float32, False),
        (96, 4, torch.bfloat16, False),  # heads of 24 channels
    ],
)
def test_takes_what_the_kernels_were_made_for(
    channels: int, heads: int, dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "DEVICE", "cpu")
    monkeypatch.setattr(ops, "_runs_on", lambda _device: True)
    token = torch.empty(1, 1, 1, 1, channels, dtype=dtype)
    assert ops.takes(token.expand(64, 16, 56, 56, -1), heads) is expected
    assert not ops.takes(token.expand(1, 2**16, 56, 56, -1), heads), "offsets within a sample pass 2^31"


@pytest.mark.parametrize("windows", [Windows(8, 8, 7, 7), Windows(1, 1, 56, 56), Windows(9, 9, 7, 7)])
def test_shapes_without_data(windows: Windows) -> None:
    qkv = torch.empty(2, 16, 56, 56, 288, device="meta", dtype=torch.bfloat16, requires_grad=True)
    fill = torch.empty(288, device="meta", requires_grad=True)
    out = ops.interleaved_attention(qkv, windows, heads=3, scale=0.2, fill=fill)
    assert (out.shape, out.dtype) == ((2, 16, 56, 56, 96), torch.bfloat16)
    assert torch.autograd.grad(out.sum(), qkv)[0].shape == qkv.shape


def calls_on_a_gpu(depths: tuple[int, ...]) -> Counter[str]:
    """Operators of a forward pass in bf16, run on tensors without data: reading a value from one is an error."""
    with torch.device("meta"):
        model = IwinTransformer(embed_dim=32, depths=depths, num_heads=(1, 2), num_frames=16).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), Calls() as calls:
        weights = {
            name: torch.empty(value.shape, dtype=torch.bfloat16, device="cuda")
            for name, value in model.state_dict().items()
        }
        clips = torch.empty(2, 3, 16, 112, 112, dtype=torch.bfloat16, device="cuda")
        assert torch.func.functional_call(model, weights, (clips,)).is_cuda
    return calls.counts


@pytest.mark.skipif(ops.DEVICE == "cpu", reason="the interpreter runs the kernels on the CPU")
def test_on_a_gpu_a_block_copies_nothing_and_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_runs_on", lambda _device: True)
    few, many = calls_on_a_gpu((1, 1)), calls_on_a_gpu((3, 2))
    assert many["iwin::window_attention"] == 5
    for copy in ("aten::clone", "aten::copy_", "aten::_to_copy"):
        assert few[copy] == many[copy]


def test_without_a_compiler_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not ops.can_compile()
    (tmp_path / "gcc").touch(mode=0o755)
    assert ops.can_compile() == Path(sysconfig.get_paths()["include"], "Python.h").is_file()
