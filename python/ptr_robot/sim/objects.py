"""Toy objects and containers, built of boxes, cylinders, capsules and ellipsoids.

Meta-World's scenes take mass only from geoms of group 4, which are not drawn; so every shape is added twice, once to be
seen (group 1) and once to be touched (group 4). Lengths are metres, masses kilograms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import mujoco

__all__ = ["CONTAINERS", "OBJECTS", "Container", "Shape", "ToyObject", "add_container", "add_object"]

RGB = tuple[float, float, float]
XYZ = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One primitive.

    Attributes:
        kind: ``box`` (half sizes), ``sphere`` (radius), ``cylinder`` and ``capsule`` (radius, half length),
            ``ellipsoid`` (half axes).
        size, pos: metres, in the frame of the body.
        color: RGB in [0, 1].
        along_x: the axis of a cylinder or capsule is x instead of z.
        touches: takes part in contacts; otherwise it is only seen.
        yaw, tilt: degrees; about z, then about the new y.
    """

    kind: Literal["box", "sphere", "cylinder", "capsule", "ellipsoid"]
    size: tuple[float, ...]
    color: RGB
    pos: XYZ = (0.0, 0.0, 0.0)
    along_x: bool = False
    touches: bool = True
    yaw: float = 0.0
    tilt: float = 0.0

    def quaternion(self) -> tuple[float, float, float, float]:
        """Orientation (w, x, y, z)."""
        yaw, tilt = math.radians(self.yaw) / 2, math.radians(self.tilt + (90.0 if self.along_x else 0.0)) / 2
        return (
            math.cos(yaw) * math.cos(tilt),
            -math.sin(yaw) * math.sin(tilt),
            math.cos(yaw) * math.sin(tilt),
            math.sin(yaw) * math.cos(tilt),
        )


@dataclass(frozen=True, kw_only=True)
class ToyObject:
    """Something that the gripper can pick up; long objects lie along x, across the fingers.

    Attributes:
        half_size: of the bounding box, metres; the body frame lies in its centre.
        shapes: what it is made of.
        mass: kilograms.
        yaw_spread: the yaw at the start lies within plus and minus this, degrees.
        rolls: needs rolling friction.
    """

    name: str
    half_size: XYZ
    shapes: tuple[Shape, ...]
    mass: float = 0.06
    yaw_spread: float = 12.0
    rolls: bool = False


@dataclass(frozen=True, kw_only=True)
class Container:
    """Something that holds an object; it stands fixed on the table.

    Attributes:
        preposition: ``in`` or ``on``.
        radius: of the inside, metres: an object whose centre is nearer to the axis lies in (or on) it.
        floor, rim: height above the table of the inside's bottom and of the rim, metres.
        tolerance: the expert lets an object go where its centre is nearer to the axis than 1.5 times this, metres.
        only_fits: names of the objects that fit; empty where all do.
        shapes: what it is made of; the body frame lies on the table.
    """

    name: str
    preposition: Literal["in", "on"]
    radius: float
    floor: float
    rim: float
    shapes: tuple[Shape, ...]
    tolerance: float = 0.014
    only_fits: tuple[str, ...] = ()

    def fits(self, item: ToyObject) -> bool:
        """Whether there is a task to put that object in it."""
        return not self.only_fits or item.name in self.only_fits


def _wall(
    radius: float, bottom: float, top: float, color: RGB, *, flare: float = 0.0, count: int = 16
) -> Iterator[Shape]:
    """A round wall of ``count`` boxes; ``flare`` degrees outwards."""
    middle, half = (bottom + top) / 2, (top - bottom) / 2
    width = (radius + half * math.sin(math.radians(flare))) * math.tan(math.pi / count) * 1.08
    for index in range(count):
        yaw = 360.0 * index / count
        yield Shape(
            kind="box",
            size=(0.003, width, half / math.cos(math.radians(flare))),
            color=color,
            pos=(radius * math.cos(math.radians(yaw)), radius * math.sin(math.radians(yaw)), middle),
            yaw=yaw,
            tilt=flare,
        )


def _disc(radius: float, height: float, color: RGB, z: float = 0.0) -> Shape:
    return Shape(kind="cylinder", size=(radius, height / 2), color=color, pos=(0.0, 0.0, z + height / 2))


