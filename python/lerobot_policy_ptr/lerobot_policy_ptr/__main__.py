"""``python -m lerobot_policy_ptr to-lerobot RUN OUT`` and ``to-ptr FOLDER OUT``: one policy on both sides."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lerobot.configs import FeatureType, PolicyFeature

from lerobot_policy_ptr.configuration_ptr import PTRConfig
from lerobot_policy_ptr.data_ptr import CAMERA
from lerobot_policy_ptr.modeling_ptr import PTRPolicy
from lerobot_policy_ptr.processor_ptr import make_ptr_pre_post_processors
from ptr_fast.checkpoint import load_networks, read_checkpoint, save_checkpoint
from ptr_fast.config import to_dict

__all__ = ["main", "to_lerobot", "to_ptr"]


def to_lerobot(run: Path, out: Path) -> Path:
    """A run's or checkpoint's policy as a folder for ``--policy.path``.

    Raises:
        ValueError: ``out`` exists. DataError: no such checkpoint.
    """
    if out.exists():
        raise ValueError(f"{out} exists already")
    info = read_checkpoint(run)
    spec = info.spec
    features = {"observation.state": PolicyFeature(type=FeatureType.STATE, shape=(spec.state.dim,))}
    for camera in spec.cameras:
        shape = (3, camera.height, camera.width)
        features[CAMERA + camera.name] = PolicyFeature(type=FeatureType.VISUAL, shape=shape)
    config = PTRConfig(
        ptr=json.dumps({"learner": to_dict(info.config), "spec": to_dict(spec), "act": to_dict(info.act)}),
        input_features=features,
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(spec.action.dim,))},
        action_feature_names=list(spec.action.names),
        device="cpu",
        push_to_hub=False,
    )
    policy = PTRPolicy(config)
    load_networks(info, dict(policy.networks))
    policy.num_updates.fill_(info.step)
    policy.save_pretrained(out)
    for pipeline in make_ptr_pre_post_processors(config):
        pipeline.save_pretrained(out)
    return out


class _Trained:
    """What :func:`ptr_fast.checkpoint.save_checkpoint` saves: a policy without optimisers."""

    def __init__(self, policy: PTRPolicy) -> None:
        self.config, self._networks = policy.config.learner, dict(policy.networks)

    def networks(self) -> dict[str, Any]:
        return self._networks

    def optimizers(self) -> dict[str, Any]:
        return {}


def to_ptr(folder: Path, out: Path) -> Path:
    """A policy folder of LeRobot (``.../pretrained_model``) as a run folder with one checkpoint.

    Raises:
        ValueError: ``out`` exists, or the folder is of another type of policy.
    """
    if out.exists():
        raise ValueError(f"{out} exists already")
    kind = json.loads((folder / "config.json").read_text()).get("type")
    if kind != "ptr":
        raise ValueError(f"{folder}: expected a policy of type 'ptr', got {kind!r}")
    policy = PTRPolicy.from_pretrained(folder)
    record = {"verb": "lerobot", "split": {"sources": []}}
    step = int(policy.num_updates)
    return save_checkpoint(out, step, _Trained(policy), policy.spec, policy.act_config, record)


def main(words: list[str]) -> int:
    verbs = {"to-lerobot": to_lerobot, "to-ptr": to_ptr}
    if len(words) != 3 or words[0] not in verbs:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(f"wrote {verbs[words[0]](Path(words[1]), Path(words[2]))}")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"lerobot_policy_ptr: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
