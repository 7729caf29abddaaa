"""The arrows between the rooms (docs/architecture.md), read from the imports themselves."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "iwin"
LEAVES = {"errors", "files", "native", "process"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "native": set(),
    "process": set(),
    "config": LEAVES,
    "transforms": LEAVES,
    "models": LEAVES,
    "data": {"transforms"} | LEAVES,
    "prepare": {"data", "transforms"} | LEAVES,
    "checkpoint": {"models"} | LEAVES,
    "engine": {"models", "data", "checkpoint"} | LEAVES,
    "build": {"config", "models", "transforms", "data", "checkpoint", "engine"} | LEAVES,
    "predict": {"build", "models", "data", "checkpoint"} | LEAVES,
    "viz": {"build", "models", "data", "checkpoint"} | LEAVES,
    "bench": {"models", "data", "transforms", "prepare"} | LEAVES,
    "cli": {"bench", "config", "models", "data", "checkpoint", "engine", "build", "predict", "prepare", "viz"} | LEAVES,
    "__init__": {"build", "models", "data", "predict"} | LEAVES,
    "__main__": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {n.name.split(".")[1] for n in node.names if n.name.startswith("iwin.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write absolute imports"
            if node.module == "iwin":
                rooms |= {n.name for n in node.names if (ROOT / n.name).is_dir() or (ROOT / f"{n.name}.py").exists()}
            elif node.module and node.module.startswith("iwin."):
                rooms.add(node.module.split(".")[1])
    return rooms - {room(path)}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    assert imported_rooms(path) <= ALLOWED[room(path)]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_stays_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