_RED, _GREEN, _ORANGE, _YELLOW = (0.85, 0.08, 0.08), (0.13, 0.55, 0.13), (1.0, 0.45, 0.05), (0.98, 0.85, 0.1)
_WHITE, _BLACK, _SILVER = (0.95, 0.95, 0.95), (0.09, 0.09, 0.1), (0.75, 0.75, 0.78)
_PURPLE, _BROWN, _SKY, _CREAM = (0.35, 0.08, 0.42), (0.5, 0.3, 0.14), (0.3, 0.6, 0.95), (0.93, 0.86, 0.72)

OBJECTS: dict[str, ToyObject] = {
    item.name: item
    for item in (
        ToyObject(
            name="block",
            half_size=(0.022, 0.022, 0.022),
            shapes=(Shape(kind="box", size=(0.022, 0.022, 0.022), color=_GREEN),),
        ),
        ToyObject(
            name="can",
            half_size=(0.021, 0.021, 0.028),
            shapes=(
                Shape(kind="cylinder", size=(0.021, 0.028), color=_RED),
                Shape(kind="cylinder", size=(0.0195, 0.0286), color=_SILVER, touches=False),
            ),
        ),
        ToyObject(
            name="carrot",
            half_size=(0.045, 0.016, 0.016),
            shapes=(
                Shape(kind="capsule", size=(0.016, 0.022), color=_ORANGE, pos=(0.007, 0.0, 0.0), along_x=True),
                Shape(
                    kind="capsule",
                    size=(0.007, 0.008),
                    color=_GREEN,
                    pos=(-0.036, 0.0, 0.0),
                    along_x=True,
                    touches=False,
                ),
            ),
        ),
        ToyObject(
            name="ball",
            half_size=(0.023, 0.023, 0.023),
            shapes=(
                Shape(kind="sphere", size=(0.023,), color=_YELLOW),
                Shape(kind="cylinder", size=(0.0233, 0.004), color=_RED, touches=False),
            ),
            rolls=True,
        ),
        ToyObject(
            name="eggplant",
            half_size=(0.045, 0.019, 0.019),
            shapes=(
                Shape(kind="capsule", size=(0.019, 0.02), color=_PURPLE, along_x=True),
                Shape(
                    kind="capsule",
                    size=(0.009, 0.005),
                    color=_GREEN,
                    pos=(-0.042, 0.0, 0.0),
                    along_x=True,
                    touches=False,
                ),
            ),
        ),
        ToyObject(
            name="sponge",
            half_size=(0.034, 0.022, 0.016),
            shapes=(
                Shape(kind="box", size=(0.034, 0.022, 0.011), color=_YELLOW, pos=(0.0, 0.0, -0.005)),
                Shape(kind="box", size=(0.034, 0.022, 0.005), color=_GREEN, pos=(0.0, 0.0, 0.011)),
            ),
        ),
        ToyObject(
            name="mushroom",
            half_size=(0.024, 0.024, 0.022),
            shapes=(
                Shape(kind="cylinder", size=(0.014, 0.014), color=_CREAM, pos=(0.0, 0.0, -0.008)),
                Shape(kind="ellipsoid", size=(0.024, 0.024, 0.014), color=_BROWN, pos=(0.0, 0.0, 0.008)),
            ),
            rolls=True,
        ),
        ToyObject(
            name="cucumber",
            half_size=(0.052, 0.016, 0.016),
            shapes=(Shape(kind="capsule", size=(0.016, 0.036), color=(0.2, 0.75, 0.1), along_x=True),),
            rolls=True,
        ),
    )
}

