"""Proposals of checkpoints, files and servers, chosen among by a critic; and what is refused in one line."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import steering_case as case
import torch
import warm_python
from websockets.sync.client import connect

from ptr_fast.checkpoint import weights_digest
from ptr_fast.config import ActConfig
from ptr_fast.runtime.choice import proposal_seed
from ptr_fast.runtime.export import add_metadata, describe
from ptr_fast.runtime.graph import ActingGraph, noise_for
from ptr_fast.runtime.policy import Policy
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec
from ptr_robot.acting_options import ActingOptions
from ptr_robot.serving.metadata import acting_of
from ptr_robot.serving.protocol import pack, unpack
from ptr_robot.steering.log import SteeringLog
from ptr_robot.steering.options import SteeringOptions
from ptr_robot.steering.proposals import NoProposalError
from ptr_robot.steering.steered import load_steered
from ptr_robot.verbs import rollout, serve
from ptr_robot.verbs.serve import metadata_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("steered")


@pytest.fixture(scope="module")
def critic(folder):
    return case.critic(folder / "critic", case.spec_of(32))


@pytest.fixture(scope="module")
def clone(folder):
    """Larger frames than the critic's, and another name of the camera."""
    return case.clone(folder / "clone", case.spec_of(48, cameras=(CameraSpec(name="top", height=48, width=48),)))


@pytest.fixture
def other():
    servers = []

    def start(answer, metadata=None):
        servers.append(case.OtherServer(answer, metadata))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_checkpoint_proposes_and_the_critic_takes_the_best_of_what_it_says_alone(critic, clone):
    steered = load_steered(critic, SteeringOptions(steer=str(clone), steer_proposals=5))
    assert [(c.name, c.height) for c in steered.spec.cameras] == [("image_0", 48)], "as large as the larger one wants"
    observation, alone = case.seen(steered.spec), Policy.load(clone)
    actions, carry = steered.act(observation, steered.reset(), seed=3)
    assert (actions.shape, carry) == ((1, 4), ())
    seen = type(observation)({"top": observation.images["image_0"]}, observation.state, case.TASK)
    own = np.stack([alone.act(seen, (), proposal_seed(3, k))[0] for k in range(5)])
    space = steered.spec.action
    own = np.clip(own, np.float32(space.low), np.float32(space.high))
    q = steered.critic.values((observation,), own[:, 0])
    np.testing.assert_allclose(actions, own[q.argmax()], atol=1e-6)
    log = steered.log
    assert (log.decisions, log.compared, log.missing, log.alike) == (1, 1, 0, 0)
    assert log.preferred_other == (q.argmax() != 0)
    assert log.sum_gain == pytest.approx(q.max() - q[0], abs=1e-5)


def test_one_proposal_is_the_policy_alone(critic, clone):
    steered, alone = load_steered(critic, SteeringOptions(steer=str(clone), steer_proposals=1)), Policy.load(clone)
    observation = case.seen(steered.spec)
    seen = type(observation)({"top": observation.images["image_0"]}, observation.state, case.TASK)
    space = steered.spec.action
    for seed in range(3):
        expected = np.clip(alone.act(seen, (), seed)[0], np.float32(space.low), np.float32(space.high))
        np.testing.assert_allclose(steered.act(observation, (), seed)[0], expected, atol=1e-6)
    assert steered.log.line() == "3 decisions, one proposal each"


