"""The one error type that says: the bytes on disk are wrong, not the program."""

__all__ = ["DataError"]


class DataError(ValueError):
    """A data file, episode or checkpoint is broken, missing or does not match.

    The message names the file, then the episode and field where there is one, what was expected and what came.
    """


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message where the condition does not hold."""
    if not condition:
        raise ValueError(message)
