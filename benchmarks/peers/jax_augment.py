"""Random crop and colour jitter in JAX: as the reference runs them (conditionals under ``vmap``), and on whole batches.

Images are uint8 BHWC; random numbers are those of ``ptr_fast.kernels.augment.AugmentParams`` as arrays.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["literal", "whole_batch"]

PADDING = 4


def literal(images: jax.Array, draws: dict[str, jax.Array]) -> jax.Array:
    """One image at a time under ``vmap``: pad, slice, four positions of four conditionals, truncation to uint8."""

    def one(image: jax.Array, draw: dict[str, jax.Array]) -> jax.Array:
        padded = jnp.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="edge")
        row, column = draw["crop_offsets"]
        cropped = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)

        def jittered(x: jax.Array) -> jax.Array:
            for position in range(4):
                for number, operation in enumerate(_OPERATIONS):
                    x = jax.lax.cond(
                        draw["order"][position] == number,
                        lambda y, operation=operation: operation(y, draw),
                        lambda y: y,
                        x,
                    )
            return x

        x = cropped.astype(jnp.float32) / 255.0
        x = jax.lax.cond(draw["apply"], jittered, lambda y: y, x)
        return (x * 255.0).astype(jnp.uint8)

    return jax.vmap(one)(images, draws).astype(jnp.float32) / 255.0


def whole_batch(images: jax.Array, draws: dict[str, jax.Array]) -> jax.Array:
    """The same numbers by one gather and, per position, each operation once on the whole batch."""
    height, width = images.shape[1:3]
    rows = jnp.clip(jnp.arange(height) + draws["crop_offsets"][:, :1] - PADDING, 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + draws["crop_offsets"][:, 1:] - PADDING, 0, width - 1)
    sample = jnp.arange(images.shape[0])[:, None, None]
    x = images[sample, rows[:, :, None], columns[:, None, :]].astype(jnp.float32) / 255.0
    factors: dict[str, Any] = {name: value[:, None, None, None] for name, value in draws.items() if value.ndim == 1}
    apply = factors["apply"]
    for position in range(4):
        order = draws["order"][:, position, None, None, None]
        changed = _brightness(x, factors)
        for number, operation in tuple(enumerate(_OPERATIONS))[1:]:
            changed = jnp.where(order == number, operation(x, factors), changed)
        x = jnp.where(apply, changed, x)
    return jnp.where(apply, jnp.floor(x * 255.0) / 255.0, x)


def _brightness(x: jax.Array, draw: dict[str, jax.Array]) -> jax.Array:
    return jnp.clip(x + draw["brightness"], 0.0, 1.0)


def _contrast(x: jax.Array, draw: dict[str, jax.Array]) -> jax.Array:
    mean = x.mean(axis=(-3, -2), keepdims=True)
    return jnp.clip((x - mean) * draw["contrast"] + mean, 0.0, 1.0)


def _saturation(x: jax.Array, draw: dict[str, jax.Array]) -> jax.Array:
    hue, saturation, value = _to_hsv(x)
    factor = draw["saturation"]
    return _to_rgb(hue, jnp.clip(saturation * factor[..., 0] if factor.ndim else saturation * factor, 0, 1), value)


def _hue(x: jax.Array, draw: dict[str, jax.Array]) -> jax.Array:
    hue, saturation, value = _to_hsv(x)
    shift = draw["hue"]
    return _to_rgb((hue + (shift[..., 0] if shift.ndim else shift)) % 1.0, saturation, value)


_OPERATIONS = (_brightness, _contrast, _saturation, _hue)


def _to_hsv(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value, low = x.max(-1), x.min(-1)
    chroma = value - low
    saturation = jnp.where(value > 0, chroma / jnp.where(value > 0, value, 1.0), 0.0)
    scale = jnp.where(chroma > 0, 1.0 / (6.0 * jnp.where(chroma > 0, chroma, 1.0)), 0.0)
    hue = jnp.where(
        red == value,
        scale * (green - blue),
        jnp.where(green == value, scale * (blue - red) + 2.0 / 6.0, scale * (red - green) + 4.0 / 6.0),
    )
    hue = jnp.where(chroma > 0, hue, 0.0)
    return hue + (hue < 0), saturation, value


def _to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    sextant = (hue % 1.0) * 6.0
    low = value * (1.0 - saturation)
    ramps = (jnp.abs(sextant - 3.0) - 1.0, 2.0 - jnp.abs(sextant - 2.0), 2.0 - jnp.abs(sextant - 4.0))
    return jnp.stack([low + value * saturation * jnp.clip(ramp, 0.0, 1.0) for ramp in ramps], -1)
