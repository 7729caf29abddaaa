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


def compile_for_hopper(function: Any, constants: dict[str, Any], types: dict[str, str], **options: int) -> Any:
    """Compile a kernel as it is launched for aligned maps whose channels are multiples of 16.

    Args:
        function: the kernel.
        constants: its arguments that are known when it is compiled.
        types: of its other arguments, in Triton's words; "" is that of those not named.
        options: warps and pipeline stages.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aligned = [["tt.divisibility", 16]]
    signature: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(function.arg_names):
        if name.endswith("_strides"):
            signature[name] = ("i32",) * 4
            attributes |= {(index, axis): aligned for axis in range(4)}
            continue
        signature[name] = "constexpr" if name in constants else types.get(name, types[""])
        if signature[name].startswith("*") or name in ("C", "outs"):
            attributes[index,] = aligned
    places = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=places, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={**options, "enable_fp_fusion": True})


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
    types = dict.fromkeys(("heads", "I", "J"), "i32") | {"scale": "fp32", "log_sum": "*fp32", "delta": "*fp32"}
    window = {"TOKENS": 784, "FRAMES": 16, "COLUMNS": 7, "HEAD_DIM": 32}
    qkv = torch.empty(0, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
    for choice in kernels._fitting(kernel.configs, {"qkv": qkv}):
        options = {"num_warps": choice.num_warps, "num_stages": choice.num_stages}
        compiled = compile_for_hopper(kernel.fn, window | choice.kwargs, types | {"": f"*{dtype}"}, **options)
        code = machine_code(compiled)
        assert "LDL" not in code, f"{choice} spills registers"
        assert "STL" not in code, f"{choice} spills registers"
        assert "MUFU.EX2" in code
        assert ("HGMMA" in code) is (dtype != "fp32"), f"{choice} uses the wrong units"


@pytest.mark.parametrize("channels", [96, 192, 1536])
@pytest.mark.parametrize("name", ["_forward_kernel", "_backward_kernel"])
def test_layer_norm_reads_and_writes_128_bits_at_once(name: str, channels: int) -> None:
    from iwin.models.kernels import layer_norm

    rows, block = layer_norm._sizes(channels)
    types = {"": "*fp32", "out": "*bf16", "grad": "*bf16", "rows": "i32", "C": "i32", "eps": "fp32"}
    code = machine_code(
        compile_for_hopper(getattr(layer_norm, name), {"ROWS": rows, "BLOCK_C": block}, types, num_warps=4)
    )
    assert "LDL" not in code
    assert "LDG.E.128" in code
    assert "STG.E.128" in code


def test_linear_gelu_keeps_to_registers_and_tensor_cores() -> None:
    from iwin.models.kernels.linear_gelu import _linear_gelu_kernel

    blocks = {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_C": 32}
    types = {"": "*bf16", "rows": "i32", "outs": "i32", "C": "i32"}
    code = machine_code(compile_for_hopper(_linear_gelu_kernel, blocks, types, num_warps=4, num_stages=3))
    assert "LDL" not in code
    assert "HGMMA" in code
    assert "STG.E.128" in code
