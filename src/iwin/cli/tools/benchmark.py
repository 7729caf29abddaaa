"""`iwin tool benchmark`: how fast the model takes clips, without reading videos."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from iwin.cli.common import add_config_options, add_device_options, idle_options, print_figures

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

    from iwin.config import RunConfig

IDLE = {"fuse_conv_bn": "the model has no batch normalisation", "log_interval": "the median of all repeats is told"}


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser("benchmark", help="speed of the model", description="Time the model on random clips.")
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="clips at once (default 1)")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="timed passes (default 10)")
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="passes before them (default 3)")
    parser.add_argument("--log-interval", type=int, help=f"no effect: {IDLE['log_interval']}")
    parser.add_argument("--fuse-conv-bn", action="store_true", help=f"no effect: {IDLE['fuse_conv_bn']}")
    add_device_options(parser)
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the median speed over the repeats."""
    from statistics import median

    import torch

    from iwin.build import build_accelerator, slow_precision
    from iwin.config import load_run_config
    from iwin.errors import ConfigError

    if min(args.batch_size, args.repeats) < 1 or args.warmup < 0:
        raise ConfigError("--batch-size and --repeats take numbers from 1 up, --warmup from 0")
    config, _ = load_run_config(args.config, args.cfg_options)
    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu)
    for note in [*idle_options(args, IDLE), *slow_precision(accelerator.device, accelerator.mixed_precision)]:
        print(f"note: {note}", file=sys.stderr)
    views = random_views(config)
    clips = views[:1].expand(args.batch_size, *views.shape[1:]).contiguous()
    seconds = time_passes(config, clips, accelerator=accelerator, repeats=args.repeats, warmup=args.warmup)
    size = "x".join(map(str, clips.shape[1:4]))
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{args.batch_size} clips of {size} at once on {accelerator.device.type} ({device}), mixed precision "
        f"{accelerator.mixed_precision}; {args.repeats} passes of {min(seconds):.4f} to {max(seconds):.4f} s",
        file=sys.stderr,
    )
    rate = args.batch_size / median(seconds)
    print_figures({"clips/s": rate, "videos/s": rate / len(views), "clips a video": len(views)})
    return 0


def random_views(config: "RunConfig") -> "Tensor":
    """The views (V, T, H, W, 3) that the config's test pipeline makes of a video of noise."""
    import numpy as np
    import torch

    from iwin.build import build_sampler, build_transform
    from iwin.errors import ConfigError

    split = config.data.test or config.data.val or config.data.train
    if split is None:
        raise ConfigError("the config has no data, whose pipeline says how long and large a clip is")
    rng = np.random.default_rng(0)
    indices = build_sampler(split.sampling)(300, rng)
    frames = torch.from_numpy(rng.integers(0, 256, (indices.size, 256, 340, 3), dtype=np.uint8))
    return build_transform(split)(frames.unflatten(0, indices.shape), rng)


def time_passes(
    config: "RunConfig", clips: "Tensor", *, accelerator: "Accelerator", repeats: int, warmup: int
) -> list[float]:
    """Seconds of each pass of uint8 clips (B, T, H, W, 3): copy to the device, normalise, model."""
    import torch

    from iwin.build import build_model, build_normalize

    split = config.data.test or config.data.val or config.data.train
    assert split is not None
    normalize = build_normalize(split.normalize)
    model = build_model(config.model, num_classes=config.model.num_classes or 400).eval().to(accelerator.device)
    seconds = []
    with torch.inference_mode(), accelerator.autocast():
        for _ in range(warmup + repeats):
            begun = time.perf_counter()
            model(normalize(clips.to(accelerator.device))).cpu()  # the copy back waits for the device
            seconds.append(time.perf_counter() - begun)
    return seconds[warmup:]
