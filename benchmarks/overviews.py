"""Comparisons in short, from committed rows: the published table beside ours, all data from states, three targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison import interval_in_percent, published_rows
from benchmarks.harness import RESULTS, ran_on
from ptr_robot.comparison.presets import PRESETS
from ptr_robot.comparison.published import COLUMNS, RERUN, TASKS
from ptr_robot.comparison.summary import Place, Summary, difference_to, summarize
from ptr_robot.comparison.tables import own_place, title_of

__all__ = ["CLAIMS", "Claim", "beside_published", "claims", "from_states", "three_targets"]

THREE_TARGETS = {"pair": "known pair", "unseen": "unseen pair", "door": "door"}
RULES = ("selected", "last")
TODAY = {"mixture": "Mixture clone", "flow": "Flow BC, chunks"}
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


def _on(data: str, **methods: str) -> dict[str, tuple[str, str]]:
    return {told.replace("_", " "): (data, method) for told, method in methods.items()}


def _demonstrations() -> dict[str, tuple[str, str]]:
    numbers = {1: "demos-1", 5: "demos-5", 10: "proposals", 20: "demos-20", 50: "demos-50"}
    return {f"{number} of them": ("D2-long", method) for number, method in numbers.items()}


def _failures(method: str) -> dict[str, tuple[str, str]]:
    return {f"{percent} %": (f"failures-{percent}", method) for percent in (0, 50, 75)}


CLAIMS = (
    Claim(
        claim="rewards of -1, and +10 at the end",
        grid="claims",
        found=_on("D2-long", as_claimed="proposals")
        | {"0 and 1": ("D2-long", "rewards-0-and-1"), "-1 and 0": ("D2-long", "rewards-minus-1-and-0")},
    ),
    Claim(
        claim="a learned spatial embedding",
        grid="claims-pixels",
        found=_on("pair", as_claimed="proposals", mean="mean-pooling", spatial_softmax="spatial-softmax"),
    ),
    Claim(
        claim="the action in every layer of the critic",
        grid="claims-pixels",
        found=_on("pair", as_claimed="proposals", in_the_first_alone="action-in-first-layer"),
    ),
    Claim(
        claim="group norms", grid="claims-pixels", found=_on("pair", as_claimed="proposals", without="no-group-norm")
    ),
    Claim(
        claim="larger encoders are better",
        grid="claims-pixels",
        found=_on("pair", three_convolutions="proposals", small_ResNet="resnet-small", ResNet_18="resnet18"),
    ),
    Claim(
        claim="pre-train, then fine-tune, and not both at once: CQL",
        grid="deck",
        found=_on("pair", as_claimed="cql", joint="cog"),
    ),
    Claim(claim="the same: BC", grid="deck", mode="mean", found=_on("pair", as_claimed="bc", joint="bc-joint")),
    Claim(
        claim="the same: ours",
        grid="claims",
        found=_on("D2-long", as_claimed="proposals", joint="proposals-joint", the_target_alone="proposals-target"),
    ),
    Claim(
        claim="ours, not published: five-step targets, bound by the return",
        grid="claims",
        found=_on("D2-long", as_we_do="proposals", one_step_and_no_bound="one-step-unbounded"),
    ),
    Claim(
        claim="ours, not published: cql_alpha 1",
        grid="claims",
        found=_on("D2-long", as_we_do="proposals")
        | {"0": ("D2-long", "alpha-0"), "10, as published": ("D2-long", "alpha-10")},
    ),
    Claim(
        claim="ours, not published: discount 0.98",
        grid="claims",
        found=_on("D2-long", as_we_do="proposals") | {"0.96, as published": ("D2-long", "discount-96")},
    ),
    Claim(claim="few demonstrations are enough", grid="claims", found=_demonstrations()),
    Claim(claim="the share of failures among the prior episodes", grid="failures", found=_failures("proposals")),
    Claim(claim="the same: BC", grid="failures", mode="mean", found=_failures("bc")),
    Claim(claim="the same: BC on successes", grid="failures", mode="mean", found=_failures("bc-success")),
    Claim(
        claim="BC weighted by the advantages of a critic is better than BC",
        grid="states",
        mode="mean",
        found=_on("D2", as_claimed="awbc", BC="bc", BC_on_successes="bc-success"),
    ),
)
"""In the order of the table :func:`claims`."""


def claims(results: Path | None = None) -> list[list[str]]:
    """What came of published claims, the header first: successes of the checkpoint that is picked and of the last one,
    on the processor of most rows. Empty without rows."""
    lines = []
    for each in CLAIMS:
        rows = published_rows(results or RESULTS, f"compare_{each.grid}")
        most = Counter(map(ran_on, rows)).most_common(1)[0][0] if rows else ""
        places = summarize([row for row in rows if ran_on(row) == most])
        found, seeds = [], set()
        for told, (data, method) in each.found.items():
            picked, last = (places.get(Place(data, method, "after", rule, each.mode)) for rule in RULES)
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
    total = [sum(wins) for wins in zip(*(wins for _, _, wins in TASKS), strict=True)]
    lines.append(["**all four**", "", *_counts(total, sum(trials for _, trials, _ in TASKS))])
    again, successes, trials = RERUN
    lines.append([again, "", f"{successes}/{trials}", *[""] * (len(methods) - 2)])
    grids = {grid: published_rows(results or RESULTS, f"compare_{grid}") for grid in ("deck", "longer")}
    for grid, rows in grids.items():
        most = Counter(map(ran_on, rows)).most_common(1)[0][0] if rows else ""
        places = summarize(sorted(rows, key=lambda row: ran_on(row) == most))
        for data, target in THREE_TARGETS.items():
            found = [own_place(places, data, method) for method in methods]
            if any(found):
                lines.append([f"{target}, `{grid}`", *("" if s is None else _starred(s) for s in found)])
    header = ["successes of trials", "ours", *COLUMNS.values(), *TODAY.values()]
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
