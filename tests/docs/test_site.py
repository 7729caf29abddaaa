"""The site: it builds without a warning, and needs nothing from the network when it is read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # a word of the theme's about its own future
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr, result.stderr

    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 15
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]*\ssrc="?(https?:|//)|<link[^>]*\shref="?(https?:|//)[^>]*>')
    for page in pages:
        found = [match[0] for match in loads.finditer(page.read_text(encoding="utf-8"))]
        assert not found, f"{page.relative_to(tmp_path)}: {found}"
    assert not list((tmp_path / "site").rglob("_*.py"))
