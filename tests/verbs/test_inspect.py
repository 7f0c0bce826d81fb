"""``ptr-fast inspect``: the numbers are the store's, the sheet shows the right frames, hostile names stay text."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from toy_robot import SIZE, toy_episodes, toy_meta, write_store

from ptr_fast.data.store import EpisodeStore
from ptr_robot import cli
from ptr_robot.inspection.contact_sheet import choose_camera, choose_rows, sheet_html, sheet_png
from ptr_robot.inspection.store_summary import summarize
from ptr_robot.verbs.inspect import Args, main

HOSTILE = "<script>alert(1)</script> \"open\" 'it' & [/red][bold] {x} \x1b[31m\nnext"


@pytest.fixture(scope="module")
def episodes():
    toys = [replace(toy, outcome="failure" if i == 0 else "success") for i, toy in enumerate(toy_episodes(10))]
    return [replace(toy, split="train" if i < 8 else "val") for i, toy in enumerate(toys)]


@pytest.fixture(scope="module")
def store(tmp_path_factory, episodes):
    meta = toy_meta(source={"format": "toy", "rewards_all_zero": True})
    return EpisodeStore.open(write_store(tmp_path_factory.mktemp("inspect") / "store", episodes, meta))


def test_numbers_are_those_of_the_episodes(store, episodes):
    summary = summarize(store)
    actions = np.concatenate([toy.actions for toy in episodes])
    states = np.concatenate([toy.states for toy in episodes])
    assert (summary.episodes, summary.steps, summary.records) == (10, len(actions), len(states))
    assert summary.splits == {"train": 8, "val": 2}
    assert summary.fingerprint == store.fingerprint()
    assert summary.num_bytes > sum(file.stat().st_size for file in (store.path / "steps").iterdir())
    assert summary.hours == pytest.approx(len(actions) / 5 / 3600)
    for ranges, values in ((summary.actions, actions), (summary.states, states)):
        for i, found in enumerate(ranges):
            column = values[:, i].astype(np.float64)
            expected = (column.min(), *np.quantile(column, [0.01, 0.5, 0.99]), column.max(), column.std())
            measured = (found.minimum, found.p1, found.median, found.p99, found.maximum, found.std)
            assert measured == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert summary.states[0].below is None
    json.dumps(summary.to_json())


def test_tasks_are_counted(store, episodes):
    summary = summarize(store)
    assert [task.episodes for task in summary.tasks] == [4, 3, 3]
    first = summary.tasks[0]
    mine = [toy for toy in episodes if toy.task == first.task]
    lengths = sorted(len(toy.actions) for toy in mine)
    assert (first.shortest, first.longest, first.steps) == (lengths[0], lengths[-1], sum(lengths))
    assert first.median == np.median(lengths)
    assert first.outcomes == {"success": 3, "failure": 1}
    assert first.domains == {}


def test_clipped_share(tmp_path):
    toys = [
        replace(toy, actions=toy.actions * np.array([1, 1, 1, 1, 1, 1.6, 1], np.float32)) for toy in toy_episodes(8)
    ]
    yaw = np.concatenate([toy.actions[:, 5] for toy in toys])
    summary = summarize(EpisodeStore.open(write_store(tmp_path / "store", toys)))
    assert summary.actions[5].above == pytest.approx((yaw > 0.25).mean())
    assert summary.actions[5].below == pytest.approx((yaw < -0.25).mean())
    assert summary.actions[5].above > 0
    assert summary.actions[6].above == 0.0  # an open gripper lies on its bound, not outside


def test_frames_are_spread_evenly(store):
    rows = choose_rows(store, episodes_per_task=2, frames_per_episode=5, max_tasks=2)
    assert [row.task for row in rows] == ["put carrot on plate"] * 2 + ["flip pot upright"] * 2
    assert [row.episode for row in rows] == [0, 9, 1, 7]
    for row in rows:
        assert row.steps[0] == 0
        assert row.steps[-1] == row.num_steps  # the frame after the last action
        assert len(row.steps) == 5
        assert np.ptp(np.diff(row.steps)) <= 1
    [row, *_] = choose_rows(store, episodes_per_task=1, frames_per_episode=1000, max_tasks=1)
    assert row.steps == tuple(range(row.num_steps + 1))


def test_picture_shows_the_frames(store):
    rows = choose_rows(store, episodes_per_task=2, frames_per_episode=3, max_tasks=2)
    sheet = np.asarray(Image.open(io.BytesIO(sheet_png(store, rows, "image_1"))).convert("RGB")).astype(float)
    assert sheet.shape == (2 * 16 + 2 * 34 + 4 * (22 + 128 + 4), 2 * 16 + 3 * 132 - 4, 3)
    y = 16 + 34 + 22  # first row: below margin, task and caption
    for column, step in enumerate(rows[0].steps):
        frame = Image.fromarray(store.frame("image_1", int(store.episodes.first[rows[0].episode]) + step))
        expected = np.asarray(frame.resize((128, 128), Image.Resampling.LANCZOS)).astype(float)
        shown = sheet[y : y + 128, 16 + column * 132 : 16 + column * 132 + 128]
        assert np.abs(shown - expected)[20:].max() == 0  # the step number covers the top


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.images, self.text, self.links = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        self.links += [value for name, value in attrs if name in ("href", "src") and not value.startswith("data:")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_page_is_whole_and_loads_nothing(tmp_path, episodes, encoding):
    store = EpisodeStore.open(write_store(tmp_path / "store", episodes, toy_meta(encoding=encoding)))
    rows = choose_rows(store, episodes_per_task=1, frames_per_episode=4, max_tasks=9)
    page = Page(sheet_html(store, rows, "image_0", summarize(store)).decode())
    assert len(page.images) == 3 * 4
    assert page.links == []
    assert "script" not in page.tags
    image = Image.open(io.BytesIO(base64.b64decode(page.images[0].split(",")[1])))
    assert image.format == "JPEG"
    assert image.size == (SIZE, SIZE)
    expected = store.frame("image_0", int(store.episodes.first[rows[0].episode]))
    assert np.abs(np.asarray(image).astype(float) - expected).mean() < 3


def test_hostile_names_stay_text(tmp_path, episodes, capsys):
    toys = [replace(toy, task=HOSTILE, episode_id=f"{toy.episode_id}<b>") for toy in episodes[:3]]
    path = write_store(tmp_path / "<i>store", toys, toy_meta(source={"name": "[/bold]<u>"}))
    assert main(Args(store=path, out=tmp_path / "out")) == 0
    html = (tmp_path / "out" / "sheet.html").read_text()
    page = Page(html)
    assert not {"script", "b", "i", "u"} & set(page.tags) - {"b"}
    assert html.count("<b>") == 6  # five tiles and the camera
    assert "alert(1)" in "".join(page.text)
    assert re.search(r"<script", html) is None
    out = capsys.readouterr().out
    assert "[/bold]<u>" in out
    assert "\x1b" not in out
    Image.open(tmp_path / "out" / "sheet.png").verify()


def test_command_writes_what_was_asked_for(store, tmp_path, capsys):
    for kind, names in (
        ("png", ["sheet.png"]),
        ("html", ["sheet.html"]),
        ("none", []),
        ("both", ["sheet.html", "sheet.png"]),
    ):
        out = tmp_path / kind
        assert cli.main(["inspect", str(store.path), "--out", str(out), "--sheet", kind]) == 0
        assert sorted(file.name for file in out.glob("*")) == names
    text = capsys.readouterr().out
    for word in ("put carrot on plate", "image_0", "48x48", "jpeg", "yaw", "rad", store.fingerprint()[:20]):
        assert word in text


def test_the_sheet_is_written_without_being_asked_for(tmp_path, episodes, monkeypatch, capsys):
    path = write_store(tmp_path / "kitchens", episodes[:2])
    before = sorted(path.rglob("*"))
    monkeypatch.chdir(path)
    for name in (str(path), "."):
        assert cli.main(["inspect", name]) == 0
        shown = capsys.readouterr().out
        for file in ("sheet.png", "sheet.html"):
            written = tmp_path / "kitchens-sheet" / file
            assert f"wrote {written}" in shown
            written.unlink()
    assert sorted(path.rglob("*")) == before
    assert cli.main(["inspect", str(path), "--sheet", "none"]) == 0
    assert "wrote" not in capsys.readouterr().out
    (tmp_path / "kitchens-sheet").rmdir()
    (tmp_path / "kitchens-sheet").write_text("in the way")
    assert cli.main(["inspect", str(path)]) == 2
    assert "kitchens-sheet: File exists; --out names another folder for the sheet" in capsys.readouterr().err


def test_json_holds_everything(store, capsys):
    assert cli.main(["inspect", str(store.path), "--json", "--sheet", "none"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["meta"]["source"] == {"format": "toy", "rewards_all_zero": True}
    assert report["tasks"][0]["episodes"] == 4
    assert report["sheet"] == []


def test_tables_read_no_frame_and_sheets_read_only_theirs(store, tmp_path, monkeypatch):
    decoded = []
    frame = EpisodeStore.frame
    monkeypatch.setattr(EpisodeStore, "frame", lambda self, *args: decoded.append(args) or frame(self, *args))
    main(Args(store=store.path, sheet="none"))
    assert decoded == []
    main(Args(store=store.path, out=tmp_path, sheet="png", episodes_per_task=1, frames_per_episode=2, camera="image_1"))
    assert len(decoded) == 3 * 2


def test_black_camera_is_not_the_one_shown(tmp_path, episodes):
    toys = [replace(t, images={**t.images, "image_0": np.zeros_like(t.images["image_0"])}) for t in episodes[:2]]
    dark = EpisodeStore.open(write_store(tmp_path / "store", toys))
    assert choose_camera(dark) == "image_1"


def test_empty_store(tmp_path, capsys):
    path = write_store(tmp_path / "store", [], toy_meta())
    assert main(Args(store=path, out=tmp_path / "out")) == 0
    assert "0 episodes" in capsys.readouterr().out


def test_mistakes_are_named(store, tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "not a store" in capsys.readouterr().err
    assert cli.main(["inspect", str(store.path), "--camera", "wrist"]) == 2
    assert "no camera 'wrist'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="episodes_per_task must be at least 1"):
        Args(store=tmp_path, episodes_per_task=0)
