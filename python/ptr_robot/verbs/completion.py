"""Print a script with which a shell completes verbs, options and their values: ``ptr-fast completion bash``.

bash: ``ptr-fast completion bash > ~/.local/share/bash-completion/completions/ptr-fast``, and open a new shell.
zsh: ``ptr-fast completion zsh > ~/.ptr-fast-completion.zsh``, and ``source ~/.ptr-fast-completion.zsh`` in ``.zshrc``
after ``compinit``. fish: ``ptr-fast completion fish > ~/.config/fish/completions/ptr-fast.fish``.

The script holds all names, so that completing is instant; print it again after an update.
"""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal

import tyro

from ptr_robot.verbs import VERBS

__all__ = ["Args", "Option", "main", "options_of", "script"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of the verb.

    Attributes:
        shell: whose script is printed on standard output.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        name: without the leading dashes.
        choices: its values, where they are a fixed set.
        is_flag: it takes no value.
    """

    name: str
    choices: tuple[str, ...] = ()
    is_flag: bool = False


def main(args: Args) -> int:
    print(script(args.shell), end="")
    return 0


def options_of(verb: str) -> list[Option]:
    """The options of a verb; of ``pretrain`` and ``finetune`` those of all learners."""
    found: dict[str, Option] = {}
    for kind, default in _configurations(verb):
        found |= {option.name: option for option in _options(kind, default, "")}
    return [*found.values(), Option(name="help", is_flag=True)]


def _configurations(verb: str) -> Iterator[tuple[type, Any]]:
    """The classes that a verb's command line becomes, each with an instance that says which learner it has, or None."""
    if verb not in ("pretrain", "finetune"):
        yield importlib.import_module(f"ptr_robot.verbs.{verb.replace('-', '_')}").Args, None
        return
    from ptr_robot.recipes import all_recipes
    from ptr_robot.training import config

    encoders = {name: getattr(recipe.learner, "encoder", None) for name, (_, recipe) in all_recipes().items()}
    recipes = {
        (type(recipe.learner), getattr(encoders[name], "name", "")): recipe
        for name, (_, recipe) in all_recipes().items()
    }.values()
    if verb == "pretrain":
        yield from ((config.PretrainConfig, recipe) for recipe in recipes)
        yield config.PretrainBranch, None
    else:
        yield config.FinetuneConfig, None
        yield from ((config.EncoderFinetuneConfig, recipe) for recipe in recipes)
        yield config.FinetuneBranch, None


def _options(kind: type, default: Any, prefix: str) -> Iterator[Option]:
    """The options that tyro makes of a dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for f in fields(kind):
        hint, name, is_positional = hints[f.name], f.name.replace("_", "-"), False
        while typing.get_origin(hint) is Annotated:
            hint, *marks = typing.get_args(hint)
            is_positional |= any("Positional" in str(mark) for mark in marks)
            names = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
            name = names[0] if names else name
        value = getattr(default, f.name, None)
        if is_dataclass(hint) or is_dataclass(value):
            inner = type(value) if is_dataclass(value) else hint
            yield from _options(inner, value, f"{prefix}{name}." if name else prefix)  # type: ignore[arg-type]
        elif isinstance(value, dict) and value:
            yield from (Option(name=f"{prefix}{name}.{key}") for key in value)
        elif not is_positional:
            choices, is_flag = _values(hint)
            yield Option(name=prefix + name, choices=choices, is_flag=is_flag)
            if is_flag:
                yield Option(name=f"{prefix}no-{name}", is_flag=True)


def _values(hint: Any) -> tuple[tuple[str, ...], bool]:
    """The fixed values of a type, and whether it is a flag; looks into tuples, unions and annotations."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return ("True", "False"), True
    if origin is Literal:
        return tuple(str(value) for value in inside if value != ""), False
    if origin in (tuple, Annotated, typing.Union, types.UnionType):
        found = [_values(each) for each in inside if each not in (type(None), ...)]
        return tuple(value for values, is_flag in found if not is_flag for value in values), False
    return (), False


def script(shell: str) -> str:
    """The script of a shell."""
    options = {verb: options_of(verb) for verb in VERBS}
    return _fish(VERBS, options, _first_words()) if shell == "fish" else _bash(shell, options, _first_words())


def _first_words() -> dict[str, list[str]]:
    """What may follow a verb directly, where it is no file."""
    from ptr_robot.comparison.presets import PRESETS
    from ptr_robot.recipes import all_recipes

    recipes = list(all_recipes())
    return {"pretrain": recipes, "finetune": recipes, "compare": list(PRESETS), "completion": ["bash", "zsh", "fish"]}


BASH = r"""# Completion of ptr-fast; made by: ptr-fast completion @SHELL@
@BEFORE@_ptr_fast() {
  local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} last= words= i
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "@VERBS@" -- "$cur"))
    return
  fi
  for ((i = COMP_CWORD - 1; i > 1; i--)); do
    case ${COMP_WORDS[i]} in --*) last=${COMP_WORDS[i]}; break;; esac
  done
  case $cur in
    -*)
      case $verb in
@OPTIONS@
      esac
      COMPREPLY=($(compgen -W "$words" -- "$cur"))
      return;;
  esac
  case "$verb $last" in
@VALUES@
  esac
  if [ "$COMP_CWORD" -eq 2 ]; then
    case $verb in
@FIRST@
    esac
  fi
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
  if [ -z "$words" ] || { [ "$verb" = compare ] && [ "$COMP_CWORD" -eq 2 ]; }; then
    local IFS=$'\n'
    COMPREPLY+=($(compgen -f -- "$cur"))
    compopt -o filenames 2> /dev/null || true
  fi
}
complete -F _ptr_fast ptr-fast
"""


def _bash(shell: str, options: dict[str, list[Option]], first: dict[str, list[str]]) -> str:
    values: dict[tuple[str, ...], list[str]] = {}
    for verb, each in options.items():
        for option in each:
            if option.choices and not option.is_flag:
                values.setdefault(option.choices, []).append(f"'{verb} --{option.name}'")
    parts = {
        "SHELL": shell,
        "BEFORE": "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        "VERBS": " ".join(options),
        "OPTIONS": "\n".join(
            f'        {verb}) words="{" ".join("--" + option.name for option in each)}";;'
            for verb, each in options.items()
        ),
        "VALUES": "\n".join(f'    {"|".join(places)}) words="{" ".join(words)}";;' for words, places in values.items()),
        "FIRST": "\n".join(f'      {verb}) words="{" ".join(words)}";;' for verb, words in first.items()),
    }
    text = BASH
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def _fish(verbs: dict[str, str], options: dict[str, list[Option]], first: dict[str, list[str]]) -> str:
    lines = ["# Completion of ptr-fast; made by: ptr-fast completion fish"]
    for verb, about in verbs.items():
        told = about.replace("'", "\\'")
        lines.append(f"complete -c ptr-fast -f -n __fish_use_subcommand -a {verb} -d '{told}'")
    for verb, each in options.items():
        seen = f"complete -c ptr-fast -n '__fish_seen_subcommand_from {verb}'"
        if verb in first:
            lines.append(f"{seen} -a '{' '.join(first[verb])}'")
        for option in each:
            takes = "" if option.is_flag else f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r"
            lines.append(f"{seen} -l {option.name}{takes}")
    return "\n".join(lines) + "\n"
