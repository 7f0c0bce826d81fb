"""A checkpoint goes out as a folder with a card and comes back; what is damaged, foreign or unpicklable does not."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import types

import numpy as np
import pytest
import yaml
from valued_run import make_run, make_store

from ptr_fast.checkpoint import read_checkpoint, weights_digest
from ptr_fast.errors import DataError
from ptr_fast.run_folder import choose_checkpoint
from ptr_fast.runtime.observation import Observation
from ptr_fast.runtime.policy import Policy
from ptr_robot.sharing.folder import place_names, without_places
from ptr_robot.verbs import pull, push
from ptr_robot.verbs.evaluate import Args as EvaluateArgs
from ptr_robot.verbs.evaluate import main as evaluate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    run = make_run(folder / "run", make_store(folder / "toys"))
    assert evaluate(EvaluateArgs(checkpoint=run)) == 0
    info = read_checkpoint(run)
    (run / "rollouts").mkdir()
    digest = hashlib.sha256((info.path / "files.json").read_bytes()).hexdigest()[:16]
    result = {"task": "put toy", "kitchen": "H", "mode": "mean", "successes": 3, "num_trials": 8}
    result |= {"interval95": [0.137, 0.694], "weights": digest}
    (run / "rollouts" / "own.json").write_text(json.dumps(result))
    (run / "rollouts" / "older.json").write_text(json.dumps({**result, "weights": "0" * 16, "successes": 8}))
    return run


@pytest.fixture(scope="module")
def shared(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "model"
    assert push.main(push.Args(run=run, out=folder, license="mit")) == 0
    return folder


def test_the_card_tells_what_files_say_and_what_is_unknown(run, shared):
    card, info = (shared / "README.md").read_text(), read_checkpoint(run)
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        **{"library_name": "ptr-fast", "pipeline_tag": "robotics", "license": "mit"},
        "tags": ["robotics", "offline-reinforcement-learning"],
    }
    for axis, unit in zip(info.spec.action.names, info.spec.action.units, strict=True):
        assert f"| {axis} | {unit} |" in card
    assert "| toys | prior | 3 | 4 |" in card
    assert f"`{weights_digest(info)}`" in card
    evaluation = json.loads((run / "evaluation" / f"{info.path.name}.json").read_text())
    assert f"| Bellman error | {evaluation['metrics']['bellman_error']:.4g} |" in card
    assert "| toy kitchen H (simulated) | put toy | mean | 3/8 | 14% to 69% |" in card
    assert "8/8" not in card, "trials of other weights are not told"
    assert "Trials on a real robot: none are known." in card
    assert choose_checkpoint(run).why in card
    assert str(run.parent) not in card


def test_nothing_is_invented_where_nothing_is_known(run, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(run / "checkpoints", bare / "checkpoints", symlinks=True)
    (tmp_path / "notes.md").write_text("For a blue arm only.")
    args = push.Args(run=bare, out=tmp_path / "out", notes=tmp_path / "notes.md", name="Toy")
    assert push.main(args) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Toy\n" in card
    assert "Licence: unknown, none was stated." in card
    assert "license" not in yaml.safe_load(card.split("---")[1])
    assert "None: `ptr-fast evaluate` was not run on this checkpoint." in card
    assert "None are known: how often it succeeds is unknown." in card
    assert "For a blue arm only." in card


def test_what_was_pulled_acts_as_what_was_pushed(run, shared, tmp_path, capsys):
    out = tmp_path / "pulled"
    digest = weights_digest(read_checkpoint(run))
    assert pull.main(pull.Args(source=str(shared), out=out, weights=digest)) == 0
    assert "its weights are those that you named" in capsys.readouterr().out
    ours, theirs = Policy.load(run), Policy.load(out)
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    seen = Observation({c.name: image for c in ours.spec.cameras}, np.zeros(ours.spec.state.dim, np.float32), "")
    seen = Observation(seen.images, seen.state, ours.spec.tasks.names[0])
    np.testing.assert_array_equal(ours.act(seen, ())[0], theirs.act(seen, ())[0])
    assert not (out / "training_state").exists()


def test_no_place_of_this_machine_goes_out(run, shared):
    for file in ("README.md", "pretrained_model/train_config.json", "pretrained_model/config.json"):
        assert str(run.parent) not in (shared / file).read_text(), file
    assert place_names({"/a/x", "/b/y"}) == {"/a/x": "x", "/b/y": "y"}
    record = {"stores": ["/a/kitchens", "/b/kitchens"], "/a/kitchens": 1, "relative": "data/toys", "n": 2}
    expected = {"stores": ["a/kitchens", "b/kitchens"], "a/kitchens": 1, "relative": "data/toys", "n": 2}
    assert without_places(record) == expected


def damaged(folder):
    """Name of the damage, and what is told of it."""
    weights, files = folder / "pretrained_model" / "model.safetensors", folder / "files.json"
    data, listed = weights.read_bytes(), json.loads(files.read_text())

    def relist(name, content):
        (folder / name).write_bytes(content)
        told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        files.write_text(json.dumps({**listed, name: told}))

    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield "a flipped bit", "SHA-256 differs"
    weights.write_bytes(data[:-9])
    yield "truncated", "truncated or changed"
    weights.unlink()
    yield "missing", "missing from the checkpoint"
    relist("pretrained_model/model.safetensors", b"\x80\x04K*.")
    yield "a pickle by that name", "not a valid safetensors file"
    weights.write_bytes(data)
    relist("pretrained_model/model.bin", b"\x80\x04K*.")
    yield "a listed pickle", r"'pretrained_model/model\.bin' is no file of a shared checkpoint"
    files.write_text(json.dumps(listed))
    yield "a pickle that is not listed", r"model\.bin: no file of a shared checkpoint"
    (folder / "pretrained_model" / "model.bin").unlink()
    files.write_text(json.dumps({**listed, "../secret": {"bytes": 0, "sha256": ""}}))
    yield "a path outside", r"'\.\./secret' is no file of a shared checkpoint"
    files.write_text(json.dumps({k: v for k, v in listed.items() if "model" not in k.rpartition("/")[2]}))
    yield "weights that are not listed", "no file of a shared checkpoint, and not in its files.json"
    files.write_text(json.dumps(listed))


def test_what_is_damaged_or_foreign_is_refused_and_leaves_nothing(shared, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(shared, folder)
    for what, message in damaged(folder):
        with pytest.raises(DataError, match=message) as caught:
            pull.main(pull.Args(source=str(folder), out=tmp_path / "out"))
        assert "\n" not in str(caught.value), what
        assert sorted(each.name for each in tmp_path.iterdir()) == ["model"], what
    with pytest.raises(DataError, match="expected the weights abc, got "):
        pull.main(pull.Args(source=str(folder), out=tmp_path / "out", weights="abc"))
    assert pull.main(pull.Args(source=str(folder), out=tmp_path / "out")) == 0


def test_what_cannot_be_is_told_first(run, shared, tmp_path):
    with pytest.raises(ValueError, match="exists already; name a new folder with --out"):
        push.main(push.Args(run=run, out=shared))
    with pytest.raises(ValueError, match="repo: expected OWNER/NAME, got 'name'"):
        push.main(push.Args(run=run, out=tmp_path / "x", repo="name"))
    with pytest.raises(ValueError, match="no folder that ptr-fast push wrote"):
        pull.main(pull.Args(source=str(tmp_path), out=tmp_path / "x"))
    with pytest.raises(ValueError, match="--revision is of a repository"):
        pull.main(pull.Args(source=str(shared), out=tmp_path / "x", revision="main"))
    with pytest.raises(ValueError, match=r"x: lies inside .*, which stays as it is; name another folder with --out"):
        pull.main(pull.Args(source=str(shared), out=shared / "x"))
    notes = tmp_path / "notes.md"
    notes.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"notes\.md: expected Markdown in UTF-8"):
        push.main(push.Args(run=run, out=tmp_path / "x", notes=notes))
    older = shutil.copy(run / "rollouts" / "older.json", tmp_path / "older.json")
    with pytest.raises(DataError, match=r"older\.json: no trials of"):
        push.main(push.Args(run=run, out=tmp_path / "x", trials=(older,)))
    assert not (tmp_path / "x").exists()


class Hub:
    """What of huggingface_hub is used, by the names that its 1.33 has; its repositories are folders."""

    def __init__(self, folder, token):
        self.module = types.ModuleType("huggingface_hub")
        self.module.errors = types.ModuleType("huggingface_hub.errors")
        self.module.errors.HfHubHTTPError = type("HfHubHTTPError", (OSError,), {})
        self.module.get_token = lambda: token
        self.module.HfApi = self.HfApi(folder)
        self.module.snapshot_download = self.snapshot_download
        self.folder, self.made, self.is_reached = folder, {}, True

    def HfApi(self, folder):
        hub = self

        class Api:
            def __init__(self, token):
                assert token == "secret"

            def create_repo(self, *, repo_id, private, exist_ok):
                assert exist_ok
                if not hub.is_reached:  # httpx's own errors are no OSErrors
                    raise type("ConnectError", (Exception,), {})("Name or service not known")
                hub.made[repo_id] = private

            def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns):
                shutil.copytree(folder_path, folder / repo_id)

        return Api

    def snapshot_download(self, *, repo_id, revision, token, local_dir, allow_patterns):
        if not (self.folder / repo_id).is_dir():
            raise self.module.errors.HfHubHTTPError(f"404 Client Error\n\nRepository Not Found {repo_id}")
        for name in allow_patterns:
            if (self.folder / repo_id / name).is_file():
                target = (self.folder / local_dir / name).resolve()
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / repo_id / name, target)


def use(monkeypatch, hub):
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub.module if hub else None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", hub.module.errors if hub else None)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_the_hub_gets_the_folder_and_gives_it_back(run, tmp_path, monkeypatch, capsys):
    hub = Hub(tmp_path / "hub", "secret")
    use(monkeypatch, hub)
    assert push.main(push.Args(run=run, out=tmp_path / "model", repo="me/toys")) == 0
    assert "pushed to https://huggingface.co/me/toys" in capsys.readouterr().out
    assert hub.made == {"me/toys": True}, "private unless told otherwise"
    (hub.folder / "me/toys/evil.pkl").write_bytes(b"\x80\x04K*.")
    assert pull.main(pull.Args(source="me/toys", out=tmp_path / "pulled")) == 0
    assert not (tmp_path / "pulled" / "evil.pkl").exists(), "it is not even fetched"
    assert weights_digest(read_checkpoint(tmp_path / "pulled")) == weights_digest(read_checkpoint(run))
    with pytest.raises(RuntimeError, match=r"me/other: cannot be fetched from the Hub \(404 Client Error\)"):
        pull.main(pull.Args(source="me/other", out=tmp_path / "other"))
    hub.is_reached = False
    with pytest.raises(RuntimeError, match=r"me/toys: the Hub did not take it \(Name or service not known\)"):
        push.main(push.Args(run=run, out=tmp_path / "again", repo="me/toys"))


@pytest.mark.parametrize("has_package", [True, False])
def test_without_a_token_or_the_package_folder_and_card_are_written_all_the_same(
    run, tmp_path, monkeypatch, has_package
):
    use(monkeypatch, Hub(tmp_path / "hub", None) if has_package else None)
    told = "me/toys: not pushed, there is no token: set HF_TOKEN" if has_package else r"pip install 'ptr-fast\[hub\]'"
    with pytest.raises(RuntimeError, match=told):
        push.main(push.Args(run=run, out=tmp_path / "model", repo="me/toys"))
    assert (tmp_path / "model" / "README.md").is_file()
    assert read_checkpoint(tmp_path / "model").step == read_checkpoint(run).step
