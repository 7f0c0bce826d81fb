"""The rules of the house, read from the sources: who may import whom, and what the engine never does.

Programs (ptr_robot) import the engine (ptr_fast); the engine imports nothing of the programs; only ptr_fast/native.py
touches the native module; what runs on a robot imports no training code; the engine prints nothing, reads no wall
clock and never sleeps.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE, PROGRAMS, BENCHMARKS = ROOT / "ptr_fast", ROOT / "python" / "ptr_robot", ROOT / "benchmarks"
TRAINING = ("ptr_fast.learners", "ptr_fast.losses", "ptr_fast.data")

# what a robot may ask of learners: how the networks of a checkpoint act; it imports nothing that trains
REGISTRY = ("ptr_fast.learners.registry", "ptr_fast.learners.traits", "ptr_fast.learners.capabilities")

# package of the engine -> packages of the engine that it must not import, but for what stands in REGISTRY
FORBIDDEN = {
    "ptr_fast.runtime": TRAINING,
    "ptr_fast.kernels": ("ptr_fast.nets", "ptr_fast.runtime", *TRAINING),
    "ptr_fast.nets": ("ptr_fast.runtime", *TRAINING),
    "ptr_fast.losses": ("ptr_fast.runtime", "ptr_fast.learners", "ptr_fast.data"),
    "ptr_fast.learners": ("ptr_fast.runtime", "ptr_fast.data"),
    "ptr_fast.data": ("ptr_fast.runtime", "ptr_fast.learners", "ptr_fast.losses", "ptr_fast.nets"),
    "ptr_fast.native": ("ptr_fast.kernels", "ptr_fast.nets", "ptr_fast.runtime", *TRAINING),
}

# Rooms of the programs by floor, the lowest first: a room imports rooms of lower floors alone, so there is no circle.
FLOORS = (
    (
        *("acting_options", "cameras", "chosen_checkpoint", "console", "datasets", "device", "moved_names"),
        *("published", "serving"),
    ),
    ("training", "diagnosis", "sim", "stages"),
    ("evaluation", "recipes", "robots"),
    ("report", "steering"),
    ("inspection", "trials", "comparison", "run_diagnosis", "watching", "sharing"),
    ("verbs",),
    ("cli",),
    ("__main__",),
)


def module_name(file: Path, top: Path) -> str:
    parts = file.relative_to(top.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, top: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of everything that a file imports, also inside functions: (name, line)."""
    package = module_name(file, top).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def sources(top: Path) -> list[Path]:
    return sorted(top.rglob("*.py"))


def violations_of_imports(top: Path) -> list[str]:
    found = []
    for file in sources(top):
        module = module_name(file, top)
        for name, line in imports(file, top):
            where = f"{file.relative_to(top.parent)}:{line}"
            if inside(name, "ptr_fast._native") and module != "ptr_fast.native":
                found.append(f"{where}: {name} may be imported by ptr_fast/native.py alone")
            if inside(module, "ptr_fast"):
                for package in ("ptr_robot", "benchmarks", "tests"):
                    if inside(name, package):
                        found.append(f"{where}: the engine must not import {package}")
                for package, forbidden in FORBIDDEN.items():
                    for other in forbidden:
                        asks = package == "ptr_fast.runtime" and any(inside(name, part) for part in REGISTRY)
                        if inside(module, package) and inside(name, other) and not asks:
                            found.append(f"{where}: {package} must not import {other}")
            elif inside(module, "ptr_robot"):
                found += [
                    f"{where}: programs must not import {package}"
                    for package in ("benchmarks", "tests")
                    if inside(name, package)
                ]
    return found


def room_of(name: str) -> str:
    """The part of the programs that a module lies in; empty for the package itself and for what is no program."""
    return name.split(".")[1] if name.startswith("ptr_robot.") else ""


def violations_of_floors(top: Path) -> list[str]:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for file in sources(top):
        here = room_of(module_name(file, top))
        if here and here not in floor:
            found.append(f"{file.relative_to(top.parent)}: the room {here} has no floor")
            continue
        for name, line in imports(file, top):
            there = room_of(name)
            if here and there and there != here and floor.get(there, len(FLOORS)) >= floor[here]:
                found.append(f"{file.relative_to(top.parent)}:{line}: {here} must not import {there}")
    return found


def violations_of_silence(top: Path) -> list[str]:
    """Calls of the engine that only a program may make."""
    found = []
    for file in sources(top):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{file.relative_to(top.parent)}:{node.lineno}: bare except")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "input", "time.time", "time.sleep", "sys.exit", "exit"):
                    found.append(f"{file.relative_to(top.parent)}:{node.lineno}: the engine must not call {called}()")
    return found


@pytest.mark.parametrize("top", [ENGINE, PROGRAMS], ids=["ptr_fast", "ptr_robot"])
def test_imports_point_downwards(top: Path) -> None:
    assert len(sources(top)) > 5
    assert violations_of_imports(top) == []


