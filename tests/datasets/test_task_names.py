"""Instructions win over paths; numbers, dates and words such as run are nobody's task; blank ones are listed."""

import json

import numpy as np
import pytest
from rlds_writer import text, usual, usual_steps, write

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot import cli
from ptr_robot.datasets.task_names import first_instruction, is_blank, is_label, task_and_domain

NO_LABELS = ("00", "2024-03-05", "run_7", "run7", "traj0", "demo_2", "20240305T1200", "3f2a9c1e", "v2", "march_5", "_")
LABELS = ("open_door", "pnp", "put_carrot_on_plate", "flip-pot", "toykitchen2", "set_table_3", "抓取", "run_the_tap")


@pytest.mark.parametrize("name", [*NO_LABELS, "session-3", "data", "trial.07", "a", "Episode 12", ""])
def test_no_label(name):
    assert not is_label(name)


@pytest.mark.parametrize("name", LABELS)
def test_label(name):
    assert is_label(name)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/toykitchen1/put_carrot/train/out.npy", ("put_carrot", "toykitchen1")),
        ("/data/toykitchen1/put_carrot/04/val/out.npy", ("put_carrot", "toykitchen1")),
        ("/x/toysink3/pnp/04/2022-01-01_00-00-00/raw/traj_group1/traj2", ("pnp", "toysink3")),
        ("/x/kitchen/run_7/train/out.npy", ("", "kitchen")),
        ("/x/2024-03-05/run_7/2022-01-01_00-00-00/raw/traj_group1/traj2", ("", "")),
        ("/home/me/open_door/episode_3.hdf5", ("", "")),
        ("/home/me/kitchen/open_door/out.npy", ("", "")),
        ("out.npy", ("", "")),
        ("", ("", "")),
    ],
)
def test_only_layouts_that_put_the_task_there(path, expected):
    assert task_and_domain(path) == expected


def test_blank():
    assert all(is_blank(text) for text in ("", "  ", "\n", "None", "nan", "...", "N/A"))
    assert not is_blank("none of the cups may fall")
    assert first_instruction(["", " None ", " open it "]) == "open it"
    assert first_instruction(["open\n the\tdrawer "]) == "open the drawer"


def test_bytes_that_are_no_text_are_no_instruction(tmp_path, run, make_npy, make_trajectory):
    latin = "ouvre le café".encode("latin-1")
    source = write(tmp_path / "own", usual_steps(), [usual(seed=0), usual(seed=1, task=latin)])
    with pytest.raises(DataError, match=r"1 episodes have no instruction: \S+#1; say "):
        run(source)
    assert EpisodeStore.open(run(source, blank_task="ouvre")[1]).episodes.task == ["open the drawer", "ouvre"]
    file = tmp_path / "npy" / "2024-03-05" / "train" / "out.npy"
    trajectories = make_npy(file, lengths=(3,))
    trajectories[0]["language"] = latin
    np.save(file, np.asarray(trajectories, dtype=object), allow_pickle=True)
    folder = tmp_path / "raw" / "data" / "run_7" / "2022-01-01_00-00-00" / "raw" / "traj_group0" / "traj0"
    make_trajectory(folder)
    (folder / "lang.txt").write_bytes(latin)
    for root in (tmp_path / "npy", tmp_path / "raw"):
        summary, _ = run(root, out=f"{root.name}_store", task="ouvre")
        assert summary.converted == 1
        with pytest.raises(DataError, match="have no instruction"):
            run(root, out=f"{root.name}_other")


def episode(seed, task, path=b""):
    return {**usual(seed=seed, task=task), "episode_metadata/file_path": [path]}


@pytest.fixture
def mixed(tmp_path):
    """Episodes with an instruction, blank ones, and a blank one whose path is Bridge's."""
    episodes = [
        episode(0, b"open the drawer", b"/x/toykitchen1/another_task/train/out.npy"),
        episode(1, b"", b"/home/USER/2024-03-05/run_7/episode_3.hdf5"),
        episode(2, b"None"),
        episode(3, b" ", b"/x/toykitchen1/put_carrot_on_plate/00/train/out.npy"),
        episode(4, b"close the drawer"),
    ]
    return write(tmp_path / "own", usual_steps(), episodes, metadata={"file_path": text()})


