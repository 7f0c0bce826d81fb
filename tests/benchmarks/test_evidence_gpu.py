"""A grid on a GPU machine: what comes back from it."""

import tarfile

from benchmarks import evidence_gpu
from benchmarks.gpu import wheels
from ptr_robot import cli


def test_one_archive_comes_back_without_data_and_networks(tmp_path, monkeypatch):
    grid, back = tmp_path / "evidence", tmp_path / "back"
    back.mkdir()

    def compare(arguments):
        for name in ("rows.jsonl", "page/index.html", "trials/a.json", "runs/a/weights", "data/a/frames"):
            (grid / name).parent.mkdir(parents=True, exist_ok=True)
            (grid / name).write_text(" ".join(arguments))
        return 1  # as when stages are left

    monkeypatch.setattr(wheels, "install", lambda: None)
    monkeypatch.setattr(cli, "main", compare)
    monkeypatch.setenv("OUT", str(back))
    monkeypatch.setenv("PYTHONPATH", "")
    assert evidence_gpu.main(["compare", "deck", "--out", str(grid)]) == 1
    with tarfile.open(back / "evidence.tar.gz") as archive:
        files = {member.name for member in archive if member.isfile()}
    assert files == {"evidence/rows.jsonl", "evidence/page/index.html", "evidence/trials/a.json"}
