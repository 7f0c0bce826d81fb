"""Real Bridge episodes through every verb: what a user does on the first day, and what must hold."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python
from verb_here import run_here

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.data.store import EpisodeStore

NEW_TASK = "put carrot on plate"
OLD_TASKS = (
    "flip pot upright which is in sink",
    "put cup from counter or drying rack into sink",
    "turn lever vertical to front",
)
NUM_STEPS, BATCH_SIZE = 30, 8
LOOP = ["--num-steps", NUM_STEPS, "--batch-size", BATCH_SIZE, "--log-every", "5", "--checkpoint-every", "10"]
LOOP += ["--keep-last", "0", "--num-threads", "1"]
BOUNDS_LOW = np.array([-0.05] * 3 + [-0.25] * 3 + [0.0])
BOUNDS_HIGH = np.array([0.05] * 3 + [0.25] * 3 + [1.0])
SPY = """
import json, sys
import numpy as np
from ptr_fast.data import loader
from ptr_robot.cli import main

def spied(self, slot, step, fill=loader.Loader._fill):
    sources, indices = self._sampler.indices(step)
    drawn = [[int(s), int(self._tables[s].episode[i])] for s, i in zip(sources, indices)]
    log.write(json.dumps({"step": step, "drawn": drawn}) + "\\n")
    log.flush()
    fill(self, slot, step)

