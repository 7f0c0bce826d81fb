"""Comparisons in short, from committed rows: the published table beside ours, all data from states, three targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import interval_in_percent, published_rows
from benchmarks.harness import RESULTS, ran_on
from ptr_robot.comparison.presets import PRESETS
from ptr_robot.comparison.published import ALL_TASKS, COLUMNS, RERUN, TASKS
from ptr_robot.comparison.summary import Place, Summary, difference_to, summarize
from ptr_robot.comparison.tables import own_place, title_of

__all__ = ["CLAIMS", "Claim", "beside_published", "claims", "from_states", "three_targets"]

THREE_TARGETS = {"pair": "known pair", "unseen": "unseen pair", "door": "door"}
RULES = ("selected", "last")
TODAY = ("mixture", "flow")
"""Columns of :func:`beside_published` that the published table has not."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that rows of one grid and acting mode speak of.

    Attributes:
        found: (data set, method) by what it is called there.
    """

    claim: str
    grid: str
    found: Mapping[str, tuple[str, str]]
    mode: str = "search"


def _on(data: str, methods: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {told: (data, method) for told, method in methods.items()}


def _of_states(claim: str, methods: Mapping[str, str]) -> Claim:
    return Claim(claim=claim, grid="claims", found=_on("D2-long", methods))


def _of_pixels(claim: str, methods: Mapping[str, str]) -> Claim:
    return Claim(claim=claim, grid="claims-pixels", found=_on("pair", methods))


def _of_failures(claim: str, method: str, mode: str = "mean") -> Claim:
    found = {f"{percent} %": (f"failures-{percent}", method) for percent in (0, 50, 75)}
    return Claim(claim=claim, grid="failures", mode=mode, found=found)


CLAIMS = (
    _of_states(
        "rewards of -1, and +10 at the end",
        {"as claimed": "proposals", "0 and 1": "rewards-0-and-1", "-1 and 0": "rewards-minus-1-and-0"},
    ),
    _of_pixels(
        "a learned spatial embedding",
        {"as claimed": "proposals", "mean": "mean-pooling", "spatial softmax": "spatial-softmax"},
    ),
    _of_pixels(
        "the action in every layer of the critic",
        {"as claimed": "proposals", "in the first alone": "action-in-first-layer"},
    ),
    _of_pixels("group norms", {"as claimed": "proposals", "without": "no-group-norm"}),
    _of_pixels(
        "larger encoders are better",
        {"three convolutions": "proposals", "small ResNet": "resnet-small", "ResNet 18": "resnet18"},
    ),
    Claim(
        claim="pre-train, then fine-tune, and not both at once: CQL",
        grid="deck",
        found=_on("pair", {"as claimed": "cql", "joint": "cog"}),
    ),
    Claim(claim="the same: BC", grid="deck", mode="mean", found=_on("pair", {"as claimed": "bc", "joint": "bc-joint"})),
    _of_states(
        "the same: ours",
        {"as claimed": "proposals", "joint": "proposals-joint", "the target alone": "proposals-target"},
    ),
    _of_states(
        "ours, not published: five-step targets, bound by the return",
        {"as we do": "proposals", "one step and no bound": "one-step-unbounded"},
    ),
    _of_states(
        "ours, not published: cql_alpha 1",
        {"as we do": "proposals", "0": "alpha-0", "10, as published": "alpha-10"},
    ),
    _of_states(
        "ours, not published: discount 0.98",
        {"as we do": "proposals", "0.96, as published": "discount-96"},
    ),
    _of_states(
        "few demonstrations are enough",
        {
            **{"1 of them": "demos-1", "5 of them": "demos-5", "10 of them": "proposals"},
            **{"20 of them": "demos-20", "50 of them": "demos-50"},
        },
    ),
    _of_failures("the share of failures among the prior episodes", "proposals", "search"),
    _of_failures("the same: BC", "bc"),
    _of_failures("the same: BC on successes", "bc-success"),
    Claim(
        claim="BC weighted by the advantages of a critic is better than BC",
        grid="states",
        mode="mean",
        found=_on("D2", {"as claimed": "awbc", "BC": "bc", "BC on successes": "bc-success"}),
    ),
)
"""In the order of the table :func:`claims`."""


def _processor_of_most(rows: Sequence[Mapping[str, Any]]) -> str:
    return Counter(map(ran_on, rows)).most_common(1)[0][0] if rows else ""


def claims(results: Path | None = None) -> list[list[str]]:
    """What came of published claims, the header first: successes of the checkpoint that is picked and of the last one,
    on the processor of most rows. Empty without rows."""
    grids = {}
    for grid in {each.grid for each in CLAIMS}:
        rows = published_rows(results or RESULTS, f"compare_{grid}")
        most = _processor_of_most(rows)
        grids[grid] = summarize([row for row in rows if ran_on(row) == most])
    lines = []
    for each in CLAIMS:
        found, seeds = [], set()
        for told, (data, method) in each.found.items():
            picked, last = (grids[each.grid].get(Place(data, method, "after", rule, each.mode)) for rule in RULES)
            if picked is not None and last is not None:
                found.append(f"{told}: {picked.rate.successes}, {last.rate.successes} of {picked.rate.num_trials}")
                seeds.add(len(picked.rows))
        if found:
            data = sorted({data for data, _ in each.found.values()})
            where = f"`{each.grid}`" + (f", {data[0]}" if len(data) == 1 else "")
            lines.append([each.claim, where, "; ".join(found), " to ".join(map(str, sorted(seeds)))])
    return [["claim", "grid, data", "picked, last", "seeds"], ["---"] * 3 + ["---:"], *lines] if lines else []


def beside_published(results: Path | None = None) -> list[list[str]]:
    """The published table in its layout, the header first, and below it the grids ``deck`` and ``longer``: successes of
    trials by each method's own way of acting and the checkpoint that is picked without a trial.

    Seeds that the processor of most rows lacks are those of another one; a star marks such cells. Empty without rows.
    """
    methods = ["proposals", *COLUMNS, *TODAY]
    lines = [[task, "", *_counts(wins, trials)] for task, trials, wins in TASKS]
    task, trials, wins = ALL_TASKS
    lines.append([f"**{task}**", "", *_counts(wins, trials)])
    again, successes, trials = RERUN
    lines.append([again, "", f"{successes}/{trials}", *[""] * (len(methods) - 2)])
    grids = {grid: published_rows(results or RESULTS, f"compare_{grid}") for grid in ("deck", "longer")}
    for grid, rows in grids.items():
        most = _processor_of_most(rows)
        places = summarize(sorted(rows, key=lambda row: ran_on(row) == most))
        for data, target in THREE_TARGETS.items():
            found = [own_place(places, data, method) for method in methods]
            if any(found):
                lines.append([f"{target}, `{grid}`", *("" if s is None else _starred(s) for s in found)])
    header = ["successes of trials", "ours", *COLUMNS.values(), *map(title_of, TODAY)]
    return [header, ["---", *["---:"] * len(methods)], *lines] if any(grids.values()) else []


def _counts(successes: Sequence[int], trials: int) -> list[str]:
    return [*(f"{number}/{trials}" for number in successes), *[""] * len(TODAY)]


def _starred(summary: Summary) -> str:
    rate = summary.rate
    return f"{rate.successes}/{rate.num_trials}" + "*" * (len({ran_on(row) for row in summary.rows}) > 1)


def from_states(results: Path | None = None) -> list[list[str]]:
    """The grid ``states``, the header first: successes of trials per data set, method and way of acting, by the
    checkpoint that is picked without a trial; bold is the most of a data set. Empty without rows."""
    rows = published_rows(results or RESULTS, "compare_states")
    places = {
        (place.method, place.mode, place.data): summary.rate
        for place, summary in summarize(rows).items()
        if (place.phase, place.checkpoint) == ("after", "selected")
    }
    there = {name for _, _, name in places}
    data = [name for name in PRESETS["states"][1]["data"] if name in there]
    most = {name: max(rate.rate for (*_, d), rate in places.items() if d == name) for name in data}
    lines = []
    for method, mode in dict.fromkeys((method, mode) for method, mode, _ in places):
        rates = [places.get((method, mode, name)) for name in data]
        told = ["" if r is None else f"{r.successes}/{r.num_trials}" for r in rates]
        bold = [r is not None and r.rate == most[name] for r, name in zip(rates, data, strict=True)]
        lines.append([title_of(method), mode, *(f"**{t}**" if b else t for t, b in zip(told, bold, strict=True))])
    return [["method", "acts by", *data], ["---"] * 2 + ["---:"] * len(data), *lines] if lines else []


def three_targets(results: Path | None = None) -> list[list[str]]:
    """The grid ``longer`` in short, the header first: per target and rule of choice ours before any demonstration and
    after them, and the best imitation column, on the first row's kind of processor. Bold is ours where its interval
    over seeds lies above those of all imitation columns; a plus tells that it is ahead of each of them on the same
    starts. Empty without rows.
    """
    rows = published_rows(results or RESULTS, "compare_longer")
    places = summarize([row for row in rows if ran_on(row) == ran_on(rows[0])])
    lines = []
    for data, target in THREE_TARGETS.items():
        for rule, told in zip(RULES, ("picked", "last"), strict=True):
            there = {p.method: s for p, s in places.items() if (p.data, p.phase, p.checkpoint) == (data, "after", rule)}
            clones = {method: s for method, s in there.items() if not method.startswith("proposals")}
            ours, before = (
                places.get(Place(data, "proposals", phase, of, "search"))
                for phase, of in (("after", rule), ("before", "last"))
            )
            if not clones or ours is None:
                continue
            best = max(clones, key=lambda method: clones[method].rate.rate)
            bound = max(_percent(summary)[1] for summary in clones.values())
            cell = _successes(ours, is_apart=_percent(ours)[0] > bound, is_ahead=_is_ahead(ours, clones))
            first = "" if before is None else _successes(before)
            lines.append([target, told, first, cell, f"{title_of(best)} {_successes(clones[best])}"])
    header = ["target", "checkpoint", "ours, before", "ours", "best imitation column"]
    return [header, ["---", "---", *["---:"] * (len(header) - 2)], *lines] if lines else []


def _successes(summary: Summary, is_apart: bool = False, is_ahead: bool = False) -> str:
    rate, mark = summary.rate, "**" if is_apart else ""
    return f"{mark}{rate.successes}/{rate.num_trials}{mark} ({interval_in_percent(rate.interval)} %)" + " +" * is_ahead


def _is_ahead(summary: Summary, others: Mapping[str, Summary]) -> bool:
    """Whether it succeeds more on the same seeds and starts, by the 95 % over seeds of each paired difference."""
    found = [difference_to(other, summary) for other in others.values()]
    return all(each is not None and round(100 * each[1][0]) > 0 for each in found)


def _percent(summary: Summary) -> tuple[int, int]:
    """The interval over seeds as it is printed: what is called apart shall look apart."""
    low, high = summary.rate.interval
    return round(100 * low), round(100 * high)
