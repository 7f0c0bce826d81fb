"""A store from numpy arrays: eighty drawn episodes of a point that is led to the middle of a table.

    python examples/store_from_numpy.py

Writes ``outputs/examples/store``. Look at it with ``ptr-fast inspect outputs/examples/store``.
"""

from pathlib import Path

import numpy as np

from ptr_fast.data.store import Episode, StoreMeta, StoreWriter
from ptr_fast.types import ActionSpec, CameraSpec, StateSpec

STORE = Path("outputs/examples/store")
SIZE, STEP_M, CLOSE_M = 32, 0.1, 0.08

META = StoreMeta(
    cameras=(CameraSpec(name="front", height=SIZE, width=SIZE, encoding="raw"),),
    state=StateSpec(names=("x", "y"), units=("m", "m")),
    action=ActionSpec(names=("dx", "dy"), units=("m", "m"), low=(-STEP_M,) * 2, high=(STEP_M,) * 2),
    control_hz=10.0,
)


def draw(place: np.ndarray) -> np.ndarray:
    """What the camera sees of a point at (x, y) in metres on a table of 1 m: uint8 [H, W, 3], RGB."""
    frame = np.full((SIZE, SIZE, 3), 60, np.uint8)
    frame[14:18, 14:18] = (40, 120, 60)
    row, column = (place * (SIZE - 4)).astype(int)
    frame[row : row + 4, column : column + 4] = 220
    return frame


def demonstrate(rng: np.random.Generator, fails: bool) -> tuple[np.ndarray, np.ndarray]:
    """States [T + 1, 2] and actions [T, 2] of an operator who goes to the middle, or wanders and does not arrive."""
    places, actions = [rng.uniform(0.1, 0.9, 2)], []
    while len(actions) < 20 and (fails or np.abs(places[-1] - 0.5).max() > CLOSE_M or len(actions) < 5):
        wanted = rng.normal(0, 0.06, 2) if fails else 0.4 * (0.5 - places[-1]) + rng.normal(0, 0.02, 2)
        actions.append(np.clip(wanted, -STEP_M, STEP_M))
        places.append(np.clip(places[-1] + actions[-1], 0.0, 1.0))
    return np.array(places, np.float32), np.array(actions, np.float32)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    with StoreWriter.create(STORE, META) as writer:  # commits at its end, whole or not at all
        for number in range(80):
            states, actions = demonstrate(rng, fails=number % 4 == 3)
            arrived = bool(np.abs(states[-1] - 0.5).max() <= CLOSE_M)
            frames = {"front": np.stack([draw(place) for place in states])}
            outcome = "success" if arrived else "failure"
            writer.add(Episode(episode_id=f"{number:03d}", task="go to the middle", states=states, actions=actions,
                               frames=frames, outcome=outcome))  # fmt: skip
    print(f"wrote {STORE}")
