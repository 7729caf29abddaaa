"""`iwin train`: train a recogniser."""

import argparse
import json
import os
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import (
    add_config_options,
    add_device_options,
    check_test_metrics,
    console,
    output_folder,
    print_figures,
    split_options,
)
from iwin.cli.launch import add_launch_options, choose_gpu, join_processes
from iwin.cli.test import test_split
from iwin.data.sources import exists, join
from iwin.errors import CheckpointError, ConfigError
from iwin.files import write_atomically
from iwin.process import keep_memory

if TYPE_CHECKING:
    from accelerate import Accelerator

    from iwin.config import RunConfig
    from iwin.engine.log import RunLog
    from iwin.engine.state import Progress
    from iwin.engine.train import Training


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("train", help="train a recogniser", description="Train a recogniser.")
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="folder of log and checkpoints (default: that of --resume-from, else work_dirs/<config>)",
    )
    parser.add_argument(
        "--resume-from",
        metavar="DIR",
        help="work directory, or a checkpoint in it, to go on from where it stopped",
    )
    parser.add_argument(
        "--data",
        metavar="PLACE",
        help="folder with train/ and val/ of class folders, or lists train.txt and val.txt, or the address of one; "
        "overrules the config",
    )
    parser.add_argument(
        "--validate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="evaluate data.val during training (default: yes)",
    )
    parser.add_argument("--test-last", action="store_true", help="at the end, test data.test with the last weights")
    parser.add_argument("--test-best", action="store_true", help="at the end, test data.test with the best weights")
    parser.add_argument("--seed", type=int, help="seed of weights, order and augmentation (default 0)")
    parser.add_argument("--deterministic", action="store_true", help="the same result bit for bit on every run")
    add_device_options(parser)
    gpus = parser.add_mutually_exclusive_group()
    gpus.add_argument("--gpu-ids", type=int, nargs="+", metavar="N", help="the GPU to use, counted from 0")
    gpus.add_argument("--gpus", type=int, metavar="N", help="1; more are used by starting a process for each")
    add_config_options(parser)
    add_launch_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train from the config's beginning, or from a saved state, to its end."""
    join_processes(args)
    gpu_notes = [] if args.cpu else choose_gpu(args.gpu_ids, args.gpus, os.environ)

    from accelerate.utils import set_seed

    from iwin.build import build_accelerator, build_training, slow_precision
    from iwin.config import dump_config, load_config, parse
    from iwin.engine.log import LOG_NAME, RunLog
    from iwin.engine.train import TrainingStopped, train

    loaded = load_config(args.config, [*data_options(args.data), *args.cfg_options])
    config, notes = parse(loaded)
    config = with_arguments(config, args)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    tests = weights_to_test(config, last=args.test_last, best=args.test_best)
    work_dir = output_folder(str(work_folder(config, args)))
    changes = compare_with_saved(config)

    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu, track_in=work_dir)
    if accelerator.device.type == "cpu":
        keep_memory()
    log = RunLog(work_dir / LOG_NAME if accelerator.is_main_process else None, console(accelerator), waits=True)
    slow = slow_precision(accelerator.device, accelerator.mixed_precision)
    for note in [*notes, *gpu_notes, *slow]:
        log.say(f"note: {note}")
    if changes is not None:
        log.warn(changes)
    set_seed(config.seed, deterministic=config.deterministic)
    config_text = dump_config(loaded.data)
    training = build_training(
        config,
        accelerator=accelerator,
        log=log,
        work_dir=work_dir,
        config_text=config_text,
        compiled=args.compile,
    )
    state = begin(training, config, config_text=config_text)
    log.say(training.summary())
    # Depthwise weights have one input channel: these strides differ in name only, for the same places in memory.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    try:
        with stop_on_signals(training):
            train(training, state)
        for name in tests:
            test_weights(work_dir, name, config, accelerator=accelerator, log=log, compiled=args.compile)
    except TrainingStopped as stopped:
        log.say(str(stopped))
        return 130
    finally:
        accelerator.end_training()
    return 0


# ---------------------------------------------------------------------------------------------- settings


def data_options(folder: str | None) -> list[str]:
    """The config options that point a run at a folder: train/ and val/ of class folders, or train.txt and val.txt.

    Args:
        folder: a path or an address; None leaves the config's own.
    """
    if folder is None:
        return []
    options = []
    for split, name in {"train": "train", "val": "val", "test": "val"}.items():
        list_file = join(folder, f"{name}.txt")
        options += split_options(split, list_file if exists(list_file) else join(folder, name))
    return options


def with_arguments(config: "RunConfig", args: argparse.Namespace) -> "RunConfig":
    """The run with what the command line changes in it."""
    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed}: a seed lies in 0 .. 2**32 - 1")
    resume_from = args.resume_from or config.resume_from
    changes = {
        "seed": args.seed,
        "deterministic": args.deterministic or None,
        "resume_from": resume_folder(resume_from) if resume_from else None,
        "data": None if args.validate else config.data.model_copy(update={"val": None}),
    }
    return config.model_copy(update={key: value for key, value in changes.items() if value is not None})


