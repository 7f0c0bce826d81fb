"""README.md says what is in the repository: tables from committed rows, verbs that exist, files that are there."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_equal_the_committed_rows():
    from benchmarks.tables import PAGES, render

    assert "<!-- table: step -->" in README
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert render(text) == text, f"{page.name}: run python -m benchmarks.tables"


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

    named = set(re.findall(r"ptr-fast ([a-z][a-z-]+)", README))
    assert named <= set(VERBS), named - set(VERBS)
    assert set(VERBS) <= named, set(VERBS) - named


def test_paths_that_are_named_exist():
    for name in re.findall(r"`((?:csrc|ptr_fast|python|benchmarks|tests)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