def test_a_file_proposes_what_it_makes_of_each_noise(critic, tmp_path):
    """A file whose actions are a tenth of its noise and its task, with the metadata of an exported one."""
    onnx, file = pytest.importorskip("onnx"), tmp_path / "noise.onnx"
    pytest.importorskip("onnxruntime")
    spec, make, kinds = case.spec_of(24), onnx.helper, onnx.TensorProto
    shapes = {"frame": (kinds.UINT8, [24, 24, 3]), "state": (kinds.FLOAT, [spec.state.dim])}
    shapes |= {"task_id": (kinds.INT64, [1]), "noise": (kinds.FLOAT, [4])}
    nodes = [
        make.make_node("Cast", ["task_id"], ["task"], to=kinds.FLOAT),
        make.make_node("Add", ["noise", "task"], ["sum"]),
        make.make_node("Mul", ["sum", "tenth"], ["action"]),
    ]
    tenth = make.make_tensor("tenth", kinds.FLOAT, [], [0.1])
    inputs = [make.make_tensor_value_info(name, *of) for name, of in shapes.items()]
    outputs = [make.make_tensor_value_info("action", kinds.FLOAT, [4])]
    graph = make.make_graph(nodes, "noise", inputs, outputs, [tenth])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
    acting = ActingGraph(torch.nn.Identity(), spec, noise_shape=(4,))
    make.set_model_props(model, describe(acting, spec, ActConfig(mode="sample")))
    file.write_bytes(add_metadata(model.SerializeToString(), {}))
    steered = load_steered(critic, SteeringOptions(steer=str(file), steer_proposals=6))
    observation = replace(case.seen(steered.spec), task="open the drawer")
    noise = np.stack([noise_for(proposal_seed(9, k), (4,)).numpy() for k in range(6)])
    space = steered.spec.action
    expected = np.clip((noise + 1.0) * np.float32(0.1), np.float32(space.low), np.float32(space.high))
    q = steered.critic.values((observation,), expected)
    np.testing.assert_allclose(steered.act(observation, (), 9)[0][0], expected[q.argmax()], atol=1e-6)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"noise\.onnx: "):
        load_steered(critic, SteeringOptions(steer=str(file)))


@pytest.mark.slow
def test_an_exported_file_proposes_as_its_checkpoint(critic, folder, clone):
    pytest.importorskip("onnxruntime")
    file = folder / "clone.onnx"
    policy = Policy.load(clone)
    file.write_bytes(add_metadata(policy.to_onnx(), {}))
    by_file, by_checkpoint = (
        load_steered(critic, SteeringOptions(steer=str(source), steer_proposals=4)) for source in (file, clone)
    )
    observation = case.seen(by_file.spec)
    for seed in range(3):
        ours, theirs = (each.act(observation, (), seed)[0] for each in (by_file, by_checkpoint))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


OTHER = {"steer_same_spaces": True, "steer_proposals": 4, "steer_timeout_s": 1.0}


def test_a_server_of_another_make_is_asked_once_for_each_proposal(critic, other):
    rng = np.random.default_rng(0)
    chunks = rng.uniform(-1, 1, (9, 2, 4)).astype(np.float64)  # openpi's servers answer in double precision too
    server = other(lambda number, request: chunks[number])
    steered = load_steered(critic, SteeringOptions(steer=server.url, **OTHER))
    assert steered.window.num_actions == 2
    observation = case.seen(steered.spec)
    actions, _ = steered.act(observation, ())
    assert len(server.requests) == 1 + 4
    assert set(server.requests[-1]) == {"observation/image", "observation/state", "prompt"}, (
        "no key that is not its own"
    )
    np.testing.assert_array_equal(server.requests[-1]["observation/image"], observation.images["image_0"])
    proposals = np.float32(chunks[1:5])
    q = steered.critic.values((observation,), proposals[:, 0])
    np.testing.assert_array_equal(actions, proposals[q.argmax()])


def test_what_comes_too_late_is_missing_and_nothing_at_all_is_an_error(critic, other):
    slow = other(lambda number, _: 0.3 if number >= 3 else np.full((2, 4), 0.1 * number))
    options = SteeringOptions(steer=slow.url, **{**OTHER, "steer_timeout_s": 0.2})
    steered = load_steered(critic, options)
    steered.act(case.seen(steered.spec), ())
    assert (steered.log.decisions, steered.log.missing) == (1, 2)
    with pytest.raises(NoProposalError, match=rf"no proposal: {slow.url}: no answer within 0\.2 s"):
        steered.act(case.seen(steered.spec), ())
    assert steered.log.unanswered == 1
    assert "; 2 proposals were missing; 1 times no proposal came" in steered.log.line()


