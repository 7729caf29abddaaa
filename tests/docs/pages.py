"""The documents and their fenced code blocks, with what HTML comments directly above a block say about running it.

<!-- not run: needs several GPUs -->    the block is checked, not run; the reason is one of REASONS
<!-- run with: --train 4 -->            appended to each command of the block
<!-- fails with: unknown key -->        each command of the block fails, and says that
<!-- file: lists/example.txt -->        the block is a file of that name
<!-- first: mkdir data -->              run before the block; what the reader has and the test has not
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

REASONS = {
    "installs packages",
    "makes an environment",
    "needs Docker",
    "needs FFmpeg",
    "needs Kinetics-400",
    "needs a GPU",
    "needs the archives of the data set",
    "needs the network",
    "needs several GPUs",
    "needs the authors' weights",
    "needs the environment that make demo makes",
}
"""Why a block may be checked only."""

SHOWN = {"bibtex", "json", "text"}
"""Languages of blocks that show something and are not run."""

_DIRECTIVE = re.compile(r"<!-- (not run|run with|fails with|file|first): (.*) -->")
_FENCE = re.compile(r"^```(.*)$")


@dataclass
class Block:
    """A fenced code block.

    Attributes:
        page: the document.
        line: line of the document at which the text begins.
        language: what stands behind the fence.
        text: what is in it.
        directives: what the comments above it say, by kind.
    """

    page: Path
    line: int
    language: str
    text: str = ""
    directives: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """`file:line`, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a reader would run it, and the test does."""
        return self.language in ("sh", "python") and not {"not run", "file"} & self.directives.keys()

    def commands(self) -> list[str]:
        """The commands of a shell block, as they stand: each is as many lines as bash needs to understand it."""
        return list(_commands(self.text))


def blocks(page: Path) -> list[Block]:
    """The code blocks of a document.

    Raises:
        ValueError: if a fence is not closed.
    """
    found: list[Block] = []
    directives: dict[str, str] = {}
    block: Block | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if block is not None:
            if fence:
                found.append(block)
                block = None
            else:
                block.text += line + "\n"
        elif fence:
            block, directives = Block(page, number + 1, fence[1].strip(), directives=directives), {}
        elif directive := _DIRECTIVE.fullmatch(line):
            directives[directive[1]] = directive[2]
        elif directives:
            raise ValueError(f"{page.name}:{number}: a directive stands directly above its block")
    if block is not None:
        raise ValueError(f"{block.where}: the block is not closed")
    return found


def _commands(text: str) -> Iterator[str]:
    command = ""
    for line in text.splitlines():
        command += line + "\n"
        if command.strip() and not line.endswith("\\") and is_shell(command):
            yield command.strip()
            command = ""
    if command.strip():
        raise ValueError(f"bash does not understand: {command}")


def is_shell(command: str) -> bool:
    """Whether bash can parse a command."""
    # A name in angle brackets is for the reader to fill in; bash would take it for a redirection.
    filled = re.sub(r"<([A-Z_]+)>", r"\1", command)
    return not subprocess.run(["bash", "-n"], input=filled, text=True, capture_output=True, check=False).stderr


def prose(page: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
