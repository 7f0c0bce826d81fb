"""The inputs of the shared folder that once failed: each gives what the README there says."""

import json

import pytest

from ptr_fast.data.store import EpisodeStore
from ptr_fast.errors import DataError
from ptr_robot.datasets.detect import open_source
from ptr_robot.datasets.options import Args


@pytest.fixture
def case(shared_dir):
    """Folder of a case."""
    return lambda name: shared_dir / "cases" / name


def test_open_x_bridge_layout(case, run):
    store = EpisodeStore.open(run(case("tfds_real/oxe_bridge_like"))[1])
    assert set(store.episodes.task) == {"open drawer"}
    names = [f"world_vector_{i}" for i in range(3)] + [f"rotation_delta_{i}" for i in range(3)] + ["open_gripper"]
    assert list(store.meta.action.names) == names
    assert store.meta.action.units == ("unknown",) * 6 + ("1 = open, 0 = closed",)
    assert store.action[1, :3] == pytest.approx([0.01] * 3)
    assert store.action[:8, 6].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (store.meta.action.low[6], store.meta.action.high[6]) == (0, 1)


@pytest.mark.parametrize("name", ["tfds_real/depth_robot", "rlds_depth_float32"])
def test_depth_is_no_camera_and_is_named(case, run, tmp_path, name):
    store = EpisodeStore.open(run(case(name))[1])
    assert [camera.name for camera in store.meta.cameras] == ["image"]
    (note,) = [n for n in open_source(Args(source=case(name), out=tmp_path)).notes if "depth" in n]
    assert "float32" in note


def test_nested_cameras_are_read(case, run):
    store = EpisodeStore.open(run(case("rlds_nested_images"))[1])
    assert [camera.name for camera in store.meta.cameras] == ["front", "wrist"]


def test_blank_instructions_are_listed(case, run):
    source = case("rlds_blank_instruction")
    with pytest.raises(DataError, match=r"2 episodes have no instruction: \S+#0, \S+#1; .*--blank-task TEXT.*--task"):
        run(source)
    summary, out = run(source, blank_task="stack the cups")
    assert (summary.present, summary.converted) == (1, 2)
    assert sorted(EpisodeStore.open(out).episodes.task) == ["pick up the cup", "stack the cups", "stack the cups"]
    summary, out = run(source, out="skipped", on_bad="skip")
    assert [entry["episode_id"][-2:] for entry in json.loads((out / "bad_episodes.json").read_text())] == ["#0", "#1"]


def test_tasks_of_bridge_v2_files_are_their_language(case, run):
    store = EpisodeStore.open(run(case("npy_v2two"))[1])
    assert sorted(set(store.episodes.task)) == ["open the microwave", "put the fork next to the plate"]
    assert set(store.episodes.domain) == {"toykitchen2"}


def test_no_bounds_of_another_robot(case, run):
    for name in ("tfds_real/oxe_bridge_like", "tfds_real/depth_robot", "rlds_depth_float32", "rlds_nested_images"):
        action = EpisodeStore.open(run(case(name), out=name.replace("/", "_"))[1]).meta.action
        assert action.bounds_source == "data"
        assert "m" not in action.units
