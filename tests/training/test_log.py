"""The shares in the log: how long a GPU works on a step and how long the loop waits for data."""

import json

import pytest
import torch

from ptr_robot.training import log as train_log
from ptr_robot.training.log import RunLog


@pytest.mark.parametrize(("busy_seconds", "expected"), [(None, None), (0.02, 0.8), (0.1, 1.0)])
def test_shares_are_of_the_time_since_the_last_report(busy_seconds, expected, tmp_path, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(train_log.time, "monotonic", lambda: now[0])
    log = RunLog(tmp_path, 0, 1000)
    for step, waited in ((40, 0.25), (80, 0.75)):
        now[0] += 1.0
        log.report(step, {"train/bc_loss": torch.tensor(2.0)}, {"actor": 3e-4}, waited, busy_seconds)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["perf/steps_per_s"] for row in rows] == [pytest.approx(40.0)] * 2
    assert [row["perf/data_wait_share"] for row in rows] == [pytest.approx(0.25), pytest.approx(0.5)]
    assert rows[1].get("perf/gpu_busy_share") == (None if expected is None else pytest.approx(expected))
    last = capsys.readouterr().out.splitlines()[-1]
    assert "data wait 50%" in last
    assert ("GPU busy" in last) == (expected is not None)


def test_a_tail_that_a_crash_left_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "time_s": 0.5}\n\xa1\xff{"st')
    RunLog(tmp_path, first_step=1, num_steps=2).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1, "time_s": 0.5}\n'
