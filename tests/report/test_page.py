import base64
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import simplejpeg
from valued_run import BC, make_run, make_store

from ptr_robot.cli import main as cli
from ptr_robot.report.episodes import frame_uri
from ptr_robot.report.page import Section, build_report, write_page

NASTY = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link", "hr", "input"}
DRAWN_VOID = {"line", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """Collects texts and attributes, and fails on a tag that is not closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in DRAWN_VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def store(folder):
    return make_store(folder / "store")


@pytest.fixture(scope="module")
def run(folder, store):
    run = make_run(folder / "run", store)
    from ptr_fast.checkpoint import read_checkpoint

    (run / "train_config.json").write_text(json.dumps(read_checkpoint(run).run))
    keys = ("train/bellman_loss", "train/cql_loss", "q/data", "q/policy", "perf/steps_per_s", "other/" + NASTY)
    with open(run / "metrics.jsonl", "w", encoding="utf-8") as file:
        for step in range(1, 7):
            file.write(json.dumps({"step": step, "time_s": step / 2} | {key: step * 1.5 for key in keys}) + "\n")
    trials = [{"seed": i, "success": i < 13, "num_steps": 31, "reached": i < 17, "lifted": i < 15} for i in range(20)]
    (run / "rollouts").mkdir()
    (run / "rollouts" / "a.json").write_text(
        json.dumps({"policy": f"PTR {NASTY}", "mode": "search", "task": NASTY, "kitchen": "E", "trials": trials})
    )
    assert cli(["select", "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def page(run):
    assert cli(["report", "--run", str(run), "--title", f"A title {NASTY}"]) == 0
    return Page(run / "report.html")


def test_everything_is_on_the_page(page, run):
    text = page.text()
    selected = json.loads((run / "selection.json").read_text())["selected"]
    for words in (
        "13 / 20", "43–82 %", "17 15 31", "CQL, conv3", "3 train, 4 held out",
        "No offline metric guarantees success on a robot",
        f"step {selected} picked", "picked checkpoint (selection score", "advantage", "a failure",
        "Critic: Bellman loss", "largest rise of Q", "1 more series", "train_config.json", "ptr-fast 0.",
    ):  # fmt: skip
        assert words in text, words
    assert "picked" in [attrs.get("class") for attrs in page.all("tr")]


def test_metrics_on_held_out_episodes_are_curves_of_their_own(folder):
    run = folder / "with curves"
    run.mkdir()
    rows = [{"step": s, "q/data": 1.0, "held_out/bellman_error": 4.0 - s, "held_out/preference": 0.5} for s in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli(["report", "--run", str(run)]) == 0
    text = Page(run / "report.html").text()
    assert "On held-out episodes" in text
    assert "Bellman error ↓" in text
    assert "1 more series" in text
    assert "held_out/" not in text


def test_nothing_is_loaded_from_elsewhere(page, run):
    assert not page.all("script")
    assert [link["href"] for link in page.all("link")] == ["data:,"]  # no icon, or a browser asks a server for one
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    source = (run / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(|file:", source)
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_texts_are_escaped(page, run):
    assert page.text().count(NASTY) >= 4  # title, heading, policy, task
    assert "<script" not in (run / "report.html").read_text()


def test_images_and_charts_have_words(page):
    assert page.all("img")
    assert all(image["alt"] for image in page.all("img"))
    charts = page.all("svg")
    assert len(charts) > 10
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert {"lang": "en"} in page.all("html")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_the_frames_are_those_of_the_episode(page, store):
    images = [image for image in page.all("img") if image["alt"].startswith("frame of image_0, step ")]
    assert images
    for image in images:
        shown = simplejpeg.decode_jpeg(base64.b64decode(image["src"].partition(",")[2])).astype(int)
        step = int(image["alt"].split()[-1])
        firsts = [f for f, n in zip(store.episodes.first, store.episodes.num_steps, strict=True) if step <= n]
        frames = [store.frame("image_0", int(first) + step).astype(int) for first in firsts]
        assert min(np.abs(shown - frame).mean() for frame in frames) < 4.0


def test_large_frames_are_shrunk():
    shown = simplejpeg.decode_jpeg(base64.b64decode(frame_uri(np.full((480, 640, 3), 90, np.uint8)).partition(",")[2]))
    assert shown.shape == (120, 160, 3)


def test_several_runs_share_charts(folder, run, store):
    (folder / "copies").mkdir()
    other = make_run(folder / "copies" / "run", store, config=BC, steps=(2,))
    shutil.copy(other / "checkpoints" / "000002" / "pretrained_model" / "train_config.json", other)
    (other / "metrics.jsonl").write_text('{"step": 1, "train/bc_loss": 2.0, "perf/steps_per_s": 3.0}\n')
    out = build_report([run, other], [], folder / "several.html", "both")
    text = Page(out).text()
    assert f"{run.parent.name}/run" in text
    assert "copies/run" in text  # same name, told apart
    assert "Cloning loss" in text


def test_a_run_with_little_in_it_still_gives_a_page(folder):
    bare = folder / "bare"
    bare.mkdir()
    (bare / "metrics.jsonl").write_text("")
    text = Page(build_report([bare], [], folder / "bare.html", "bare")).text()
    assert "Choosing a checkpoint" not in text
    assert "bare" in text


def test_a_store_that_moved_costs_only_the_frames(folder, run):
    moved = folder / "moved"
    shutil.copytree(run, moved)
    for file in (moved / "evaluation").glob("*.json"):
        file.write_text(re.sub(r'"store": "[^"]+"', '"store": "gone"', file.read_text()))
    page = Page(build_report([moved], [], folder / "moved.html", "moved"))
    assert "gone: not a store" in page.text()
    assert not page.all("img")


def test_sections_without_a_body_are_left_out(tmp_path):
    parts = [Section(heading="one & two", body="<p>x</p>"), Section(heading="left out", body="")]
    text = Page(write_page(tmp_path / "deep" / "p.html", "t", parts)).text()
    assert "one & two" in text
    assert "left out" not in text


def test_the_verb_asks_for_what_is_missing(capsys):
    assert cli(["report"]) == 2
    assert "name at least one --run or --rollouts" in capsys.readouterr().err
