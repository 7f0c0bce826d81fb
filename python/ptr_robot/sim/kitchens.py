"""The toy kitchens A to H: table, floor, walls, light and camera; each is fixed by its name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mujoco

__all__ = [
    "KITCHENS",
    "STOCK_CAMERA",
    "TABLE_CAMERA",
    "Camera",
    "CameraShift",
    "Kitchen",
    "find_kitchen",
    "furnish",
    "nearest",
]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A free camera.

    Attributes:
        lookat: point on the optical axis, metres.
        distance: from ``lookat``, metres.
        azimuth, elevation: of the viewing direction, degrees.
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float

    def moved(self, shift: CameraShift) -> Camera:
        """This camera as it stands in a kitchen."""
        return Camera(
            lookat=(self.lookat[0] + shift.lookat[0], self.lookat[1] + shift.lookat[1], self.lookat[2]),
            distance=self.distance + shift.distance,
            azimuth=self.azimuth + shift.azimuth,
            elevation=self.elevation + shift.elevation,
        )


@dataclass(frozen=True, kw_only=True)
class CameraShift:
    """How a kitchen's camera stands apart from the usual pose: metres (``lookat``: x and y) and degrees."""

    lookat: tuple[float, float] = (0.0, 0.0)
    distance: float = 0.0
    azimuth: float = 0.0
    elevation: float = 0.0


# Opposite the arm, so that the forearm never hides the table; Meta-World's doors and drawers would hide their own front
# from there, so those are seen from beside the arm.
TABLE_CAMERA = Camera(lookat=(0.0, 0.68, 0.055), distance=0.7, azimuth=302.0, elevation=-43.0)
STOCK_CAMERA = Camera(lookat=(0.0, 0.70, 0.08), distance=0.85, azimuth=130.0, elevation=-40.0)


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """One domain: everything that the task does not depend on.

    Attributes:
        name: one letter.
        table, floor, wall: PNG files among the simulator's textures (``table`` and ``wall`` square).
        tint: RGB factor of the table's texture.
        light: factor of all lights.
        camera: how it stands apart from the usual pose.
    """

    name: str
    table: str
    floor: str
    wall: str = "metal.png"
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light: float = 1.0
    camera: CameraShift = CameraShift()


KITCHENS: dict[str, Kitchen] = {
    kitchen.name: kitchen
    for kitchen in (
        Kitchen(name="A", table="wood2.png", floor="floor2.png"),
        Kitchen(
            name="B",
            table="navy_blue.png",
            floor="floor1.png",
            light=1.15,
            camera=CameraShift(azimuth=-5.0, elevation=-3.0),
        ),
        Kitchen(
            name="C",
            table="granite.png",
            floor="wood3.png",
            wall="wood4.png",
            light=0.9,
            camera=CameraShift(azimuth=5.0, elevation=2.0, distance=0.03),
        ),
        Kitchen(
            name="D",
            table="light_wood.png",
            floor="marble.png",
            wall="plaster1.png",
            tint=(1.0, 0.95, 0.85),
            camera=CameraShift(azimuth=-2.0, elevation=-5.0, lookat=(0.01, -0.01)),
        ),
        Kitchen(
            name="E",
            table="marble.png",
            floor="darkwood.png",
            wall="brick1.png",
            tint=(0.75, 1.0, 0.8),
            light=1.05,
            camera=CameraShift(azimuth=6.0, elevation=-2.0, distance=-0.02),
        ),
        Kitchen(
            name="F",
            table="darkwood.png",
            floor="granite.png",
            wall="metal2.png",
            light=1.25,
            camera=CameraShift(azimuth=-7.0, elevation=2.0, lookat=(-0.01, 0.01)),
        ),
        Kitchen(
            name="G",
            table="brick1.png",
            floor="light_wood.png",
            wall="wood.png",
            tint=(1.0, 0.8, 0.75),
            light=0.85,
            camera=CameraShift(azimuth=2.0, elevation=-7.0),
        ),
        Kitchen(
            name="H",
            table="plaster1.png",
            floor="metal1.png",
            wall="navy_blue.png",
            tint=(0.95, 0.8, 1.0),
            light=0.95,
            camera=CameraShift(azimuth=8.0, elevation=4.0, distance=0.02),
        ),
    )
}


def nearest(name: str, known: list[str]) -> str:
    """``" (did you mean ...?)"``, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def find_kitchen(name: str) -> Kitchen:
    """The kitchen of that name (case does not matter); ValueError with the known names where there is none."""
    kitchen = KITCHENS.get(name.strip().upper().removeprefix("KITCHEN").strip())
    if kitchen is None:
        raise ValueError(f"unknown kitchen {name!r}{nearest(name.upper(), list(KITCHENS))}; known: {list(KITCHENS)}")
    return kitchen


def furnish(spec: mujoco.MjSpec, kitchen: Kitchen) -> None:
    """Puts a kitchen's textures, tint and light into a Meta-World scene before it is compiled.

    Multi-sampling, shadows and reflections are off: with Meta-World's own settings a frame takes 0.25 s in software.
    """
    textures = Path(spec.texture("T_table").file).parent
    for name, file in (("T_table", kitchen.table), ("T_floor", kitchen.floor), ("T_wallmetal", kitchen.wall)):
        spec.texture(name).file = str(textures / file)
    for material in spec.materials:
        material.reflectance = 0.0
    spec.material("table_wood").rgba = [*kitchen.tint, 1.0]
    for light in spec.lights:
        light.diffuse = [kitchen.light * value for value in light.diffuse]
        light.castshadow = False
    headlight = spec.visual.headlight
    headlight.ambient = [kitchen.light * value for value in headlight.ambient]
    headlight.diffuse = [kitchen.light * value for value in headlight.diffuse]
    spec.visual.quality.offsamples = 0
