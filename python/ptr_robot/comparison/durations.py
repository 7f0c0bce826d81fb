"""How long stages take on one core, until a grid has finished some of its own and knows better.

Processor seconds of one AMD EPYC core with AVX2, of runs of 50 and 550 updates, 20 trials and 40 episodes.
"""

__all__ = ["KNOWN_SECONDS"]

_PER_UPDATE = {
    **{"states-bc": 0.002, "states-bc-success": 0.002, "states-chunks": 0.003, "states-flow": 0.003},
    **{"states-mixture": 0.005, "states-awbc": 0.01, "states-ar-bc": 0.014, "states-bet": 0.019, "states-iql": 0.014},
    **{"states-cql": 0.029, "states-cql-n": 0.028, "states-cal-ql": 0.029, "states-cql-clone": 0.029},
    **{"states-proposals": 0.026, "sim-bc": 0.042, "sim-mixture": 0.038, "sim-ar-bc": 0.039, "sim-flow": 0.032},
    **{"sim-cql": 0.103, "sim-proposals": 0.103, "sim-contrast": 0.101, "sim-mae": 0.177, "sim-bc-vit": 0.116},
}
KNOWN_SECONDS = {
    **{f"{verb} {recipe}": (3.0, rate) for recipe, rate in _PER_UPDATE.items() for verb in ("pretrain", "finetune")},
    "collect state": (3.0, 0.04),
    "collect": (3.0, 0.35),
    "pretrain": (3.0, 0.06),
    "finetune": (3.0, 0.06),
    "select": (3.0, 1.0),
    "rollout": (3.0, 0.17),
    "films": (8.0, 0.17),
}
"""By kind of stage or by verb: seconds to begin, and seconds per episode, update, checkpoint or trial."""
