"""`iwin bench model`: speed and memory of the model in every way to run it, against the plain reference and peers."""

import argparse
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from iwin.bench.subjects import Job
    from iwin.bench.variants import Variant

PRESETS = {
    "h200": {"device": "cuda", "batch": 64, "rounds": 5},
    "h200-train": {"train": True, "device": "cuda", "batch": 16, "rounds": 5},
}
"""Settings that go together; an option given beside one overrules it. The plain reference keeps gigabytes a clip for
the backward pass, so fewer clips go into a training step."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "model",
        help="speed and memory of the model",
        description="Measure variants of the model side by side, each in a process of its own.",
    )
    parser.add_argument(
        "model", metavar="NAME", nargs="?", default="iwin_tiny", help="a video model (default iwin_tiny)"
    )
    parser.add_argument("--train", action="store_true", help="a training step instead of a forward pass")
    parser.add_argument("--variants", nargs="+", metavar="VARIANT", help="what to measure; --list names all of them")
    parser.add_argument("--peers", action="store_true", help="add models of other authors, at their own input sizes")
    parser.add_argument("--growth", action="store_true", help="then change frames, side and batch one at a time, too")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a clip (default 32; with --growth 16)")
    parser.add_argument(
        "--size", type=int, nargs="+", metavar="N", help="side, or height and width (default 224; with --growth 112)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="clips at once (default 1)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds in which each variant has its turn (default 5)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="where to run (default: a GPU where there is one)")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="settings for a machine")
    parser.add_argument("--out", metavar="DIR", help="write NAME.json and charts there")
    parser.add_argument(
        "--name",
        help="name of those files (default: MODEL_FRAMESxSIZE_infer_DEVICE, or _train_; with _batchN if it is not 1)",
    )
    parser.add_argument("--list", action="store_true", help="print the variants and leave")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the record and the charts."""
    from iwin.bench.charts import draw_charts, new_figure
    from iwin.bench.growth import measure_growth
    from iwin.bench.report import growth_table, table
    from iwin.bench.session import measure, record
    from iwin.bench.variants import VARIANTS
    from iwin.files import check_writable, save_json

    if args.list:
        for variant in VARIANTS:
            print(variant.name + (f"  (needs {variant.missing})" if variant.missing else ""))
        return 0
    job = base_job(args)
    variants = choose(args, job)
    name = args.name or default_name(job)
    if args.out:  # says now, not after the work, what cannot be written or drawn
        new_figure(1, 1)
        check_writable(Path(args.out) / f"{name}.json")
    rounds = args.rounds or 5
    entries = measure([replace(job, variant=variant.name) for variant in variants], rounds=rounds, say=say)
    sized = [variant.name for variant in variants if variant.family in ("iwin", "reference")]
    growth = measure_growth(job, sized, rounds=rounds, say=say) if args.growth else {}
    found = record(["iwin", *sys.argv[1:]], entries, growth)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table(found))
    if any(growth.values()):
        console.print(growth_table(found))
    if args.out:
        save_json(Path(args.out) / f"{name}.json", found)
        for path in (Path(args.out) / f"{name}.json", *draw_charts(found, Path(args.out), name)):
            print(path)
    return 0 if all(entry.rounds for entry in entries) else 1


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def default_name(job: "Job") -> str:
    """A name that differs where what is measured has another size."""
    size = "x".join(map(str, dict.fromkeys((job.height, job.width))))
    batch = f"_batch{job.batch}" if job.batch > 1 else ""
    return f"{job.model}_{job.frames}x{size}{batch}_{'train' if job.train else 'infer'}_{job.device}"


def base_job(args: argparse.Namespace) -> "Job":
    """What all variants have in common.

    Raises:
        ConfigError: if it cannot be measured.
    """
    import torch

    from iwin.bench.subjects import Job
    from iwin.errors import ConfigError
    from iwin.models.zoo import VIDEO_MODELS

    if platform.system() != "Linux":
        raise ConfigError("iwin bench model reads what memory processes take from /proc, which Linux alone has")
    for name, value in PRESETS.get(args.preset, {}).items():
        if not getattr(args, name):
            setattr(args, name, value)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; give --device cpu")
    if args.model not in VIDEO_MODELS:
        raise ConfigError(f"there is no video model {args.model}; choose one of {', '.join(VIDEO_MODELS)}")
    counts = {"--frames": args.frames, "--batch": args.batch, "--rounds": args.rounds}
    wrong = [option for option, value in counts.items() if value is not None and value < 1]
    size = args.size or [112 if args.growth else 224]
    if wrong or len(size) > 2 or min(size) < 1:
        raise ConfigError(f"{', '.join(wrong) or '--size'} takes numbers from 1 up; --size one or two of them")
    return Job(
        variant="fp32",
        model=args.model,
        batch=args.batch or 1,
        frames=args.frames or (16 if args.growth else 32),
        height=size[0],
        width=size[-1],
        train=args.train,
        device=device,
    )


def choose(args: argparse.Namespace, job: "Job") -> "list[Variant]":
    """The variants to measure, each once, and matrix products in their precisions; of peers, those that are installed.

    Raises:
        ConfigError: if one that was named cannot run here, or none of them has sizes to grow in.
    """
    from iwin.bench.variants import DEFAULT, GROWTH, VARIANTS, find_variant
    from iwin.errors import ConfigError
    from iwin.models.native.common import has_half

    chosen = [find_variant(name) for name in args.variants or (GROWTH if args.growth else DEFAULT[job.device])]
    if args.growth and not any(variant.family in ("iwin", "reference") for variant in chosen):
        raise ConfigError("--growth measures variants of ours and of the reference; name one of those in --variants")
    if args.variants is None and job.train:
        chosen = [*filter(lambda variant: variant.trains, chosen), find_variant("bf16-checkpointed")]
    if args.peers:
        peers = [variant for variant in VARIANTS if variant.family == "peer"]
        chosen += [variant for variant in peers if not variant.missing]
        for variant in peers:
            if variant.missing:
                say(f"{variant.name} is left out: it needs {variant.missing}")
    if args.variants is None and job.device == "cpu" and not has_half("bf16"):
        say("bf16 is left out: oneDNN does not multiply in it on this CPU; --variants measures it all the same")
        chosen = [variant for variant in chosen if variant.precision == "fp32"]
    asked = {variant.precision.removesuffix("-cast") for variant in chosen}
    chosen += [v for v in VARIANTS if v.family == "matmul" and v.precision in asked and job.device in v.devices]
    for variant in chosen:
        if variant.missing:
            raise ConfigError(f"{variant.name} needs {variant.missing}, or leave it out")
        if job.device not in variant.devices or (job.train and variant.family == "iwin" and not variant.trains):
            task = "trained" if job.train else "run"
            raise ConfigError(f"{variant.name} cannot be {task} on {job.device}; leave it out")
    return list(dict.fromkeys(chosen))
