import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ptr_robot.report.plots import Mark, Series, interval_bar, legend, line_chart, nice_ticks, thin_out


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        pytest.param(0, 10, [0, 5, 10], id="whole"),
        pytest.param(-25, 10, [-20, -10, 0, 10], id="across zero"),
        pytest.param(0.011, 0.019, [0.012, 0.014, 0.016, 0.018], id="small"),
        pytest.param(0, 160_000, [0, 50_000, 100_000, 150_000], id="large"),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_ticks_refuse_an_empty_range():
    with pytest.raises(ValueError, match="finite low < high"):
        nice_ticks(1, 1)


def test_thinning_keeps_spikes_and_ends():
    y = np.sin(np.arange(10_000) / 500)
    y[1234], y[5678] = 50.0, -50.0
    x, kept = thin_out(np.arange(10_000), y, max_points=100)
    assert len(x) <= 100
    assert {0, 1234, 5678, 9999} <= set(x.tolist())
    assert kept.max() == 50.0
    assert kept.min() == -50.0
    same = np.arange(5.0)
    assert thin_out(same, same)[0] is same


def points(svg):
    return [[tuple(map(float, p.split(","))) for p in line.split()] for line in re.findall(r'points="([^"]+)"', svg)]


def test_values_whose_differences_overflow_are_gaps():
    y = [0.0, 1.0, 1e308, -1e308, 2.0, 3.0]
    line, rest = points(line_chart([Series(label="a", x=range(6), y=y)], title="t"))
    assert (len(line), len(rest)) == (2, 2)


def test_lines_are_where_the_numbers_are():
    svg = line_chart([Series(label="a", x=[0, 10], y=[0.0, 1.0])], title="t", width=200, height=100)
    ((left, bottom), (right, top)) = points(svg)[0]
    assert left < right
    assert bottom > top  # SVG counts downwards
    assert (0 < left < 60, 150 < right < 200, 0 < top < 30, 60 < bottom < 100) == (True,) * 4


def test_gaps_where_values_are_not_finite():
    y = [0.0, 1.0, math.nan, 3.0, math.inf, 1.0, 2.0]
    svg = line_chart([Series(label="a", x=np.arange(7), y=y)], title="t")
    assert [len(line) for line in points(svg)] == [2, 2]
    assert svg.count("<circle") == 1  # the lonely point


@pytest.mark.parametrize("y", [[], [math.nan, math.nan], [2.0], [2.0, 2.0]])
def test_degenerate_series_still_draw(y):
    svg = line_chart([Series(label="a", x=np.arange(len(y)), y=y)], title="t", zero_line=True)
    ElementTree.fromstring(svg)
    assert ("no data" in svg) == (not np.isfinite(y).any())


def test_texts_are_escaped_and_svg_is_well_formed():
    nasty = "<b>&\"'"
    mark = Mark(x=1, text="1", tooltip=nasty)
    series = Series(label=nasty, x=[0, 1, 2], y=[0.0, 1.0, 0.5])
    for svg in (
        line_chart([series], title=nasty, x_label=nasty, marks=[mark]),
        interval_bar(0.5, 0.3, 0.7, label=nasty),
    ):
        ElementTree.fromstring(svg)
        assert "<b>" not in svg


def test_interval_bar_spans_the_interval():
    svg = interval_bar(0.5, 0.25, 0.75, label="x", width=212)
    assert 'x="56.0"' in svg
    assert 'width="100.0"' in svg
    assert 'cx="106.0"' in svg


def test_tags_stand_at_the_ends_of_their_lines_and_not_on_each_other():
    ends = [0.5, 0.51, 0.5, 1.0]
    lines = [Series(label=f"run {i}", x=[0, 1, 2], y=[0.0, y, math.nan], tag=str(i)) for i, y in enumerate(ends)]
    lines += [Series(label="none", x=[0, 2], y=[0.0, 0.2]), Series(label="empty", x=[0], y=[math.nan], tag="9")]
    tree = ElementTree.fromstring(line_chart(lines, title="t", height=150))
    placed = {text.text: float(text.get("y")) for text in tree.iter() if text.get("class") == "end"}
    assert set(placed) == {"0", "1", "2", "3"}
    heights = sorted(placed.values())
    assert min(np.diff(heights)) >= 10
    assert heights[0] == placed["3"]
    assert heights[0] > 0
    assert heights[-1] < 150


def test_many_tags_stay_inside_the_chart():
    lines = [Series(label=f"run {i}", x=[0, 1], y=[0.0, -1.0 + i / 99], tag=str(i)) for i in range(11)]
    tree = ElementTree.fromstring(line_chart(lines, title="t", height=150))
    heights = [float(text.get("y")) for text in tree.iter() if text.get("class") == "end"]
    assert len(heights) == 11
    assert max(heights) <= 150 - 24
    assert min(heights) > 0


def test_a_legend_shows_colour_dash_and_tag():
    html = legend([("<one>", 0, 0, "1"), ("two", -1, 5, "")])
    assert '<span class="key c0 d0"></span><b>1</b> &lt;one&gt;' in html
    assert '<span class="key plain d1"></span>two' in html
