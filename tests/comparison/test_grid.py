"""A grid from a file, its mistakes in one line, and its plan."""

import pytest

from ptr_robot.comparison.grid import load_grid
from ptr_robot.comparison.plan import make_plan
from ptr_robot.comparison.presets import PRESETS

TINY = """
scale: smoke
methods: [bc, cql]
seeds: [0, 1]
trials: 2
checkpoints: 2
updates: {pretrain: 4, finetune: 4}
data:
  tiny:
    prior: [--kitchens, A, --episodes, 4]
    target: [--kitchens, H, --episodes, 4]
    kitchen: H
"""

OF_ACTING = r"expected options and values \(--candidates, --elites, --play, --execute, --ensemble"


def grid_of(tmp_path, text):
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    return load_grid(str(path))


def test_a_file_becomes_a_grid(tmp_path):
    grid = grid_of(tmp_path, TINY)
    assert (grid.name, grid.methods, grid.seeds, grid.updates.pretrain) == ("tiny", ("bc", "cql"), (0, 1), 4)
    assert grid.data["tiny"].prior == ("--kitchens", "A", "--episodes", "4")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("methods: [bc, cql]", "methods: [bc, cgl]", r"unknown method 'cgl' \(did you mean 'cql'\?\)"),
        ("seeds: [0, 1]", "seads: [0, 1]", r"unknown name 'seads' \(did you mean 'seeds'\?\)"),
        ("methods: [bc, cql]", "methods: [cql]", "baseline 'bc' is not one of its methods"),
        ("trials: 2", "trials: many", "trials: expected int, got 'many'"),
        ("trials: 2", "trials: 0", "trials must be at least 1"),
        ("    kitchen: H", "    kitchin: H", "data: tiny: unknown name 'kitchin'"),
        ("    prior: [--kitchens, A, --episodes, 4]\n", "", "tiny: prior is missing"),
        ("scale: smoke", "scale: [", "not YAML"),
        ("updates: {pretrain: 4, finetune: 4}", "updates: {pretrian: 4}", "pretrian"),
        ("updates: {pretrain: 4, finetune: 4}", "updates: {pretrain: x}", "updates: pretrain: expected a whole number"),
        (
            "updates: {pretrain: 4, finetune: 4}",
            "updates: {pretrain: -4}",
            "updates: pretrain: expected a whole number",
        ),
        ("updates: {pretrain: 4, finetune: 4}", "updates: [4]", r"updates: expected numbers by name \(pretrain"),
        ("methods: [bc, cql]", "methods: [bc, 1]", "methods: expected names, each once, got 1"),
        ("methods: [bc, cql]", "methods: [bc, [cql]]", r"methods: expected names, each once, got \['cql'\]"),
        ("seeds: [0, 1]", "seeds: [a]", "seeds: expected whole numbers from 0 on, got 'a'"),
        ("seeds: [0, 1]", "seeds: [-1]", "seeds: expected whole numbers from 0 on, got -1"),
        ("seeds: [0, 1]", "films: -3", "films must be at least 0, got -3"),
        ("seeds: [0, 1]", "lr_scale: .nan", "lr_scale must be above 0"),
        ("seeds: [0, 1]", "trial_seed: -1", "trial_seed must be at least 0"),
        ("seeds: [0, 1]", "trial_seed: 9223372036854775808", "trial_seed must be at most 9223372036854775807"),
        ("seeds: [0, 1]", "name: a/b", "'a/b' names files"),
        ("seeds: [0, 1]", "options: [a]", "options: expected a list by method"),
        ("seeds: [0, 1]", "options: {bc: --seed}", "options: expected a list by method"),
        ("seeds: [0, 1]", "variants: [few]", "variants: expected names and values"),
        ("seeds: [0, 1]", "variants: {few: {num_demos: 2}}", "variants: few: expected 'of'"),
        ("seeds: [0, 1]", "variants: {few: {of: [bc]}}", r"few: of: expected the name of a method, got \['bc'\]"),
        ("seeds: [0, 1]", "options: {bc: [--seed, 7]}", "options: bc: --seed is not for here, seeds decides it"),
        (
            "seeds: [0, 1]",
            "variants: {few: {of: bc, options: [--num_steps=7]}}",
            "--num-steps is not for here, updates",
        ),
        ("seeds: [0, 1]", "options: {bc: [--num-demos, 3]}", "--num-demos is not for here, num_demos decides it"),
        ("seeds: [0, 1]", "options: {bc: [--data.stores, x]}", "--data.stores is not for here, data decides it"),
        (
            "seeds: [0, 1]",
            "options: {iql: [--learner.lr, 1e-3]}",
            "options: 'iql' is none of the grid's methods: bc, cql",
        ),
        ("seeds: [0, 1]", "options: {bc: [[a]]}", "options: expected a list by method"),
        ("seeds: [0, 1]", "3: [a]", "unknown name 3"),
        ("prior: [--kitchens, A, --episodes, 4]", "prior: [3]", "tiny: prior: 3: no store there"),
        ("prior: [--kitchens, A, --episodes, 4]", "prior: [~]", "tiny: prior: expected a list of options"),
        ("--kitchens, A, --episodes, 4", "--episodes=4", "expected options and values as words of a list, got '--epis"),
        ("[--kitchens, H, --episodes, 4]", "~", "data: tiny: target: expected a list of options"),
        ("  tiny:", f"  {'日' * 27}:", "names files"),
        ("--kitchens, A, --episodes, 4", "--seed, 3", "tiny: prior: --seed is not for here, data_seed decides it"),
        ("  tiny:", '  "a\\nb":', r"names files: it begins with a letter or digit, has at most 80 bytes"),
        ("  tiny:", f"  {'a' * 81}:", "names files"),
        ("  tiny:", "  index:", "data: 'index' names the page of the whole grid"),
        ("scale: smoke", "[" * 3000, "not YAML"),
        ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]", "'seeds' stands twice"),
        ("    kitchen: H", "    kitchen: H\n    kitchen: A", "'kitchen' stands twice"),
        ("--kitchens, A, --episodes, 4", "--kitchens, A, --episodes", "prior: --episodes: expected a whole number"),
        ("--kitchens, A, --episodes, 4", "--kitchens, A, --episodes, few", "prior: --episodes: expected a whole"),
        ("seeds: [0, 1]", "variants: {few: {of: bd}}", "unknown method 'bd'"),
        ("seeds: [0, 1]", "variants: {cql: {of: bc}}", "variants: cql: a method has this name"),
        ("seeds: [0, 1]", "variants: {few: {of: bc, options: --seed}}", "few: options: expected a list"),
        ("seeds: [0, 1]", "variants: {few: {of: cql, acting: --candidates}}", "few: acting: expected a list such as"),
        (
            "seeds: [0, 1]",
            "variants: {few: {of: cql, acting: [--seed, 3]}}",
            "few: acting: --seed is not for here, tri",
        ),
        *(
            ("seeds: [0, 1]", f"variants: {{few: {{of: {of}, acting: [{acting}]}}}}", f"few: acting: {told}")
            for of, acting, told in (
                (
                    "cql",
                    "--candidate, 4",
                    OF_ACTING,
                ),
                (
                    "cql",
                    "--candidates 4",
                    OF_ACTING,
                ),
                (
                    "cql",
                    "--distractors, 3",
                    OF_ACTING,
                ),
                ("cql", "--candidates, four", "--candidates: expected a number, got 'four'"),
                ("cql", "--candidates=4.5", "--candidates: expected a number, got '4.5'"),
                ("cql", "--candidates", "--candidates: expected a number, got ''"),
                ("cql", "--candidates, 65537", r"num_candidates must lie in 1\.\.65536, got 65537"),
                ("cql", "--candidates, 4, --elites, 9", r"num_elites must lie in 1\.\.num_candidates \(4\), got 9"),
                ("bc", "--candidates, 4", "candidates and elites are of mode search, bc does not search"),
                ("flow", "--play, twice", "--play: expected one of receding, ensemble, latency, got 'twice'"),
                ("flow", "--execute, -1", "--execute: expected 0 or more, got -1"),
            )
        ),
        ("seeds: [0, 1]", "variants: {few: {of: bc, num_demos: -1}}", "few: num_demos: expected a whole number"),
        (
            "seeds: [0, 1]",
            "variants: {old: {of: bc, Mix: 0.9}}",
            "variants: old: unknown name 'Mix'; known: of, options",
        ),
        ("seeds: [0, 1]", "variants: {old: {of: bc-target, mix: 0.9}}", "old: mix: bc-target has no batches of both"),
        (
            "seeds: [0, 1]",
            "variants: {own: {of: cog, critic_mix: 0.9}}",
            "variants: own: critic_mix is a share of fine-tuning",
        ),
        ("seeds: [0, 1]", "variants: {own: {of: proposals, critic_mix: 0}}", r"own: critic_mix must lie in \(0, 1\)"),
        ("seeds: [0, 1]", "variants: {own: {of: cql, critic_mix: 0.9}}", "own: critic_mix: CQL has no critic with a"),
        ("seeds: [0, 1]", "variants: {own: {of: awbc, critic_mix: 0.9}}", "own: critic_mix: advantage-weighted BC has"),
        (
            "seeds: [0, 1]",
            "mix: 0\nvariants: {own: {of: proposals, critic_mix: 0.9}}",
            "variants: own: critic_mix 0.9 needs a mix above 0",
        ),
        (
            "seeds: [0, 1]",
            "variants: {own: {of: proposals, options: [--critic-mix, 0.9]}}",
            "variants: own: options: --critic-mix is not for here, critic_mix of a variant decides it",
        ),
        ("seeds: [0, 1]", "variants: {old: {of: bc, mix: 1}}", r"variants: old: mix must lie in \[0, 1\), got 1"),
        (
            "seeds: [0, 1]",
            "variants: {old: {of: bc, mix: most}}",
            "variants: old: mix: expected a number, got 'most'",
        ),
        ("scale: smoke", "scale: tiny", "unknown scale 'tiny'; scales: states, sim"),
        ("  tiny:", "  3:", "data: expected names, each once, got 3"),
        ("    kitchen: H", "    kitchen: Q", "data: tiny: unknown kitchen 'Q'"),
        ("    kitchen: H", "    start: nowhere", "data: tiny: unknown start 'nowhere'"),
        ("    kitchen: H", "    task: put cat on plate", "data: tiny: unknown"),
        ("    kitchen: H", "    max_steps: 0", "data: tiny: max_steps: expected a whole number"),
        ("prior: [--kitchens, A, --episodes, 4]", "prior: /nowhere", "data: tiny: prior: /nowhere: no store there"),
        ("prior: [--kitchens, A, --episodes, 4]", "prior: {a: 1}", "data: tiny: prior: expected a list of options"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(tmp_path, old, new, message):
    assert old in TINY
    with pytest.raises(ValueError, match=rf"tiny\.yaml: .*{message}") as error:
        grid_of(tmp_path, TINY.replace(old, new))
    assert "\n" not in str(error.value)


def test_a_number_with_an_exponent_is_a_number(tmp_path):
    assert grid_of(tmp_path, TINY.replace("seeds: [0, 1]", "lr_scale: 3e-1")).lr_scale == 0.3


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_presets_have_all_they_name(name, tmp_path):
    plan = make_plan(load_grid(name), tmp_path)
    assert plan.cells
    assert not plan.left_out


def test_a_grid_can_be_changed_from_the_command_line(tmp_path):
    grid = load_grid("states", methods=("bc", "proposals"), data=("D2",), seeds=(7,), trials=5)
    assert (grid.methods, list(grid.data), grid.seeds, grid.trials) == (("bc", "proposals"), ["D2"], (7,), 5)
    with pytest.raises(ValueError, match="has no data set 'D9'"):
        load_grid("states", data=("D9",))


def test_two_ways_to_play_chunks_are_tried_on_the_same_runs(tmp_path):
    grid = grid_of(tmp_path, TINY.replace("[bc, cql]", "[bc, chunks, chunks-whole, flow, flow-half]"))
    plan = make_plan(grid, tmp_path)
    cells = {cell.method: cell for cell in plan.cells if (cell.phase, cell.seed) == ("after", 0)}
    stages = {stage.name: stage for stage in plan.stages}
    for one, other in (("chunks", "chunks-whole"), ("flow", "flow-half")):
        assert cells[one].run == cells[other].run
        assert not set(cells[one].trials.values()) & set(cells[other].trials.values())
    assert sum(stage.verb[0] == "select" and "chunks" in stage.name for stage in plan.stages) == len(grid.seeds)

    def played(method):
        verb = stages[cells[method].tried_by[4]].verb
        return [word for before, word in zip(verb, verb[1:], strict=False) if before in ("--play", "--execute")]

    assert [played(method) for method in cells] == [[], ["ensemble"], ["receding"], [], ["4"]]


def test_variants_differ_in_options_demonstrations_or_mix_and_share_the_rest(tmp_path):
    text = TINY.replace("[bc, cql]", "[bc, few, alpha, old, joint-old, own]").replace("seeds: [0, 1]", "seeds: [0]")
    text += "variants: {few: {of: bc, num_demos: 2}, alpha: {of: cql, options: [--learner.cql-alpha, 3]}, "
    text += "old: {of: bc, mix: 0.9}, joint-old: {of: bc-joint, mix: 0}, "
    text += "own: {of: proposals, critic_mix: 0.9}}\n"
    grid = grid_of(tmp_path, text)
    verbs = {stage.name: stage.verb for stage in make_plan(grid, tmp_path).stages}
    assert not {"tiny-few-0-pretrain", "tiny-old-0-pretrain"} & set(verbs)  # bc's is the same
    with_demos = {name: verb for name, verb in verbs.items() if "--num-demos" in verb}
    told = {
        name.split("-0-")[0]: [verb[verb.index(o) + 1] for o in ("--num-demos", "--mix")]
        for name, verb in with_demos.items()
    }
    assert told == {
        "tiny-bc": ["10", "0.5"],
        "tiny-few": ["2", "0.5"],
        "tiny-alpha": ["10", "0.5"],
        "tiny-old": ["10", "0.9"],
        "tiny-joint-old": ["10", "0"],
        "tiny-own": ["10", "0.5"],
    }
    own = verbs["tiny-own-0-finetune"]
    assert own[own.index("--critic-mix") + 1] == "0.9"
    assert sum("--critic-mix" in verb for verb in verbs.values()) == 1
    alpha = verbs["tiny-alpha-0-pretrain"]
    assert (alpha[1], alpha[alpha.index("--learner.cql-alpha") + 1]) == ("smoke-cql", "3")


def test_a_variant_that_acts_otherwise_shares_its_trainings_and_tries_its_own_mode(tmp_path):
    text = TINY.replace("[bc, cql]", "[bc, proposals, four]").replace("seeds: [0, 1]", "seeds: [0]")
    text = text.replace("four]", "four, few]") + "variants:\n  few: {of: iql, acting: [--candidates, 4]}\n"
    text += "  four: {of: proposals, acting: [--candidates, 4, --elites, 1]}\n"
    plan = make_plan(grid_of(tmp_path, text), tmp_path)
    stages, trained = {stage.name: stage for stage in plan.stages}, plan.cells
    of = {
        name: [cell for cell in trained if cell.method == name and cell.phase == "after"]
        for name in ("proposals", "four", "few")
    }
    assert [cell.mode for cell in of["proposals"]] == ["search", "sample"]
    assert [cell.mode for cell in of["four"]] == ["search"]
    assert [cell.mode for cell in of["few"]] == ["search"], "also of a method whose own mode is the mean"
    assert of["four"][0].run == of["proposals"][0].run
    verb = stages[of["four"][0].tried_by[4]].verb
    assert verb[verb.index("--candidates") :][:4] == ["--candidates", "4", "--elites", "1"]
    assert "--candidates" not in stages[of["proposals"][0].tried_by[4]].verb


def test_a_critic_is_trained_with_the_demonstrations_and_the_mix_of_those_that_learn_from_it(tmp_path):
    text = TINY.replace("[bc, cql]", "[bc, cql-n, awbc, old, few]").replace("seeds: [0, 1]", "seeds: [0]")
    text += "variants: {old: {of: awbc, mix: 0.9}, few: {of: awbc, num_demos: 2}}\n"
    verbs = {stage.name: stage.verb for stage in make_plan(grid_of(tmp_path, text), tmp_path).stages}

    def told(name):
        verb = verbs[f"tiny-{name}-0-finetune"]
        return [verb[verb.index(option) + 1] for option in ("--num-demos", "--mix")]

    assert told("awbc") == told("cql-n") == ["10", "0.5"]
    assert told("old") == told("old-cql-n") == ["10", "0.9"]
    assert told("few") == told("few-cql-n") == ["2", "0.5"]
    assert not {"tiny-old-cql-n-0-pretrain", "tiny-few-cql-n-0-pretrain"} & set(verbs)


def test_an_unknown_grid_names_the_presets():
    with pytest.raises(ValueError, match="unknown grid 'dek'"):
        load_grid("dek")


def test_what_methods_share_is_one_stage(tmp_path):
    grid = grid_of(tmp_path, TINY.replace("[bc, cql]", "[bc, bc-joint, cql]"))
    stages = make_plan(grid, tmp_path / "out").stages
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    verbs = [stage.verb[0] for stage in stages]
    assert verbs.count("collect") == 2  # for all methods and seeds
    assert verbs.count("pretrain") == 2 * 3
    assert verbs.count("finetune") == 2 * 2
    for i, stage in enumerate(stages):
        assert set(stage.after) <= set(names[:i]), stage.name


def test_two_data_sets_with_the_same_prior_share_its_pre_training(tmp_path):
    other = TINY[TINY.index("    prior") :].replace("kitchen: H", "kitchen: G").replace("kitchens, H", "kitchens, G")
    plan = make_plan(grid_of(tmp_path, f"{TINY}  other:\n{other}"), tmp_path / "out")
    verbs = [stage.verb[0] for stage in plan.stages]
    assert verbs.count("collect") == 3
    assert verbs.count("pretrain") == 2 * 2
    assert verbs.count("finetune") == 2 * 2 * 2


def test_other_settings_are_other_runs(tmp_path):
    one = make_plan(grid_of(tmp_path, TINY), tmp_path / "out")
    two = make_plan(grid_of(tmp_path, TINY.replace("finetune: 4", "finetune: 6")), tmp_path / "out")
    (pretrained, tuned), (same, other) = (
        [{stage.makes for stage in plan.stages if stage.verb[0] == verb} for verb in ("pretrain", "finetune")]
        for plan in (one, two)
    )
    assert same == pretrained
    assert not other & tuned


def test_what_fine_tuning_begins_with_is_tried_once_for_before_and_as_a_candidate(tmp_path):
    plan = make_plan(grid_of(tmp_path, TINY), tmp_path / "out")
    for before, after in zip(plan.cells[::2], plan.cells[1::2], strict=True):
        assert (before.phase, after.phase, before.run, before.mode) == ("before", "after", after.run, after.mode)
        assert list(after.trials) == [0, 2, 4]
        assert before.trials == {0: after.trials[0]}
        assert (before.last_step, after.last_step) == (0, 4)
        assert after.trained_by[:-1] == before.trained_by


def test_without_a_target_pre_training_is_all(tmp_path):
    text = TINY.replace("    target: [--kitchens, H, --episodes, 4]\n", "").replace("[bc, cql]", "[bc, bc-target]")
    text = text.replace("[bc, bc-target]", "[bc, bc-target, old, few]")
    text += "variants: {old: {of: bc, mix: 0.9}, few: {of: bc, num_demos: 2}}\n"
    plan = make_plan(grid_of(tmp_path, text), tmp_path / "out")
    assert {(cell.phase, cell.method) for cell in plan.cells} == {("after", "bc")}
    assert plan.left_out == [f"{name} on tiny: the data set has no target" for name in ("bc-target", "old", "few")]
