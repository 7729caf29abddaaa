"""`iwin tool publish_model`: a checkpoint to give away."""

import argparse
from typing import TYPE_CHECKING

from iwin.cli.common import output_file

if TYPE_CHECKING:
    from iwin.checkpoint.io import Weights

_KEPT = ("format", "classes", "fingerprints")
"""Metadata that names no path."""


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "publish_model",
        help="strip a checkpoint and name it by its hash",
        description="Write the weights alone, without training state, epoch and the paths of this machine, to a file "
        "whose name ends in the first eight digits of its SHA-256.",
    )
    parser.add_argument("in_file", metavar="IN", help="checkpoint of ours or upstream's")
    parser.add_argument(
        "out_file", metavar="OUT", help="name of the file, .safetensors or .pth, to which the hash is added"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file and print its name."""
    from iwin.checkpoint.io import save_upstream, save_weights
    from iwin.checkpoint.source import file_sha256, open_weights

    out = output_file(args.out_file, [".safetensors", ".pth"])
    weights = open_weights(args.in_file)
    save = save_weights if out.suffix == ".safetensors" else save_upstream
    unnamed = out.with_name(f".{out.name}.unnamed{out.suffix}")
    try:
        save(unnamed, weights.state, published(weights))
        final = out.with_name(f"{out.stem}-{file_sha256(unnamed)[:8]}{out.suffix}")
        unnamed.replace(final)
    finally:
        unnamed.unlink(missing_ok=True)
    left_out = sorted({*weights.others, *weights.metadata} - {*_KEPT, "config"})
    print(f"wrote {final}: {len(weights.state)} tensors" + (f"; left out: {', '.join(left_out)}" if left_out else ""))
    return 0


def published(weights: "Weights") -> dict[str, str]:
    """Of a checkpoint's metadata, what predicting needs and what it was trained on: no paths."""
    from iwin.build import stated_config

    kept: dict[str, str] = {key: weights.metadata[key] for key in _KEPT if key in weights.metadata}
    stated = stated_config(weights) if "config" in weights.metadata else None
    if stated is not None:
        run, _ = stated
        splits = {
            name: split and split.model_copy(update={"ann_file": None, "root": ""}) for name, split in iter(run.data)
        }
        changes = {
            "data": run.data.model_copy(update=splits),
            "model": run.model.model_copy(update={"pretrained": None}),
            "work_dir": None,
            "load_from": None,
            "resume_from": None,
        }
        kept["config"] = run.model_copy(update=changes).model_dump_json()
    return kept
