"""The table of learners: what is registered can be read and written by its tag, what is not is one clear error."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from learner_cases import make_spec

from ptr_fast.checkpoint import list_checkpoints, read_checkpoint, save_checkpoint
from ptr_fast.config import ActConfig, BcConfig, CqlConfig, EncoderConfig, LearnerConfig, from_dict, to_dict
from ptr_fast.errors import DataError
from ptr_fast.learners import make_learner, registry
from ptr_fast.learners.registry import acts_of, encodes_of, kinds, make_networks, traits_of, values_of
from ptr_robot.recipes import recipe_named

TINY = EncoderConfig(name="conv3", num_filters=4, embedding_dim=8, pooling="mean")


@dataclass(frozen=True, kw_only=True)
class StrayConfig(LearnerConfig):
    """Nobody has registered it."""


def test_both_learners_are_found_by_the_tags_of_their_files():
    assert {"CqlConfig": CqlConfig, "BcConfig": BcConfig}.items() <= {
        tag: kind.config_class for tag, kind in kinds().items()
    }.items()


@pytest.mark.parametrize("config", [CqlConfig(encoder=TINY, discount=0.9), BcConfig(encoder=TINY, lr=1e-2)])
def test_a_configuration_is_read_back_by_its_tag(config):
    data = json.loads(json.dumps(to_dict(config)))
    assert data["type"] == type(config).__name__
    assert from_dict(LearnerConfig, data, "learner") == config
    with pytest.raises(ValueError, match=r"^learner: unknown key 'encodr' \(did you mean 'encoder'\?\)"):
        from_dict(LearnerConfig, {"type": data["type"], "encodr": {}}, "learner")


def test_what_nobody_registered_is_refused_when_it_is_written(tmp_path):
    with pytest.raises(
        ValueError, match=r"no learner is registered for StrayConfig; there are \[.*'BcConfig', .*'CqlC"
    ):
        to_dict(StrayConfig())
    spec = make_spec()
    learner = make_learner(BcConfig(encoder=TINY), spec)
    learner.config = StrayConfig()
    with pytest.raises(ValueError, match="no learner is registered for StrayConfig"):
        save_checkpoint(tmp_path / "run", 1, learner, spec, ActConfig(), {})
    assert not (tmp_path / "run").exists()


def test_an_unknown_tag_is_one_clear_error_when_it_is_read(tmp_path):
    for data, told in (
        ({"type": "LabConfig"}, r"learner\.type: no learner is registered as 'LabConfig'; there are \[.*'BcConfig', "),
        ({"lr": 1.0}, "learner: missing key 'type', the tag of the learner"),
        ([], r"learner: expected an object, got \[\]"),
    ):
        with pytest.raises(ValueError, match=told):
            from_dict(LearnerConfig, data, "learner")
    spec = make_spec()
    path = save_checkpoint(tmp_path, 1, make_learner(BcConfig(encoder=TINY), spec), spec, ActConfig(), {})
    config = path / "pretrained_model" / "config.json"
    config.write_text(config.read_text().replace("BcConfig", "LabConfig"))
    (path / "files.json").write_text("{}")
    with pytest.raises(DataError, match=r"config\.json: learner\.type: no learner is registered as 'LabConfig'.*entry"):
        read_checkpoint(path)
    assert list_checkpoints(tmp_path) == [path]


def test_a_tag_is_taken_once():
    kind = kinds()["BcConfig"]
    registry.register(kind)
    with pytest.raises(ValueError, match="'BcConfig' is registered already"):
        registry.register(registry.LearnerKind(**{**vars(kind), "config_class": StrayConfig}))
    with pytest.raises(ValueError, match=r"config_class must extend ptr_fast.config.LearnerConfig"):
        registry.register(registry.LearnerKind(**{**vars(kind), "tag": "new", "config_class": int}))


@pytest.mark.parametrize("config", [BcConfig, CqlConfig])
def test_a_hidden_layer_of_no_units_is_refused(config):
    with pytest.raises(ValueError, match=r"hidden_dims must be at least 1 each, got \[32, 0\]"):
        config(hidden_dims=(32, 0))


def test_a_broken_entry_point_is_told_where_its_learner_is_missed(tmp_path, monkeypatch):
    info = tmp_path / "lab-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ptr_fast.learners]\nlab = no_such_module_of_a_lab\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_BROKEN", {})
    with pytest.raises(ValueError, match=r"entry point 'lab' could not be imported: ModuleNotFoundError: No module"):
        from_dict(LearnerConfig, {"type": "LabConfig"}, "learner")
    with pytest.raises(ValueError, match=r"unknown recipe 'lab'.*entry point 'lab' could not be imported"):
        recipe_named("lab")


def test_a_module_that_exits_as_it_is_imported_ends_no_program(tmp_path, monkeypatch):
    info = tmp_path / "lab-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1\n")
    groups = ("learners", "encoders")
    (info / "entry_points.txt").write_text("".join(f"[ptr_fast.{group}]\nlab = lab_that_exits\n" for group in groups))
    (tmp_path / "lab_that_exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_BROKEN", {})
    assert {"CqlConfig", "BcConfig"} <= set(kinds())
    with pytest.raises(ValueError, match="entry point 'lab' could not be imported: SystemExit: 3"):
        from_dict(LearnerConfig, {"type": "LabConfig"}, "learner")
    with pytest.raises(ValueError, match="its package 'lab_that_exits' cannot be loaded: SystemExit: 3"):
        EncoderConfig(name="lab")


def test_capabilities_are_asked_for_and_refused_in_words():
    blind = BcConfig(encoder=EncoderConfig(name="none"))
    assert acts_of(blind).networks_for("mean") == ("actor",)
    with pytest.raises(ValueError, match="behaviour cloning has no critic"):
        values_of(blind)
    with pytest.raises(ValueError, match="behaviour cloning has no image encoder"):
        encodes_of(blind)
    with pytest.raises(ValueError, match="behaviour cloning has no network 'critic'; it has actor, ema_actor"):
        make_networks(blind, make_spec(), ["critic"])
    assert set(make_networks(CqlConfig(encoder=TINY), make_spec(), traits_of(CqlConfig()).networks)) == {
        *("actor", "ema_actor", "critic", "target_critic", "temperature")
    }
