"""How long stages take on one core, until a grid has finished some of its own and knows better."""

__all__ = ["KNOWN_SECONDS"]

KNOWN_SECONDS = {
    "collect": (5.0, 1.0),
    "pretrain": (5.0, 0.02),
    "finetune": (5.0, 0.025),
    "select": (5.0, 5.0),
    "rollout": (5.0, 1.0),
    "films": (5.0, 3.0),
}
"""By kind of stage or by verb: seconds to begin, and seconds per episode, update, checkpoint or trial."""
