"""Configuration of nets, learners and acting: frozen, keyword-only, validated, and readable from JSON.

Defaults are the published PTR configuration (``examples/launch_train_real_cql.py`` and the README command of the
reference), so ``CqlConfig()`` is the paper's learner.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ptr_fast import encoder_registry
from ptr_fast.errors import require as _require
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

if TYPE_CHECKING:
    from types import ModuleType

    from ptr_fast.learners.bc.config import BcConfig
    from ptr_fast.learners.cql.config import CqlConfig

__all__ = [
    "ActConfig",
    "ActMode",
    "AugmentConfig",
    "BcConfig",
    "CqlConfig",
    "EncoderConfig",
    "LearnerConfig",
    "PolicySpec",
    "RewardConfig",
    "RunReference",
    "TaskTable",
    "from_dict",
    "to_dict",
]

CriticHead = Literal["reinject_all", "reinject_action", "plain"]
ActMode = Literal["mean", "ema_mean", "sample", "search"]
Option = int | float | bool | str
T = TypeVar("T")
MAX_TOLD = 100
"""Characters of a wrong value that an error shows."""


def __getattr__(name: str) -> Any:
    """``CqlConfig`` and ``BcConfig``, which lie with their learners and are imported when somebody asks for them."""
    if name in ("CqlConfig", "BcConfig"):
        import ptr_fast.learners

        return getattr(ptr_fast.learners, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _registry() -> ModuleType:
    """The table of learners, which imports this module: it is asked for when a learner is read or written."""
    from ptr_fast.learners import registry

    return registry


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Image encoder and its bottleneck.

    Attributes:
        name: ``resnet_small`` (1,1,1,1 blocks), ``resnet18``, ``resnet34`` (the paper's), ``resnet50``; ``conv3``,
            three convolutions (strides 2, 2, 1) for recipes that train on a CPU in minutes; ``vit``, a vision
            transformer; ``frozen_resnet18``, ``frozen_resnet34``, ``frozen_resnet50``, torchvision's, with ImageNet's
            or R3M's weights from a file; one that another package brings (:mod:`ptr_fast.encoder_registry`);
            or ``none``: learning from the state alone. Then actor and critic see state and task, images in a batch are
            not looked at, nothing is augmented, and the other fields have no influence. The critic
            needs ``critic_head="reinject_action"`` or ``"plain"`` to see the state.
        num_filters: width of the first stage of the ResNets and ``conv3``; later stages double it. The paper: 64.
        num_groups: groups of every GroupNorm; 0 leaves the norms out, a scale and a bias per channel stay. The
            paper: 4.
        pooling: how the last feature map becomes a vector: ``spatial_embedding`` (learned, the
            paper's), ``spatial_softmax`` (expected coordinates) or ``mean``.
        num_spatial_blocks: features per channel of the learned spatial embedding. The paper: 8.
        embedding_dim: width of the bottleneck (Dense, LayerNorm, tanh), for each camera. The paper: 256.
        cameras: several cameras have one encoder each (``own``), or one for all (``shared``).
        options: what one encoder alone can be told, by name (``patch 8 depth 4`` of a ``vit``, ``weights model.pt`` of
            a frozen ResNet); ``ptr_fast/nets/encoders/NAME`` lists them.
        frozen: the weights stay what they are: no gradient, no state of an optimiser, no average of their own.
        frozen_trunk: the same of the trunk alone; the pooling and the bottleneck behind it are trained.
    """

    name: str = "resnet34"
    num_filters: int = 64
    num_groups: int = 4
    pooling: Literal["spatial_embedding", "spatial_softmax", "mean"] = "spatial_embedding"
    num_spatial_blocks: int = 8
    embedding_dim: int = 256
    cameras: Literal["shared", "own"] = "shared"
    options: dict[str, Option] = dataclasses.field(default_factory=dict)
    frozen: bool = False
    frozen_trunk: bool = False

    def __post_init__(self) -> None:
        if self.options or self.name not in encoder_registry.BUILT_IN:  # else there is nothing to look up
            self.typed_options()
        _require(self.num_filters >= 1, f"encoder.num_filters must be at least 1, got {self.num_filters}")
        _require(self.num_groups >= 0, f"encoder.num_groups must be at least 0, got {self.num_groups}")
        _require(
            self.num_groups == 0 or self.num_filters % self.num_groups == 0,
            f"encoder.num_filters ({self.num_filters}) must be a multiple of num_groups ({self.num_groups})",
        )
        _require(self.embedding_dim >= 1, f"encoder.embedding_dim must be at least 1, got {self.embedding_dim}")
        _require(self.num_spatial_blocks >= 1, "encoder.num_spatial_blocks must be at least 1")

    @property
    def sees_images(self) -> bool:
        return self.name != "none"

    def typed_options(self) -> Any:
        """:attr:`options` in the dataclass that the encoder has for them; None where it has none.

        Raises:
            ValueError: an encoder or an option that is not known, or a value of the wrong type or out of range.
        """
        kind = encoder_registry.find(self.name)
        if kind.options is None:
            _require(not self.options, f"encoder.options: {self.name!r} has none, got {self.options!r}")
            return None
        return from_dict(kind.options, self.options, "encoder.options")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random crop and colour jitter, drawn anew for s and s' of every sample.

    Attributes:
        crop_padding: edge pixels repeated on each side before the random crop; 0 turns the crop off.
        jitter_probability: share of images that are jittered; 0 turns the jitter off.
        brightness: half-width of the additive shift, in units of the full range.
        contrast: half-width of the factor about 1 on the distance from the channel mean.
        saturation: half-width of the factor about 1 on the HSV saturation.
        hue: half-width of the shift, in turns.
    """

    crop_padding: int = 4
    jitter_probability: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.03

    def __post_init__(self) -> None:
        _require(self.crop_padding >= 0, f"augment.crop_padding must not be negative, got {self.crop_padding}")
        _require(
            0.0 <= self.jitter_probability <= 1.0,
            f"augment.jitter_probability must lie in [0, 1], got {self.jitter_probability}",
        )


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Rewards and masks, computed from the position in an episode when a store is loaded.

    Attributes:
        num_final_steps: how many last transitions of an episode carry the positive reward. The paper: 3.
        positive: reward of those steps. The paper: +10.
        negative: reward of all other steps. The paper: -1.
        positive_is_terminal: the mask is 0 on every positive step (the paper's choice), or only on the last step.
        num_steps: how many steps ahead a target looks before it bootstraps (n-step returns), at most to the first
            positive step or to the end of the episode. The paper: 1. Above 1 the learner needs a discount.
        lower_bound_returns: a target is at least the discounted return that was observed from its step on, where the
            recording shows it to its end (not in failed episodes). The paper: off. Needs a learner with a discount.

    Episodes whose recorded outcome is ``failure`` get the negative reward at every step; their last step is cut off,
    not terminal: it bootstraps from its own next frame where there is one.
    """

    num_final_steps: int = 3
    positive: float = 10.0
    negative: float = -1.0
    positive_is_terminal: bool = True
    num_steps: int = 1
    lower_bound_returns: bool = False

    def __post_init__(self) -> None:
        _require(self.num_steps >= 1, f"rewards.num_steps must be at least 1, got {self.num_steps}")
        _require(self.num_final_steps >= 1, f"rewards.num_final_steps must be at least 1, got {self.num_final_steps}")
        _require(
            self.positive > self.negative,
            f"rewards.positive ({self.positive}) must be above rewards.negative ({self.negative})",
        )