def test_a_server_that_fails_or_changes_its_answer_is_told(critic, other):
    failing = other(lambda number, _: "out of memory" if number else np.zeros((2, 4)))
    steered = load_steered(critic, SteeringOptions(steer=failing.url, **OTHER))
    with pytest.raises(NoProposalError, match=f"no proposal: {failing.url}: out of memory"):
        steered.act(case.seen(steered.spec), ())
    changing = other(lambda number, _: np.zeros((2 + number, 4)))
    steered = load_steered(critic, SteeringOptions(steer=changing.url, **OTHER))
    with pytest.raises(NoProposalError, match=r"expected actions \[2, 4\], as in its first answer, got \[3, 4\]"):
        steered.act(case.seen(steered.spec), ())


def test_a_server_that_answers_nan_or_not_what_it_promised_is_named(critic, clone, other):
    broken = other(lambda number, _: np.full((2, 4), np.nan if number else 0.0))
    steered = load_steered(critic, SteeringOptions(steer=broken.url, **OTHER))
    with pytest.raises(RuntimeError, match=f"{broken.url}: none of 4 proposals is finite"):
        steered.act(case.seen(steered.spec), ())
    short = other(lambda *_: np.zeros((2, 4)), metadata_of(Policy.load(clone)))
    with pytest.raises(ValueError, match=f"{short.url}: expected 1 actions in an answer, as its metadata says, got 2"):
        load_steered(critic, SteeringOptions(steer=short.url))


def test_a_policy_that_draws_no_noise_is_told_by_the_log(critic, other):
    same = other(lambda *_: np.zeros((1, 4)))
    steered = load_steered(critic, SteeringOptions(steer=same.url, **OTHER))
    steered.act(case.seen(steered.spec), ())
    assert "1 decisions had proposals that were all worth the same" in steered.log.line()


def refusals(folder):
    small = case.spec_of(32)
    metres = ActionSpec(names=small.action.names, units=("m",) * 4, low=small.action.low, high=small.action.high)
    swapped = ActionSpec(**{**vars(small.action), "names": small.action.names[::-1]})
    state = StateSpec(names=small.state.names[::-1], units=small.state.units)
    yield "units", case.clone(folder / "m", case.spec_of(32, action=metres)), "expected action units .* got .*'m'"
    yield "order", case.clone(folder / "s", case.spec_of(32, action=swapped)), "expected action names .* as the critic"
    yield "state", case.clone(folder / "t", case.spec_of(32, state=state)), "expected state names .* as the critic has"
    yield "rate", case.clone(folder / "r", case.spec_of(32, control_hz=5.0)), "expected 20 decisions per second.* got 5"
    tasks = type(small.tasks)(names=("fold the towel",), num_slots=2)
    yield "task", case.clone(folder / "k", case.spec_of(32, tasks=tasks)), "fold the towel.*: none alike"
    told = r"draws no noise: all 16 proposals would be the same"
    yield "same", case.plain_clone(folder / "p", small), told


def test_what_does_not_fit_is_refused_before_anything_acts(critic, tmp_path):
    for what, source, message in refusals(tmp_path):
        with pytest.raises(ValueError, match=message) as caught:
            load_steered(critic, SteeringOptions(steer=str(source)))
        assert "\n" not in str(caught.value), what


def test_servers_that_do_not_say_enough_or_do_not_fit_are_refused(critic, other, clone):
    silent = other(lambda *_: np.zeros((1, 7)))
    told = r"does not say what its actions and state are; .*\(.* in .*; 20 Hz\), state so with --steer-same-spaces"
    with pytest.raises(ValueError, match=told):
        load_steered(critic, SteeringOptions(steer=silent.url))
    with pytest.raises(ValueError, match=r"expected actions of 4 numbers, as the critic knows them \(.*\), got 7"):
        load_steered(critic, SteeringOptions(steer=silent.url, steer_same_spaces=True))
    with pytest.raises(ValueError, match="steer-camera-map: expected KEY=CHECKPOINT"):
        load_steered(critic, SteeringOptions(steer=silent.url, steer_same_spaces=True, steer_camera_map=("a=b",)))
    with pytest.raises(ValueError, match=r"steer-same-spaces: .* says its spaces itself"):
        load_steered(critic, SteeringOptions(steer=str(clone), steer_same_spaces=True))
    with pytest.raises(RuntimeError, match=r"ws://127\.0\.0\.1:9: no policy server answers there"):
        load_steered(critic, SteeringOptions(steer="ws://127.0.0.1:9"))
    with pytest.raises(ValueError, match="steer-camera-map: expected PROPOSER=CRITIC"):
        load_steered(critic, SteeringOptions(steer=str(clone), steer_camera_map=("top=wrist",)))


