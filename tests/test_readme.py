"""README.md says what is in the repository: tables from committed rows, verbs that exist, files that are there."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_equal_the_committed_rows():
    from benchmarks.tables import PAGES, render

    assert "<!-- table: step -->" in README
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert render(text) == text, f"{page.name}: run python -m benchmarks.tables"


def test_every_verb_that_is_named_exists_and_every_verb_is_named():
    from ptr_robot.cli import VERBS

    named = set(re.findall(r"ptr-fast ([a-z][a-z-]+)", README))
    assert named <= set(VERBS), named - set(VERBS)
    assert set(VERBS) <= named, set(VERBS) - named


def test_paths_that_are_named_exist():
    for name in re.findall(r"`((?:csrc|ptr_fast|python|benchmarks|tests)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
