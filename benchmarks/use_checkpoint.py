"""Memory and losses of a training step with and without gradient checkpointing.

    python benchmarks/use_checkpoint.py --model iwin_tiny --frames 32 --size 112

Each variant runs in a process of its own. `saved` is what autograd keeps for the backward pass (parameters left out),
`peak` the process's largest resident memory (CUDA: the allocator's peak) above that before the step.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import iwin
from iwin.bench.machine import describe_machine
from iwin.bench.scripts import count, run
from iwin.files import check_writable, save_json


def measure(name: str, *, frames: int, size: int, batch: int, use_checkpoint: bool) -> dict[str, float]:
    """Loss of two SGD steps, bytes kept for the backward pass, peak memory of a step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = iwin.create_model(name, use_checkpoint=use_checkpoint).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    clips = torch.randn(batch, 3, frames, size, size, device=device)
    labels = torch.arange(batch, device=device)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    before = peak_bytes(device)
    losses = []
    for _ in range(2):
        torch.manual_seed(1)  # the same dropout in both variants
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = F.cross_entropy(model(clips), labels)
        kept = sum(saved.values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        saved.clear()
        losses.append(loss.item())
    return {"loss": losses[0], "second_loss": losses[1], "saved": kept, "peak": peak_bytes(device) - before}


def peak_bytes(device: torch.device) -> int:
    """Largest memory so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure both variants, print and optionally store them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="iwin_tiny")
    parser.add_argument("--frames", type=count, default=32)
    parser.add_argument("--size", type=count, default=112)
    parser.add_argument("--batch", type=count, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--variant", choices=["plain", "checkpointed"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = {"frames": args.frames, "size": args.size, "batch": args.batch}
    if args.variant:
        print(json.dumps(measure(args.model, **settings, use_checkpoint=args.variant == "checkpointed")))
        return
    if args.out:
        check_writable(args.out)
    try:
        results = {
            variant: json.loads(subprocess.check_output([sys.executable, *sys.argv, "--variant", variant], text=True))
            for variant in ("plain", "checkpointed")
        }
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the process has said why
    plain, checkpointed = results["plain"], results["checkpointed"]
    for figure in ("saved", "peak"):
        ratio = checkpointed[figure] / plain[figure]
        print(
            f"{figure:6} {plain[figure] / 2**20:9.1f} MiB -> {checkpointed[figure] / 2**20:9.1f} MiB, ratio {ratio:.3f}"
        )
    same = (plain["loss"], plain["second_loss"]) == (checkpointed["loss"], checkpointed["second_loss"])
    print(f"losses {'equal' if same else 'DIFFER'}: {plain['loss']:.6f}, after a step {plain['second_loss']:.6f}")
    if args.out:
        about = {
            "command": " ".join(["python", *sys.argv]),
            "date": time.strftime("%Y-%m-%d"),
            "machine": describe_machine(),
        }
        save_json(args.out, {**about, "model": args.model, **settings, **results})


if __name__ == "__main__":
    run(main)