@dataclass(frozen=True, kw_only=True)
class RunReference:
    """Another run that a learner needs, as a field of its configuration: e.g. one whose critic it asks.

    Attributes:
        path: the run, or one of its checkpoints; a training program puts in the checkpoint that was chosen.
        weights: digest of that checkpoint's weights; a training program puts it in, and a run goes on with no others.
    """

    path: Path = Path()
    weights: str = ""


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """What the configurations of all learners have. Each lies in its learner's folder and is registered there.

    The fields named ``lr`` or ending in ``_lr`` are learning rates: programs scale them together, and a schedule holds
    for all of them. Fields that several learners have (``discount``, ``tau``, ``cql_alpha``, ``target_entropy``,
    ``dropout``, ``weight_decay``) mean the same in all of them: ``ptr-fast diagnose`` advises them by name.

    Attributes:
        lr_schedule: ``constant``, or ``cosine`` decay of all rates to zero.
        lr_schedule_steps: updates until the cosine reaches zero; 0 lets the training program put in the run's length.
        standardise_state: the nets subtract the state's mean over the training data and divide by its standard
            deviation; both are kept with the weights. The paper: off, raw units.
    """

    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_schedule_steps: int = 0
    standardise_state: bool = False

    def __post_init__(self) -> None:
        _require(self.lr_schedule_steps >= 0, f"lr_schedule_steps must not be negative, got {self.lr_schedule_steps}")
        for rate in rate_names(self):
            _require(getattr(self, rate) > 0.0, f"{rate} must be positive, got {getattr(self, rate)}")


def rate_names(config: LearnerConfig) -> list[str]:
    """Names of the learning rates of a configuration, in the order of its fields."""
    return [f.name for f in dataclasses.fields(config) if f.name == "lr" or f.name.endswith("_lr")]


