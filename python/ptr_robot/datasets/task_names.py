"""Names of tasks: what counts as an instruction, and which paths put one there.

An instruction inside the data wins over a path. A path is looked at only where its layout puts the task there, and a
number, a date or a word such as "run" or "episode" is nobody's task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

__all__ = ["first_instruction", "is_blank", "is_label", "task_and_domain"]

NOTHING_SAID = frozenset({"none", "null", "nan", "n/a", "na"})
"""What programs write where there is no instruction."""
NO_CHARACTER = "\ufffd"
DATED = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}$")
HEXADECIMAL = re.compile(r"(?=.*\d)[0-9a-f]{6,}$")
SAYS_NOTHING = frozenset(
    """
    a an and at by for in my new of old on or the to
    archive batch bridge bridgedata bridgev capture chunk clip collect collected collection data dataset datasets date
    day demo demonstration demonstrations demos ep episode episodes eps exp experiment experiments export exports file
    files final folder home hour id index iter job local log logs misc mnt no num number out output outputs part parts
    raw rec record recorded recording recordings records result results robot rollout rollouts root run runs sample
    samples scratch seed seq sequence sequences session sessions set sets shard shards split store take takes task tasks
    temp test tests time tmp traj trajectories trajectory trajs trial trials try user users utc val valid validation
    version week work train training
    jan january feb february mar march apr april may jun june jul july aug august sep sept september oct october nov
    november dec december mon monday tue tuesday wed wednesday thu thursday fri friday sat saturday sun sunday am pm
    groups group npy numpy hdf tfrecord rlds pkl
    """.split()  # noqa: SIM905
)


def is_blank(text: str) -> bool:
    """Whether an instruction says nothing: empty, without a letter or digit, or a program's word for nothing.

    So does a text with U+FFFD in it, which is what decoding leaves of bytes that are no UTF-8: half a task is another.
    """
    plain = text.strip().lower()
    return plain in NOTHING_SAID or NO_CHARACTER in plain or not any(c.isalnum() for c in plain)


def is_label(name: str) -> bool:
    """Whether a folder's name can name a task: it has a word that is no number, date, code or word such as "run"."""
    for word in re.split(r"[\W_]+", name.lower()):
        letters = "".join(c for c in word if c.isalpha())
        long_enough = len(letters) > 1 or (letters and not letters.isascii())
        if long_enough and letters not in SAYS_NOTHING and not HEXADECIMAL.match(word):
            return True
    return False


def first_instruction(texts: Iterable[str]) -> str:
    """The first of several texts that says something, its words one space apart; empty where none does."""
    return next((" ".join(text.split()) for text in texts if not is_blank(text)), "")


def task_and_domain(path: PurePath | str) -> tuple[str, str]:
    """Task and domain of a path in one of the two layouts that put them there; empty where a name is none.

    Layouts: ``.../<domain>/<task>[/<number>]/{train,val}/out.npy`` and
    ``.../<domain>/<task>[/<number>]/<YYYY-MM-DD_HH-MM-SS>/raw/traj_group*/traj*``.
    """
    parts = PurePath(path).parts
    if len(parts) >= 3 and parts[-1] == "out.npy" and parts[-2] in ("train", "val"):
        above = parts[:-2]
    elif len(parts) >= 5 and parts[-3] == "raw" and parts[-2].startswith("traj_group") and DATED.match(parts[-4]):
        above = parts[:-4]
    else:
        return "", ""
    names = [part for part in reversed(above) if not part.isdigit() and part.strip("/\\")]
    task, domain = [*(name if is_label(name) else "" for name in names[:2]), "", ""][:2]
    return task, domain
