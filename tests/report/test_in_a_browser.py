"""Every page of ours in a real browser: silent console, no overflow on a phone or a laptop, dark, without colour.

``PTR_FAST_SCREENSHOTS=FOLDER`` keeps a picture of every page and width, to be looked at.
"""

import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from valued_run import BC, make_run, make_store

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.runtime.safety import AxisLimits, SafetyLimits
from ptr_robot.cli import main as cli
from ptr_robot.comparison.grid import load_grid
from ptr_robot.comparison.page import write_pages
from ptr_robot.comparison.plan import make_plan
from ptr_robot.report.page import build_report, write_page
from ptr_robot.report.plots import Series, line_chart
from ptr_robot.trials.page import sections
from ptr_robot.trials.sheet import TrialRecord, TrialSheet
from ptr_robot.watching.server import PageServer

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import Browser, find_browser

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed here")
PAGES = ("report", "trials", "comparison", "comparison of one data set", "watch")
NUM_LOGGED = 40


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


def logged(run: Path, keys: tuple[str, ...], seed: int) -> Path:
    """A run with curves in its log, and its record."""
    shutil.copy(run / "checkpoints" / "000002" / "pretrained_model" / "train_config.json", run)
    record = read_checkpoint(run).run
    (run / "train_config.json").write_text(json.dumps(record))
    rng = np.random.default_rng(seed)
    with open(run / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, NUM_LOGGED + 1):
            values = {key: float(3 * np.exp(-step / 9) + i + 0.1 * rng.normal()) for i, key in enumerate(keys)}
            file.write(json.dumps({"step": step, "time_s": step / 2, **values}) + "\n")
    return run


CURVES = ("train/bellman_loss", "train/cql_loss", "train/actor_loss", "q/data", "q/policy", "q/random",
          "actor/entropy", "perf/steps_per_s", "held_out/bellman_error", "held_out/score")  # fmt: skip


@pytest.fixture(scope="module")
def runs(folder):
    store = make_store(folder / "store")
    run = logged(make_run(folder / "a run with a long name that ends with seed 0", store), CURVES, 0)
    other = make_run(folder / "clone", store, config=BC)
    logged(other, ("train/bc_loss", "actor/mse", "perf/steps_per_s"), 1)
    trials = [{"seed": i, "success": i < 13, "num_steps": 31, "reached": i < 17, "lifted": i < 15} for i in range(20)]
    told = {"policy": "CQL with proposals", "mode": "search", "task": "put block on plate", "kitchen": "H"}
    (run / "rollouts").mkdir()
    (run / "rollouts" / "a.json").write_text(json.dumps({**told, "trials": trials}))
    for each in (run, other):
        assert cli(["select", "--run", str(each)]) == 0
    return run, other


def trial_page(folder: Path) -> Path:
    about = {
        "robot": "lerobot:so101_follower", "task": "put block on plate", "hz": 30.0, "max_steps": 200,
        "options": {"port": "/dev/ttyACM0", "calibration": "a_file_with_a_rather_long_name_and_no_space_in_it.json"},
        "policies": [{"label": name, "checkpoint": f"runs/{name}/checkpoints/003000", "step": 3000} for name in "ab"],
    }  # fmt: skip
    sheet, rng = TrialSheet(folder / "trials", about, ["a", "b"], 6), np.random.default_rng(0)
    for index, (policy, seed) in enumerate(sheet.order):
        histograms = {}
        for leg, scale in (("capture_to_command", 40e6), ("policy", 6e6), ("jitter", 3e5), ("send", 2e6)):
            bounds, counts = np.unique((scale * rng.lognormal(0, 0.4, 90)).astype(int), return_counts=True)
            histograms[leg] = (bounds.tolist(), counts.tolist())
        legs = {leg: {"p50": 1.0, "p95": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.5} for leg in histograms}
        stopped = index == 3
        sheet.add(
            TrialRecord(
                index=index, policy=policy, seed=seed, success=None if stopped else bool(rng.random() < 0.7),
                reason="robot" if stopped else "", arm_stopped=not stopped, num_steps=90, num_missed=2, num_held=1,
                message="lerobot:so101_follower: send_action: ConnectionError: no status packet" if stopped else "",
                num_dropped_frames=3, num_unrecorded=0, interventions={"velocity": 12, "ramp": 4, "held_stale": 1},
                decisions_late=[3, 80, 7], legs_ms=legs, histograms=histograms, video=f"trial-{index + 1:03d}.mp4",
            )
        )  # fmt: skip
    axes = [
        AxisLimits(name=f"joint_{i}.pos", relative=False, position=i, low=-90, high=90, max_velocity=60)
        for i in range(6)
    ]
    limits = SafetyLimits(axes=axes, state_size=6, period_s=1 / 30, ramp_s=1.0, response_s=0.2, hold_after_s=0.25,
                          stop_after_s=2.0, max_start_mismatch=10.0)  # fmt: skip
    return write_page(folder / "trials" / "report.html", "put block on plate: trials", sections(sheet, limits))