MAX_CANDIDATES = 65_536
"""Of a search: more would take gigabytes for one action."""


@dataclass(frozen=True, kw_only=True)
class ActConfig:
    """How a policy acts; recorded with every result.

    Attributes:
        mode: ``mean`` (the mode of the actor's law, e.g. tanh of its mean), ``ema_mean`` (the same of the averaged
            actor), ``sample`` (one sample of the averaged actor's law), or ``search``: the best of ``num_candidates``
            such samples by the minimum over the averaged critics.
        num_candidates: samples in ``search`` (the reference's best-of-50), 65536 at most.
        num_elites: in ``search``, the mean of so many best samples is taken (one step of the cross-entropy method); 1
            is the reference's. The single best of many samples lies at the edge of what the critic knows.
    """

    mode: ActMode = "mean"
    num_candidates: int = 50
    num_elites: int = 1

    def __post_init__(self) -> None:
        limits = f"num_candidates must lie in 1..{MAX_CANDIDATES}, got {self.num_candidates}"
        _require(1 <= self.num_candidates <= MAX_CANDIDATES, limits)
        _require(
            1 <= self.num_elites <= self.num_candidates,
            f"num_elites must lie in 1..num_candidates ({self.num_candidates}), got {self.num_elites}",
        )

    def changed(self, mode: str = "", num_candidates: int = 0, num_elites: int = 0) -> ActConfig:
        """With what is given, empty and 0 keeping what is there; where the kept elites would be all candidates, 1 is.

        Raises:
            ValueError: an unknown mode, or numbers that cannot be.
        """
        if mode and mode not in typing.get_args(ActMode):
            raise ValueError(f"mode: expected one of {typing.get_args(ActMode)}, got {mode!r}")
        num_candidates = num_candidates or self.num_candidates
        would_be_all = num_candidates <= self.num_elites and num_candidates != self.num_candidates
        num_elites = num_elites or (1 if would_be_all else self.num_elites)
        mode = typing.cast(ActMode, mode or self.mode)
        return ActConfig(mode=mode, num_candidates=num_candidates, num_elites=num_elites)

    def told(self) -> dict[str, int]:
        """What results of trials tell of a search; nothing in the other modes."""
        return {"candidates": self.num_candidates, "elites": self.num_elites} if self.mode == "search" else {}


@dataclass(frozen=True, kw_only=True)
class TaskTable:
    """Task names and their slots in the one-hot task vector; spare slots wait for tasks that come later.

    Attributes:
        names: slot i holds ``names[i]``.
        num_slots: width of the one-hot vector, at least ``len(names)``; never changes in the life of a checkpoint.
    """

    names: tuple[str, ...]
    num_slots: int

    def __post_init__(self) -> None:
        _require(len(set(self.names)) == len(self.names), f"task names must be distinct, got {list(self.names)}")
        _require(
            self.num_slots >= max(1, len(self.names)),
            f"{len(self.names)} tasks do not fit into {self.num_slots} task slots",
        )

    def slot(self, name: str) -> int:
        """Slot of a task; ValueError with the nearest name where there is none."""
        if name in self.names:
            return self.names.index(name)
        raise ValueError(f"unknown task {name!r}{_nearest(name, self.names)}; known: {list(self.names)}")

    def with_tasks(self, names: typing.Iterable[str]) -> TaskTable:
        """The table with every new name put into the next spare slot."""
        fresh = [name for name in dict.fromkeys(names) if name not in self.names]
        total = len(self.names) + len(fresh)
        _require(
            total <= self.num_slots,
            f"the policy has {self.num_slots} task slots, {len(self.names)} taken; no room for {fresh}",
        )
        return TaskTable(names=self.names + tuple(fresh), num_slots=self.num_slots)


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """Everything about the outside that a policy needs in order to act: what it sees, knows and commands.

    Attributes:
        cameras: of each the size of the frame the nets were trained on, its name and the resize kernel that made it.
            Their order is that of the embeddings. None where the data are states alone.
        state, action: names, units, bounds.
        tasks: task table.
        control_hz: control rate of the data.
    """

    cameras: tuple[CameraSpec, ...]
    state: StateSpec
    action: ActionSpec
    tasks: TaskTable
    control_hz: float

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.cameras]
        _require(len(set(names)) == len(names), f"camera names must be distinct, got {names}")

    @property
    def camera(self) -> CameraSpec:
        """The only camera of a policy that has one; ValueError where it has several."""
        names = [camera.name for camera in self.cameras]
        _require(len(names) == 1, f"expected a policy of one camera, this one has {names}")
        return self.cameras[0]

    @staticmethod
    def written_before(data: dict[str, Any]) -> dict[str, Any]:
        """JSON values of a policy with one camera, as they were written when there could be no other."""
        if "camera" not in data:
            return data
        return {"cameras": [data["camera"]], **{key: value for key, value in data.items() if key != "camera"}}


