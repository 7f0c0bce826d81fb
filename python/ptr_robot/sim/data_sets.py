"""Named data sets for comparing methods: what is shown before, what is shown of the new task, and what is tried.

D0 to D6 ask one question each, of which theory says something (Kumar et al., "When should we prefer offline RL over
behavioral cloning?", arXiv 2204.05618); they can be observed as states or as frames. ``pair``, ``unseen`` and ``door``
are the three targets of the comparison from pixels.

The operators of kind ``teleop`` are a model of ours (:mod:`ptr_robot.sim.operators`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptr_robot.sim.kitchens import nearest
from ptr_robot.sim.tasks import STOCK_TASKS, find_task

if TYPE_CHECKING:
    from ptr_robot.sim.worlds import StartRange

__all__ = ["DATA_SETS", "DataSet", "Demonstrations", "Trials", "find_data_set"]

PUT = "put block on plate"


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """One store: options of ``ptr-fast collect``.

    Attributes:
        task: instructions. kitchens: letters; every task is shown in every kitchen.
        kinds: kinds of episodes, with their shares.
        episodes: number per task and kitchen.
        only_success: each episode is its first attempt that ends in success.
        start: range of the starting positions. action_repeat: simulation steps of 12.5 ms per decision.
        max_steps: decisions per episode at most. distractors: other objects on the table.
    """

    task: tuple[str, ...] = (PUT,)
    kitchens: tuple[str, ...] = ("A",)
    kinds: tuple[str, ...]
    episodes: int
    only_success: bool = False
    start: StartRange = "easy"
    action_repeat: int = 4
    max_steps: int = 120
    distractors: int = 0


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Options of ``ptr-fast rollout``: where a policy is tried, and for how many decisions."""

    task: str = PUT
    kitchen: str = "A"
    start: StartRange = "easy"
    max_steps: int = 60


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A question with the data to ask it.

    Attributes:
        name: of the preset. what: one sentence.
        prior: what pre-training sees.
        target: demonstrations of the new task in its kitchen, all of them successful; None where the prior data are of
            the task that is tried. There are more than ``num_demos``, for held-out metrics.
        num_demos: so many of the target's episodes are trained on.
        trials: what is tried.
    """

    name: str
    what: str
    prior: Demonstrations
    target: Demonstrations | None = None
    num_demos: int = 10
    trials: Trials

    @property
    def states_alone(self) -> bool:
        """Whether ``--observe state`` can collect it: its tasks have an object and a container."""
        shown = [self.prior, *([self.target] if self.target else [])]
        return not any(find_task(task).instruction in STOCK_TASKS for each in shown for task in each.task)


def _demos(kind: str, task: str = PUT, start: StartRange = "easy") -> Demonstrations:
    """Twenty successful demonstrations in the kitchen that no prior data show."""
    return Demonstrations(task=(task,), kitchens=("H",), kinds=(kind,), episodes=20, only_success=True, start=start)


_SEEN = ("A", "B", "C")
_SEEN_PUTS = (
    *("put block on plate", "put can in bowl", "put carrot in pan"),
    *("put sponge on plate", "put can in pan", "put block in bowl"),
)
_SEEN_STOCK = ("open door", "open drawer", "close drawer", "open window", "close window")

DATA_SETS: dict[str, DataSet] = {
    each.name: each
    for each in (
        DataSet(
            name="D0",
            what="An expert's clean commands on one path at one speed: cloning should win.",
            prior=Demonstrations(kinds=("expert-clean",), episodes=600, max_steps=60),
            trials=Trials(),
        ),
        DataSet(
            name="D1",
            what="White noise until four in ten attempts fail, all of them kept: RL should beat cloning of all, and of "
            "the successes.",
            prior=Demonstrations(kinds=("shaky",), episodes=600, max_steps=70),
            trials=Trials(),
        ),
        DataSet(
            name="D2",
            what="Operators of mixed skill, then ten demonstrations of a good one in another kitchen: the headline.",
            prior=Demonstrations(kitchens=_SEEN, kinds=("teleop",), episodes=200),
            target=_demos("teleop-good"),
            trials=Trials(kitchen="H"),
        ),
        DataSet(
            name="D2-good",
            what="D2 with good operators alone: the weakest of the three strengths.",
            prior=Demonstrations(kitchens=_SEEN, kinds=("teleop-good",), episodes=200),
            target=_demos("teleop-good"),
            trials=Trials(kitchen="H"),
        ),
        DataSet(
            name="D2-poor",
            what="D2 with average and poor operators: the strongest of the three strengths.",
            prior=Demonstrations(kitchens=_SEEN, kinds=("teleop-poor",), episodes=200),
            target=_demos("teleop-good"),
            trials=Trials(kitchen="H"),
        ),
        DataSet(
            name="D3",
            what="As D2 from wide starts, but the ten demonstrations begin with the object in the left third of them: "
            "RL should carry over to the rest.",
            prior=Demonstrations(kitchens=_SEEN, kinds=("teleop",), episodes=200, start="wide"),
            target=_demos("teleop-good", start="left"),
            trials=Trials(kitchen="H", start="wide"),
        ),
        DataSet(
            name="D4",
            what="Halves of the task, and one whole episode in ten: RL should stitch them, cloning cannot.",
            prior=Demonstrations(kinds=("pick:0.45", "place:0.45", "expert:0.1"), episodes=600, max_steps=60),
            trials=Trials(),
        ),
        DataSet(
            name="D5",
            what="A cup with one centimetre of room, far starts, about 75 decisions, an expert: few states decide.",
            prior=Demonstrations(task=("put can in cup",), kinds=("expert",), episodes=600, start="far"),
            trials=Trials(task="put can in cup", start="far", max_steps=100),
        ),
        DataSet(
            name="D6",
            what="Half expert, half failures: what they add to D6-expert's half is the value of negatives.",
            prior=Demonstrations(kinds=("expert:0.5", "failed:0.5"), episodes=600, max_steps=60),
            trials=Trials(),
        ),
        DataSet(
            name="D6-expert",
            what="As many episodes as D6, all of the expert: its control.",
            prior=Demonstrations(kinds=("expert",), episodes=600, max_steps=60),
            trials=Trials(),
        ),
        DataSet(
            name="pair",
            what="A known object and container in an unseen kitchen, after teleoperation of the task in three others.",
            prior=Demonstrations(kitchens=_SEEN, kinds=("teleop",), episodes=150),
            target=_demos("teleop"),
            trials=Trials(kitchen="H"),
        ),
        DataSet(
            name="unseen",
            what="An unseen object and container in an unseen kitchen, after teleoperation of six other pairs.",
            prior=Demonstrations(task=_SEEN_PUTS, kitchens=_SEEN, kinds=("teleop",), episodes=25),
            target=_demos("teleop", "put mushroom in pot"),
            trials=Trials(task="put mushroom in pot", kitchen="H"),
        ),
        DataSet(
            name="door",
            what="Opening the door in an unseen kitchen, after teleoperation of doors, drawers and windows in others.",
            prior=Demonstrations(task=_SEEN_STOCK, kitchens=_SEEN, kinds=("teleop",), episodes=30),
            target=_demos("teleop", "open door"),
            trials=Trials(task="open door", kitchen="H"),
        ),
    )
}


def find_data_set(name: str) -> DataSet:
    """The data set of that name; ValueError with the nearest name where there is none."""
    if name not in DATA_SETS:
        raise ValueError(f"preset: unknown data set {name!r}{nearest(name, list(DATA_SETS))}; known: {list(DATA_SETS)}")
    return DATA_SETS[name]
