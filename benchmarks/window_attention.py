"""The Triton kernels for interleaved windows against gathering the windows for PyTorch's attention, on a CUDA GPU.

    python benchmarks/window_attention.py --model iwin_tiny --frames 32 --size 224 --batch 64

Both ways begin with a normalised map and end with attended values in image order, the projection to q, k and v
included: "gathered" permutes the map into windows, projects, runs `scaled_dot_product_attention` and permutes back;
"kernel" projects the map and lets the kernels read it by strides. They must agree before they are timed. Rounds
alternate between them; a time is the median of its rounds' medians. `attention_macs` counts the attention alone,
forward.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iwin.bench.machine import describe_machine
from iwin.bench.scripts import count, run
from iwin.files import check_writable, save_json
from iwin.models.block import IwinBlock
from iwin.models.iwin import IwinStage
from iwin.models.kernels.ops import interleaved_attention
from iwin.models.recognizer import IwinRecognizer
from iwin.models.windows import Windows, deinterleave, interleave, windows_of
from iwin.models.zoo import build_named

Way = Callable[[Tensor, Tensor, Windows, int], Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def gathered(x: Tensor, weight: Tensor, windows: Windows, heads: int) -> Tensor:
    """Attention of a map x (B, T, H, W, C) on windows gathered in memory."""
    tokens = interleave(x, windows.counts)
    q, k, v = F.linear(tokens, weight).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)
    return deinterleave(out, windows.counts, x.shape)


def kernel(x: Tensor, weight: Tensor, windows: Windows, heads: int) -> Tensor:
    """The same by the Triton kernels."""
    return interleaved_attention(F.linear(x, weight), windows, heads=heads, scale=(x.shape[-1] // heads) ** -0.5)


class Stage(NamedTuple):
    """The map that a stage attends to, padding included."""

    frames: int
    height: int
    width: int
    channels: int
    heads: int
    window: int


WAYS: dict[str, Way] = {"gathered": gathered, "kernel": kernel}


def attending_stages(name: str, *, frames: int, size: int) -> list[Stage]:
    """What each stage of a video model attends to."""
    model = build_named(name)
    assert isinstance(model, IwinRecognizer)
    patch = model.backbone.patch_embed.patch_size
    time, side = -(-frames // patch[0]), -(-size // patch[1])
    stages = []
    for stage in model.backbone.layers:
        assert isinstance(stage, IwinStage)
        block = stage.blocks[0]
        assert isinstance(block, IwinBlock)
        window = min(block.window_size[0], side)
        padded = -(-side // window) * window
        stages.append(Stage(time, padded, padded, block.attn.qkv.in_features, block.attn.num_heads, window))
        side = -(-side // 2)
    return stages


def check(x: Tensor, weight: Tensor, windows: Windows, heads: int) -> dict[str, float]:
    """Relative error of each way on the first sample, against float32."""
    exact = gathered(x[:1].float(), weight.float(), windows, heads)
    errors = {}
    for name, way in WAYS.items():
        errors[name] = float((way(x[:1], weight, windows, heads).float() - exact).norm() / exact.norm())
        if not errors[name] < 0.02:
            sys.exit(f"{name} differs from float32 by {errors[name]:.3g} of its norm; nothing was timed")
    return errors


def time_ways(steps: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, dict[str, float]]:
    """Median, minimum and maximum over rounds, in milliseconds."""
    from triton.testing import do_bench

    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(float(do_bench(step, return_mode="median")))
    return {
        name: {"median": statistics.median(times), "min": min(times), "max": max(times)}
        for name, times in found.items()
    }


def measure(stage: Stage, *, batch: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Errors, and times of the forward pass and of both passes."""
    torch.manual_seed(0)
    C, heads = stage.channels, stage.heads
    windows = windows_of(stage.height, stage.width, (stage.window, stage.window))
    x = torch.randn(batch, *stage[:3], C, device="cuda", dtype=dtype)
    weight = (torch.randn(3 * C, C, device="cuda") * C**-0.5).to(dtype)
    errors = check(x, weight, windows, heads)
    with torch.no_grad():
        forward = time_ways(
            {name: partial(way, x, weight, windows, heads) for name, way in WAYS.items()}, rounds=rounds
        )
    x.requires_grad_()
    weight.requires_grad_()
    grad = torch.randn_like(x)

    def both(way: Way) -> object:
        return torch.autograd.grad(way(x, weight, windows, heads), (x, weight), grad)

    return {
        "map": list(x.shape),
        "heads": heads,
        "windows": list(windows.counts),
        "error": errors,
        "forward_ms": forward,
        "forward_backward_ms": time_ways({name: partial(both, way) for name, way in WAYS.items()}, rounds=rounds),
        "attention_macs": 2 * x.numel() * stage.frames * stage.window**2,
    }


def report(result: dict[str, Any]) -> str:
    """One line on a stage."""
    parts = ["x".join(map(str, result["map"]))]
    for name in ("forward", "forward_backward"):
        times = result[f"{name}_ms"]
        slow, fast = times["gathered"], times["kernel"]
        parts.append(
            f"{name.replace('_', ' + ')}: {slow['median']:.2f} ms gathered ({slow['min']:.2f}-{slow['max']:.2f}), "
            f"{fast['median']:.2f} ms kernel ({fast['min']:.2f}-{fast['max']:.2f}), "
            f"{slow['median'] / fast['median']:.2f}x"
        )
    return "  ".join(parts)


def main() -> None:
    """Measure every stage of a model, print and store what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="iwin_tiny")
    parser.add_argument("--frames", type=count, default=32)
    parser.add_argument("--size", type=count, default=224)
    parser.add_argument("--batch", type=count, default=64)
    parser.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--out", type=Path, help="JSON file; else benchmarks/results/window_attention_GPU.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/window_attention.py measures GPU kernels, and PyTorch finds no CUDA GPU here")
    gpu = torch.cuda.get_device_name().lower().replace(" ", "_")
    out = args.out or Path(__file__).parent / "results" / f"window_attention_{gpu}.json"
    check_writable(out)
    results = []
    for stage in attending_stages(args.model, frames=args.frames, size=args.size):
        results.append(measure(stage, batch=args.batch, dtype=DTYPES[args.dtype], rounds=args.rounds))
        print(report(results[-1]), flush=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "settings": {name: str(value) for name, value in vars(args).items() if name != "out"},
        "stages": results,
    }
    save_json(out, record)


if __name__ == "__main__":
    run(main)
