"""What ``resume`` is told: more updates beside a schedule, stores that have moved; and one W&B run over all resumes."""

import json
import re
import shutil
import sys
import types
from pathlib import Path

import pytest
from changing_world import SMALL, copy_home, episodes, make_home, make_store, moved, numbers, ptr_fast, read_record

from ptr_fast.checkpoint import list_checkpoints
from ptr_robot.training.store_places import StorePlaces


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = make_home(tmp_path_factory.mktemp("home"))
    cosine = ["--learner.lr-schedule", "cosine", "--learner.critic-lr", "4e-4"]
    for recipe in ("smoke", "smoke-bc"):
        schedule = cosine if recipe == "smoke" else cosine[:2]
        out = ["--out", home / f"{recipe}-cosine"]
        assert ptr_fast("pretrain", recipe, "--data.stores", home / "store", *out, *SMALL, *schedule) == 0
    return home


@pytest.fixture
def world(home, tmp_path) -> Path:
    return copy_home(home, tmp_path)


def finished(home: Path, tmp_path: Path, recipe: str = "smoke") -> Path:
    return Path(shutil.copytree(home / f"{recipe}-cosine", tmp_path / "run", symlinks=True))


@pytest.mark.parametrize("recipe", ["smoke", "smoke-bc"])
def test_more_updates_than_the_cosine_has_are_refused_with_two_choices(home, tmp_path, capsys, recipe):
    run = finished(home, tmp_path, recipe)
    before = read_record(run)
    assert ptr_fast("resume", run, "--num-steps", "12") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "the cosine schedule of the learning rates ends at step 6: updates 7 to 12 would train with a rate of 0" in line
    )
    again = f"ptr-fast resume {run} --num-steps 12 --lr-schedule"
    assert f"{again} constant --lr RATE (its first rate was {4e-4 if recipe == 'smoke' else 3e-4:g})" in line
    assert f"{again} cosine (stretched over all 12 updates)" in line
    assert read_record(run) == before
    assert list_checkpoints(run)[-1].name == "000006"


def test_both_choices_work_and_are_recorded(home, tmp_path, capsys):
    run = finished(home, tmp_path)
    assert ptr_fast("resume", run, "--num-steps", "9", "--lr-schedule", "constant", "--lr", "1e-4") == 0
    rates = [[row[f"lr/{name}"] for row in numbers(run)[6:]] for name in ("critic", "actor", "temperature")]
    assert rates == [pytest.approx([1e-4] * 3), pytest.approx([2.5e-5] * 3), pytest.approx([7.5e-5] * 3)]
    assert "lr 0.0001" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("step 9/9"))
    record = read_record(run)
    assert {(c["step"], c["field"]): c["after"] for c in record["changes"]} == {
        (6, "loop.num_steps"): 9,
        (6, "learner.lr_schedule"): "constant",
        (6, "learner.lr_schedule_steps"): 0,
        (6, "learner.critic_lr"): 1e-4,
        (6, "learner.actor_lr"): 2.5e-5,
        (6, "learner.temperature_lr"): pytest.approx(7.5e-5),
    }
    assert ptr_fast("resume", run, "--num-steps", "12", "--lr-schedule", "cosine") == 0
    assert [row["lr/critic"] for row in numbers(run)[9:]] == pytest.approx([1.46e-5, 6.7e-6, 1.7e-6], rel=0.02)
    assert len(read_record(run)["changes"]) == 9


def test_a_cosine_that_is_not_over_may_be_shortened_and_ends_where_it_did(home, tmp_path):
    run = finished(home, tmp_path)
    for path in list_checkpoints(run)[1:]:
        shutil.rmtree(path)
    (run / "checkpoints" / "last").unlink()
    assert ptr_fast("resume", run, "--num-steps", "5") == 0
    assert [row["lr/critic"] for row in numbers(run)] == [row["lr/critic"] for row in numbers(home / "smoke-cosine")][
        :5
    ]