def to_dict(config: Any) -> Any:
    """A dataclass as plain JSON values (paths as strings); a learner's carries its tag under ``type``.

    Raises:
        ValueError: a learner's configuration that nobody has registered.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        out = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": _registry().kind_of(config).tag, **out} if isinstance(config, LearnerConfig) else out
    if isinstance(config, tuple | list):
        return [to_dict(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(cls: type[T], data: Any, path: str = "") -> T:
    """The inverse of :func:`to_dict`; also checks an object against a TypedDict.

    Raises:
        ValueError: an unknown or missing key (with the nearest known name), a value of the wrong type or out of range;
            names its place in ``data``.
    """
    return _convert(cls, data, path or getattr(cls, "__name__", str(cls)))


def _convert(kind: Any, value: Any, path: str) -> Any:
    if type(value) is kind:  # text or a number, as nearly all values are
        return value
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(kind), value, path)
    if origin is Literal:
        _expect(value in typing.get_args(kind), path, f"one of {list(typing.get_args(kind))}", value)
        return value
    if origin in (tuple, list):
        _expect(isinstance(value, tuple | list), path, "a list", value)
        args = typing.get_args(kind)
        items = [args[0]] * len(value) if len(args) < 2 or args[-1] is ... else list(args)
        _require(len(items) == len(value), f"{path}: expected {len(items)} values, got {len(value)}")
        return origin(_convert(item, v, f"{path}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True)))
    if origin in (dict, Mapping):
        _expect(isinstance(value, dict), path, "an object", value)
        return {key: _convert(typing.get_args(kind)[1], item, f"{path}.{key}") for key, item in value.items()}
    if typing.is_typeddict(kind):
        return _convert_typed_dict(kind, value, path)
    if kind is LearnerConfig:
        return _convert_learner(value, path)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{path}: expected a number that fits into a float, got one larger") from error
    if kind is Path:
        _expect(isinstance(value, str | Path), path, "a path", value)
        return Path(value)
    if isinstance(kind, type) and kind in (int, float, str, bool):
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        _expect(right, path, kind.__name__, value)
    return value


def _convert_union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(k for k in kinds if k is not type(None))
    return _convert(kinds[0], value, path) if len(kinds) == 1 else value


def _convert_learner(value: Any, path: str) -> LearnerConfig:
    """A learner's configuration by the tag under ``type``."""
    _expect(isinstance(value, dict), path, "an object", value)
    _require("type" in value, f"{path}: missing key 'type', the tag of the learner")
    _expect(isinstance(value["type"], str), f"{path}.type", "the tag of a learner", value["type"])
    try:
        kind = _registry().kind_named(value["type"])
    except ValueError as error:
        raise ValueError(f"{path}.type: {error}") from error
    return _convert_dataclass(kind.config_class, {k: v for k, v in value.items() if k != "type"}, path)


def _convert_dataclass(cls: Any, value: Any, path: str) -> Any:
    _expect(isinstance(value, dict), path, "an object", value)
    if hasattr(cls, "written_before"):
        value = cls.written_before(value)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in value:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{_nearest(key, known)}")
    for name, f in known.items():
        has_default = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        _require(name in value or has_default, f"{path}: missing key {name!r}")
    hints = _type_hints(cls)
    values = {key: _convert(hints[key], item, f"{path}.{key}") for key, item in value.items()}
    try:
        return cls(**values)
    except ValueError as error:  # of __post_init__, which does not know where the values come from
        raise ValueError(f"{path}: {error}") from error


def _convert_typed_dict(cls: Any, value: Any, path: str) -> dict[str, Any]:
    """An object whose other keys are nobody's business here."""
    _expect(isinstance(value, dict), path, "an object", value)
    for name in _needed(cls):
        _require(name in value, f"{path}: missing key {name!r}")
    hints = _type_hints(cls)
    return {key: _convert(hints[key], v, f"{path}.{key}") if key in hints else v for key, v in value.items()}


_type_hints = functools.cache(typing.get_type_hints)


@functools.cache
def _needed(cls: Any) -> list[str]:
    """The keys of a TypedDict that must be there; ``__required_keys__`` does not see what annotations as text say."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return [name for name, kind in hints.items() if typing.get_origin(kind) is not typing.NotRequired]


def _expect(condition: bool, path: str, what: str, value: Any) -> None:
    if not condition:
        told = repr(value)
        raise ValueError(f"{path}: expected {what}, got {told if len(told) <= MAX_TOLD else told[:MAX_TOLD] + '...'}")


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
