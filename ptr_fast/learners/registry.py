"""The table of learners: by the class of their configuration and by the tag that files carry.

A learner is registered by its package when that is imported: every folder beside this file that is a package, and every
module that an installed package names under the entry point group ``ptr_fast.learners``::

    [project.entry-points."ptr_fast.learners"]
    my_learner = "my_package.my_learner"

Nothing of a learner but its configuration is imported for this: what it computes is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from ptr_fast.config import LearnerConfig
from ptr_fast.learners.capabilities import Acts, Encodes, MakesNetworks, Values
from ptr_fast.learners.traits import Traits

if TYPE_CHECKING:
    from torch import nn

    from ptr_fast.config import PolicySpec
    from ptr_fast.learners.divergence import Remedy

__all__ = [
    "GROUP",
    "LearnerKind",
    "acts_of",
    "broken_entry_points",
    "encodes_of",
    "imported_when_asked",
    "imported_when_called",
    "kind_named",
    "kind_of",
    "kinds",
    "make_networks",
    "register",
    "traits_of",
    "values_of",
]

GROUP = "ptr_fast.learners"


@dataclass(frozen=True, kw_only=True)
class LearnerKind:
    """One entry of the table.

    Attributes:
        tag: names it in files, under ``type``; for good.
        config_class: its configuration.
        traits: what it says about itself, of a configuration.
        make_learner: of ``(config, spec, seed, device, encoder_dtype, ranks)``: see
            :func:`ptr_fast.learners.make_learner`.
        networks: of a configuration: the object that makes its networks and has its capabilities
            (:mod:`ptr_fast.learners.capabilities`).
        remedies: what to change where a training ran away, the most likely first, of ``(found, numbers, rate, rewards,
            config, action_dim)``: see :func:`ptr_fast.learners.cql.remedies.remedies`; None: lower rates.
        recipes: module that has its presets for ``ptr-fast pretrain`` as ``RECIPES``, name -> (description,
            ``PretrainConfig``); empty: it has none of its own.
    """

    tag: str
    config_class: type[LearnerConfig]
    traits: Callable[[Any], Traits]
    make_learner: Callable[..., Any]
    networks: Callable[[Any], MakesNetworks]
    remedies: Callable[..., Sequence[Remedy]] | None = None
    recipes: str = ""


_KINDS: dict[str, LearnerKind] = {}
_BROKEN: dict[str, str] = {}
_FOUND: set[str] = set()


def register(kind: LearnerKind) -> None:
    """Adds a learner; the same one again changes nothing.

    Raises:
        ValueError: its tag is taken, or its configuration is no frozen dataclass that extends ``LearnerConfig``.
    """
    cls = kind.config_class
    if not (isinstance(cls, type) and issubclass(cls, LearnerConfig)):
        raise ValueError(f"learner {kind.tag!r}: config_class must extend ptr_fast.config.LearnerConfig, got {cls}")
    was = _KINDS.get(kind.tag)
    if was is not None and was.config_class is not cls:
        raise ValueError(f"learner {kind.tag!r} is registered already, by {was.config_class.__module__}")
    _KINDS[kind.tag] = kind


def imported_when_called(where: str) -> Callable[..., Any]:
    """Calls what ``package.module:name`` names; the module is imported by the first call."""
    module, _, name = where.partition(":")
    return lambda *arguments: getattr(importlib.import_module(module), name)(*arguments)


def imported_when_asked(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names lie in modules that are imported when somebody asks for one.

    Args:
        modules: of the package, by the names that they have.
    """

    def find(name: str) -> Any:
        if name in modules:
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def kinds() -> dict[str, LearnerKind]:
    """All learners by tag."""
    _find()
    return dict(_KINDS)


def kind_named(tag: object) -> LearnerKind:
    """The learner of a tag.

    Raises:
        ValueError: there is none; names those that there are, and the entry points that could not be imported.
    """
    if tag not in _KINDS:
        _find()
    if tag in _KINDS:
        return _KINDS[tag]  # type: ignore[index]
    raise ValueError(f"no learner is registered as {tag!r}; there are {sorted(_KINDS)}{_advice()}")


def kind_of(config: LearnerConfig) -> LearnerKind:
    """The learner of a configuration.

    Raises:
        ValueError: nobody has registered its class.
    """
    for again in (False, True):
        for kind in _KINDS.values():
            if kind.config_class is type(config):
                return kind
        if not again:
            _find()
    raise ValueError(f"no learner is registered for {type(config).__name__}; there are {sorted(_KINDS)}{_advice()}")


def traits_of(config: LearnerConfig) -> Traits:
    """What the learner of a configuration says about itself."""
    return kind_of(config).traits(config)


def make_networks(config: LearnerConfig, spec: PolicySpec, names: Sequence[str]) -> dict[str, nn.Module]:
    """Fresh networks by name, for the weights of a checkpoint.

    Raises:
        ValueError: a network that this learner does not have.
    """
    known = traits_of(config).networks
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{traits_of(config).name} has no network {unknown[0]!r}; it has {', '.join(known)}")
    made = kind_of(config).networks(config).make_networks(spec, names)
    if config.standardise_state:
        from ptr_fast.nets.state_scale import add_state_scales

        add_state_scales(made.values(), spec.state.dim)
    return made


def acts_of(config: LearnerConfig) -> Acts:
    """How the learner's networks act.

    Raises:
        ValueError: they do not.
    """
    return _capability(config, "acts", Acts, "does not act: its checkpoints choose no actions")


def values_of(config: LearnerConfig) -> Values:
    """How the learner's networks value actions.

    Raises:
        ValueError: they do not.
    """
    return _capability(config, "values", Values, "has no critic: its checkpoints know no values")


def encodes_of(config: LearnerConfig) -> Encodes:
    """How the learner's networks embed images.

    Raises:
        ValueError: they do not.
    """
    return _capability(config, "encodes", Encodes, "has no image encoder that another learner could take over")


def _capability(config: LearnerConfig, name: str, protocol: type, why_not: str) -> Any:
    kind, traits = kind_of(config), traits_of(config)
    if name not in traits.capabilities:
        raise ValueError(f"{traits.name} {why_not}")
    networks = kind.networks(config)
    if not isinstance(networks, protocol):
        raise TypeError(f"learner {kind.tag!r}: its traits say that it {name}, its networks lack {protocol.__name__}")
    return networks


def _find() -> None:
    """Imports the packages beside this file and the modules of entry points that were not imported yet."""
    folder = importlib.import_module(__package__).__path__
    modules = [f"{__package__}.{info.name}" for info in pkgutil.iter_modules(folder) if info.ispkg]
    for module in modules:
        if module not in _FOUND:
            importlib.import_module(module)
            _FOUND.add(module)
    for entry in entry_points(group=GROUP):
        if entry.value in _FOUND:
            continue
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (another's package; told where a learner is missed)
            _BROKEN[entry.name] = f"{type(error).__name__}: {error}"
            continue
        _FOUND.add(entry.value)
        _BROKEN.pop(entry.name, None)


def broken_entry_points() -> str:
    """Which entry points could not be imported, and why, as the end of an error's message; empty: none."""
    return "".join(f"; entry point {name!r} could not be imported: {why}" for name, why in _BROKEN.items())


def _advice() -> str:
    """What to do where a learner is missed."""
    return broken_entry_points() or f"; install the package that has it (entry point group {GROUP!r})"