def test_every_progress_line_shows_the_rate(home, tmp_path, capsys):
    run = finished(home, tmp_path)
    for path in list_checkpoints(run):
        shutil.rmtree(path)
    assert ptr_fast("resume", run) == 0
    shown = [float(v) for v in re.findall(r"^step .*  lr (\S+)", capsys.readouterr().out, re.M)]
    assert shown == pytest.approx([row["lr/critic"] for row in numbers(run)], rel=0.01)
    assert shown[0] == pytest.approx(4e-4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lr-schedule", "constant"], "go together"),
        (["--lr", "1e-4"], "go together"),
        (["--lr-schedule", "cosine", "--lr", "1e-4"], "go together"),
        (["--lr-schedule", "constant", "--lr", "-1"], "lr must be positive"),
        (["--num-steps", "-3"], "num_steps must not be negative"),
    ],
)
def test_wrong_rates_are_refused(home, capsys, words, expected):
    with pytest.raises(SystemExit):
        ptr_fast("resume", home / "smoke-cosine", *words)
    assert expected in " ".join("".join(capsys.readouterr()).split())


def test_a_new_run_whose_schedule_ends_too_soon_is_refused(home, tmp_path, capsys):
    words = ["--learner.lr-schedule", "cosine", "--learner.lr-schedule-steps", "4"]
    out = tmp_path / "run"
    assert ptr_fast("pretrain", "smoke", "--data.stores", home / "store", "--out", out, *SMALL, *words) == 2
    assert "updates 5 to 6 would train with a rate of 0" in capsys.readouterr().err


VERBS = {
    "resume": ["resume", "RUN"],
    "select": ["select", "--run", "RUN"],
    "evaluate": ["evaluate", "--checkpoint", "RUN"],
    "act": ["act", "--checkpoint", "RUN", "--every", "9"],
    "export": ["export", "--checkpoint", "RUN", "--num-frames", "2", "--out", "OUT/policy.onnx"],
    "finetune": [
        "finetune",
        "--checkpoint",
        "RUN",
        "--target",
        "TARGET",
        "--num-demos",
        "2",
        "--out",
        "OUT/new",
        *SMALL,
    ],
    "branch": ["pretrain", "--from", "RUN", "--out", "OUT/new"],
}


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_names_the_option_for_a_store_that_has_moved(home, world, capsys, verb):
    """Something else lies where the store was: the recorded place is no store any more."""
    (world / "gone").mkdir()
    (world / "store").rename(world / "elsewhere")
    record = (world / "base" / "train_config.json").read_text().replace(f"{home}/store", f"{world}/gone")
    (world / "base" / "train_config.json").write_text(record)
    places = {"RUN": world / "base", "TARGET": world / "target"}
    words = [places.get(w, w) if not w.startswith("OUT") else world / w[4:] for w in VERBS[verb]]
    assert ptr_fast(*words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert f"{world}/gone: not a store" in line
    option = f"--store {world}/gone=NEW"
    assert option in line
    assert ptr_fast(*words, "--store", f"{world}/nowhere=x") == 2
    assert "the record of the run names no store there; it names" in capsys.readouterr().err
    assert ptr_fast(*words, *option.replace("NEW", str(world / "elsewhere")).split()) == 0, capsys.readouterr().err


def test_report_finds_frames_of_a_store_that_has_moved(home, world, capsys):
    assert ptr_fast("select", "--run", world / "base", *moved(home, world)) == 0
    (world / "store").rename(world / "elsewhere")
    words = ["report", "--run", world / "base"]
    assert ptr_fast(*words) == 0
    assert f"--store {world}/store=NEW" in (world / "base" / "report.html").read_text()
    assert ptr_fast(*words, "--store", f"{world}/store={world}/elsewhere") == 0
    page = (world / "base" / "report.html").read_text()
    assert "not a store" not in page
    assert "data:image/jpeg" in page


def test_after_a_resume_older_checkpoints_know_the_new_place(home, world, capsys):
    (world / "store").rename(world / "elsewhere")
    assert ptr_fast("resume", world / "base", "--store", f"{home}/store={world}/elsewhere") == 0
    assert ptr_fast("select", "--run", world / "base") == 0
    assert json.loads((world / "base" / "selection.json").read_text())["data"]["store"] == f"{world}/elsewhere"
    (world / "elsewhere").rename(world / "third")
    assert ptr_fast("select", "--run", world / "base") == 2
    assert f"--store {world}/elsewhere=NEW" in capsys.readouterr().err
    assert ptr_fast("select", "--run", world / "base", "--store", f"{world}/elsewhere={world}/third") == 0


def test_another_store_at_the_old_place_is_not_taken_for_it(home, world, capsys):
    shutil.rmtree(world / "store")
    make_store(world / "store", episodes(12, seed=5))
    for verb in ("resume", "evaluate", "act"):
        words = [world / "base" if w == "RUN" else w for w in VERBS[verb]]
        assert ptr_fast(*words, *moved(home, world)) == 2
        assert "that the record of the run names are gone: 'toy_0_0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["here"], "expected OLD=NEW"),
        (["=new"], "expected OLD=NEW"),
        (["old="], "expected OLD=NEW"),
        (["old=a", "old=b"], "old is named twice"),
    ],
)
def test_places_that_are_none(options, expected):
    with pytest.raises(ValueError, match=expected):
        StorePlaces.parse(options)