CONTAINERS: dict[str, Container] = {
    item.name: item
    for item in (
        Container(
            name="pot",
            preposition="in",
            radius=0.06,
            floor=0.006,
            rim=0.05,
            shapes=(
                _disc(0.062, 0.006, _SILVER),
                *_wall(0.063, 0.0, 0.05, (0.75, 0.12, 0.1)),
                Shape(kind="box", size=(0.008, 0.022, 0.004), color=_BLACK, pos=(0.074, 0.0, 0.042)),
                Shape(kind="box", size=(0.008, 0.022, 0.004), color=_BLACK, pos=(-0.074, 0.0, 0.042)),
            ),
        ),
        Container(
            name="plate",
            preposition="on",
            radius=0.066,
            floor=0.006,
            rim=0.013,
            shapes=(
                _disc(0.06, 0.006, _WHITE),
                Shape(kind="cylinder", size=(0.042, 0.0032), color=_SKY, pos=(0.0, 0.0, 0.0035), touches=False),
                *_wall(0.066, 0.004, 0.013, _WHITE, flare=50.0),
            ),
        ),
        Container(
            name="bowl",
            preposition="in",
            radius=0.058,
            floor=0.006,
            rim=0.038,
            shapes=(_disc(0.046, 0.006, _SKY), *_wall(0.056, 0.003, 0.038, _SKY, flare=28.0)),
        ),
        Container(
            name="pan",
            preposition="in",
            radius=0.064,
            floor=0.006,
            rim=0.022,
            shapes=(
                _disc(0.066, 0.006, (0.25, 0.25, 0.27)),
                *_wall(0.067, 0.0, 0.022, _BLACK, flare=12.0),
                Shape(kind="box", size=(0.045, 0.009, 0.005), color=_BLACK, pos=(0.11, 0.0, 0.02)),
            ),
        ),
        Container(
            name="cup",
            preposition="in",
            radius=0.031,
            floor=0.006,
            rim=0.034,
            tolerance=0.004,
            only_fits=("can",),
            shapes=(_disc(0.034, 0.006, _YELLOW), *_wall(0.034, 0.0, 0.034, _YELLOW)),
        ),
        Container(
            name="basket",
            preposition="in",
            radius=0.06,
            floor=0.006,
            rim=0.042,
            shapes=(
                Shape(kind="box", size=(0.064, 0.064, 0.003), color=(0.6, 0.36, 0.1), pos=(0.0, 0.0, 0.003)),
                *(
                    Shape(
                        kind="box",
                        size=(0.004, 0.068, 0.021 if layer == 0 else 0.004),
                        color=(0.72, 0.46, 0.16) if layer == 0 else (0.4, 0.22, 0.06),
                        pos=(
                            0.065 * math.cos(math.radians(yaw)),
                            0.065 * math.sin(math.radians(yaw)),
                            (0.021, 0.042)[layer],
                        ),
                        yaw=yaw,
                    )
                    for yaw in (0.0, 90.0, 180.0, 270.0)
                    for layer in (0, 1)
                ),
            ),
        ),
    )
}


def _add_shape(body: Any, shape: Shape, *, group: int, **contact: Any) -> None:
    import mujoco

    size = [*shape.size, 0.0, 0.0][:3]
    kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.kind.upper()}")
    body.add_geom(type=kind, size=size, pos=list(shape.pos), quat=list(shape.quaternion()),
                  rgba=[*shape.color, 1.0], group=group, **contact)  # fmt: skip


def add_object(spec: mujoco.MjSpec, item: ToyObject, name: str) -> None:
    """Adds ``item`` as the free body ``name``; its contact geoms are called ``<name>_touch<i>``."""
    body = spec.worldbody.add_body(name=name, pos=[0.0, 0.6, 0.3])
    body.add_freejoint(name=name)
    touching = [shape for shape in item.shapes if shape.touches]
    for shape in item.shapes:
        _add_shape(body, shape, group=1, contype=0, conaffinity=0)
    for index, shape in enumerate(touching):
        _add_shape(
            body, shape, group=4, contype=1, conaffinity=1, name=f"{name}_touch{index}",
            condim=6 if item.rolls else 4, friction=[1.2, 0.02, 0.004 if item.rolls else 0.0001],
            mass=item.mass / len(touching), solref=[0.01, 1.0], solimp=[0.95, 0.99, 0.01, 0.5, 2.0],
        )  # fmt: skip


def add_container(spec: mujoco.MjSpec, item: Container, name: str) -> None:
    """Adds ``item`` as the fixed body ``name``."""
    body = spec.worldbody.add_body(name=name, pos=[0.15, 0.68, 0.0])
    for shape in item.shapes:
        _add_shape(body, shape, group=1, contype=0, conaffinity=0)
        if shape.touches:
            _add_shape(body, shape, group=4, contype=0, conaffinity=1, mass=0.05,
                       solref=[0.01, 1.0], solimp=[0.95, 0.99, 0.01, 0.5, 2.0])  # fmt: skip