def test_blank_ones_stop_after_all_others_are_converted(mixed, run, tmp_path):
    with pytest.raises(DataError, match=r"2 episodes have no instruction: \S+#1, \S+#2; .*has the other 3"):
        run(mixed)
    store = EpisodeStore.open(tmp_path / "store")
    assert store.episodes.task == ["open the drawer", "put carrot on plate", "close the drawer"]
    assert store.meta.action.bounds_source == "data"
    listed = json.loads((tmp_path / "store" / "bad_episodes.json").read_text())
    assert [entry["episode_id"][-2:] for entry in listed] == ["#1", "#2"]
    summary, _ = run(mixed, blank_task="wipe")
    assert (summary.present, summary.converted) == (3, 2)
    assert EpisodeStore.open(tmp_path / "store").episodes.task[3:] == ["wipe", "wipe"]
    assert not (tmp_path / "store" / "bad_episodes.json").exists()


def test_task_of_all(mixed, run):
    assert set(EpisodeStore.open(run(mixed, task="tidy up")[1]).episodes.task) == {"tidy up"}


def test_a_filter_leaves_blank_ones_out(mixed, run):
    summary, out = run(mixed, tasks=("drawer",))
    assert (summary.converted, summary.filtered) == (2, 3)
    assert len(EpisodeStore.open(out).episodes.task) == 2


def test_a_task_from_a_path_is_said(mixed, tmp_path, capsys):
    assert cli.main(["convert", "--source", str(mixed), "--out", str(tmp_path / "out"), "--on-bad", "skip"]) == 0
    shown = capsys.readouterr().out
    assert "note: 1 of the episodes converted now have no instruction; their task is the name of a folder" in shown
    assert "2 bad episodes left out" in shown


def test_all_blank_leaves_nothing(tmp_path, run):
    source = write(tmp_path / "own", usual_steps(), [usual(seed=i, task=b"") for i in range(9)])
    with pytest.raises(DataError, match=r"9 episodes have no instruction: .*#4 and 4 more; say .*skip$"):
        run(source)
    with pytest.raises(
        DataError, match=r"no usable episode; 9 bad ones, the first: episode '\S+#0' has no instruction"
    ):
        run(source, on_bad="skip")
    assert not (tmp_path / "store").exists()


def test_an_instruction_that_begins_later_or_changes(tmp_path, run):
    late, changing = usual(seed=0), usual(seed=1)
    late["steps/language_instruction"] = [b"", b"", b"push", b"push"]
    changing["steps/language_instruction"] = [b"push", b"push", b"pull", b"pull"]
    summary, out = run(write(tmp_path / "own", usual_steps(), [late, changing]))
    assert EpisodeStore.open(out).episodes.task == ["push", "push"]
    assert dict(summary.remarks) == {"change their instruction on the way; the first one was taken": 1}


@pytest.mark.parametrize(
    "language",
    ["open it", ["", "open it"], np.array(["open it"]), b"open it", [b"open it"], ["open it", "open that"]],
    ids=["str", "list", "array", "bytes", "list of bytes", "several"],
)
def test_language_in_a_bridge_file(tmp_path, run, make_npy, language):
    file = tmp_path / "npy" / "toykitchen2" / "open_door" / "00" / "train" / "out.npy"
    trajectories = make_npy(file, lengths=(3, 3))
    trajectories[0]["language"] = language
    trajectories[1]["language"] = [""]
    np.save(file, np.asarray(trajectories, dtype=object), allow_pickle=True)
    summary, out = run(tmp_path / "npy", encoding="raw")
    assert EpisodeStore.open(out).episodes.task == ["open it", "open_door"]
    assert sum(summary.remarks.values()) == 1


def test_a_bridge_file_outside_of_its_layout_has_no_task(tmp_path, run, make_npy):
    make_npy(tmp_path / "npy" / "kitchen" / "2024-03-05" / "train" / "out.npy")
    with pytest.raises(DataError, match="2 episodes have no instruction"):
        run(tmp_path / "npy")
    assert run(tmp_path / "npy", task="open the door")[0].converted == 2


@pytest.mark.parametrize("lines", ["\n\nopen it\n", "confidence: 0.9\nopen it\n", "\ufeffopen it\r\nopen that\r\n"])
def test_lines_of_lang_txt(tmp_path, run, make_trajectory, lines):
    folder = tmp_path / "raw_data" / "kitchen" / "00" / "2022-01-01_00-00-00" / "raw" / "traj_group0" / "traj0"
    make_trajectory(folder, lang=lines)
    assert EpisodeStore.open(run(tmp_path / "raw_data")[1]).episodes.task == ["open it"]
