"""`iwin train`: train a recogniser."""

import argparse

from iwin.cli.common import add_config_options, add_device_options, console


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("train", help="train a recogniser", description="Train a recogniser.")
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    parser.add_argument("--work-dir", metavar="DIR", help="folder of log and checkpoints (default work_dirs/<config>)")
    parser.add_argument("--resume-from", metavar="DIR", help="work directory to go on from exactly where it stopped")
    parser.add_argument("--data", metavar="DIR", help="folder with train/ and val/ class folders, overrules the config")
    parser.add_argument(
        "--validate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="evaluate data.val during training (default: yes)",
    )
    parser.add_argument("--seed", type=int, help="seed of weights, order and augmentation (default 0)")
    parser.add_argument("--deterministic", action="store_true", help="the same result bit for bit on every run")
    add_device_options(parser)
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train from the config's beginning, or from a saved state, to its end."""
    import signal
    from pathlib import Path

    from accelerate.utils import set_seed

    from iwin.build import build_accelerator, build_training
    from iwin.config import dump_config, load_config, parse
    from iwin.engine.log import RunLog
    from iwin.engine.state import load_state
    from iwin.engine.train import TrainingStopped, train

    loaded = load_config(args.config, [*data_options(args.data), *args.cfg_options])
    config, notes = parse(loaded)
    changes = {"seed": args.seed, "resume_from": args.resume_from, "deterministic": args.deterministic or None}
    config = config.model_copy(update={key: value for key, value in changes.items() if value is not None})
    if not args.validate:
        config = config.model_copy(update={"data": config.data.model_copy(update={"val": None})})
    work_dir = Path(args.work_dir or config.work_dir or Path("work_dirs") / Path(args.config).stem)

    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu)
    log = RunLog(work_dir / "log.jsonl" if accelerator.is_main_process else None, console(accelerator))
    for note in notes:
        log.say(f"note: {note}")
    set_seed(config.seed, deterministic=config.deterministic)
    config_text = dump_config(loaded.data)
    training = build_training(config, accelerator=accelerator, log=log, work_dir=work_dir, config_text=config_text)
    state = None
    if config.resume_from is not None:
        state = load_state(config.resume_from, accelerator)
        log.say(f"resumed from {config.resume_from} after epoch {state.epoch}, batch {state.batch}")
    if accelerator.is_main_process:
        work_dir.mkdir(parents=True, exist_ok=True)
        (work_dir / "config.py").write_text(config_text, encoding="utf-8")
    log.say(training.summary())

    stop = StopSignal()
    training.stop_requested = stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.handle)
    try:
        state = train(training, state)
    except TrainingStopped as stopped:
        log.say(str(stopped))
        return 130
    finally:
        accelerator.end_training()
    return 0


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


def data_options(folder: str | None) -> list[str]:
    """The config options that point a run at a folder of train/ and val/ class folders."""
    if folder is None:
        return []
    splits = {"train": "train", "val": "val", "test": "val"}
    return [
        option
        for split, name in splits.items()
        for option in (f"data.{split}.data_prefix={folder}/{name}", f"data.{split}.ann_file=None")
    ]
