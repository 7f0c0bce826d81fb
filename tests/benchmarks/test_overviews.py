"""Tables in short: what they take from rows, and what they mark."""

from comparison_rows import row

from benchmarks.overviews import CLAIMS, beside_published, claims, from_states, three_targets
from ptr_robot.comparison.presets import PRESETS
from ptr_robot.comparison.rows import write_rows


def test_the_published_table_stands_above_ours_and_tells_of_other_processors(tmp_path):
    rows = [
        *(row("bc", seed, "1100") | {"data": "door"} for seed in (0, 1)),
        row("bc", 0, "1111", isa="AVX512") | {"data": "door"},  # the same seed again, on a rarer processor
        *(row("bc-target", seed, "1000") | {"data": "door"} for seed in (0, 1)),
        row("bc-target", 2, "1110", isa="AVX512") | {"data": "door"},
        row("proposals", 0, "0110") | {"data": "door", "mode": "search"},
    ]
    write_rows(rows, tmp_path / "compare_deck.jsonl")
    header, _, *lines = beside_published(tmp_path)
    cells = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert cells["sweet potato on plate"]["PTR"] == "7/20"
    assert cells["**all four**"]["PTR"] == "23/50"
    assert cells["**all four**"]["MAE"] == "4/50"
    assert cells["PTR, re-run by V-PTR"]["PTR"] == "5/48"
    door = cells["door, `deck`"]
    assert (door["ours"], door["BC, fine-tuned"], door["BC, target alone"]) == ("2/4", "4/8", "5/12*")
    assert door["MAE"] == ""
    assert list(cells)[-1] == "door, `deck`", "no other data, and no longer"
    assert beside_published(tmp_path / "nowhere") == []


def test_the_most_successes_on_data_from_states_are_bold(tmp_path):
    rows = [row("bc", 0, "1100"), row("cql", 0, "1110"), row("cql", 0, "1111", "oracle"), row("bc", 1, "1100")]
    rows += [row("bc", 0, "1111") | {"data": "D1"}, row("proposals", 0, "1110") | {"data": "D2", "mode": "search"}]
    write_rows(rows, tmp_path / "compare_states.jsonl")
    assert from_states(tmp_path) == [
        ["method", "acts by", "D1", "D2"],
        ["---", "---", "---:", "---:"],
        ["BC", "mean", "**4/4**", "4/8"],
        ["PTR (CQL as published)", "mean", "", "**3/4**"],
        ["CQL with cloned proposals (ours)", "search", "", "**3/4**"],
    ]
    assert from_states(tmp_path / "nowhere") == []


def test_claims_name_what_their_grids_have_and_tell_what_came(tmp_path):
    for claim in CLAIMS:
        methods, data = (PRESETS[claim.grid][1][name] for name in ("methods", "data"))
        assert {method for _, method in claim.found.values()} <= set(methods), claim.claim
        assert {name for name, _ in claim.found.values()} <= set(data), claim.claim

    of = [{"data": "pair", "mode": "search"}, {"data": "pair", "mode": "search", "checkpoint": "last"}]
    rows = [row("cql", seed, "1100") | each for each in of for seed in (0, 1)] + [row("cog", 0, "1110") | of[0]]
    write_rows([*rows, row("cog", 0, "1000") | of[1]], tmp_path / "compare_deck.jsonl")
    told = ["pre-train, then fine-tune, and not both at once: CQL", "`deck`, pair"]
    assert claims(tmp_path)[2:] == [[*told, "as claimed: 4, 4 of 8; joint: 3, 1 of 4", "1 to 2"]]
    assert claims(tmp_path / "nowhere") == []


def test_the_three_targets_are_bold_where_ours_is_above_every_imitation_column(tmp_path):
    def of(method, outcomes, rule="selected", mode="search", data="door"):
        return [row(method, seed, outcomes, rule) | {"mode": mode, "data": data} for seed in (0, 1)]

    clones = [*of("bc", "1" * 10 + "0" * 40), *of("ar-bc", "1" * 30 + "0" * 20, mode="sample")]
    rows = [
        *clones,
        *of("proposals", "1" * 50),
        *of("proposals", "0" * 50, mode="sample"),
        *of("proposals-critic-90", "0" * 50),
        *of("proposals", "1" * 20 + "0" * 30, "last"),
        *of("bc", "0" * 50, "last"),
        *(each | {"phase": "before"} for each in of("proposals", "1" * 50, "last")),
        *of("proposals", "1" * 50, data="unseen"),
        *(each | {"data": "pair"} for each in clones),
        *of("proposals", "1" * 32 + "0" * 18, data="pair"),
    ]
    write_rows(rows, tmp_path / "compare_longer.jsonl")
    header, _, *lines = three_targets(tmp_path)
    cells = {(line[0], line[1]): dict(zip(header, line, strict=True)) for line in lines}
    assert list(cells) == [("known pair", "picked"), ("door", "picked"), ("door", "last")], "no clone on the third"
    pair, picked, last = cells.values()
    assert picked["ours, before"] == last["ours, before"] == "100/100 (96 to 100 %)"
    assert pair["ours, before"] == ""
    assert picked["ours"] == "**100/100** (96 to 100 %) +"
    assert picked["best imitation column"].startswith("Autoregressive BC 60/100")
    assert last["ours"].startswith("**40/100** (")
    assert last["best imitation column"] == "BC 0/100 (0 to 4 %)"
    assert pair["ours"].startswith("64/100 ("), "more than the best column, and not apart from it"
    assert pair["ours"].endswith(" %) +"), "not apart, and ahead wherever the same starts differ"
    assert three_targets(tmp_path / "nowhere") == []

    behind = of("proposals", "0" * 19 + "1" * 31, data="pair")  # more, but on some starts it is behind
    write_rows([*rows, *behind], tmp_path / "compare_longer.jsonl")
    told = three_targets(tmp_path)[2][header.index("ours")]
    assert told.startswith("62/100 (")
    assert told.endswith(" %)")
