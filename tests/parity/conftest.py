"""Prints what the comparison with the published code's numbers reached: ``pytest tests/parity -v``."""

import golden


def pytest_terminal_summary(terminalreporter, config):
    golden.write_table()
    if golden.REACHED and config.option.verbose >= 0:
        terminalreporter.write_sep("-", "parity with the published code (error / largest magnitude)")
        for line in golden.table():
            terminalreporter.write_line(line)