def test_a_policy_of_lerobots_that_cannot_be_loaded_is_told(critic, tmp_path):
    """What one proposes is tested where LeRobot is installed: python/lerobot_policy_ptr/tests."""
    steering = SteeringOptions(steer=f"lerobot:{tmp_path}", steer_same_spaces=True)
    with pytest.raises(ValueError, match=r"expected a policy that LeRobot saved, there is no .*config\.json"):
        load_steered(critic, steering)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"does not say what its actions and state are; .* state so with --steer-same"):
        load_steered(critic, SteeringOptions(steer=steering.steer))
    with pytest.raises(ValueError, match="steer-mode is of a checkpoint that proposes"):
        load_steered(critic, replace(steering, steer_mode="mean"))
    with pytest.raises(RuntimeError, match=r"lerobot:.*: (No module named 'lerobot'.*pip install|LeRobot cannot load)"):
        load_steered(critic, steering)


def test_options_that_would_do_nothing_are_refused(critic, clone):
    for options in ({"steer_proposals": 4}, {"steer_choose": "softmax"}, {"steer_same_spaces": True}):
        name = next(iter(options)).replace("_", "-")
        with pytest.raises(ValueError, match=f"--{name} needs --steer"):
            rollout.main(rollout.Args(checkpoint=critic, steering=SteeringOptions(**options)))
    steering = SteeringOptions(steer=str(clone))
    with pytest.raises(ValueError, match="--mode does nothing with --steer"):
        rollout.main(rollout.Args(checkpoint=critic, acting=ActingOptions(mode="mean"), steering=steering))
    with pytest.raises(ValueError, match="--engine does nothing with --steer"):
        serve.main(serve.Args(checkpoint=critic, engine="eager", steering=steering))
    for options, message in (
        ({"steer_proposals": 0}, "steer-proposals must lie in 1 to 1024, got 0"),
        ({"steer_best": 2}, "--steer-best does nothing with --steer-choose max, it is of average"),
        ({"steer_choose": "average", "steer_temperature": 2.0}, "--steer-temperature does nothing with .* average"),
    ):
        with pytest.raises(ValueError, match=message):
            SteeringOptions(steer="x", **options).check()
    with pytest.raises(ValueError, match=r"steer-timeout-s is of a server, .* is asked here"):
        load_steered(critic, SteeringOptions(steer=str(clone), steer_timeout_s=2.0))
    with pytest.raises(ValueError, match=r"http://h:80: expected ws://HOST:PORT or wss://HOST:PORT, or a file"):
        rollout.main(rollout.Args(checkpoint=critic, steering=SteeringOptions(steer="http://h:80")))


def test_trials_in_a_kitchen_tell_how_often_the_critic_preferred_another(tmp_path, capsys):
    spec = case.spec_of(0)
    critic, clone = case.critic(tmp_path / "critic", spec), case.clone(tmp_path / "clone", spec)
    out = tmp_path / "trials.json"
    options = {"trials": 2, "workers": 1, "max_steps": 3, "out": out, "checkpoint": critic}
    args = rollout.Args(
        **options, steering=SteeringOptions(steer=str(clone), steer_proposals=6, steer_choose="average")
    )
    assert rollout.main(args) == 0
    told = capsys.readouterr().out
    assert re.search(r"steering: 6 decisions: Q preferred another than the first proposal in \d+%", told), told
    result = json.loads(out.read_text())
    assert result["steered"] == {
        **{"by": str(clone), "proposals": 6, "choose": "average", "best": 4, "step": 1},
        "weights": result["steered"]["weights"],
    }
    assert [trial["steering"]["decisions"] for trial in result["trials"]] == [3, 3]
    assert result["steering"] == SteeringLog.of(t["steering"] for t in result["trials"]).as_dict()
    assert rollout.main(args) == 0, "the same again is read from the log"
    assert "steering: 6 decisions" in capsys.readouterr().out


