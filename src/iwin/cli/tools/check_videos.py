"""`iwin tool check_videos`: decode every frame of every listed video, and name those that cannot be."""

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from iwin.cli.common import add_config_options, console, idle_options, output_file

IDLE = {"decoder": "PyAV decodes"}

_AT_ONCE = 64
"""Videos a process that are given out before their results are awaited."""

_FRAMES = 16
"""Frames that are held in memory at once."""


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "check_videos", help="find videos that cannot be decoded", description="Decode every video of a split."
    )
    parser.add_argument("config", metavar="CONFIG", help="the config that names the videos")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train", help="(default train)")
    parser.add_argument("--num-processes", type=int, metavar="N", help="decoder processes (default: one a core)")
    parser.add_argument("--output-file", metavar="FILE", help="write the paths of the bad videos, one a line")
    parser.add_argument("--decoder", help=f"no effect: {IDLE['decoder']}")
    add_config_options(parser, "--options")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Name the bad videos on standard output; exit status 1 if there are any."""
    from iwin.build import build_annotations
    from iwin.config import load_run_config
    from iwin.engine.log import RunLog, progress
    from iwin.errors import ConfigError
    from iwin.files import write_atomically

    out = output_file(args.output_file, []) if args.output_file else None
    processes = os.cpu_count() or 1 if args.num_processes is None else args.num_processes
    if processes < 1:
        raise ConfigError("--num-processes takes a number from 1 up")
    config, _ = load_run_config(args.config, args.cfg_options)
    split = {"train": config.data.train, "val": config.data.val, "test": config.data.test}[args.split]
    if split is None:
        raise ConfigError(f"the config has no data.{args.split}")
    log = RunLog(None, console())
    for note in idle_options(args, IDLE):
        log.say(f"note: {note}")
    paths = list(dict.fromkeys(sample.path for sample in build_annotations(split, name=args.split).samples))
    bad = []
    checked = problems(paths, processes=processes, check=problem_of)
    for path, problem in progress(checked, console=log.console, title="checking", total=len(paths)):
        if problem is not None:
            bad.append(path)
            print(problem, flush=True)
    if out is not None:
        text = "".join(f"{path}\n" for path in bad)
        write_atomically(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    log.say(f"{len(paths)} videos checked, {len(bad)} cannot be decoded")
    return 1 if bad else 0


def problems(
    paths: Sequence[str], *, processes: int, check: Callable[[str], str | None]
) -> Iterator[tuple[str, str | None]]:
    """Each path with what is wrong with it, or None, as `check` says.

    Args:
        paths: the videos.
        processes: how many are checked at the same time; one is checked in this process.
        check: a function that processes can import.
    """
    if processes == 1:
        yield from ((path, check(path)) for path in paths)
        return
    pool = _pool(processes)
    try:
        for start in range(0, len(paths), processes * _AT_ONCE):
            part = paths[start : start + processes * _AT_ONCE]
            done = 0
            try:
                for problem in pool.map(check, part):
                    yield part[done], problem
                    done += 1
            except BrokenProcessPool:  # a file can make FFmpeg crash: find out which
                yield from _one_by_one(part[done:], check)
                pool = _pool(processes)
    finally:
        pool.shutdown(cancel_futures=True)


def problem_of(path: str) -> str | None:
    """What is wrong with a video, or None if every frame of it can be decoded."""
    from iwin.data.decode import open_video
    from iwin.errors import VideoError

    try:
        with open_video(path) as video:
            first = 0
            while first < video.num_frames:  # which may shrink on the way
                video.get_frames(range(first, min(first + _FRAMES, video.num_frames)))
                first += _FRAMES
    except VideoError as error:
        return str(error)
    return None


def _one_by_one(paths: Sequence[str], check: Callable[[str], str | None]) -> Iterator[tuple[str, str | None]]:
    pool = _pool(1)
    try:
        for path in paths:
            try:
                yield path, pool.submit(check, path).result()
            except BrokenProcessPool:
                yield path, f"{path}: the decoder crashes on this file; take it off the list"
                pool = _pool(1)
    finally:
        pool.shutdown()


def _pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["iwin.data.decode"])
    return ProcessPoolExecutor(processes, mp_context=context)
