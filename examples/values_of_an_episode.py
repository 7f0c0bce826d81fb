"""Read the values of an episode: Q of every recorded action, as the critic of a checkpoint sees it.

    python examples/values_of_an_episode.py

Reads the run of ``train_from_python.py`` and its store. Under a critic that understands the task, Q climbs along a
demonstration that succeeds. ``ptr-fast report`` draws the same as curves beside the frames.
"""

import numpy as np
from train_from_python import RUN

from ptr_fast.checkpoint import read_checkpoint
from ptr_fast.data.store import EpisodeStore
from ptr_fast.runtime.networks import CheckpointNetworks
from ptr_robot.evaluation.held_out import held_out


def values(networks: CheckpointNetworks, store: EpisodeStore, episode: int) -> np.ndarray:
    """Q(s_t, a_t) of the T recorded actions of an episode, float32 [T]: the more cautious of the two critics."""
    first, num_steps = int(store.episodes.first[episode]), int(store.episodes.num_steps[episode])
    records = range(first, first + num_steps)
    images = {
        camera.name: np.stack([store.frame(camera.name, record) for record in records])
        for camera in networks.spec.cameras
    }
    steps = slice(first, first + num_steps)
    task = store.episodes.task[episode]
    return networks.predict_value(images, store.state[steps], task, store.action[steps]).min(axis=0)


if __name__ == "__main__":
    info = read_checkpoint(RUN)
    data = held_out(info)  # the episodes that the run did not train on
    networks = CheckpointNetworks(info)
    print(f"step {info.step}; Q of the recorded actions of {len(data.episodes)} held-out episodes")
    curves = {episode: values(networks, data.store, episode) for episode in data.episodes}
    lowest, highest = min(q.min() for q in curves.values()), max(q.max() for q in curves.values())
    for episode, q in curves.items():
        name, outcome = data.store.episodes.episode_id[episode], data.store.episodes.outcome[episode]
        bar = "".join("▁▂▃▄▅▆▇█"[int(7.99 * (value - lowest) / (highest - lowest + 1e-9))] for value in q)
        print(f"{name}  {outcome:8}  {q[0]:6.1f} to {q[-1]:6.1f}  {bar}")
