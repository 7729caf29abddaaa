"""`iwin convert`: a checkpoint in another layout, without its training state; or what a checkpoint is."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import add_config_options, output_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iwin.checkpoint.io import Weights

SUFFIXES = {"iwin": (".safetensors",), "upstream": (".pth", ".pt"), "backbone": (".safetensors", ".pth", ".pt")}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "convert",
        help="rewrite a checkpoint, or say what it is",
        description="Rewrite a checkpoint in our layout or upstream's, without optimiser and other training state.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a file, an address (https://…) or a Hub id (hf://org/name)")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="file to write: .safetensors, or .pth for upstream")
    parser.add_argument(
        "--to",
        choices=list(SUFFIXES),
        help="our layout, upstream's, or the backbone alone without a head (default: what TARGET's name ends with)",
    )
    parser.add_argument("--config", metavar="CONFIG", help="config of a recogniser that carries none, to put into it")
    parser.add_argument(
        "--inflate", metavar="NAME", help="make an image model's weights a video backbone for this model"
    )
    parser.add_argument("--inspect", action="store_true", help="print what SOURCE is, and write nothing")
    parser.add_argument("--force", action="store_true", help="replace TARGET if it exists")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint, or print what it is."""
    from iwin.checkpoint.describe import describe
    from iwin.checkpoint.io import save_upstream, save_weights
    from iwin.checkpoint.source import file_sha256, open_weights
    from iwin.errors import ConfigError

    if args.cfg_options and args.config is None:
        raise ConfigError("--cfg-options changes the config that --config names: give that too")
    if args.inspect:
        for name, value in facts(open_weights(args.source)):
            print(f"{name:<12} {value}")
        return 0
    target = checked_target(args.target, to=args.to, force=args.force)
    source = open_weights(args.source)
    weights = converted(source, args)
    if target.suffix == ".safetensors":
        save_weights(target, weights.state, weights.metadata, others=weights.others)
    else:
        save_upstream(target, weights.state, weights.metadata, others=weights.others)
    size = sum(value.numel() for value in weights.state.values())
    print(f"{target}: {describe(weights.state, target)}; {len(weights.state)} tensors, {size:,} parameters")
    left_out = [name for name in source.others if name not in ("meta", "config")]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print(f"sha256: {file_sha256(target)}")
    return 0


def checked_target(name: str | None, *, to: str | None, force: bool) -> Path:
    """The file to write, once it is clear that it may be written and in which format."""
    from iwin.errors import CheckpointError

    if name is None:
        raise CheckpointError("name the TARGET file to write, or add --inspect to see what SOURCE is")
    target = Path(name)
    suffixes = SUFFIXES[to or "backbone"]
    if target.suffix not in suffixes:
        raise CheckpointError(f"{target}: the name of this file has to end with {' or '.join(suffixes)}")
    output_file(name, [])
    if target.exists() and not force:
        raise CheckpointError(f"{target}: exists; choose another name, or add --force to replace a file")
    return target


def converted(weights: "Weights", args: argparse.Namespace) -> "Weights":
    """What is to be written."""
    from dataclasses import replace

    from iwin.checkpoint.convert import backbone_state, inflated_state
    from iwin.checkpoint.describe import describe
    from iwin.errors import CheckpointError

    if args.inflate:
        state, report = inflated_state(weights, args.inflate)
        print(f"note: {report}", file=sys.stderr)
        weights = replace(weights, state=state)
    elif args.to == "backbone":
        weights = replace(weights, state=backbone_state(weights.state))
    if describe(weights.state, weights.path).layout == "recognizer":
        return with_config(weights, args)
    if args.config:
        raise CheckpointError("--config describes a recogniser, and this is to be none; leave it out")
    return weights


def with_config(weights: "Weights", args: argparse.Namespace) -> "Weights":
    """A recogniser with a config in its metadata: the given one, its own, or one that an upstream file states."""
    from dataclasses import replace

    from iwin.build import checkpoint_metadata, load_trained, stated_config
    from iwin.config import dump_config, load_config, parse
    from iwin.errors import CheckpointError

    others = weights.others
    if args.config:
        loaded = load_config(args.config, args.cfg_options)
        config, text = parse(loaded)[0], dump_config(loaded.data)
        trained = load_trained(weights, config=config)
        if "meta" in others:  # the config given now takes the place of the one that the file states
            others = {**others, "meta": {key: value for key, value in others["meta"].items() if key != "config"}}
    elif "config" in weights.metadata:
        return weights
    else:
        try:
            stated = stated_config(weights)
            trained = load_trained(weights)
        except CheckpointError as error:
            print(f"note: written without a config: {error}", file=sys.stderr)
            return weights
        assert stated is not None
        config, text = stated
    metadata = checkpoint_metadata(config, config_text=text, classes=trained.classes)
    return replace(weights, metadata={**weights.metadata, **metadata}, others=others)


def facts(weights: "Weights") -> "Iterator[tuple[str, str]]":
    """What a checkpoint is, for people: a title and a value a line."""
    import json

    from iwin.checkpoint.describe import describe, listed, stated_heads
    from iwin.checkpoint.source import file_sha256
    from iwin.errors import CheckpointError, first_of

    yield "file", f"{weights.path} ({weights.path.stat().st_size:,} bytes)"
    yield "sha256", file_sha256(weights.path)
    try:
        model = describe(weights.state, weights.path)
    except CheckpointError as error:
        yield "model", str(error)
    else:
        heads = stated_heads(weights)
        yield "model", str(model)
        yield "heads", "not stated, and shapes do not tell" if heads is None else listed(heads)
        yield "classes", "no classifier" if model.num_classes is None else str(model.num_classes)
        yield "frames", "no time embedding" if model.num_frames is None else str(model.num_frames)
    names = json.loads(weights.metadata.get("classes", "null"))
    if names:
        yield "class names", first_of(names)
    size = sum(value.numel() for value in weights.state.values())
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in weights.state.values()})
    yield "tensors", f"{len(weights.state)}, {size:,} parameters, {', '.join(kinds)}"
    yield "metadata", ", ".join(sorted(weights.metadata)) or "none of ours"
    if weights.others:
        yield "besides", ", ".join(weights.others)
