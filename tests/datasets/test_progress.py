"""Progress lines."""

import io

import pytest

from ptr_robot.console.progress import Progress, format_duration


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


def test_plain_lines_tell_rate_and_time_left(clock):
    stream = io.StringIO()
    with Progress(100, "convert", "ep", every_s=10, stream=stream) as progress:
        for _ in range(25):
            clock.now += 1
            progress.advance(2, loss=0.123456)
        assert progress.line() == "50/100 ep, 2 ep/s, 25.0 s left, loss 0.1235"
    assert stream.getvalue().splitlines() == [
        "convert: 20/100 ep, 2 ep/s, 40.0 s left, loss 0.1235",
        "convert: 40/100 ep, 2 ep/s, 30.0 s left, loss 0.1235",
        "convert: 50/100 ep, 2 ep/s, 25.0 s left, loss 0.1235 in 25.0 s",
    ]


def test_unknown_total_and_an_error(clock):
    stream = io.StringIO()
    progress = Progress(None, "read", "files", stream=stream)

    def fail():
        with progress:
            clock.now += 2
            progress.advance()
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert progress.line() == "1 files, 0.5 files/s"
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Progress(2, "convert", "ep", stream=stream) as progress:
        progress.advance(2)
    assert "convert: 2/2 ep" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_format_duration():
    assert [format_duration(s) for s in (8.21, 59.9, 192, 7500)] == ["8.2 s", "59.9 s", "3 min 12 s", "2 h 05 min"]
