"""The Dockerfiles, read as Docker reads them: what they copy and run exists, and they install as the Makefile does."""

import importlib.util
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from iwin.cli import build_parser
from tests.docs.pages import ROOT

FILES = sorted((ROOT / "docker").glob("*/Dockerfile"))
KNOWN = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"}

over_files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def runs(file: Path) -> list[str]:
    """The commands of the RUN instructions, one each."""
    return [command.strip() for name, text in instructions(file) if name == "RUN" for command in text.split("&&")]


def copied(file: Path) -> set[str]:
    """Paths of the repository that are in the image."""
    return {source for name, text in instructions(file) if name == "COPY" for source in text.split()[:-1]}


@over_files
def test_instructions_are_known_and_in_order(file: Path) -> None:
    names = [name for name, _ in instructions(file)]
    assert set(names) <= KNOWN
    assert names[0] == "FROM"
    assert names[-2:] == ["ENTRYPOINT", "CMD"]


@over_files
def test_what_is_copied_exists_and_is_sent_to_docker(file: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {pattern[1:] for pattern in ignored if pattern.startswith("!")}
    for source in copied(file):
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in sent), source


@over_files
def test_the_build_of_the_package_has_all_that_it_needs(file: Path) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    parts = ("README.md", "LICENSE", "benchmarks/reference.py", "configs", "src")
    named = {name for name in parts if name in pyproject}
    assert named | {"pyproject.toml"} <= copied(file)


@over_files
def test_programs_options_and_paths_of_its_commands_exist(file: Path) -> None:
    known = pip_options()
    for command in runs(file):
        if command.startswith(("apt-get ", "rm -rf /var/lib/apt/lists/")):
            continue  # Debian's own
        words = re.sub(r"[$()]", " ", command).split()
        assert words[0] in ("pip", "python"), command
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{command}: pip has no {word}"
            elif "/" in word and "://" not in word:
                assert (ROOT / word).exists() or f"> {word}" in " && ".join(runs(file)), f"{command}: {word}"
                assert word in copied(file) or f"> {word}" in " && ".join(runs(file)) or word.startswith("locks/")


def pip_options() -> set[str]:
    result = subprocess.run(
        [sys.executable, "-m", "pip", "help", "install"], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"--[a-z-]+", result.stdout))


@over_files
def test_it_installs_as_the_makefile_does(file: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "pip install --quiet --require-hashes --requirement locks/$*.txt" in makefile
    assert "pip install --quiet --no-deps --editable ." in makefile
    commands = [command.replace(" --no-cache-dir", "") for command in runs(file)]
    assert commands[-1] == "pip install --no-deps ."
    lock = "locks/run.txt" if file.parent.name == "cuda" else "locks/cpu.txt"
    assert any(command.endswith(f"--require-hashes --requirement {lock}") for command in commands)


@over_files
def test_it_has_a_python_that_the_package_takes(file: Path) -> None:
    image = dict(instructions(file))["FROM"]
    version = re.fullmatch(r"python:3\.(\d+)-slim", image)
    assert version
    assert int(version[1]) >= 11


@over_files
def test_it_runs_the_command(file: Path) -> None:
    found = dict(instructions(file))
    assert found["ENTRYPOINT"] == f'["{build_parser().prog}"]'
    assert found["CMD"] == '["--help"]'


@over_files
def test_the_commands_in_its_head_name_it(file: Path) -> None:
    head = file.read_text(encoding="utf-8").partition("FROM")[0]
    assert f"docker build --file {file.relative_to(ROOT)} --tag iwin:{file.parent.name} ." in head
    assert f" iwin:{file.parent.name} " in head


def test_the_cpu_image_takes_the_lock_without_cuda() -> None:
    script = ROOT / "docker" / "cpu" / "without_cuda.py"
    lock = (ROOT / "locks" / "run.txt").read_text()
    spec = importlib.util.spec_from_file_location("without_cuda", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def names(text: str) -> list[str]:
        return re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)

    torch, rest = module.without_cuda(lock, "torch"), module.without_cuda(lock, "rest")
    assert names(torch) == ["torch", "torchvision"]
    assert all(line in lock for line in torch.splitlines())
    left_out = set(names(lock)) - set(names(torch)) - set(names(rest))
    assert all(name.startswith(("cuda-", "nvidia-")) or name == "triton" for name in left_out)
    assert {"accelerate", "av", "numpy", "safetensors"} <= set(names(rest))
    assert rest.count("--hash=") == sum(
        text.count("--hash=") for text in re.split(r"\n(?=\S)", lock) if names(text)[0] in names(rest)
    )
