"""Whether a command that a document names could be run: its program, files, configs and options exist."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Callable
from typing import Any

from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from iwin.cli import build_parser
from iwin.config import load_run_config
from tests.docs.pages import ROOT

PLACEHOLDER = re.compile(r"<[A-Za-z_ ]+>|…|\b[A-Z][A-Z_]+\b")
"""What a reader fills in."""

FOLDERS = ("configs", "docker", "docs", "examples", "locks", "src", "tests", "tools")
"""Words that begin like these are files of the repository."""


class CommandError(ValueError):
    """A command that could not be run."""


def check_command(line: str) -> None:
    """Check a command, which may be several joined by `&&` or `|`.

    Raises:
        CommandError: saying what does not exist.
    """
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    for word in words:
        if word.split("/")[0] in FOLDERS and "/" in word and not PLACEHOLDER.search(word):
            _require((ROOT / word).exists(), f"there is no {word}")
    command: list[str] = []
    for word in [*words, ";"]:
        if word in ("&&", "||", "|", ";"):
            _check_simple(command)
            command = []
        else:
            command.append(word)


def _require(condition: object, message: str) -> None:
    if not condition:
        raise CommandError(message)


def _check_simple(words: list[str]) -> None:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables for this command only
        words = words[1:]
    if not words or PLACEHOLDER.fullmatch(words[0]):
        return
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    _require(program in PROGRAMS, f"there is no check for the program {program}")
    PROGRAMS[program](arguments)


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    for each in _with_verbs(parser).values():
        each.error = _refuse
    return parser.parse_args(arguments)


def _with_verbs(parser: argparse.ArgumentParser, name: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The parser of each verb, by the words that call it."""
    found = {name: parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                found |= _with_verbs(below, (*name, verb))
    return found


def _refuse(message: str) -> None:
    raise CommandError(message)


def _iwin(arguments: list[str]) -> None:
    parser = build_parser()
    verbs = _with_verbs(parser)
    if tuple(arguments) in verbs or arguments in (["--version"], ["--help"]):
        return  # the name of a verb
    if any("…" in argument for argument in arguments):
        name = max((name for name in verbs if tuple(arguments[: len(name)]) == name), key=len)
        own = {option for action in verbs[name]._actions for option in action.option_strings}
        given = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
        _require(given <= own, f"iwin {' '.join(name)} has no {given - own}")
        return
    args = _parsed(parser, arguments)
    config = getattr(args, "config", None)
    # A config in the working directory is one that the document makes.
    if config and not PLACEHOLDER.search(config) and not (config.endswith(".py") and "/" not in config):
        options = [option for option in getattr(args, "cfg_options", []) if not PLACEHOLDER.search(option)]
        load_run_config(config, options)


def _python(arguments: list[str]) -> None:
    if arguments[:1] == ["-m"]:
        _module(arguments[1:])
    elif arguments[:1] != ["-c"]:
        _script(arguments)


def _module(arguments: list[str]) -> None:
    if arguments[:1] == ["iwin"]:
        _iwin(arguments[1:])
    elif arguments[:1] not in (["pip"], ["mkdocs"], ["docs._generate"]):
        raise CommandError(f"there is no check for the module {arguments[0]}")


def _script(arguments: list[str]) -> None:
    script, *rest = arguments
    if PLACEHOLDER.search(script):
        return
    path = ROOT / script
    _require(path.is_file(), f"there is no {script}")
    text = path.read_text(encoding="utf-8")
    if verb := re.search(r"main\(\[(.*?), \*sys\.argv\[1:\]\]\)", text):  # a script that is one of our verbs
        _iwin([*re.findall(r'"(\w+)"', verb[1]), *rest])
        return
    for option in (argument for argument in rest if argument.startswith("--")):
        _require(option.split("=")[0] in text, f"{script} has no {option}")


def _bash(arguments: list[str]) -> None:
    script, *rest = arguments
    path = ROOT / script
    _require(path.is_file(), f"there is no {script}")
    if path.parent.name == "benchmarks":  # it has no arguments, but commands of its own
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if line.startswith(("iwin ", "python ")):
                check_command(line)
        return
    positional = {"dist_train.sh": 2, "dist_test.sh": 3, "slurm_train.sh": 4, "slurm_test.sh": 4}
    _require(path.name in positional, f"there is no check for {script}")
    count = positional[path.name]
    _require(len(rest) >= count, f"{script} takes {count} arguments")
    # After a partition and a job name, or before the number of GPUs, stand the positional arguments of the verb.
    own = rest[2:count] if "slurm" in path.name else rest[: count - 1]
    own = own[:1] if path.name == "slurm_train.sh" else own
    _iwin([path.stem.rpartition("_")[2], *own, *rest[count:]])


def _torchrun(arguments: list[str]) -> None:
    args = _parsed(get_args_parser(), arguments)
    (_module if args.module else _script)([args.training_script, *args.training_script_args])


def _accelerate(arguments: list[str]) -> None:
    _require(arguments[:1] == ["launch"], "only accelerate launch is checked")
    args = _parsed(launch_command_parser(), arguments[1:])
    (_module if args.module else _script)([args.training_script, *args.training_script_args])


def _make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (argument for argument in arguments if "=" not in argument):
        _require(re.search(rf"^(\S+ )*{target}( \S+)*:", makefile, re.MULTILINE), f"make has no target {target}")


def _pip(arguments: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for argument in arguments:
        if match := re.fullmatch(r"\.\[(.*)\]", argument):
            _require(set(match[1].split(",")) <= extras.keys(), f"there is no extra {match[1]}")


def _docker(arguments: list[str]) -> None:
    if arguments[:1] == ["build"]:
        file = arguments[arguments.index("--file") + 1]
        _require((ROOT / file).is_file(), f"there is no {file}")
        return
    image = next((place for place, word in enumerate(arguments) if word.startswith("iwin:")), None)
    _require(arguments[:1] == ["run"] and image is not None, "only docker build, and docker run of our images")
    assert image is not None
    _iwin(arguments[image + 1 :])


def _anything(_: list[str]) -> None:
    """Programs of the system, on files that are not ours."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "accelerate": _accelerate,
    "bash": _bash,
    "docker": _docker,
    "iwin": _iwin,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "torchrun": _torchrun,
    **dict.fromkeys(("cd", "cp", "ffmpeg", "git", "ls", "mkdir", "pre-commit", "pytest", "source"), _anything),
    **dict.fromkeys(("cat", "for", "tar", "unrar", "unzip"), _anything),
}
