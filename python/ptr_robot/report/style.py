"""The style sheet of a report: light and dark, laptop and phone, paper."""

from ptr_robot.report.plots import LEFT, NARROW, RIGHT, WIDE

__all__ = ["CSS"]

_LIGHT = """
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2126; --soft: #626b75; --rule: #e3e6e8; --accent: #0b63c5;
  --good: #0a7d4f; --warn: #a15c00; --warn-back: #fff6e5; --picked: #e9f2fd;
  --c0: #0b63c5; --c1: #d35f00; --c2: #0a8a5b; --c3: #b3307e; --c4: #7251c9; --c5: #0d8f9e; --c6: #7d7a10;
  --c7: #6b7680;
"""
_DARK = """
  --paper: #131619; --card: #1a1e22; --ink: #e7eaed; --soft: #9aa5af; --rule: #2e353b; --accent: #6cb0ff;
  --good: #4fd39b; --warn: #f2b35e; --warn-back: #33260f; --picked: #16283c;
  --c0: #6cb0ff; --c1: #ff9a4d; --c2: #4fd39b; --c3: #f27cc0; --c4: #b49bff; --c5: #52d3e2; --c6: #cfcb55;
  --c7: #a7b2bd;
"""
_COLOURS = "\n".join(
    f".c{i} {{ stroke: var(--c{i}); }} .dot.c{i} {{ fill: var(--c{i}); stroke: none; }} "
    f".key.c{i} {{ border-color: var(--c{i}); --key: var(--c{i}); }}"
    for i in range(8)
)

CSS = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
@media print {{ :root {{ {_LIGHT} }} details > *:not(summary) {{ display: none; }} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1160px; margin: 0 auto; padding: 2.2rem 1.25rem 4rem; }}
h1 {{ font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.015em; text-wrap: balance; }}
h2 {{ font-size: 1.25rem; margin: 2.8rem 0 .4rem; letter-spacing: -.01em; }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 .4rem; overflow-wrap: anywhere; }}
p {{ margin: .3rem 0 .8rem; max-width: 46rem; }}
a {{ color: var(--accent); }} .whole {{ white-space: nowrap; }}
.scroll + p, .scroll + .grid, .scroll + .scroll {{ margin-top: .9rem; }}
.soft, figcaption, caption {{ color: var(--soft); font-size: .875rem; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .7rem; margin: 1.2rem 0; }}
.tile {{ background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .7rem .9rem; }}
.tile b {{ display: block; font-size: 1.35rem; font-weight: 620; letter-spacing: -.01em; line-height: 1.25;
  overflow-wrap: anywhere; }}
.tile span {{ color: var(--soft); font-size: .84rem; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; border: 1px solid var(--rule); border-radius: 10px; background: var(--card); }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding: .6rem .8rem 0; }}
th, td {{ text-align: left; padding: .42rem .8rem; border-bottom: 1px solid var(--rule); vertical-align: middle; }}
thead th {{ color: var(--soft); font-weight: 550; font-size: .8rem; vertical-align: bottom; }}
tbody th {{ font-weight: 550; }}
tbody tr:last-child > * {{ border-bottom: 0; }}
.num {{ text-align: right; white-space: nowrap; }}
.dense th, .dense td {{ padding: .38rem .5rem; }}
.dense thead th {{ white-space: normal; font-size: .74rem; line-height: 1.25; }}
.dense tbody th {{ position: sticky; left: 0; background: var(--card); white-space: nowrap; }}
tr.picked > *, .dense tr.picked > th {{ background: var(--picked); }}
tr.out > * {{ color: var(--soft); }}
.tag {{ display: inline-block; font-size: .72rem; font-weight: 600; padding: .06rem .45rem; border-radius: 99px;
  background: var(--accent); color: var(--card); white-space: nowrap; }}
tr.out .tag {{ background: none; color: var(--warn); border: 1px solid var(--warn); }}
.note {{ background: var(--warn-back); color: var(--warn); border-radius: 8px; padding: .5rem .8rem; font-size: .9rem;
  max-width: none; overflow-wrap: anywhere; }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(255px, 1fr)); gap: .8rem; margin: .8rem 0; }}
.grid.pair {{ grid-template-columns: repeat(auto-fill, minmax(225px, 1fr)); }}
figure {{ display: flex; flex-direction: column; margin: 0 0 .9rem; background: var(--card);
  border: 1px solid var(--rule); border-radius: 10px;
  padding: .65rem .7rem .4rem; min-width: 0; }}
