"""A file of golden arrays that remembers which were compared, and the table of what was reached.

An array counts as used when it was an input or was compared; :meth:`Golden.assert_all_used` fails for the rest, so that
nothing is passed over in silence.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

# (file, group) -> largest error relative to its tensor's largest magnitude, name of that tensor, its bound, how many.
REACHED: dict[tuple[str, str], list] = defaultdict(lambda: [-1.0, "", 0.0, 0])


class Golden:
    """One npz file."""

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"golden set without {name}: {path}")
        with np.load(path) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.name, self.used = name, set()

    def array(self, key: str) -> np.ndarray:
        """The array as it is; counts as used."""
        self.used.add(key)
        return self.arrays[key]

    def tensor(self, key: str) -> torch.Tensor:
        """The array as a tensor, integers as int64; counts as used."""
        tensor = torch.from_numpy(self.array(key).copy())
        return tensor.long() if tensor.dtype == torch.int32 else tensor

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays under ``prefix/``, by the rest of their name; they count as used."""
        names = [key for key in self.arrays if key.startswith(prefix + "/")]
        assert names, f"{self.name}: nothing under {prefix!r}"
        return {key.removeprefix(prefix + "/"): self.array(key) for key in names}

    def error(self, key: str, ours: torch.Tensor | np.ndarray | float, scale: float | None = None) -> float:
        """Largest difference, relative to the array's largest magnitude or to ``scale``."""
        theirs = torch.as_tensor(self.array(key)).double()
        ours = torch.as_tensor(ours).detach().double()
        assert ours.shape == theirs.shape, f"{self.name} {key}: {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
        scale = float(theirs.abs().max()) if scale is None else scale
        return float((ours - theirs).abs().max()) / max(scale, 1e-30)

    def compare(self, group: str, key: str, ours, bound: float, scale: float | None = None) -> float:
        """Compare one array; note what was reached."""
        error = self.error(key, ours, scale)
        note(self.name, group, key, error, bound)
        assert error <= bound, f"{self.name} {key}: off by {error:.2e} of its largest magnitude, allowed {bound:.2e}"
        return error

    def assert_all_used(self) -> None:
        """Fail where an array was neither an input nor compared."""
        left = sorted(set(self.arrays) - self.used)
        assert not left, f"{self.name}: {len(left)} arrays not checked: {left[:10]}"


def note(file: str, group: str, key: str, error: float, bound: float) -> None:
    """Keep the worst error of a group for the table."""
    entry = REACHED[file, group]
    entry[3] += 1
    if error > entry[0]:
        entry[:3] = [error, key, bound]


def table() -> list[str]:
    """The reached errors as lines of text."""
    lines = [f"{'file':24} {'group':28} {'tensors':>7} {'worst':>9} {'bound':>9}  tensor"]
    for (file, group), (error, key, bound, count) in sorted(REACHED.items()):
        lines.append(f"{file:24} {group:28} {count:7d} {error:9.1e} {bound:9.1e}  {key}")
    return lines


def write_table() -> None:
    """Write the table where ``PTR_FAST_PARITY_REPORT`` points."""
    path = os.environ.get("PTR_FAST_PARITY_REPORT")
    if path and REACHED:
        Path(path).write_text("\n".join(table()) + "\n")
