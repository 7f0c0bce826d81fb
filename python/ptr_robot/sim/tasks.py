"""The tasks by their language instruction: "put X in Y" (41 of them) and some of Meta-World's own."""

from __future__ import annotations

from dataclasses import dataclass

from ptr_robot.sim.kitchens import nearest
from ptr_robot.sim.objects import CONTAINERS, OBJECTS

__all__ = ["PUT_TASKS", "STOCK_TASKS", "PutTask", "StockTask", "find_task", "store_task_name"]


@dataclass(frozen=True, kw_only=True)
class PutTask:
    """``instruction`` is "put <item> in|on <container>"."""

    instruction: str
    item: str
    container: str


@dataclass(frozen=True, kw_only=True)
class StockTask:
    """One of Meta-World's own tasks.

    Attributes:
        instruction: what a store calls it.
        name: Meta-World's name.
    """

    instruction: str
    name: str


PUT_TASKS: dict[str, PutTask] = {
    task.instruction: task
    for task in (
        PutTask(instruction=f"put {item} {container.preposition} {container.name}", item=item, container=container.name)
        for item in OBJECTS
        for container in CONTAINERS.values()
        if container.fits(OBJECTS[item])
    )
}

STOCK_TASKS: dict[str, StockTask] = {
    instruction: StockTask(instruction=instruction, name=name)
    for instruction, name in {
        "open door": "door-open-v3",
        "open drawer": "drawer-open-v3",
        "close drawer": "drawer-close-v3",
        "open window": "window-open-v3",
        "close window": "window-close-v3",
        "open faucet": "faucet-open-v3",
        "close faucet": "faucet-close-v3",
        "press button": "button-press-v3",
        "push coffee button": "coffee-button-v3",
    }.items()
}


def find_task(instruction: str) -> PutTask | StockTask:
    """The task of that instruction; ValueError with the nearest one where there is none."""
    text = " ".join(instruction.lower().split())
    task = PUT_TASKS.get(text) or STOCK_TASKS.get(text)
    if task is None:
        known = [*PUT_TASKS, *STOCK_TASKS]
        raise ValueError(
            f"unknown task {instruction!r}{nearest(text, known)}; known: 'put <object> in|on <container>' with objects "
            f"{list(OBJECTS)} and containers {[f'{c.preposition} {c.name}' for c in CONTAINERS.values()]}, "
            f"and {list(STOCK_TASKS)}"
        )
    return task


def store_task_name(task: str, kitchen: str, *, per_kitchen: bool) -> str:
    """The task's name in a store: the instruction, with the kitchen where every kitchen is to be a task of its own."""
    return f"{task} [kitchen {kitchen}]" if per_kitchen else task
