"""`iwin data show`: a contact sheet of what the model sees."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import LIST_SUFFIXES, add_config_options, output_file, split_options
from iwin.data.sources import is_url
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from iwin.config import RunConfig
    from iwin.data.annotations import Annotations
    from iwin.data.loader import BatchLoader
    from iwin.viz.sheet import Seen

USUAL_CONFIG = "iwin_tiny_patch244_window77_kinetics400_1k"
"""Whose pipeline a list or a folder goes through."""

NO_WORKERS = "data.workers_per_gpu=0"
"""A few clips are read faster than processes start."""


def add_parser(steps: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the step."""
    parser = steps.add_parser(
        "show",
        help="a picture of what the model sees",
        description="Draw clips as the model gets them, after all cropping, augmenting and mixing.",
    )
    parser.add_argument(
        "source",
        metavar="CONFIG_OR_LIST",
        help=f"a config; or a list or folder of class folders, or the address of one, shown as {USUAL_CONFIG} sees it",
    )
    parser.add_argument("--split", choices=["train", "val", "test"], default="train", help="(default train)")
    parser.add_argument(
        "--out", metavar="FILE", default="sheet.png", help="a .png, or a moving .gif (default sheet.png)"
    )
    parser.add_argument("--num", type=int, default=8, metavar="N", help="clips to show (default 8)")
    parser.add_argument("--epoch", type=int, default=1, metavar="E", help="epoch of training, from 1 (default 1)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the clips."""
    out = output_file(args.out, [".png", ".gif"])
    if args.num < 1 or args.epoch < 1:
        raise ConfigError(f"--{'num' if args.num < 1 else 'epoch'} takes a number from 1")

    from iwin.config import load_run_config
    from iwin.viz.sheet import draw_moving, draw_sheet

    is_data = is_url(args.source) or Path(args.source).is_dir() or Path(args.source).suffix in LIST_SUFFIXES
    data = split_options(args.split, args.source) if is_data else []
    config, _ = load_run_config(USUAL_CONFIG if is_data else args.source, [NO_WORKERS, *data, *args.cfg_options])
    clips = list(islice(seen_clips(config, args.split, epoch=args.epoch - 1), args.num))
    if not clips:
        raise ConfigError(f"{args.source}: no video of data.{args.split} can be read")
    (draw_moving if out.suffix == ".gif" else draw_sheet)(clips, out)
    print(f"wrote {out}: {len(clips)} clips of {'x'.join(map(str, clips[0].clip.shape[:3]))}")
    return 0


def seen_clips(config: "RunConfig", split: str, *, epoch: int) -> "Iterator[Seen]":
    """The clips of a split as the model gets them, in its order; bad videos are named on standard error."""
    from iwin.build import build_accelerator, build_annotations, build_evaluation, training_loader

    settings = {"train": config.data.train, "val": config.data.val, "test": config.data.test}[split]
    if settings is None:
        raise ConfigError(f"the config has no data.{split}")
    annotations = build_annotations(settings, name=split)
    num_classes = config.model.num_classes or annotations.num_classes
    accelerator = build_accelerator(config, cpu=True)
    if split == "train":
        loader, batches = training_loader(config, annotations, accelerator, num_classes=num_classes)
        batches.begin(epoch)
    else:
        loader = build_evaluation(
            config, settings, annotations, accelerator, name=split, num_classes=num_classes
        ).loader
    yield from _clips(loader, config, annotations, training=split == "train", num_classes=num_classes, epoch=epoch)


def _clips(
    loader: "BatchLoader",
    config: "RunConfig",
    annotations: "Annotations",
    *,
    training: bool,
    num_classes: int,
    epoch: int,
) -> "Iterator[Seen]":
    import torch

    from iwin.build import build_blend
    from iwin.viz.sheet import Seen

    blend = build_blend(config, num_classes=num_classes, rank=0) if training else None
    for index, batch in enumerate(loader):
        for video in loader.bad.take_new():
            print(f"bad video: {video.reason}", file=sys.stderr)
        views = batch.views.shape[1]
        targets = batch.targets.repeat_interleave(views, dim=0)
        clips = batch.views_on(torch.device("cpu")).flatten(0, 1)
        if blend is not None:
            # Mixing and normalising are linear, up to the rounding to grey levels.
            mixed, targets = blend(clips.float().movedim(-1, 1), targets, epoch, index)
            clips = mixed.movedim(1, -1).round().byte()
        for number, (clip, target) in enumerate(zip(clips, targets, strict=True)):
            place, view = divmod(number, views)
            path = Path(annotations.samples[int(batch.indices[place])].path)
            view_name = f", view {view + 1} of {views}" if views > 1 else ""
            yield Seen(clip, _title(target, annotations.classes), f"{path.parent.name}/{path.name}{view_name}")


def _title(target: "Tensor", classes: Sequence[str] | None) -> str:
    """The classes of a clip, with their shares where it is of several."""
    if target.ndim == 0:
        return _class_name(int(target), classes)
    shares = {label: share for label, share in enumerate(target.tolist()) if share >= 0.005}
    names = [
        f"{'' if share == 1 else f'{share:.2f} '}{_class_name(label, classes)}"
        for label, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return " + ".join(names)


def _class_name(label: int, classes: Sequence[str] | None) -> str:
    return classes[label] if classes else f"class {label}"
