"""A grid: which methods are compared on which data sets with which seeds; from a small YAML file or a preset."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ptr_fast.config import ActConfig
from ptr_fast.learners.registry import traits_of
from ptr_fast.runtime.control import Play
from ptr_fast.types import MAX_SEED
from ptr_robot.comparison.data_sets import DataPlan, are_words, find_data_set, refuse_decided
from ptr_robot.comparison.methods import METHODS, Method, find_method
from ptr_robot.comparison.presets import PRESETS
from ptr_robot.recipes import recipe_named
from ptr_robot.training.config import check_mix

__all__ = ["Grid", "Updates", "load_grid", "read_grid"]

Scale = Literal["states", "sim", "smoke", "bridge"]
NAME = r"\w[^/]*"
DECIDED = {
    **{"--seed": "seeds", "--num-steps": "updates", "--checkpoint-every": "checkpoints", "--keep-last": "checkpoints"},
    **dict.fromkeys(("--num-demos", "--data.num-demos"), "num_demos"),
    **dict.fromkeys(("--data.stores", "--target", "--task"), "data"),
    **dict.fromkeys(("--checkpoint", "--encoder-from", "--references", "--learner.critic.path"), "the method"),
    **dict.fromkeys(("--stop-on-divergence", "--no-stop-on-divergence", "--help", "-h"), "compare itself"),
    **{"--mix": "mix", "--critic-mix": "critic_mix of a variant", "--lr-scale": "lr_scale"},
    "--out": "compare's own --out",
}
"""Options of trainings that follow from the grid, by what in it decides them."""
DECIDED_OF_TRIALS = {
    **dict.fromkeys(("--task", "--kitchen", "--start", "--max-steps"), "data"),
    **dict.fromkeys(("--video", "--videos", "--videos-of", "--video-size"), "films"),
    **dict.fromkeys(("--run", "--checkpoint", "--policy", "--mode", "--label"), "the method"),
    **{"--trials": "trials", "--seed": "trial_seed", "--workers": "compare's own --workers"},
    **{"--out": "compare's own --out", "--help": "compare itself", "-h": "compare itself"},
}
"""Options of ``rollout`` that follow from the grid."""
ACTING: dict[str, type] = {
    "--candidates": int,
    "--elites": int,
    "--play": str,
    "--execute": int,
    "--ensemble-decay": float,
}
"""Options of ``rollout`` that a variant may name: how a policy acts in trials that are the same for all."""
OF_A_VARIANT = ("options", "acting", "num_demos", "mix", "critic_mix")
SMALLEST = {"trials": 1, "num_demos": 1, "checkpoints": 1, "films": 0, "data_seed": 0, "trial_seed": 0}


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Gradient updates of each kind of training; 0 takes the recipe's own number.

    Attributes:
        pretrain: of policies on the prior data. encoder: of image encoders alone.
        finetune: after pre-training, with the target's demonstrations.
        joint: on both from the first update.
        target: on the target's demonstrations alone, also with a pre-trained encoder.
    """

    pretrain: int = 0
    encoder: int = 0
    finetune: int = 600
    joint: int = 0
    target: int = 1500

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 0:
                raise ValueError(f"updates: {name}: expected a whole number of updates from 0 on, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is compared; every value may stand in the YAML file under its name.

    Attributes:
        name: of the grid, also of its results file.
        scale: beginning of the recipes' names. With ``states`` data and trials are without frames.
        methods: names of ``ptr_robot.comparison.methods``, or of ``variants``.
        variants: methods that differ from another one (``of``) in ``options`` of their trainings, in ``acting``, which
            are options of ``rollout``, in ``num_demos``, ``mix`` or ``critic_mix``.
        data: data sets: names of ``ptr_robot.sim.data_sets``, or own ones by name
            (:class:`ptr_robot.comparison.data_sets.DataPlan`).
        seeds: of the trainings: initial weights, batches, noise and the choice of demonstrations.
        data_seed: of the data sets, which all methods share.
        trials: per policy; on the same starts for all policies.
        trial_seed: of the starts.
        num_demos: demonstrations in the new task.
        mix: share of the prior data in batches of fine-tuning and of joint training.
        lr_scale: factor on the learning rates in fine-tuning.
        updates: of the trainings.
        checkpoints: how many each run keeps, evenly spread; fine-tuning keeps what it begins with besides. All of them
            are tried. The table shows the one that ``select`` picks, the last one, and the best one as the oracle.
        baseline: method with which the others are compared trial by trial.
        options: more options of the trainings, by method.
        films: so many successes and so many failures are filmed, the first ones of each method and data set.
    """

    name: str
    scale: Scale = "sim"
    methods: tuple[str, ...]
    variants: Mapping[str, Method] = field(default_factory=dict)
    data: Mapping[str, DataPlan]
    seeds: tuple[int, ...] = (0,)
    data_seed: int = 0
    trials: int = 50
    trial_seed: int = 1000
    num_demos: int = 10
    mix: float = 0.5
    lr_scale: float = 0.3
    updates: Updates = Updates()
    checkpoints: int = 3
    baseline: str = "bc"
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    films: int = 1

    def __post_init__(self) -> None:
        for name in (self.name, *self.data, *self.variants):
            if not re.fullmatch(NAME, name) or len(name.encode(errors="replace")) > 80 or not name.isprintable():
                raise ValueError(
                    f"grid {self.name!r}: {name!r} names files: it begins with a letter or digit, has at most "
                    "80 bytes as UTF-8, and none of them is '/' or a line end"
                )
        if "index" in self.data:
            raise ValueError(f"grid {self.name}: data: 'index' names the page of the whole grid, name it otherwise")
        for name, least in SMALLEST.items():
            if getattr(self, name) < least:
                raise ValueError(f"grid {self.name}: {name} must be at least {least}, got {getattr(self, name)}")
        if self.trial_seed > MAX_SEED:
            raise ValueError(f"grid {self.name}: trial_seed must be at most {MAX_SEED}, got {self.trial_seed}")
        if self.scale not in get_args(Scale):
            raise ValueError(f"grid {self.name}: unknown scale {self.scale!r}; scales: {', '.join(get_args(Scale))}")
        if not 0.0 < self.lr_scale < math.inf:
            raise ValueError(f"grid {self.name}: lr_scale must be above 0, got {self.lr_scale}")
        if wrong := [seed for seed in self.seeds if type(seed) is not int or seed < 0]:
            raise ValueError(f"grid {self.name}: seeds: expected whole numbers from 0 on, got {wrong[0]!r}")
        for name in ("methods", "data", "seeds"):
            if not getattr(self, name) or len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"grid {self.name}: {name} must name at least one, and each once")
        try:
            check_mix(self.mix)
        except ValueError as error:
            raise ValueError(f"grid {self.name}: {error}") from error
        for name, method in self.variants.items():
            try:
                self._check_shares(method)
            except ValueError as error:
                raise ValueError(f"variants: {name}: {error}") from error
        for name in (*self.methods, *self.options):
            self.method(name)
        if self.baseline not in self.methods:
            known = ", ".join(self.methods)
            raise ValueError(
                f"grid {self.name}: baseline {self.baseline!r} is not one of its methods: {known}; the others are "
                "compared with it, so name it too, or another baseline in the grid's file"
            )

    def _check_shares(self, method: Method) -> None:
        """Refuses shares of the prior data that a training of the variant would refuse, hours later."""
        mix = method.mix_in(self.mix)
        if mix is None:
            return
        check_mix(mix, method.critic_mix)
        if method.critic_mix is None:
            return
        if method.route != "finetune":
            raise ValueError("critic_mix is a share of fine-tuning, and this trains on both from the start")
        traits_of(recipe_named(f"{self.scale}-{method.recipe}").learner).check_critic_mix()

    def method(self, name: str) -> Method:
        """The variant or the method of a name.

        Raises:
            ValueError: there is none.
        """
        return self.variants[name] if name in self.variants else find_method(name)

    def chosen_methods(self) -> list[Method]:
        """The methods in order."""
        return [self.method(name) for name in self.methods]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return json.loads(json.dumps(asdict(self)))


def read_grid(path: Path) -> Grid:
    """A grid from a YAML file.

    Raises:
        ValueError: the file is missing or not YAML, or a value is unknown or wrong; the file and the field are named.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a name that stands twice: YAML forbids it, and PyYAML would take the last one in silence."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
            if twice := next((key for key, _ in node.value if names.count(key.value) > 1), None):
                raise yaml.constructor.ConstructorError(None, None, f"{twice.value!r} stands twice", twice.start_mark)
            return super().construct_mapping(node, deep)

    # As in YAML 1.2: PyYAML takes 1e-3 for text, since it has no point.
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected names and values such as 'methods: [bc, cql]', got {values!r}")
    try:
        return _grid({"name": path.stem, **values})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _grid(values: dict[str, Any]) -> Grid:
    known = {f.name for f in fields(Grid)}
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown name {name!r}{hint}; known: {', '.join(sorted(known))}")
    for name in ("methods", "data"):
        if name not in values:
            raise ValueError(f"{name!r} is missing")
    data = values["data"]
    if isinstance(data, str) or not isinstance(data, list | dict):
        raise ValueError(f"data: expected a list of names, or names with their plans, got {data!r}")
    own = dict(
        zip(_names("data", list(data)), data.values() if isinstance(data, dict) else [None] * len(data), strict=True)
    )
    values = {**values, "data": {name: find_data_set(name, plan) for name, plan in own.items()}}
    values["methods"] = tuple(_names("methods", values["methods"]))
    values["variants"] = _variants(values.get("variants", {}))
    if "seeds" in values:
        values["seeds"] = tuple(_list("seeds", values["seeds"]))
    if "updates" in values:
        values["updates"] = _updates(values["updates"])
    values["options"] = _options(values.get("options", {}))
    _check_types(values)
    grid = Grid(**values)
    used = {name for method in grid.chosen_methods() for name in (method.name, method.critic)}
    if unused := [name for name in grid.options if name not in used]:
        raise ValueError(f"options: {unused[0]!r} is none of the grid's methods: {', '.join(grid.methods)}")
    return grid


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list, got {value!r}")
    return value


def _names(name: str, value: Any) -> list[str]:
    for word in _list(name, value):
        if not isinstance(word, str) or value.count(word) > 1:
            raise ValueError(f"{name}: expected names, each once, got {word!r}{' twice' * isinstance(word, str)}")
    return value


def _updates(value: Any) -> Updates:
    known = [f.name for f in fields(Updates)]
    if not isinstance(value, dict) or set(value) - set(known):
        raise ValueError(f"updates: expected numbers by name ({', '.join(known)}), got {value!r}")
    return Updates(**value)


def _variants(value: Any) -> dict[str, Method]:
    if not isinstance(value, dict):
        raise ValueError(
            f"variants: expected names and values such as 'fewer: {{of: bc, num_demos: 5}}', got {value!r}"
        )
    return {name: _variant(name, value[name]) for name in _names("variants", list(value))}


def _variant(name: str, values: Any) -> Method:
    where = f"variants: {name}"
    if not isinstance(values, dict) or "of" not in values:
        raise ValueError(f"{where}: expected 'of' and any of {', '.join(OF_A_VARIANT)}, got {values!r}")
    if unknown := sorted(map(str, set(values) - {"of", *OF_A_VARIANT})):
        raise ValueError(f"{where}: unknown name {unknown[0]!r}; known: of, {', '.join(OF_A_VARIANT)}")
    if name in METHODS:
        raise ValueError(f"{where}: a method has this name")
    words, acting, num_demos = values.get("options", []), values.get("acting", []), values.get("num_demos", 0)
    if not are_words(words):
        raise ValueError(f"{where}: options: expected a list such as '[--learner.discount, 0.9]', got {words!r}")
    if not are_words(acting):
        raise ValueError(f"{where}: acting: expected a list such as '[--candidates, 4]', got {acting!r}")
    refuse_decided(f"{where}: options", words, DECIDED)
    refuse_decided(f"{where}: acting", acting, DECIDED_OF_TRIALS)
    told = _acting(f"{where}: acting", [str(word) for word in acting])
    if type(num_demos) is not int or num_demos < 0:
        raise ValueError(f"{where}: num_demos: expected a whole number, got {num_demos!r}")
    shares = {share: values[share] for share in ("mix", "critic_mix") if values.get(share) is not None}
    for share, value in shares.items():
        if type(value) not in (int, float):
            raise ValueError(f"{where}: {share}: expected a number, got {value!r}")
    if not isinstance(values["of"], str):
        raise ValueError(f"{where}: of: expected the name of a method, got {values['of']!r}")
    method = find_method(values["of"])
    if shares and method.mix_in(0.0) is None:
        raise ValueError(f"{where}: {min(shares)}: {method.name} has no batches of both prior data and demonstrations")
    changed: dict[str, Any] = {"options": (*method.options, *map(str, words)), "num_demos": num_demos, **shares}
    if acting:  # it is about the method's own mode, or about search
        searches = "--candidates" in told or "--elites" in told
        if searches and "search" not in method.modes:
            raise ValueError(
                f"{where}: acting: candidates and elites are of mode search, {method.name} does not search"
            )
        modes = ("search",) if searches else method.modes[:1]
        changed |= {"acting": (*method.acting, *map(str, acting)), "modes": modes}
    return replace(method, name=name, title=name, **changed)


def _acting(where: str, words: list[str]) -> dict[str, Any]:
    """The options of ``rollout`` in a variant's ``acting``, by name.

    Raises:
        ValueError: what no trial would take, which would else be found after all trainings.
    """
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    told: dict[str, Any] = {}
    for name, value in itertools.zip_longest(words[::2], words[1::2], fillvalue=""):
        if name not in ACTING:
            raise ValueError(f"{where}: expected options and values ({', '.join(ACTING)}), got {name!r}")
        try:
            told[name] = ACTING[name](value)
        except ValueError as error:
            raise ValueError(f"{where}: {name}: expected a number, got {value!r}") from error
    if (play := told.get("--play", "latency")) not in get_args(Play):
        raise ValueError(f"{where}: --play: expected one of {', '.join(get_args(Play))}, got {play!r}")
    if (execute := told.get("--execute", 0)) < 0:
        raise ValueError(f"{where}: --execute: expected 0 or more, got {execute}")
    try:
        ActConfig(mode="search").changed("", told.get("--candidates", 0), told.get("--elites", 0))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return told


def _options(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not all(map(are_words, value.values())):
        raise ValueError(f"options: expected a list by method such as 'cql: [--learner.cql-alpha, 1]', got {value!r}")
    for name, words in value.items():
        refuse_decided(f"options: {name}", words, DECIDED)
    return {name: tuple(map(str, words)) for name, words in value.items()}


def _check_types(values: Mapping[str, Any]) -> None:
    for f in fields(Grid):
        if f.name not in values or f.type not in ("int", "float", "bool", "str"):
            continue
        wanted = {"int": int, "float": (int, float), "bool": bool, "str": str}[f.type]
        value = values[f.name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and f.type != "bool"):  # type: ignore[arg-type]
            raise ValueError(f"{f.name}: expected {f.type}, got {value!r}")


def load_grid(
    text: str, *, methods: Sequence[str] = (), data: Sequence[str] = (), seeds: Sequence[int] = (), trials: int = 0
) -> Grid:
    """A preset's grid, or that of a YAML file.

    Args:
        text: name of a preset, or path of a file.
        methods, seeds, trials: in place of the grid's; empty or 0 leaves them.
        data: only these of its data sets; empty takes all.

    Raises:
        ValueError: neither a preset nor a file, or a wrong value.
    """
    if text in PRESETS:
        grid = _grid({"name": text, **PRESETS[text][1]})
    elif Path(text).suffix in (".yaml", ".yml") or Path(text).exists():
        grid = read_grid(Path(text))
    else:
        close = difflib.get_close_matches(text, PRESETS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown grid {text!r}{hint}: presets are {', '.join(PRESETS)}; else name a .yaml file")
    for name in data:
        if name not in grid.data:
            raise ValueError(f"grid {grid.name} has no data set {name!r}; it has {', '.join(grid.data)}")
    return replace(
        grid,
        methods=tuple(methods) or grid.methods,
        data={name: plan for name, plan in grid.data.items() if not data or name in data},
        seeds=tuple(seeds) or grid.seeds,
        trials=trials or grid.trials,
    )