figure h4 {{ margin: 0 0 .1rem; font-size: .88rem; font-weight: 600; }}
figure .unit {{ color: var(--soft); font-weight: 400; }}
.legend {{ display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .1rem 0 .3rem; color: var(--soft);
  font-size: .8rem; }}
.key {{ display: inline-block; width: 1.3rem; border-top: 2.5px solid; margin: 0 .35rem .2rem 0;
  vertical-align: middle; }}
.key.d1 {{ border-top-style: dashed; }} .key.d2 {{ border-top-style: dotted; }}
  .key.plain {{ border-color: var(--soft); --key: var(--soft); }}
.key.d3 {{ border-top: 0; height: 2.5px; print-color-adjust: exact; background: repeating-linear-gradient(90deg,
  var(--key) 0 8px, transparent 8px 11px, var(--key) 11px 13px, transparent 13px 16px); }}
.legend b {{ color: var(--ink); }}
.grid figure {{ margin: 0; }} .grid svg {{ margin-top: auto; }}
svg {{ display: block; width: 100%; height: auto; overflow: visible; }}
svg.bar {{ min-width: 150px; max-width: 260px; }}
.line {{ fill: none; stroke-width: 1.7; stroke-linejoin: round; stroke-linecap: round; }}
.d1 {{ stroke-dasharray: 5 4; }} .d2 {{ stroke-dasharray: 1.5 3.5; }} .d3 {{ stroke-dasharray: 8 3 2 3; }}
.grid-line {{ stroke: var(--rule); }} .axis-line {{ stroke: var(--soft); opacity: .6; }}
.tick {{ fill: var(--soft); font-size: 10.5px; font-variant-numeric: tabular-nums; }}
.interval {{ fill: var(--accent); opacity: .3; }} .rate {{ fill: var(--accent); }}
.end {{ fill: var(--ink); font-size: 10.5px; font-weight: 700; paint-order: stroke; stroke: var(--card);
  stroke-width: 3px; }}
.mark line {{ stroke: var(--ink); opacity: .45; stroke-dasharray: 2 3; }} .mark circle {{ fill: var(--ink); }}
.mark text {{ fill: var(--card); font-size: 10px; font-weight: 700; }}
.narrow {{ display: none; }}
.strip {{ display: flex; gap: 2px; padding: 0 {100 * RIGHT / WIDE:.2f}% 0 {100 * LEFT / WIDE:.2f}%; }}
.strip img {{ flex: 1 1 0; min-width: 0; width: 100%; display: block; border-radius: 3px; aspect-ratio: 1;
  object-fit: cover; }}
.moments {{ display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); max-width: 640px; gap: .8rem;
  margin: .7rem 0 .4rem; }}
.moments div {{ font-size: .82rem; color: var(--soft); line-height: 1.35; }}
.moments img {{ width: 100%; display: block; border-radius: 6px; margin-bottom: .3rem; }}
.badge {{ display: inline-flex; width: 1.25rem; height: 1.25rem; border-radius: 50%; background: var(--ink);
  color: var(--card); font-size: .74rem; font-weight: 700; align-items: center; justify-content: center; }}
.moments b {{ color: var(--ink); font-weight: 600; }}
details {{ margin: .6rem 0; }} summary {{ cursor: pointer; color: var(--accent); font-size: .92rem;
  padding: .25rem 0; }}
pre {{ background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem 1rem;
  overflow-x: auto;
  font: .8rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: .3rem 0; }}
footer {{ margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .8rem; }}
@media (max-width: 640px) {{
  main {{ padding: 1.3rem .9rem 3rem; }} h1 {{ font-size: 1.5rem; }} h2 {{ margin-top: 2.2rem; }}
  .wide {{ display: none; }} .narrow {{ display: block; }} .tiles {{ grid-template-columns: 1fr 1fr; }}
  .tile b {{ font-size: 1.15rem; }} .strip {{ padding: 0 {100 * RIGHT / NARROW:.2f}% 0 {100 * LEFT / NARROW:.2f}%; }}
  .strip img:nth-child(even) {{ display: none; }}
  th, td {{ padding: .4rem .5rem; }} .roomy {{ display: none; }} svg.bar {{ min-width: 80px; }}
  table {{ font-size: .84rem; }} tbody th {{ min-width: 7rem; }} td:not(.num):not(:empty) {{ min-width: 4.5rem; }}
  .dense tbody th {{ white-space: normal; max-width: 8.5rem; }}
}}
{_COLOURS}
"""
