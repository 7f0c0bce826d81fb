"""Training as a user meets it: real processes, killed, interrupted, resumed, starved of disk."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_robot
import warm_python
from verb_here import run_here as ptr_fast

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint
from ptr_fast.data.tiers import frame_tiers
from ptr_robot.training import batches as train_frames

SMALL = ["--num-steps", "24", "--batch-size", "4", "--log-every", "1", "--checkpoint-every", "6", "--keep-last", "0"]
SMALL += ["--keep-best", "0"]


def start(*arguments, limit_bytes: int | None = None) -> subprocess.Popen:
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))) if limit_bytes else None
    popen = subprocess.Popen if limit else warm_python.Popen
    return popen(
        [sys.executable, "-m", "ptr_robot", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        preexec_fn=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "store"
    return toy_robot.write_store(path, toy_robot.toy_episodes(12, cameras=("image_0",)))


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    done = pretrain(store, out)
    assert done.returncode == 0, done.stderr
    return out


def pretrain(store, out, *more) -> subprocess.CompletedProcess:
    return ptr_fast("pretrain", "smoke", "--data.stores", store, "--out", out, *SMALL, *more)


def value_lines(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("value: ")]


def numbers(run: Path) -> list[dict]:
    """The metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time_s" and not k.startswith("perf/")} for row in rows]


def weights(run: Path) -> dict[str, bytes]:
    last = list_checkpoints(run)[-1]
    return {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.rglob("*.safetensors"))}


def wait_for_step(run: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        path = run / "metrics.jsonl"
        if path.exists() and path.read_text().count("\n") >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"no step {step}: {process.communicate()[0]}")


def test_killed_and_resumed_equals_the_unbroken_run(store, unbroken, tmp_path):
    out = tmp_path / "killed"
    process = start("pretrain", "smoke", "--data.stores", store, "--out", out, *SMALL)
    wait_for_step(out, 9, process)
    process.kill()
    process.wait()
    killed_at = len(numbers(out))
    assert 9 <= killed_at < 24
    resumed = ptr_fast("resume", out)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from" in resumed.stdout
    assert numbers(out) == numbers(unbroken)
    assert weights(out) == weights(unbroken)


def test_frames_on_the_device_train_the_same(store, unbroken, tmp_path):
    """Sampled and gathered by the device's tables, here those of the CPU; a resume keeps to it unless told so."""
    out = tmp_path / "held"
    done = pretrain(store, out, "--frames", "device", "--num-steps", "15")
    assert done.returncode == 0, done.stderr
    assert "frames: device (raw pixels" in done.stdout
    assert "samples/s" in done.stdout
    assert "op by op: a CUDA graph needs a GPU" in done.stdout
    refused = ptr_fast("resume", out, "--num-steps", "24", "--frames", "map")
    assert refused.returncode == 2
    assert "can be had: device, device-yuv420, host, jpeg" in refused.stderr
    for num_steps, options, tier in (("19", (), "device"), ("24", ("--frames", "jpeg"), "jpeg")):
        resumed = ptr_fast("resume", out, "--num-steps", num_steps, *options)
        assert resumed.returncode == 0, resumed.stderr
        assert f"frames: {tier} (" in resumed.stdout
    assert numbers(out) == numbers(unbroken)
    assert weights(out) == weights(unbroken)


def test_planes_on_the_device_train_nearly_the_same(store, unbroken, tmp_path):
    done = pretrain(store, tmp_path / "planes", "--frames", "device-yuv420")
    assert done.returncode == 0, done.stderr
    assert "frames: device-yuv420 (luma, and colour at half the resolution" in done.stdout
    for planes, raw in zip(numbers(tmp_path / "planes"), numbers(unbroken), strict=True):
        for name in ("train/critic_loss", "actor/loss"):
            assert planes[name] == pytest.approx(raw[name], rel=1e-2), (name, raw["step"])


