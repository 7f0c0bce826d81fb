"""The page that follows a run, asked as a browser asks; its evaluations, made by the real program."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import warm_python
from valued_run import make_run, make_store

from ptr_robot.cli import main as cli
from ptr_robot.report.runs import read_run
from ptr_robot.watching.page import told_state
from ptr_robot.watching.server import PageServer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch")
    return make_run(folder / "run", make_store(folder / "store"))


def ask(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def test_a_watched_run_is_shown_and_its_checkpoints_are_evaluated(run):
    command = [sys.executable, "-m", "ptr_robot", "watch", str(run), "--port", "0"]
    with warm_python.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[0]
        try:
            status, _, page = ask(url)
            assert (status, '<script src="/watch.js"' in page) == (200, True)
            deadline = time.monotonic() + 120
            while "Q along a demonstration" not in (main := ask(url + "main")[2]):
                assert time.monotonic() < deadline
                time.sleep(0.5)
            assert "updates" in main
            assert "data:image/jpeg" in main
            assert "<script" not in main
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert list((run / "evaluation").glob("*.json"))


def test_only_this_machine_is_answered_and_what_has_not_changed_is_not_sent_again(run, monkeypatch):
    import threading

    with PageServer(run, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            assert server.server_address[0] == "127.0.0.1"
            assert ask(server.url + "main")[0] == 200
            monkeypatch.setattr(server, "html", lambda: "the same")
            _, headers, _ = ask(server.url + "main")
            assert ask(server.url + "main", **{"If-None-Match": headers["ETag"]})[0] == 304
            assert ask(server.url + "main", **{"If-None-Match": '"another"'})[0] == 200
            monkeypatch.undo()
            assert ask(server.url, Host="elsewhere.example:80")[0] == 403
            assert ask(server.url + "../etc/passwd")[0] == 404
            (run / "evaluation").mkdir(exist_ok=True)
            broken = run / "evaluation" / "999999.json"
            broken.write_text("{")
            status, _, told = ask(server.url + "main")
            assert (status, "999999.json: not valid JSON" in told) == (500, True)
            broken.unlink()
            assert ask(server.url + "main")[0] == 200
        finally:
            server.shutdown()


def test_a_silent_run_is_not_said_to_go_on(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        "".join(json.dumps({"step": step, "time_s": step / 10, "perf/steps_per_s": 10.0}) + "\n" for step in (100, 200))
    )
    data, now = read_run(tmp_path), log.stat().st_mtime
    assert told_state(data, 1200, now) == ("1 min 40 s", "left")
    assert told_state(data, 200, now)[0] == "finished"
    assert told_state(data, 0, now)[0] == "unknown"
    state, told = told_state(data, 1200, now + 120.0)
    assert (state, "ptr-fast resume" in told) == ("silent", True)


def test_mistakes_are_one_line(tmp_path, capsys):
    assert cli(["watch", str(tmp_path / "none"), "--port", "0"]) == 2
    assert "no such run folder" in capsys.readouterr().err
    with PageServer(tmp_path, 0) as server:
        (tmp_path / "metrics.jsonl").write_text("")
        assert cli(["watch", str(tmp_path), "--port", str(server.server_address[1])]) == 2
    assert "name another --port" in capsys.readouterr().err


def test_a_browser_that_goes_away_leaves_no_traceback(tmp_path, capsys):
    with PageServer(tmp_path, 0) as server:
        for error in (BrokenPipeError(), ValueError("ours")):
            try:
                raise error
            except (BrokenPipeError, ValueError):
                server.handle_error(None, ("127.0.0.1", 1))
    told = capsys.readouterr().err
    assert "ours" in told
    assert "BrokenPipe" not in told


def test_a_record_that_is_none_is_told_in_one_line(tmp_path):
    import threading

    (tmp_path / "train_config.json").write_text('{"config": 5}')
    with PageServer(tmp_path, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            status, _, told = ask(server.url + "main")
        finally:
            server.shutdown()
    assert status == 500
    assert "train_config.json: record.config: expected an object, got 5" in told