def test_a_path_with_an_equals_sign_is_a_store_to_look_at(tmp_path, monkeypatch):
    (tmp_path / "lr=3").mkdir()
    monkeypatch.chdir(tmp_path)
    assert StorePlaces.parse(["lr=3"], takes_given=True) == StorePlaces(Path("lr=3"))
    assert StorePlaces.parse(["lr=4"], takes_given=True).moved == {tmp_path / "lr": Path("4")}
    with pytest.raises(ValueError, match="expected one store to look at"):
        StorePlaces.parse(["a", "b"], takes_given=True)


def test_one_run_at_weights_and_biases_over_all_resumes(home, tmp_path, monkeypatch):
    begun = []

    class FakeRun:
        def log(self, numbers, step):
            begun[-1]["steps"].append(step)

        def finish(self):
            pass

    fake = types.ModuleType("wandb")
    fake.__spec__ = sys.__spec__
    fake.init = lambda **told: begun.append({**told, "steps": []}) or FakeRun()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    out, small = tmp_path / "run", [*SMALL, "--num-steps", "4"]
    assert (
        ptr_fast("pretrain", "smoke", "--data.stores", home / "store", "--out", out, *small, "--wandb", "robots") == 0
    )
    assert ptr_fast("resume", out, "--num-steps", "5") == 0
    assert ptr_fast("resume", out, "--num-steps", "6") == 0
    assert [b["steps"] for b in begun] == [[1, 2, 3, 4], [5], [6]]
    assert len({b["id"] for b in begun}) == 1
    assert {(b["resume"], b["project"]) for b in begun} == {("allow", "robots")}
    assert begun[0]["id"] == read_record(out)["wandb"]
    branch = tmp_path / "branch"
    assert ptr_fast("pretrain", "--from", out, "--out", branch, "--num-steps", "7") == 0
    assert begun[-1]["id"] == read_record(branch)["wandb"] != begun[0]["id"]
    record = read_record(out)  # one of before ids were kept
    (out / "train_config.json").write_text(json.dumps({**record, "wandb": None}))
    assert ptr_fast("resume", out, "--num-steps", "7") == 0
    assert ptr_fast("resume", out, "--num-steps", "8") == 0
    assert begun[-1]["id"] == begun[-2]["id"] == read_record(out)["wandb"]