def resume_folder(name: str) -> str:
    """The work directory that `--resume-from` names, by itself or through a checkpoint in it.

    Raises:
        CheckpointError: if there is no state beside the checkpoint, or only that of another epoch.
    """
    path, folder = Path(name), Path(name).parent
    if not path.suffix or path.is_dir():
        return name
    start_new = f"a new run can start from its weights: --cfg-options load_from={name}"
    if not any((folder / state).is_dir() for state in ("state", "state.old")):
        raise CheckpointError(
            f"{name}: there is no training state beside it (a folder {folder / 'state'}), and weights alone cannot be "
            f"gone on from; {start_new}"
        )
    try:
        progress = json.loads((folder / "state" / "progress.json").read_text(encoding="utf-8"))
        epoch, best_epoch = int(progress["epoch"]), progress["best_epoch"]
    except (OSError, ValueError, TypeError, KeyError):
        return str(folder)  # an incomplete state, which is told of where it is read
    number = re.fullmatch(r"epoch_(\d+)", path.stem)
    own = int(number[1]) if number else best_epoch if path.stem == "best" else epoch
    if own != epoch:
        raise CheckpointError(
            f"{name}: is of epoch {own}, but the training state beside it is of epoch {epoch}; to go on from there: "
            f"--resume-from {folder}; {start_new}"
        )
    return str(folder)


def work_folder(config: "RunConfig", args: argparse.Namespace) -> Path:
    """The run's folder: a run that goes on stays in its own, unless `--work-dir` names another."""
    if args.work_dir:
        return Path(args.work_dir)
    if config.resume_from is not None:
        return run_folder(config.resume_from)
    return Path(config.work_dir or Path("work_dirs") / Path(args.config).stem)


def run_folder(resume_from: str) -> Path:
    """The work directory that a run goes on from, which may be named by the state folder in it."""
    folder = Path(resume_from)
    return folder.absolute().parent if (folder / "progress.json").exists() else folder


def compare_with_saved(config: "RunConfig") -> str | None:
    """What is to be said about settings that differ from those of the saved run that this one goes on from, if any do.

    Raises:
        CheckpointError: if there is no saved run, or it cannot be gone on from with these settings.
    """
    from iwin.build import compare_settings
    from iwin.engine.state import read_state

    if config.resume_from is None:
        return None
    saved = read_state(config.resume_from)
    return None if saved.settings is None else compare_settings(saved.settings, config, source=saved.folder)


def weights_to_test(config: "RunConfig", *, last: bool, best: bool) -> list[str]:
    """Names of the checkpoints to test after training.

    Raises:
        ConfigError: if there will be nothing to test, or to test on.
    """
    names = [name for name, wanted in (("last", last), ("best", best)) if wanted]
    if names and config.data.test is None:
        raise ConfigError(f"--test-{names[0]}: the config has no data.test to test on")
    if best and (config.data.val is None or config.evaluation.save_best is None):
        raise ConfigError("--test-best: no best weights are kept without validation and evaluation.save_best")
    if names:
        check_test_metrics(config)
    return names


# ---------------------------------------------------------------------------------------------- running


def begin(training: "Training", config: "RunConfig", *, config_text: str) -> "Progress | None":
    """Restore the saved state that a run goes on from, then write the first of its files.

    The files of another run in the same folder are moved aside.

    Returns:
        Where the saved run stood; None at the beginning of a run.
    """
    from iwin.engine.resume import load_state

    log, work_dir = training.log, training.work_dir
    state, goes_on_here = None, False
    if config.resume_from is not None:
        state = load_state(config.resume_from, training)
        goes_on_here = run_folder(config.resume_from).resolve() == work_dir.path.resolve()
        if not goes_on_here:
            state.best = state.best_epoch = None  # the best weights so far are in another folder
        log.say(f"resumed from {config.resume_from} after epoch {state.epoch}, batch {state.batch}")
    if training.accelerator.is_main_process:
        earlier = None if goes_on_here else work_dir.set_aside()
        write_atomically(work_dir.path / "config.py", lambda file: file.write_text(config_text, encoding="utf-8"))
        log.open()
        if earlier is not None:
            log.warn(
                f"{work_dir.path} held another run, which now lies in {earlier}; to go on with that one: "
                f"--resume-from {earlier}"
            )
    return state


@contextmanager
def stop_on_signals(training: "Training") -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop training after its current step, with its state saved."""
    stop = StopSignal()
    training.stop_requested = stop
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopSignal:
    """Whether the process was asked to stop; a second signal stops it at once."""

    def __init__(self) -> None:
        self.received = False

    def handle(self, *_: object) -> None:
        """Remember the signal."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True

    def __call__(self) -> bool:
        """Whether a signal came."""
        return self.received


def test_weights(
    work_dir: Path, name: str, config: "RunConfig", *, accelerator: "Accelerator", log: "RunLog", compiled: bool
) -> None:
    """Test the last or the best weights with all views; the scores are kept beside them."""
    from iwin.build import load_trained
    from iwin.engine.bad_files import BAD_FILES_NAME
    from iwin.engine.scores import write_scores

    accelerator.wait_for_everyone()  # until the first process has written them
    trained = load_trained(work_dir / f"{name}.safetensors", config=config)
    bad_files = work_dir / BAD_FILES_NAME
    tested = test_split(trained, config, accelerator=accelerator, log=log, bad_files=bad_files, compiled=compiled)
    log.record("test", checkpoint=name, **tested.figures, fingerprint=tested.fingerprint)
    if accelerator.is_main_process:
        write_scores(work_dir / f"{name}_pred.pkl", tested.scores.scores)
        print(f"test of {work_dir / name}.safetensors")
        print_figures({**tested.figures, "fingerprint": tested.fingerprint})
