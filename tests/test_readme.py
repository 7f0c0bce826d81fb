"""README.md and docs/ say what is in the repository: committed rows, verbs that exist, files that are there."""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
OURS = "CQL with cloned proposals (ours)"
FOLDERS = "csrc|ptr_fast|python|benchmarks|tests|docs|examples"


def test_tables_equal_the_committed_rows():
    from benchmarks.tables import PAGES, render

    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    assert "<!-- table: demo -->" in texts["README.md"]
    assert "<!-- table: step -->" in texts["benchmarks.md"]
    for name, text in texts.items():
        assert render(text) == text, f"{name}: run python -m benchmarks.tables"


def test_the_numbers_of_the_front_page_are_committed_rows():
    from benchmarks.comparison import comparison_table
    from benchmarks.harness import RESULTS
    from benchmarks.tables import newest

    header, _, *lines = comparison_table("compare_deck")
    on_cpu, cells = (
        [dict(zip(header, line, strict=True)) for line in lines if line[header.index("on")] == processor]
        for processor in ("AVX2", "NVIDIA H200")
    )
    best, bc, ours = {}, {}, {}
    for data in ("pair", "unseen", "door"):
        ours[data], others = _ours_and_others(cells, data)
        best[data] = max(others, key=_successes)
        bc[data] = next(cell for cell in others if cell["method"] == "BC")
    assert len({cell["method"] for cell in cells if cell["data"] == "pair"} - {OURS, "Mixture clone"}) == 11
    text = re.sub(r"\n *", " ", README)
    ours_there, others_there = _ours_and_others(on_cpu, "pair")
    best_there = max(others_there, key=_successes)
    assert f"**{_successes(ours_there)} of 150** trials succeed" in text
    assert f"(grid `deck`, AVX2; 95 % interval over three training seeds: {ours_there['95 % over seeds']} %)" in text
    assert (best_there["method"], len(others_there)) == ("Autoregressive BC", 4)
    assert f"autoregressive BC, has {_told(best_there)}." in text
    assert f"single best proposal: ours {_told(ours['pair'])}, the best {_told(best['pair'])}, BC's mean" in text
    assert f"BC's mean {_successes(bc['pair'])}." in text
    assert f"(ours {_successes(ours['unseen'])}, the best {_successes(best['unseen'])})" in text
    header, _, *lines = comparison_table("compare_longer")
    longer = [dict(zip(header, line, strict=True)) for line in lines]
    assert {cell["on"] for cell in longer} == {"AVX2"}
    sooner = {}
    assert "all five imitation methods that were fine-tuned so (BC, mixture, autoregressive BC, BeT, flow BC" in text
    for data in ("pair", "unseen", "door"):
        searching, others = _ours_and_others(longer, data)
        columns = {cell["method"] for cell in others}
        assert columns == {"BC", "Mixture clone", "Autoregressive BC", "BeT", "Flow BC, chunks"}
        clone = min(others, key=_decisions)
        if _bounds(searching)[1] < min(_bounds(cell)[0] for cell in others):
            sooner[data] = [_decisions(cell) for cell in (searching, clone)]
    numbers = [number for data in ("pair", "unseen", "door") for number in sooner[data]]
    told = "each of the targets: {} against the {} of the soonest column, {} against {}, and {} against {}."
    assert told.format(*numbers) in text
    assert best["door"] == bc["door"]
    decisions = {name: _decisions(cell) for name, cell in (("ours", ours["door"]), ("bc", bc["door"]))}
    assert f"often ({_successes(bc['door'])}, ours {_successes(ours['door'])})" in text
    assert f"sooner ({decisions['ours']} decisions, BC {decisions['bc']}, a failure counting as 60)" in text
    rows = [json.loads(line) for line in (RESULTS / "gpu_step.jsonl").read_text(encoding="utf-8").splitlines()]
    *earlier, gpu = [row["speedup"] for row in rows if row["case"] == "resnet34 128x128 batch 64, eager"]
    assert gpu == newest("gpu_step")[0]["speedup"]
    assert "({:.2f} and {:.2f} in earlier runs)".format(*(row["literal_port_tf32"] for row in earlier)) in text
    assert f"in eager PyTorch, {gpu['plain_tf32']:.2f} in TF32" in text
    assert f"**{gpu['literal_port_tf32']:.2f} times**" in README
    assert f"{gpu['plain']:.2f} times as fast as the same algebra" in README
    cpu = [row["speedup"] for row in newest("step") if row["environment"]["torch_isa"] == "AVX512"]
    ports = [row["literal_port"] for row in cpu]
    assert f"{min(ports):.1f} to {max(ports):.1f} times as fast as the port" in text
    assert sum(row["compiled"] < 1.06 for row in cpu) == 2  # for ResNets "within 6 %"


