"""`iwin data show`: a contact sheet of what the model sees."""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import add_config_options, output_file, split_options
from iwin.data.annotations import LIST_SUFFIXES
from iwin.data.sources import is_url, path_in
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from iwin.config import RunConfig
    from iwin.data.annotations import Annotations
    from iwin.data.loader import BatchLoader
    from iwin.viz.sheet import Seen

USUAL_CONFIG = "iwin_tiny_patch244_window77_kinetics400_1k"
"""Whose pipeline a list or a folder goes through."""

ONE_WORKER = "data.workers_per_gpu=1"
"""Enough for a few clips; a decoder that hangs or crashes costs its video alone."""


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
    parser.add_argument(
        "--num",
        type=int,
        default=8,
        metavar="N",
        help="clips to show, of as many videos; of each another view (default 8)",
    )
    parser.add_argument("--epoch", type=int, default=1, metavar="E", help="epoch of training, from 1 (default 1)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the clips."""
    out = output_file(args.out, [".png", ".gif"])
    if args.num < 1 or args.epoch < 1:
        raise ConfigError(f"--{'num' if args.num < 1 else 'epoch'} takes a number from 1")

    from iwin.data.workers import start_fork_server

    start_fork_server()  # it imports what it needs while this process does

    from iwin.config import load_run_config
    from iwin.viz.sheet import draw_moving, draw_sheet

    is_data = is_url(args.source) or Path(args.source).is_dir() or Path(args.source).suffix in LIST_SUFFIXES
    data = split_options(args.split, args.source) if is_data else []
    config, _ = load_run_config(USUAL_CONFIG if is_data else args.source, [ONE_WORKER, *data, *args.cfg_options])
    clips = seen_clips(config, args.split, epoch=args.epoch - 1, num=args.num)
    if not clips:
        raise ConfigError(f"{args.source}: no video of data.{args.split} can be read")
    (draw_moving if out.suffix == ".gif" else draw_sheet)(clips, out)
    print(f"wrote {out}: {len(clips)} clips of {'x'.join(map(str, clips[0].clip.shape[:3]))}")
    return 0


def seen_clips(config: "RunConfig", split: str, *, epoch: int, num: int) -> "list[Seen]":
    """Clips of a split as the model gets them, in its order; bad videos are named on standard error.

    They are of as many videos as there are. Where a video has several views, the first video shows its first view, the
    next its second, and so on; where there are fewer videos than clips, each shows several.

    Args:
        config: the run.
        split: "train", "val" or "test".
        epoch: epoch of training, from 0.
        num: clips at most.

    Raises:
        ConfigError: if the config has no such split.
        DataError: if its videos cannot be listed.
    """
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
    videos = _videos(loader, config, annotations, training=split == "train", num_classes=num_classes, epoch=epoch)
    views = math.ceil(num / len(annotations.samples))
    shown: list[Seen] = []
    for number, video in enumerate(videos):
        chosen = {(number + turn) % len(video) for turn in range(views)}
        shown += [video[view] for view in sorted(chosen)]
        if len(shown) >= num:
            break
    return shown[:num]


def _videos(
    loader: "BatchLoader",
    config: "RunConfig",
    annotations: "Annotations",
    *,
    training: bool,
    num_classes: int,
    epoch: int,
) -> "Iterator[list[Seen]]":
    """The views of each video."""
    import torch

    from iwin.build import build_blend
    from iwin.viz.sheet import Seen

    blend = build_blend(config, num_classes=num_classes, rank=0) if training else None
    for index, batch in enumerate(loader):
        for bad in loader.bad.take_new():
            print(f"bad video: {bad.reason}", file=sys.stderr)
        views = batch.views.shape[1]
        targets = batch.targets.repeat_interleave(views, dim=0)
        clips = batch.views_on(torch.device("cpu")).flatten(0, 1)
        if blend is not None:
            # Mixing and normalising are linear, up to the rounding to grey levels.
            mixed, targets = blend(clips.float().movedim(-1, 1), targets, epoch, index)
            clips = mixed.movedim(1, -1).round().byte()
        for place, video in enumerate(batch.indices.tolist()):
            path = path_in(annotations.samples[video].path)
            of_video = slice(place * views, (place + 1) * views)
            yield [
                Seen(
                    clip.clone(),  # the others of the batch need not stay in memory
                    _title(target, annotations.classes),
                    f"{path.parent.name}/{path.name}" + (f", view {view}/{views}" if views > 1 else ""),
                )
                for view, (clip, target) in enumerate(zip(clips[of_video], targets[of_video], strict=True), 1)
            ]


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
