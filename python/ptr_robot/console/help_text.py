"""What ``--help`` says of a verb, from the docstring of its module."""

from __future__ import annotations

__all__ = ["described"]


def described(docstring: str | None) -> str:
    """The paragraphs of a docstring, each on one line for the terminal to wrap, without the marks of code."""
    paragraphs = (docstring or "").replace("``", "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
