"""The pages of docs/ as a site: built without a warning, and opened in a real browser, light and dark."""

import os
import subprocess
from pathlib import Path

import pytest
from browser import Browser, find_browser

ROOT = Path(__file__).resolve().parents[1]
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
OVERFLOWS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MKDOCS.exists(), reason="make docs sets up .venv-docs, which is not there"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [str(MKDOCS), "build", "--quiet", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), done.stderr
    return out


def test_every_page_is_built_and_shows_no_role_of_another_markup(site):
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in site.glob("*.html")}
    assert ":class:<code>" not in (site / "api.html").read_text(encoding="utf-8")


@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
def test_pages_fit_a_phone_and_a_desk_and_the_console_is_quiet(site):
    with Browser() as browser:
        for page in sorted(site.glob("*.html")):
            for width, dark in ((400, True), (1400, False)):
                if page.name != "404.html":  # its links begin at the root of a server
                    troubles = browser.open(page.as_uri(), width, dark=dark)
                    assert not troubles, f"{page.name} at {width} px: {troubles}"
                    assert not browser.value(OVERFLOWS), f"{page.name} is wider than {width} px"
