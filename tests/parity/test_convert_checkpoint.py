"""A Flax checkpoint built from the golden parameters becomes one of ours that gives the golden outputs."""

import msgpack
import numpy as np
import pytest
import torch
from golden import Golden
from update_case import make_batch

from benchmarks.peers.plain_batch import plain
from ptr_fast.errors import DataError
from ptr_fast.kernels.augment import augment
from ptr_robot.published.flax_file import read_flax_checkpoint
from ptr_robot.verbs.convert_checkpoint import Args, convert, main

BOUND = 2e-5


def pack(tree) -> bytes:
    """MessagePack with Flax's extension type for arrays, as ``flax.serialization.msgpack_serialize`` writes it."""

    def default(value):
        if isinstance(value, np.ndarray):
            parts = (value.shape, value.dtype.name, value.tobytes())
            return msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))
        if isinstance(value, np.generic):
            value = np.asarray(value)
            return msgpack.ExtType(3, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
        raise TypeError(type(value))

    return msgpack.packb(tree, default=default, strict_types=True)


def nested(flat: dict[str, np.ndarray]) -> dict:
    tree: dict = {}
    for name, value in flat.items():
        *path, leaf = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree


def checkpoint_tree(golden: Golden) -> dict:
    """What the published code saves: train states, tuples as dictionaries, a temperature per device."""

    def train_state(params: dict) -> dict:
        return {"step": np.int32(7), "params": params, "opt_state": {"0": {"count": np.int32(7)}}, "batch_stats": None}

    groups = {name: nested(golden.group(f"before/{name}")) for name in ("actor", "critic_encoder", "critic_head")}
    log_temp = golden.array("before/temp/log_temp")
    return {
        "actor": train_state(groups["actor"]),
        "critic": {"0": train_state(groups["critic_encoder"]), "1": train_state(groups["critic_head"])},
        "target_critic_params": {
            "0": nested(golden.group("before/target_encoder")),
            "1": nested(golden.group("before/target_head")),
        },
        "temp": train_state({"log_temp": np.stack([log_temp, log_temp])}),
    }


@pytest.fixture
def golden(golden_dir):
    return Golden(golden_dir, "update.npz")


@pytest.fixture
def tasks(golden):
    return tuple(f"task {i}" for i in range(golden.arrays["batch/task_onehot"].shape[1]))


def test_converted_nets_give_the_golden_outputs(golden, tasks, tmp_path):
    file = tmp_path / "checkpoint160000"
    file.write_bytes(pack(checkpoint_tree(golden)))
    learner = convert(read_flax_checkpoint(file), tasks, num_task_slots=len(tasks) + 3)

    assert learner.spec.tasks.names == tasks
    assert learner.config.encoder.name == "resnet_small"
    batch = plain(make_batch(golden))
    camera = learner.spec.camera.name
    images, next_images = ({camera: augment(frames, None)} for frames in (batch.images, batch.next_images))
    with torch.no_grad():
        law = learner.actor(images, batch.state, batch.task_id)
        q = learner.critic(images, batch.state, batch.task_id, batch.actions[:, None]).squeeze(2)
        next_actions = golden.tensor("draw/next_actions").unflatten(0, (len(batch), -1))
        next_q = learner.target_critic(next_images, batch.next_state, batch.task_id, next_actions)
    for key, ours in {
        "value/policy/mean": law.mean_BA,
        "value/policy/std": law.std_BA,
        "value/q_data": q,
        "value/target_q_all": next_q.flatten(1),
        "scalar/temperature": learner.temperature().detach(),
    }.items():
        golden.compare("converted checkpoint", key, ours, BOUND)
    assert all(
        torch.equal(a, b) for a, b in zip(learner.ema_actor.parameters(), learner.actor.parameters(), strict=True)
    )


def test_the_verb_writes_a_checkpoint_that_acts(golden, tasks, tmp_path, capsys):
    from ptr_fast.runtime.policy import Policy

    file = tmp_path / "checkpoint160000"
    file.write_bytes(pack(checkpoint_tree(golden)))
    assert main(Args(source=file, out=tmp_path / "run", tasks=tasks)) == 0
    assert "resnet_small" in capsys.readouterr().out

    policy = Policy.load(tmp_path / "run")
    row, action = 0, policy.spec.action
    image, state = golden.array("batch/images")[row], golden.array("batch/state")[row]
    acted = policy.decide(image, state, tasks[int(golden.array("batch/task_id")[row])])
    expected = action.unscale(np.tanh(golden.array("value/policy/mean")[row]))
    assert np.abs(acted - expected).max() <= BOUND


def test_a_single_task_has_no_one_hot_vector(golden, tasks):
    tree = checkpoint_tree(golden)
    num_tasks, one = len(tasks), ("open the door",)
    first = tree["actor"]["params"]["network"]["MLP_0"]["Dense_0"]
    first["kernel"] = first["kernel"][:-num_tasks]
    for head in (tree["critic"]["1"]["params"], tree["target_critic_params"]["1"]):
        layer = head["network"]["VmapStateActionValue_0"]["MLPActionSep_0"]["Dense_0"]
        rest = layer["kernel"][:, num_tasks:]
        embedding = rest[:, 7:]
        layer["kernel"] = np.concatenate([0.25 * embedding, rest[:, :7], 0.75 * embedding], axis=1)
    single, several = convert(tree, one, 2), convert(checkpoint_tree(golden), tasks, num_tasks)
    batch = plain(make_batch(golden))
    images = {single.spec.camera.name: augment(batch.images, None)}
    with torch.no_grad():
        kernel = several.critic.head.kernels[0]
        kernel[:, :num_tasks] = 0.0
        expected = several.critic(images, batch.state, batch.task_id, batch.actions[:, None])
        q = single.critic(images, batch.state, torch.zeros_like(batch.task_id), batch.actions[:, None])
    torch.testing.assert_close(q, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tree: tree.pop("temp"), "temp"),
        (lambda tree: tree["critic"].pop("1"), "critic/1"),
        (lambda tree: tree["actor"]["params"].pop("LayerNorm_0"), "norm.weight"),
        (lambda tree: tree["actor"]["params"]["encoder"].pop("conv_init"), "conv_init"),
        (lambda tree: tree["actor"]["params"]["encoder"].update(Extra={"kernel": np.zeros(3)}), "Extra"),
    ],
    ids=["no temperature", "no head", "no layer norm", "no stem", "unknown parameter"],
)
def test_a_checkpoint_with_other_parameters_is_refused_by_name(golden, tasks, spoil, message):
    tree = checkpoint_tree(golden)
    spoil(tree)
    with pytest.raises(DataError, match=message):
        convert(tree, tasks, len(tasks))


