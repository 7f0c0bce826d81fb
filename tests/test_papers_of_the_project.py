"""CHANGELOG, CITATION and CONTRIBUTING say what is so: one version, commands and files that exist."""

import re
import tomllib
from pathlib import Path

import yaml

import ptr_fast

ROOT = Path(__file__).resolve().parents[1]


def test_the_version_stands_in_one_place_and_the_papers_have_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ptr_fast.__version__"}
    (number, date), *_ = re.findall(r"^## (\S+) \(([\d-]+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert number == citation["version"] == ptr_fast.__version__
    assert date == str(citation["date-released"])


def test_the_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all({"given-names", "family-names"} == set(author) for author in reference["authors"])


def test_what_the_papers_name_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    from ptr_robot.cli import VERBS

    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"):
        text, folder = (ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= targets
        assert set(re.findall(r"(?:^|`)ptr-fast ([a-z-]+)", text, re.M)) <= set(VERBS)
        for path in re.findall(r"`((?:csrc|ptr_fast|python|benchmarks|tests|docs|examples)/[\w/.]*)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
            assert target.startswith("http") or (folder / target).exists(), f"{name}: {target}"