log = open(sys.argv[1], "w")
loader.Loader._fill = spied
raise SystemExit(main(sys.argv[2:]))
"""


def ptr_fast(*arguments, spy: Path | None = None, rc: int = 0) -> subprocess.CompletedProcess:
    """Runs a verb; ``spy`` names a file for the episodes of every batch that the loader prepares."""
    spied = [sys.executable, "-c", SPY, str(spy), *map(str, arguments)]
    done = warm_python.run(spied, capture_output=True, text=True, timeout=240) if spy else run_here(*arguments)
    assert done.returncode == rc, done.stdout + done.stderr
    return done


def convert(shared_dir: Path, store: Path) -> subprocess.CompletedProcess:
    options = ["--cameras", "image_0", "image_1", "--workers", "1"]
    return ptr_fast("convert", "--source", shared_dir / "data" / "bridge_rlds", "--out", store, *options)


@pytest.fixture(scope="module")
def store(shared_dir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bridge") / "store"
    convert(shared_dir, path)
    return path


@pytest.fixture(scope="module")
def base(store) -> Path:
    """A run on the three old tasks."""
    out = store.parent / "base"
    data = ["--data.stores", store, "--data.exclude-tasks", NEW_TASK, "--data.validation-share", "0.2"]
    ptr_fast("pretrain", "smoke", *data, "--out", out, *LOOP, spy=out.with_suffix(".drawn"))
    return out


@pytest.fixture(scope="module")
def tuned(store, base) -> Path:
    """The run fine-tuned on seven of the eight carrot episodes."""
    out = store.parent / "tuned"
    data = ["--checkpoint", base, "--target", store, "--task", NEW_TASK, "--num-demos", "7", "--mix", "0.9"]
    ptr_fast("finetune", *data, "--out", out, *LOOP, spy=out.with_suffix(".drawn"))
    return out


@pytest.fixture(scope="module")
def selection(tuned) -> dict:
    """What ``select`` says of that run; its evaluations lie in the run folder."""
    ptr_fast("select", "--run", tuned)
    return json.loads((tuned / "selection.json").read_text())


def drawn(run: Path) -> dict[int, list[list[int]]]:
    """``[source, episode]`` of every sample, by step; only steps that were trained, not those prepared ahead."""
    rows = [json.loads(line) for line in run.with_suffix(".drawn").read_text().splitlines()]
    steps = {row["step"]: row["drawn"] for row in rows if row["step"] < NUM_STEPS}
    assert sorted(steps) == list(range(NUM_STEPS))
    assert {len(samples) for samples in steps.values()} == {BATCH_SIZE}
    return steps


def split(run: Path) -> list[dict]:
    return json.loads((run / "split.json").read_text())["sources"]


def files(folder: Path) -> dict[str, tuple]:
    found = [p for p in folder.rglob("*") if p.is_file() and p.name != "writer.lock"]
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes()) for p in found}


def test_converting_again_changes_nothing(shared_dir, store):
    opened = EpisodeStore.open(store)
    opened.verify()
    assert (opened.num_episodes, opened.num_steps) == (25, 250)
    assert sorted(set(opened.episodes.task)) == sorted((NEW_TASK, *OLD_TASKS))
    assert opened.episodes.task.count(NEW_TASK) == 8
    before = files(store)
    assert "0 converted, 25 there already" in convert(shared_dir, store).stdout
    assert files(store) == before


def test_doctor_finds_what_is_known_of_these_episodes_and_no_error(store):
    findings = json.loads(ptr_fast("doctor", store, "--json").stdout)
    levels = {finding["check"]: finding["level"] for finding in findings["findings"]}
    assert findings["counts"]["error"] == 0
    assert levels["cut_episodes"] == "warning"  # every episode was cut to ten steps
    assert levels["action_lag"] == "note"
    assert "black_camera" not in levels  # image_3 is, and was left out


def test_pretraining_sees_no_episode_of_the_new_task(store, base):
    spec = read_checkpoint(base).spec
    assert spec.tasks.names == OLD_TASKS
    assert spec.tasks.num_slots > len(OLD_TASKS)
    opened = EpisodeStore.open(store)
    task = dict(zip(opened.episodes.episode_id, opened.episodes.task, strict=True))
    (source,) = split(base)
    assert {task[e] for e in source["train"]} == set(OLD_TASKS)
    assert len(source["train"]) + len(source["validation"]) == 17
    assert len(source["validation"]) == 3  # a fifth of 5, 6 and 6, rounded down
    seen = {opened.episodes.episode_id[episode] for samples in drawn(base).values() for _, episode in samples}
    assert seen <= set(source["train"])
    assert NEW_TASK not in {task[e] for e in seen}


def test_finetuning_adds_the_task_to_the_next_slot(base, tuned):
    before, after = read_checkpoint(base).spec.tasks, read_checkpoint(tuned).spec.tasks
    assert after.names == (*OLD_TASKS, NEW_TASK)
    assert after.num_slots == before.num_slots


def test_demonstrations_held_out_and_old_episodes_are_disjoint(store, base, tuned):
    prior, target = split(tuned)
    assert (prior["role"], target["role"]) == ("prior", "target")
    assert prior["train"] == split(base)[0]["train"]
    demos, held_out = set(target["train"]), set(target["validation"])
    assert (len(demos), len(held_out)) == (7, 1)
    opened = EpisodeStore.open(store)
    carrot = {e for e, t in zip(opened.episodes.episode_id, opened.episodes.task, strict=True) if t == NEW_TASK}
    assert demos | held_out == carrot
    assert not demos & held_out
    assert not carrot & set(prior["train"])


def test_the_mix_is_exact_over_the_run(store, tuned):
    samples = [sample for step in drawn(tuned).values() for sample in step]
    assert len(samples) == NUM_STEPS * BATCH_SIZE == 240
    assert sum(source == 0 for source, _ in samples) == 216  # 0.9 of 240
    ids = EpisodeStore.open(store).episodes.episode_id
    for number, source in enumerate(split(tuned)):
        assert {ids[episode] for s, episode in samples if s == number} <= set(source["train"])


def test_select_picks_a_checkpoint_that_is_there_on_the_held_out_episode(tuned, selection):
    names = [path.name for path in list_checkpoints(tuned)]
    assert names == ["000000", "000010", "000020", "000030"]
    assert sorted(entry["checkpoint"] for entry in selection["ranking"]) == names
    assert selection["selected"] == int(selection["ranking"][0]["checkpoint"])
    assert selection["data"]["is_held_out"] is True
    assert selection["data"]["num_episodes"] == 1


@pytest.mark.usefixtures("selection")
def test_the_report_is_one_file_that_loads_nothing(tuned):
    ptr_fast("report", "--run", tuned)
    page = (tuned / "report.html").read_text()
    assert NEW_TASK in page
    assert page.count("data:image/") >= 1
    links = re.findall(r"""(?:\b(?:src|href|srcset|action|data)\s*=\s*|url\(\s*|@import\s+)["']?([^"'\s)>]+)""", page)
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert not re.search(r"<script[^>]+src|<link\b(?! rel=\"icon\" href=\"data:)", page)


@pytest.mark.parametrize("mode", ["mean", "search"])
def test_actions_on_the_held_out_frames_are_within_the_robots_bounds(store, tuned, mode):
    rows = [
        json.loads(line)
        for line in ptr_fast("act", "--checkpoint", tuned, "--mode", mode, "--json").stdout.splitlines()
    ]
    (held_out,) = split(tuned)[1]["validation"]
    assert [(row["episode_id"], row["t"]) for row in rows] == [(held_out, t) for t in range(10)]
    actions = np.array([row["action"] for row in rows])
    assert actions.shape == (10, 7)
    assert np.isfinite(actions).all()
    assert (actions >= BOUNDS_LOW - 1e-6).all()
    assert (actions <= BOUNDS_HIGH + 1e-6).all()
    assert (actions.std(axis=0) > 0).all()  # the frames matter
    opened = EpisodeStore.open(store)
    first = int(opened.episodes.first[opened.episodes.episode_id.index(held_out)])
    np.testing.assert_allclose([row["recorded"] for row in rows], opened.action[first : first + 10], rtol=1e-6)


def test_more_demonstrations_than_there_are(store, base, tmp_path):
    data = ["--checkpoint", base, "--target", store, "--task", NEW_TASK, "--num-demos", "10"]
    done = ptr_fast("finetune", *data, "--out", tmp_path / "new", *LOOP, rc=2)
    assert f"asked for 10 demonstrations of {NEW_TASK!r}, it has 8; use --num-demos 7 to hold one out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list_checkpoints(tmp_path / "new") == []