def test_a_wrong_number_of_tasks_is_refused(golden, tasks):
    with pytest.raises(ValueError, match=f"{len(tasks)} task slots"):
        convert(checkpoint_tree(golden), tasks[:-1], len(tasks))


def array_bytes(shape, dtype, data) -> bytes:
    return msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a Flax checkpoint"),
        (b"\x93\x01", "not a Flax checkpoint"),
        (msgpack.packb([1, 2]), "expected a dictionary"),
        (array_bytes((2, 3), "float32", bytes(20)), "20 bytes for shape"),
        (array_bytes((1,), "object", bytes(8)), "dtype 'object'"),
        (array_bytes((-1,), "float32", b""), "broken array"),
        (msgpack.packb({"a": msgpack.ExtType(9, b"x")}), "extension type 9"),
    ],
    ids=["empty", "cut off", "a list", "short array", "objects", "negative shape", "unknown extension"],
)
def test_a_broken_file_is_refused_by_name(tmp_path, data, message):
    file = tmp_path / "checkpoint1"
    file.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_flax_checkpoint(file)
    assert str(file) in str(caught.value)


def test_a_file_above_the_limit_is_not_read(tmp_path):
    file = tmp_path / "checkpoint1"
    file.write_bytes(bytes(100))
    with pytest.raises(DataError, match="at most 99"):
        read_flax_checkpoint(file, max_bytes=99)


def test_arrays_in_pieces_are_joined(tmp_path):
    pieces = {"0": np.arange(4, dtype=np.float32), "1": np.arange(4, 6, dtype=np.float32)}
    tree = {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": pieces}}
    file = tmp_path / "checkpoint1"
    file.write_bytes(pack(tree))
    assert np.array_equal(read_flax_checkpoint(file)["a"], np.arange(6).reshape(2, 3))