def test_what_critics_know_is_told_rightly():
    from benchmarks.tables import newest
    from ptr_robot.training.familiarity import MAX_DROP

    drops = {row["case"]: row["lower by"] for row in newest("familiarity") if row["case"].startswith("longer, ")}
    new = [drop for case, drop in drops.items() if "mushroom" in case]
    known = [drop for case, drop in drops.items() if "mushroom" not in case]
    assert max(known) <= MAX_DROP < min(new)
    readme, page = (re.sub(r"\n *", " ", text) for text in (README, PAGES["compare.md"]))
    assert f"The bound parts all {len(drops)} critics here" in readme
    lower = f"lower by {min(new):.2f} to {max(new):.2f} for the mushroom and by at most {max(known):.3f} for the block"
    assert f"Of the {len(drops)} critics of `longer` the correlation is {lower}" in page


def _ours_and_others(cells, data):
    """On a data set: ours by search, and all other methods that have at least three seeds; no variants of ours."""
    there = [cell for cell in cells if cell["data"] == data and not cell["method"].startswith("proposals-")]
    ours = next(cell for cell in there if cell["method"] == OURS and cell["acts by"] == "search")
    return ours, [cell for cell in there if cell["method"] != OURS and cell["each seed"].count(",") >= 2]


def _told(cell):
    return f"{_successes(cell)} ({cell['95 % over seeds']} %)"


def _decisions(cell):
    return int(cell["decisions"].split()[0])


def _bounds(cell):
    """Of the decisions."""
    return _low_high(cell["decisions"].partition("(")[2])


def _low_high(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def _successes(cell):
    return int(cell["selected"].split("/")[0])


def test_readme_is_a_front_page():
    assert len(README.splitlines()) <= 150


def test_rows_of_another_processor_stand_beside_those_of_the_first(tmp_path, monkeypatch):
    from benchmarks import tables

    def row(torch_isa, native_isa, ms, **more):
        environment = {"torch_isa": torch_isa, "native_isa": native_isa, **more}
        variants = {"ours": {"median_ms": ms}, "theirs": {"median_ms": 2 * ms}}
        return {"case": "one", "variants": variants, "speedup": {"theirs": 2}, "load_average": [0, 0]} | {
            "environment": environment
        }

    rows = [row("AVX512", "avx512", 1), row("AVX2", "avx2", 2), row("AVX2", "baseline", 3), row("AVX2", "avx2", 4)]
    rows.append(row("AVX2", "avx2", 5, gpu="H100"))
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    cells = [line.split(" | ")[1:3] for line in tables.table("some").splitlines()[2:]]
    assert cells == [["AVX512", "1"], ["AVX2", "4"], ["AVX2, ours baseline", "3"], ["H100", "5"]]


def test_every_verb_that_is_named_exists_and_every_verb_is_named():
    from ptr_robot.cli import VERBS

    for page, text in PAGES.items():
        named = set(re.findall(r"(?:`|^)ptr-fast ([a-z][a-z-]+)", text, re.M))
        assert named <= set(VERBS), f"{page}: {named - set(VERBS)}"
    named = set(re.findall(r"`ptr-fast ([a-z][a-z-]+)`", PAGES["index.md"]))
    assert set(VERBS) == named, f"docs/index.md tells every verb in one line: {set(VERBS) ^ named}"


def test_paths_that_are_named_exist():
    for page, text in PAGES.items():
        for name in re.findall(rf"`((?:{FOLDERS})/[\w/.]+)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"


def test_links_lead_to_files_and_every_page_is_in_the_contents():
    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http", "#")):
                assert (folder / target.partition("#")[0]).is_file(), f"{page}: {target}"
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/]+\.md$", yaml.safe_dump(yaml.safe_load(contents)["nav"]), re.M))
    assert listed == set(PAGES) - {"README.md"}
