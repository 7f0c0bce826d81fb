"""What ``make lint`` looks at: pinned tools, both packages typed, and the native sources formatted."""

import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_both_packages_say_that_they_are_typed_in_the_wheel_too():
    for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        assert (ROOT / folder / "py.typed").is_file()
        assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"][package]
        assert folder in PROJECT["tool"]["mypy"]["files"]


def test_continuous_integration_looks_at_the_style():
    assert "make lint" in (ROOT / ".ci" / "run").read_text().splitlines()
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    for tool in ("ruff check", "ruff format", "clang-format", "mypy"):
        assert tool in lint
        assert f".venv/bin/{tool}" in hooks


def test_native_sources_are_formatted_by_the_pinned_clang_format():
    (pinned,) = (d for d in PROJECT["project"]["optional-dependencies"]["dev"] if d.startswith("clang-format=="))
    assert pinned in (ROOT / "constraints.txt").read_text().splitlines()
    program = shutil.which("clang-format")
    if program is None:
        pytest.skip("clang-format is not installed (pip install ptr-fast[dev])")
    files = [str(file) for file in (ROOT / "csrc").rglob("*") if file.suffix in (".h", ".cpp", ".cu", ".cuh")]
    done = subprocess.run([program, "--dry-run", "-Werror", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]


def test_no_two_test_files_have_one_name():
    """Pytest imports them by their bare names: of two alike, one is not collected."""
    names = Counter(path.name for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_xdist_keeps_the_tests_of_a_file_in_one_process(request):
    """It names their groups in a way that pytest 9.2 does not read, and says nothing."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("not run with -n 2 --dist loadgroup")
    assert request.node.nodeid.endswith("@test_style.py")
