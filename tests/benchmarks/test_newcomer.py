"""The newcomer's log: commands of a page in one shell, cut, and ended by the first that fails."""

import pytest

from benchmarks import newcomer

PAGE = """# A page
```sh
no
```
## The way there

```sh
# needs: nothing
word=here
echo "$word" \\
  and there
for i in $(seq 30); do echo "line $i at $PWD/file"; done
(exit 3)
echo never
```
## The way back
"""


def test_commands_share_a_shell_and_the_first_that_fails_is_the_last(tmp_path, monkeypatch, capsys):
    (tmp_path / "page.md").write_text(PAGE)
    monkeypatch.chdir(tmp_path)
    assert newcomer.main(["page.md", "The way there", "--log", "a.log"]) == 3
    log = (tmp_path / "a.log").read_text()
    assert "here and there" in log
    assert "line 1 at ./file" in log
    assert "[12 lines more]" in log
    assert str(tmp_path) not in log
    assert log.rstrip().endswith("failed: 3]")
    with pytest.raises(ValueError, match="expected one section that begins with 'Nowhere'"):
        newcomer.commands_of(PAGE, "Nowhere")


def test_progress_times_and_colours_are_left_out():
    output = "10%| 1/10 [00:01<00:09, 1.0it/s]\r20%\n\x1b[31mred\x1b[0m 2026-01-02 03:04:05 INFO done\n\n"
    assert newcomer.told(output, "/nowhere") == ["20%", "red INFO done"]
