"""The kernels compiled for Hopper, which needs no GPU: what Triton's interpreter lets pass may not compile."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from iwin.models.kernels import ops

triton = pytest.importorskip("triton", reason="PyTorch brings Triton on Linux")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ops.DEVICE == "cpu", reason="the interpreter compiles nothing"),
]


def compile_for_hopper(kernel: Any, choice: Any, *, dtype: str, head_dim: int) -> Any:
    """Compile a kernel as it is launched for windows of 7 x 7: aligned maps, a multiple of 16 tokens."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    sizes = {"TOKENS": 784, "FRAMES": 16, "COLUMNS": 7, "HEAD_DIM": head_dim, **choice.kwargs}
    types = dict.fromkeys(("heads", "I", "J"), "i32") | {
        "scale": "fp32",
        "log_sum": "*fp32",
        "delta": "*fp32",
    }
    aligned = [["tt.divisibility", 16]]
    signature: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(kernel.fn.arg_names):
        if name.endswith("_strides"):
            signature[name] = ("i32",) * 4
            attributes |= {(index, axis): aligned for axis in range(4)}
            continue
        signature[name] = "constexpr" if name in sizes else types.get(name, f"*{dtype}")
        if signature[name].startswith("*"):
            attributes[index,] = aligned
    constants = {(kernel.fn.arg_names.index(name),): value for name, value in sizes.items()}
    source = ASTSource(fn=kernel.fn, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": choice.num_warps, "num_stages": choice.num_stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def machine_code(compiled: Any) -> str:
    """The compiled kernel's instructions, as text."""
    disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        return subprocess.check_output([disassembler, "-sass", file.name], text=True)


@pytest.mark.parametrize("name", ["_forward_kernel", "_query_backward_kernel", "_key_backward_kernel"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_keeps_to_registers_and_tensor_cores(name: str, dtype: str) -> None:
    from iwin.models.kernels import window_attention as kernels

    kernel = getattr(kernels, name)
    qkv = torch.empty(0, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
    for choice in kernels._fitting(kernel.configs, {"qkv": qkv}):
        code = machine_code(compile_for_hopper(kernel, choice, dtype=dtype, head_dim=32))
        assert "LDL" not in code, f"{choice} spills registers"
        assert "STL" not in code, f"{choice} spills registers"
        assert "MUFU.EX2" in code
        assert ("HGMMA" in code) is (dtype != "fp32"), f"{choice} uses the wrong units"