GRID = """
scale: smoke
methods: [proposals, cql-n, bc]
trials: 20
seeds: [0, 1]
data:
  kitchens:
    prior: [--kitchens, A, --episodes, 2]
    target: [--kitchens, H, --episodes, 2]
    kitchen: H
    max_steps: 60
"""


def comparison_pages(folder: Path, runs) -> Path:
    (folder / "grid.yaml").write_text(GRID)
    grid = load_grid(str(folder / "grid.yaml"))
    plan, rows = make_plan(grid, folder / "grid"), []
    for number, cell in enumerate(plan.cells):
        for step, path in cell.trials.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            successes = min(20, 2 + number + step % 7)
            told = {
                "checkpoint": str(cell.run / "checkpoints" / f"{step:06d}"), "mode": cell.mode, "policy": cell.method,
                "task": "put block on plate", "kitchen": "H", "num_trials": 20, "successes": successes,
                "mean_steps": 40.0, "reached": 18, "lifted": 15, "plan": {"start": "easy", "max_steps": 60, "seed": 0},
                "trials": [{"seed": i, "success": i < successes, "num_steps": 40} for i in range(20)],
            }  # fmt: skip
            path.write_text(json.dumps(told))
        outcomes = np.random.default_rng(number).random(20) < 0.2 + 0.05 * (number % 9)
        rules = ("selected", "last", "oracle") if cell.phase == "after" else ("last",)
        for rule in rules:
            rows.append({
                "data": cell.data, "method": cell.method, "phase": cell.phase, "checkpoint": rule, "mode": cell.mode,
                "seed": cell.seed, "trial_seed": 1000, "max_steps": 60,
                "successes": int(outcomes.sum()), "num_trials": 20, "reached": 18, "lifted": 15,
                "outcomes": "".join("01"[int(o)] for o in outcomes), "steps": [30] * 20, "has_pick": True,
                "step": cell.last_step, "num_demos": 10, "task": "put block on plate", "kitchen": "H",
                "mean_steps_of_successes": 31.0, "environment": {"cpu": "x" * 90, "versions": {"torch": "2"}},
            })  # fmt: skip
        if cell.phase == "after" and cell.seed == 0 and not cell.run.exists():
            shutil.copytree(runs[cell.method == "bc"], cell.run)
    write_pages(grid, plan, rows, folder / "page", {"train bc": "train bc failed with code 2: its log says why"})
    return folder / "page"