def test_trials_with_other_options_are_told_apart():
    options = (
        {},
        {"steer_timeout_s": 0.1},
        {"steer_camera_map": ("a=b",)},
        {"steer_proposals": 4},
        {"steer_mode": "mean"},
    )
    told = [json.dumps(SteeringOptions(steer="ws://h:1", **each).told({})) for each in options]
    assert len(set(told)) == len(told)


@contextlib.contextmanager
def serving(checkpoint, *more):
    command = [sys.executable, "-m", "ptr_robot", "serve", "--checkpoint", str(checkpoint), "--port", "0", *more]
    process = warm_python.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stdout)
        yield next(url[0] for line in lines if (url := re.search(r"ws://[\d.:]+(?=;)", line))), process
    finally:
        process.kill()
        process.wait()


def test_a_server_says_how_it_acts_and_who_steers_it(critic, clone, other):
    """So trials of a proposer that acts otherwise, or is steered by another, are not taken for these."""
    policy = Policy.load(clone)
    proposing = other(lambda _, request: serve.make_infer(policy)(request)["actions"], metadata_of(policy))
    steered = load_steered(critic, SteeringOptions(steer=proposing.url, steer_proposals=3))
    assert steered.source.identity == {"step": 1, "weights": weights_digest(policy.info), "mode": policy.mode}
    told = serve.steered_by(SteeringOptions(steer="/elsewhere/runs/clone", steer_mode="sample"), steered)
    assert told == {"by": "runs/clone", "proposals": 16, "choose": "max", **steered.source.identity}
    assert metadata_of(steered, None, told)["steered"] == told
    assert acting_of({"mode": 3, "candidates": 4, "weights": "w"}) == {"weights": "w"}  # of a server that errs


def test_a_server_steers_a_server(critic, clone):
    """Clients ask a server whose critic chooses among the proposals of our own server, as they ask any other."""
    policy = Policy.load(clone)
    proposing = case.OtherServer(lambda _, request: serve.make_infer(policy)(request)["actions"], metadata_of(policy))
    with contextlib.closing(proposing), serving(critic, "--steer", proposing.url, "--steer-proposals", "3") as served:
        url, process = served
        local = load_steered(critic, SteeringOptions(steer=str(clone), steer_proposals=3))
        observation = case.seen(local.spec)
        request = {"observation/image": observation.images["image_0"], "observation/state": observation.state}
        with connect(url, compression=None) as client:
            about = unpack(client.recv(timeout=5))
            assert about["mode"] == "best of 3"
            assert about["steered"] == {
                "by": proposing.url,
                "proposals": 3,
                "choose": "max",
                **acting_of(metadata_of(policy)),
            }
            for seed in (5, 6):
                client.send(pack({**request, "prompt": case.TASK, "seed": seed}))
                answer = unpack(client.recv(timeout=10))
                np.testing.assert_allclose(answer["actions"], local.act(observation, (), seed)[0], atol=1e-5)
            client.send(pack({**request, "prompt": "juggle"}))
            assert "juggle" in client.recv(timeout=10)
        process.send_signal(signal.SIGTERM)
        told = process.stdout.read()
        assert process.wait(10) == 0
        assert "steering: 2 decisions: Q preferred another than the first proposal in" in told


def test_the_control_loop_plays_on_without_a_proposal_and_gives_up_at_last(critic, other):
    failing = other(lambda number, _: "no" if number else np.zeros((1, 4)))
    steered = load_steered(critic, SteeringOptions(steer=failing.url, **OTHER))
    executor = steered.make_executor({"image_0": (32, 32)}, case.TASK)
    images, state = {"image_0": np.zeros((1, 32, 32, 3), np.uint8)}, np.zeros((1, steered.spec.state.dim), np.float32)
    assert executor.act(images, state) is None
    steered.GIVE_UP_S = 0.0
    with pytest.raises(NoProposalError):
        executor.act(images, state)


def test_the_whole_is_deterministic(critic, clone):
    options = SteeringOptions(steer=str(clone), steer_choose="softmax", steer_temperature=0.01)
    first, second = (load_steered(critic, options) for _ in range(2))
    observation = case.seen(first.spec)
    for seed in range(3):
        np.testing.assert_array_equal(first.act(observation, (), seed)[0], second.act(observation, (), seed)[0])