def test_rooms_of_the_programs_import_lower_floors_alone() -> None:
    rooms = {room_of(module_name(file, PROGRAMS)) for file in sources(PROGRAMS)} - {""}
    assert rooms == {room for rooms in FLOORS for room in rooms}
    assert violations_of_floors(PROGRAMS) == []


def test_every_verb_is_a_file_of_its_name_and_no_more_than_that() -> None:
    import ptr_robot.cli

    verbs = {verb.replace("-", "_") for verb in ptr_robot.cli.VERBS}
    assert {file.stem for file in (PROGRAMS / "verbs").glob("*.py")} == verbs | {"__init__", "branch"}


def test_the_engine_is_silent_and_has_no_clock() -> None:
    assert violations_of_silence(ENGINE) == []


def test_native_sources_have_no_torch_and_python_only_in_bindings() -> None:
    files = [file for file in (ROOT / "csrc").rglob("*") if file.suffix in (".h", ".cpp", ".cu", ".cuh")]
    assert len(files) > 5
    for file in files:
        text = file.read_text()
        for header in ("torch/", "ATen/", "c10/"):
            assert f"#include <{header}" not in text, file
        if file.parent.name != "bindings":
            assert "pybind11" not in text, file
            assert "Python.h" not in text, file


MAY_NAME_A_LEARNER = {
    "ptr_fast/config.py": "public names that lie with their learners now",
    "python/ptr_robot/recipes/bridge.py": "a recipe is a learner with its settings",
    "python/ptr_robot/recipes/conservative.py": "a recipe is a learner with its settings",
    "python/ptr_robot/recipes/imitation.py": "a recipe is a learner with its settings",
    "python/ptr_robot/recipes/offline.py": "a recipe is a learner with its settings",
    "python/ptr_robot/recipes/representation.py": "a recipe is a learner with its settings",
    "python/ptr_robot/recipes/sim.py": "a recipe is a learner with its settings",
    "python/ptr_robot/recipes/smoke.py": "a recipe is a learner with its settings",
    "python/ptr_robot/diagnosis/episodes.py": "the published settings are those of this one learner",
    "python/ptr_robot/verbs/convert_checkpoint.py": "published checkpoints are those of this one learner",
}


def test_no_module_outside_its_folder_names_a_learner() -> None:
    """Neither its configuration's class nor its own, in code, text or strings: programs ask its traits."""
    from ptr_fast.learners.registry import kinds

    names = {name for kind in kinds().values() for name in (kind.config_class.__name__, kind.tag)}
    names |= {name.removesuffix("Config") + "Learner" for name in names if name.endswith("Config")}
    assert {"CqlConfig", "CqlLearner", "BcConfig", "BcLearner"} <= names
    pattern = re.compile(rf"\b({'|'.join(sorted(names))})\b")
    found = {}
    for top in (ENGINE, PROGRAMS):
        for file in sources(top):
            path = file.relative_to(ROOT).as_posix()
            if not path.startswith("ptr_fast/learners/") and (named := pattern.search(file.read_text())):
                found[path] = named.group()
    assert found.keys() == MAY_NAME_A_LEARNER.keys(), found


def test_a_robot_that_acts_imports_nothing_that_trains() -> None:
    """Neither the update of a learner, nor losses, optimisers and data; PyTorch only for what computes."""
    program = (
        "import sys; from ptr_fast.learners.registry import kinds; kinds()\n"
        "assert 'torch' not in sys.modules\n"
        "import ptr_fast.runtime.policy\n"
        "[kind.networks(kind.config_class()) for kind in kinds().values()]\n"
        "trains = ('update', 'optimizer', 'losses', 'draws', 'distributed', 'data')\n"
        "print([m for m in sys.modules if m.startswith('ptr_fast.') and m.split('.')[-1] in trains])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_rules_can_be_broken(tmp_path: Path) -> None:
    engine = tmp_path / "ptr_fast"
    (engine / "runtime").mkdir(parents=True)
    (engine / "runtime" / "policy.py").write_text("from ..learners import cql\n")
    (engine / "kernels.py").write_text(
        "def f():\n    from ptr_fast import _native\n    import ptr_robot.training.loop\n"
    )
    (engine / "loud.py").write_text("import time\ntry:\n    print(time.time())\nexcept:\n    pass\n")
    programs = tmp_path / "ptr_robot"
    (programs / "training").mkdir(parents=True)
    (programs / "attic").mkdir()
    (programs / "training" / "loop.py").write_text("def f():\n    from ptr_robot.evaluation import ranking\n")
    (programs / "attic" / "old.py").write_text("")
    found = "\n".join(violations_of_imports(engine) + violations_of_silence(engine) + violations_of_floors(programs))
    for expected in (
        "runtime/policy.py:1: ptr_fast.runtime must not import ptr_fast.learners",
        "kernels.py:2: ptr_fast._native may be imported by ptr_fast/native.py alone",
        "kernels.py:3: the engine must not import ptr_robot",
        "loud.py:3: the engine must not call print()",
        "loud.py:3: the engine must not call time.time()",
        "loud.py:4: bare except",
        "training/loop.py:2: training must not import evaluation",
        "attic/old.py: the room attic has no floor",
    ):
        assert expected in found