@pytest.fixture(scope="module")
def addresses(folder, runs):
    """Page -> its address; the watched run is served while the tests of this file run."""
    page = comparison_pages(folder, runs)
    built = build_report(list(runs), [], folder / "report.html", "two runs")
    with PageServer(runs[0], 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield {
            "report": built.as_uri(),
            "trials": trial_page(folder).as_uri(),
            "comparison": (page / "index.html").as_uri(),
            "comparison of one data set": (page / "kitchens.html").as_uri(),
            "watch": server.url,
        }
        server.shutdown()


def open_page(browser: Browser, addresses, name: str, width: int, **more) -> list[str]:
    troubles = browser.open(addresses[name], width, **more)
    if name == "watch":
        browser.wait_for("document.querySelectorAll('main svg').length > 3")
    return troubles


OVERFLOWS = """
[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg') &&
    e.getClientRects().length && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).slice(0, 5).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 60))
"""
"""What sticks out at the right; tables and code scroll in boxes of their own."""


CONTRAST = """
(() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const behind = e => { for (; e; e = e.parentElement) {
    const back = numbers(getComputedStyle(e).backgroundColor);
    if (back.length === 3 || back[3] > 0) return back; } return [255, 255, 255]; };
  const worst = [];
  for (const e of document.querySelectorAll('h1, h2, h3, p, td, th, span, summary, li, figcaption, a, b, code')) {
    if (!e.getClientRects().length || !e.textContent.trim()) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const told = `${e.tagName}.${e.className} ${ratio.toFixed(2)}: ${e.textContent.slice(0, 40)}`;
    if (ratio < 4.5) worst.push(told);
  }
  return worst.slice(0, 5);
})()
"""
"""Texts whose contrast to what lies behind them is below 4.5, the least of WCAG's level AA."""


LINES_ALIKE = """
[...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const looks = new Map();
  for (const group of chart.querySelectorAll('g')) {
    const line = group.querySelector('polyline');
    if (!line) continue;
    const letters = [...group.querySelectorAll('text')].map(text => text.textContent);
    const key = getComputedStyle(line).strokeDasharray + ' ' + letters;
    looks.set(key, [...(looks.get(key) || []), group.querySelector('title').textContent]);
  }
  const alike = [...looks.values()].filter(names => names.length > 1);
  return alike.map(names => chart.getAttribute('aria-label') + ': ' + names);
})
"""
"""Lines of one chart that only their colour tells apart: same dashes, and no letter of their own at their end."""


@pytest.mark.parametrize(
    ("width", "dark"), [(400, False), (1400, False), (1400, True)], ids=["phone", "laptop", "dark"]
)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_is_readable_and_its_console_is_silent(browser, addresses, name, width, dark):
    troubles = open_page(browser, addresses, name, width, dark=dark)
    browser.value("document.querySelectorAll('details').forEach(each => { each.open = true; }), 0")
    if wanted := os.environ.get("PTR_FAST_SCREENSHOTS"):
        browser.screenshot(Path(wanted) / f"{name.replace(' ', '-')}-{width}{'-dark' if dark else ''}.png")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OVERFLOWS) == []
    assert browser.value("[...document.images].filter(i => !(i.complete && i.naturalWidth)).length") == 0
    red, green, blue = map(
        int, re.findall(r"\d+", browser.value("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert (red + green + blue < 3 * 64) == dark
    assert browser.value(CONTRAST) == []
    assert browser.value(LINES_ALIKE) == []
    assert troubles == []


def test_what_the_checks_look_for_is_found(browser, folder):
    """The checks above pass where there is nothing to find; here there is."""
    chart = line_chart([Series(label=name, x=[0, 1], y=[0, 1]) for name in "ab"], title="alike")
    wide = '<p style="width:3000px;color:#ddd">too wide and too pale</p><img src="data:image/png;base64,AAAA">'
    page = folder / "bad.html"
    page.write_text(
        f"<!doctype html><main>{wide}{chart}</main><script>console.error('told'); undefined_thing()</script>"
    )
    troubles = browser.open(page.as_uri(), 400)
    assert browser.value("document.documentElement.scrollWidth") > 400
    assert "P.: too wide and too pale" in browser.value(OVERFLOWS)
    assert [each.partition(":")[0] for each in browser.value(CONTRAST)] == ["P. 1.36"]
    assert browser.value(LINES_ALIKE) == ["alike: a,b"]
    assert any("told" in each for each in troubles)
    assert any(each.startswith("script: ") for each in troubles)