def test_a_resumed_run_keeps_the_pixels_it_began_with(store, tmp_path, monkeypatch):
    """As on a GPU that has room for planes alone, then on one with room for all, then the other way round."""

    def with_room(share):
        def measured(sizes, device, free, reserve, budget):
            return frame_tiers(sizes, "cuda", int(share * sizes[0].num_named * sizes[0].frame_bytes), 0, budget)

        monkeypatch.setattr(train_frames, "frame_tiers", measured)

    def tier_of(*words):
        done = ptr_fast(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("frames: ")[2].split(" ")[0]

    new = ["pretrain", "smoke", "--data.stores", store, "--num-steps", "2", "--checkpoint-every", "2"]
    for first, later, expected in ((0.6, 2.0, ["device-yuv420"] * 2), (2.0, 0.6, ["device", "host"])):
        out = tmp_path / expected[1]
        with_room(first)
        begun = tier_of(*new, "--out", out)
        with_room(later)
        assert [begun, tier_of("resume", out, "--num-steps", "3")] == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_stops(store, unbroken, tmp_path, number, code):
    out = tmp_path / "stopped"
    process = start("pretrain", "smoke", "--data.stores", store, "--out", out, *SMALL)
    wait_for_step(out, 3, process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"ptr-fast resume {out}" in text
    assert "Traceback" not in text
    stopped_at = read_checkpoint(out).step
    assert 3 <= stopped_at < 24
    assert ptr_fast("resume", out).returncode == 0
    assert weights(out) == weights(unbroken)


def test_the_log_has_the_quantities_of_the_method(unbroken):
    row = numbers(unbroken)[-1]
    needed = {"train/critic_loss", "train/bellman_loss", "train/cql_loss", "q/data", "q/policy", "q/random", "q/lse"}
    needed |= {"actor/loss", "actor/entropy", "temperature/value"}
    assert needed <= set(row)
    assert [r["step"] for r in numbers(unbroken)] == list(range(1, 25))


def test_tensorboard_reads_what_was_logged_and_forgets_what_was_undone(store, unbroken, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(run, key):
        board = EventAccumulator(str(run / "tensorboard"))
        board.Reload()
        return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in board.Scalars(key)]

    assert read(unbroken, "q/data") == [(row["step"], row["q/data"]) for row in numbers(unbroken)]
    out = tmp_path / "resumed"
    assert pretrain(store, out, "--num-steps", "9").returncode == 0
    (out / "checkpoints" / "last").unlink()
    shutil.rmtree(out / "checkpoints" / "000009")  # back to step 6
    assert ptr_fast("resume", out, "--num-steps", "12").returncode == 0
    assert [step for step, _ in read(out, "q/data")] == list(range(1, 13))


def test_a_second_run_in_the_folder_is_refused(store, unbroken):
    again = pretrain(store, unbroken)
    assert again.returncode == 2
    assert "ptr-fast resume" in again.stderr


def test_two_processes_on_one_folder(store, tmp_path):
    out = tmp_path / "shared"
    first = start("pretrain", "smoke", "--data.stores", store, "--out", out, *SMALL, "--num-steps", "2000")
    wait_for_step(out, 2, first)
    second = ptr_fast("resume", out)
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert f"pid {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_full_disk_keeps_earlier_checkpoints(store, tmp_path):
    out = tmp_path / "full"
    assert pretrain(store, out, "--num-steps", "6").returncode == 0
    before = weights(out)
    starved = start("resume", out, "--num-steps", "12", limit_bytes=20_000)
    told, _ = starved.communicate(timeout=60)
    assert starved.returncode == 2
    assert "no space left" in told
    assert "Traceback" not in told
    assert weights(out) == before
    assert [p.name for p in (out / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_keep_last_prunes_and_last_points_at_the_newest(store, tmp_path):
    out = tmp_path / "pruned"
    assert pretrain(store, out, "--keep-last", "2").returncode == 0
    assert [p.name for p in list_checkpoints(out)] == ["000018", "000024"]
    assert (out / "checkpoints" / "last").resolve().name == "000024"


def test_keep_best_keeps_what_select_would_pick(store, unbroken, tmp_path):
    out = tmp_path / "best"
    assert pretrain(store, out, "--keep-last", "1", "--keep-best", "1").returncode == 0
    selected = ptr_fast("select", "--run", unbroken, "--json")
    assert selected.returncode == 0, selected.stderr
    ranking = [entry["checkpoint"] for entry in json.loads(selected.stdout)["ranking"]]
    assert {p.name for p in list_checkpoints(out)} == {ranking[0], "000024"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--learner.cql-alfa", "5"], "cql-alpha"),
        (["pretrain", "smoke", "--data.stores", "MISSING", "--out", "NEW"], "MISSING"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--data.tasks", "fly"], "'fly'"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--data.num-demos", "99"], "99"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--learner.discount", "1.5"], "discount"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--data.cameras", "wrist"], "wrist"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--frames", "map"], "stored as JPEG"),
        (["pretrain", "smoke", "--data.stores", "STORE", "--out", "NEW", "--precision", "tf32"], "take fp32 or bf16"),
        (["finetune", "--checkpoint", "MISSING", "--target", "STORE", "--out", "NEW"], "no checkpoint"),
        (["finetune", "--checkpoint", "RUN", "--target", "STORE", "--out", "NEW"], "name the target task"),
        (["resume", "MISSING"], "no run here"),
        (["pretrian"], "pretrain"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, expected, store, unbroken, tmp_path):
    places = {"STORE": store, "NEW": tmp_path / "new", "MISSING": tmp_path / "MISSING", "RUN": unbroken}
    done = ptr_fast(*[places.get(a, a) for a in arguments])
    assert done.returncode == 2
    assert expected in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not list_checkpoints(tmp_path / "new")


def test_the_precision_is_settled_saved_and_kept(store, unbroken, tmp_path):
    def saved(run):
        return json.loads((run / "train_config.json").read_text())["config"]["loop"]["precision"]

    assert saved(unbroken) == "fp32"
    out = tmp_path / "rounded"
    assert "in bf16" in pretrain(store, out, "--precision", "bf16", "--num-steps", "6").stdout
    assert "in bf16" in ptr_fast("resume", out, "--num-steps", "7").stdout
    assert saved(out) == "bf16"
    rows = [[row["train/critic_loss"] for row in numbers(run)[:7]] for run in (out, unbroken)]
    assert rows[0] == pytest.approx(rows[1], rel=0.05)
    assert rows[0] != rows[1]


def test_finetune_adds_a_task_and_re_initialises_nothing(store, tmp_path):
    task = toy_robot.TASKS[0]
    base, out = tmp_path / "base", tmp_path / "fine"
    done = pretrain(store, base, "--data.exclude-tasks", task, "--num-steps", "6")
    assert done.returncode == 0, done.stderr
    done = ptr_fast(
        *["finetune", "--checkpoint", base, "--target", store, "--task", task, "--num-demos", "3", "--mix", "0.75"],
        *["--out", out, *SMALL, "--num-steps", "1", "--lr-scale", "1e-12", "--batch-size", "8"],
    )
    assert done.returncode == 0, done.stderr
    old, new = read_checkpoint(base), read_checkpoint(out)
    assert new.spec.tasks.names == (*old.spec.tasks.names, task)
    assert new.spec.tasks.num_slots == old.spec.tasks.num_slots
    import safetensors.torch

    for file in ("model.safetensors", "critic.safetensors"):
        was, now = (safetensors.torch.load_file(i.path / "pretrained_model" / file) for i in (old, new))
        for name, tensor in was.items():
            if not name.startswith(("ema_actor", "target_critic")):
                assert (tensor - now[name]).abs().max() < 1e-9, name
    split = json.loads((out / "split.json").read_text())
    roles = [source["role"] for source in split["sources"]]
    assert roles == ["prior", "target"]
    assert len(split["sources"][1]["train"]) == 3
    assert not set(split["sources"][1]["train"]) & set(split["sources"][1]["validation"])


def test_a_damaged_checkpoint_is_named(store, unbroken, tmp_path):
    for damage in ("truncate", "flip", "remove", "half"):
        run = tmp_path / damage
        shutil.copytree(unbroken, run, symlinks=True)
        newest = list_checkpoints(run)[-1]
        victim = newest / "pretrained_model" / "critic.safetensors"
        data = bytearray(victim.read_bytes())
        if damage == "truncate":
            victim.write_bytes(data[:-100])
        elif damage == "flip":
            data[len(data) // 2] ^= 1
            victim.write_bytes(data)
        elif damage == "remove":
            victim.unlink()
        else:
            shutil.rmtree(newest / "pretrained_model")
        done = ptr_fast("resume", run, "--num-steps", "30")
        assert done.returncode == 2
        named = f"{newest}: not a whole checkpoint" if damage == "half" else "critic.safetensors"
        assert named in done.stderr
        assert "delete its folder to go on without it" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_divergence_alarm_saves_explains_and_stops(store, tmp_path):
    out = tmp_path / "diverged"
    done = pretrain(store, out, "--learner.critic-lr", "30", "--num-steps", "400", "--checkpoint-every", "1000")
    assert done.returncode == 3, done.stdout
    assert "divergence alarm" in done.stderr
    assert "--learner.critic-lr" in done.stderr
    assert "would do the same again; no checkpoint is from before it: begin anew" in done.stderr
    assert list((out / "diverged").glob("0*/pretrained_model/config.json"))


def test_a_training_says_how_far_the_value_of_success_reaches(store, tmp_path):
    cut = ("--num-steps", "1")
    discount, updates = value_lines(pretrain(store, tmp_path / "fresh", *cut, "--rewards.num-steps", "3"))
    assert "between success and failure are left at its start" in discount
    assert "rewards.num_steps 3, each state learned for itself); this run makes 1" in updates
    told = value_lines(
        ptr_fast("resume", tmp_path / "fresh", "--num-steps", "2", "--lr-schedule", "constant", "--lr", 1e-4)
    )
    assert told == [discount]  # the values are no longer fresh
    assert (
        value_lines(ptr_fast("pretrain", "smoke-bc", "--data.stores", store, "--out", tmp_path / "bc", *SMALL, *cut))
        == []
    )
