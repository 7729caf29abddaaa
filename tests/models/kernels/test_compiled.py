"""The kernels compiled for GPUs, which needs none: what Triton's interpreter lets pass may not compile."""

import re
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


def compile_for_gpu(
    function: Any, constants: dict[str, Any], types: dict[str, str], *, capability: int = 90, **options: int
) -> Any:
    """Compile a kernel as it is launched for aligned maps whose channels are multiples of 16.

    Args:
        function: the kernel.
        constants: its arguments that are known when it is compiled; others that have defaults are those.
        types: of its other arguments, in Triton's words; "" is that of those not named.
        capability: of the GPU; 90 is Hopper, 80 Ampere.
        options: warps and pipeline stages.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {each.name: each.default for each in function.params if each.has_default} | constants
    aligned = [["tt.divisibility", 16]]
    signature: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(function.arg_names):
        if name == "extent":
            signature[name] = ("i32",) * 2
            continue
        if name.endswith("_strides"):
            signature[name] = ("i32",) * 4
            attributes |= {(index, axis): aligned for axis in range(4)}
            continue
        signature[name] = "constexpr" if name in constants else types.get(name, types[""])
        if signature[name].startswith("*") or name in ("C", "outs"):
            attributes[index,] = aligned
    places = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=places, attrs=attributes)
    return triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={**options, "enable_fp_fusion": True}
    )


def machine_code(compiled: Any) -> str:
    """The compiled kernel's instructions, as text."""
    disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        return subprocess.check_output([disassembler, "-sass", file.name], text=True)


def loops(code: str) -> list[list[str]]:
    """The instructions of each loop, in the order of their ends."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/ +(.*?) *;", code)
    instructions = [(int(place, 16), text) for place, text in lines]
    back = [(int(to[1], 16), place) for place, text in instructions if (to := re.search(r"BRA.* 0x([0-9a-f]+)", text))]
    return [[text for place, text in instructions if first <= place <= last] for first, last in back if first < last]


TYPES = dict.fromkeys(("heads", "I", "J"), "i32") | dict.fromkeys(("log_sum", "delta", "grad_beyond"), "*fp32")
TYPES["scale"] = "fp32"
PUBLISHED = {"POSITIONS": 784, "TOKENS": 784, "FRAMES": 16, "COLUMNS": 7, "EVEN": True, "HEAD_DIM": 32}
SHORT = {"POSITIONS": 196, "TOKENS": 196, "FRAMES": 4}  # ends within a block
BEYOND = {"TOKENS": 480, "COLUMNS": 6, "EVEN": False}  # of 16 rows and columns in windows of 7: 6 or 5 of each


def attention_code(name: str, dtype: str, window: dict[str, Any], capability: int) -> list[str]:
    """The instructions of a kernel of attention with each choice of the tuner."""
    from iwin.models.kernels import window_attention as kernels

    kernel = getattr(kernels, name)
    qkv = torch.empty(0, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
    return [
        machine_code(
            compile_for_gpu(
                kernel.fn,
                window | choice.kwargs,
                TYPES | {"": f"*{dtype}"},
                capability=capability,
                num_warps=choice.num_warps,
                num_stages=choice.num_stages,
            )
        )
        for choice in kernels._fitting(kernel.configs, {"qkv": qkv})
    ]


@pytest.mark.parametrize("name", ["_forward_kernel", "_query_backward_kernel", "_key_backward_kernel"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_keeps_to_registers_and_tensor_cores(name: str, dtype: str) -> None:
    for code in attention_code(name, dtype, PUBLISHED, 90):
        assert "LDL" not in code, "spills registers"
        assert "STL" not in code, "spills registers"
        assert "MUFU.EX2" in code
        assert ("HGMMA" in code) is (dtype != "fp32")


def test_weights_relative_to_one_score_take_fewer_instructions() -> None:
    from iwin.models.kernels import window_attention as kernels

    counts: dict[tuple[int, int, bool], int] = {}
    choices = [choice.kwargs for choice in kernels._forward_kernel.configs]
    for kwargs, code in zip(choices, attention_code("_forward_kernel", "bf16", PUBLISHED, 90), strict=True):
        first = next(loop for loop in loops(code) if "MUFU.EX2" in str(loop))
        counts.setdefault((kwargs["BLOCK_M"], kwargs["BLOCK_N"], "STEADY" in kwargs), len(first))
    assert counts[64, 64, True] < 0.75 * counts[64, 64, False], counts


@pytest.mark.parametrize("name", ["_forward_kernel", "_query_backward_kernel", "_key_backward_kernel"])
@pytest.mark.parametrize(
    ("window", "capability"),
    [
        (SHORT, 90),
        (BEYOND, 90),
        (BEYOND | {"HEAD_DIM": 16}, 90),
        ({"HEAD_DIM": 64}, 90),
        ({}, 80),
        (BEYOND, 80),
    ],
    ids=str,
)
def test_compiles_for_tensor_cores_wherever_it_runs(name: str, window: dict[str, Any], capability: int) -> None:
    for code in attention_code(name, "bf16", PUBLISHED | window, capability):
        assert ("HGMMA" if capability == 90 else "HMMA") in code


def test_gradients_beyond_the_map_compile() -> None:
    from iwin.models.kernels.window_attention import _beyond_backward_kernel

    constants = PUBLISHED | BEYOND | {"BLOCK_M": 64}
    code = machine_code(compile_for_gpu(_beyond_backward_kernel, constants, TYPES | {"": "*bf16"}, num_warps=4))
    assert "LDL" not in code


@pytest.mark.parametrize("channels", [96, 192, 1536])
@pytest.mark.parametrize("name", ["_forward_kernel", "_backward_kernel"])
def test_layer_norm_reads_and_writes_128_bits_at_once(name: str, channels: int) -> None:
    from iwin.models.kernels import layer_norm

    rows, block = layer_norm._sizes(channels)
    types = {"": "*fp32", "out": "*bf16", "grad": "*bf16", "rows": "i32", "C": "i32", "eps": "fp32"}
    code = machine_code(
        compile_for_gpu(getattr(layer_norm, name), {"ROWS": rows, "BLOCK_C": block}, types, num_warps=4)
    )
    assert "LDL" not in code
    assert "LDG.E.128" in code
    assert "STG.E.128" in code


def test_linear_gelu_keeps_to_registers_and_tensor_cores() -> None:
    from iwin.models.kernels.linear_gelu import _linear_gelu_kernel

    blocks = {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_C": 32}
    types = {"": "*bf16", "rows": "i32", "outs": "i32", "C": "i32"}
    code = machine_code(compile_for_gpu(_linear_gelu_kernel, blocks, types, num_warps=4, num_stages=3))
    assert "LDL" not in code
    assert "HGMMA" in code
    assert "STG.E.128" in code
