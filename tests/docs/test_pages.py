"""What documents say is there: code parses; commands, configs, options, files and links exist."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from iwin.config import shipped_configs
from iwin.errors import IwinError
from iwin.models.zoo import list_models
from tests.docs.commands import FOLDERS, PROGRAMS, CommandError, check_command
from tests.docs.pages import PAGES, REASONS, ROOT, SHOWN, Block, blocks, prose

BLOCKS = [block for page in PAGES for block in blocks(page)]

over_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block_is_code_of_a_known_language(block: Block) -> None:
    assert block.language in SHOWN | {"sh", "python"}, f"{block.where}: no language that is known behind the fence"
    if block.language == "python":
        ast.parse(block.text)
    elif block.language == "sh":
        assert block.commands()


def test_blocks_are_left_out_for_known_reasons_only() -> None:
    given = {block.directives["not run"]: block.where for block in BLOCKS if "not run" in block.directives}
    assert given.keys() <= REASONS, {reason: given[reason] for reason in given.keys() - REASONS}
    assert all(block.language in ("sh", "python") for block in BLOCKS if "not run" in block.directives)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "sh"], ids=lambda block: block.where)
def test_commands_could_be_run(block: Block) -> None:
    for command in block.commands():
        options = block.directives.get("run with", "")
        if "fails with" in block.directives:
            with pytest.raises((CommandError, IwinError)):
                check_command(f"{command} {options}")
        else:
            check_command(f"{command} {options}")


@over_pages
def test_commands_within_the_text_could_be_run(page: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        if code.split(" ")[0] in PROGRAMS.keys() - {"cd", "pytest"} and " " in code:
            check_command(code)


@over_pages
def test_files_within_the_text_exist(page: Path) -> None:
    for code in re.findall(r"`([^`\s]+)`", prose(page)):
        if "/" in code and code.split("/")[0] in FOLDERS and not re.search(r"[<>*…{]", code):
            assert (ROOT / code).exists(), f"{page.name}: `{code}`"


@over_pages
def test_configs_and_models_within_the_text_exist(page: Path) -> None:
    known = {*shipped_configs(), *list_models()}
    assert set(re.findall(r"`(iwin_\w+)`", prose(page))) <= known


@over_pages
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page)):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_navigation_names_every_page() -> None:
    def files(node: object) -> list[str]:
        match node:
            case dict():
                return [file for inner in node.values() for file in files(inner)]
            case list():
                return [file for inner in node for file in files(inner)]
        return [str(node)]

    nav = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    docs = ROOT / "docs"
    assert sorted(nav) == sorted(str(page.relative_to(docs)) for page in PAGES if page.is_relative_to(docs))
