"""What ``--help`` says: every option of every verb is told of in a sentence, in one way, and no line breaks early."""

import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import typing

import docstring_parser
import pytest

from ptr_robot.cli import VERBS
from ptr_robot.cli import main as cli
from ptr_robot.console.help_text import described
from ptr_robot.recipes import all_recipes
from ptr_robot.training import config


def classes() -> dict[str, type]:
    """The classes that command lines become, with those inside them."""
    found: dict[str, type] = {}
    waiting = [config.PretrainConfig, config.FinetuneConfig, config.EncoderFinetuneConfig, config.LoopConfig]
    for verb in VERBS:
        module = importlib.import_module(f"ptr_robot.verbs.{verb.replace('-', '_')}")
        waiting += [module.Args] if hasattr(module, "Args") else []
    while waiting:
        kind = waiting.pop()
        if kind.__module__.startswith("ptr_") and dataclasses.is_dataclass(kind):
            found[f"{kind.__module__}:{kind.__name__}"] = kind
            waiting += [each for each in typing.get_type_hints(kind).values() if isinstance(each, type)]
            waiting += [each for each in kind.__mro__[1:] if dataclasses.is_dataclass(each)]
    return found


CLASSES = classes()


@pytest.mark.parametrize("name", CLASSES)
def test_every_option_is_told_of_in_the_docstring_of_its_class(name):
    kind = CLASSES[name]
    own = [f.name for f in dataclasses.fields(kind) if f.name in inspect.get_annotations(kind)]
    docs = [docstring_parser.parse(each.__doc__ or "").params for each in reversed(kind.__mro__)]
    told = {each.arg_name: each.description or "" for params in docs for each in params}
    assert set(own) <= set(told), f"without a text: {set(own) - set(told)}"
    source = inspect.getsource(kind)
    assert not re.search(r'^    \w+: [^\n]*\n    """', source, re.M), "one way: the Attributes of the class's docstring"
    for option in own:
        text = told[option]
        assert len(text.split()) >= 2, f"{option}: {text}"
        assert text.endswith((".", "?")), f"{option}: {text}"
        early = [line.strip() for line in text.split("\n")[1:] if line.strip() and not line.strip()[0].isalpha()]
        assert not early, f"{option}: a line that begins with no letter is a new line in --help: {early}"


def test_a_description_is_paragraphs_without_the_marks_of_code():
    assert described("One ``two``\nthree.\n\nfour\n") == "One two three.\n\nfour"
    assert described(None) == ""


def test_the_help_of_pretrain_says_where_to_begin_and_names_every_recipe():
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit, match="0"):
        cli(["pretrain", "--help"])
    text = told.getvalue()
    assert "ptr-fast pretrain RECIPE --help lists its options" in text
    assert "Begin with sim-proposals" in text
    for name, (about, _) in all_recipes().items():
        assert re.search(rf"^  {name} +{re.escape(about)}$", text, re.M), name
