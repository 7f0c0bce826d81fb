"""A vision transformer: patches to tokens, pre-norm blocks of attention and MLP.

Note "Attention on a GPU". Every product of attention is PyTorch's ``math`` backend of ``scaled_dot_product_attention``
there: plain matrix products and a softmax, whose gradients are added up in one order. The gradients of the fused
backends are not the same in two runs. At the 64 tokens of a robot's camera little is lost.

Shapes: N images, L tokens (rows of patches one after the other), C width, P pixels of a patch times 3.
Source: He et al. 2022, "Masked autoencoders are scalable vision learners", and its ``models_mae.py``: fixed sine and
cosine positions, Xavier uniform weights, layer norm with epsilon 1e-6. Deviation: no class token.
"""

from __future__ import annotations

import contextlib

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ptr_fast.nets.encoders.image import Trunk
from ptr_fast.nets.init import xavier_uniform_
from ptr_fast.nets.layers import Dense, LayerNorm

__all__ = ["Block", "VisionTransformer", "sine_cosine_positions"]


def sine_cosine_positions(num_rows: int, num_columns: int, width: int) -> torch.Tensor:
    """Float32 ``[rows * columns, width]``: half of it tells the column, half the row, each by sines, then cosines."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(
        torch.arange(num_rows, dtype=torch.float64), torch.arange(num_columns, dtype=torch.float64), indexing="ij"
    )
    angles = [place.flatten()[:, None] * frequency for place in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()


class Attention(nn.Module):
    """Every token looks at every other one, with several heads."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = Dense(width, 3 * width), Dense(width, width)

    def forward(self, x_NLC: torch.Tensor) -> torch.Tensor:
        num_images, num_tokens, width = x_NLC.shape
        qkv = self.qkv(x_NLC).view(num_images, num_tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        # Note "Attention on a GPU".
        with sdpa_kernel(SDPBackend.MATH) if x_NLC.is_cuda else contextlib.nullcontext():
            seen = F.scaled_dot_product_attention(query, key, value)
        return self.proj(seen.transpose(1, 2).reshape(num_images, num_tokens, width))


class Mlp(nn.Module):
    """Two dense layers with a GELU between, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = Dense(width, 4 * width), Dense(4 * width, width)

    def forward(self, x_NLC: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x_NLC)))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = LayerNorm(width), Attention(width, num_heads)
        self.norm2, self.mlp = LayerNorm(width), Mlp(width)

    def forward(self, x_NLC: torch.Tensor) -> torch.Tensor:
        x_NLC = x_NLC + self.attn(self.norm1(x_NLC))
        return x_NLC + self.mlp(self.norm2(x_NLC))


class VisionTransformer(Trunk):
    """Images to a map of tokens.

    Args:
        height, width: of the images, pixels.
        patch: height and width of a patch, pixels.
        num_channels: C.
        depth: number of blocks.
        num_heads: of every block.

    Raises:
        ValueError: images that are not whole patches.
    """

    positions: torch.Tensor

    def __init__(self, height: int, width: int, patch: int, num_channels: int, depth: int, num_heads: int) -> None:
        super().__init__()
        if height % patch or width % patch:
            raise ValueError(f"encoder 'vit': images of {height}x{width} px are not whole patches of {patch} px")
        self.patch, self.num_channels = patch, num_channels
        self.grid = height // patch, width // patch
        self.patch_embed = Dense(3 * patch * patch, num_channels)
        self.register_buffer("positions", sine_cosine_positions(*self.grid, num_channels), persistent=False)
        self.blocks = nn.ModuleList(Block(num_channels, num_heads) for _ in range(depth))
        self.norm = LayerNorm(num_channels)

    def map_size(self, size: int) -> int:
        """Patches along a side of that many pixels."""
        return size // self.patch

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier uniform weights, zero biases; norms are the identity."""
        super().initialise(generator)
        for layer in self.modules():
            if isinstance(layer, Dense):
                xavier_uniform_(layer.weight, generator)
                nn.init.zeros_(layer.bias)

    def patches(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Images cut into patches ``[N, L, P]``; a patch's values by channel, row, column."""
        num_images, (rows, columns), patch = len(images_NCHW), self.grid, self.patch
        cut = images_NCHW.reshape(num_images, 3, rows, patch, columns, patch)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(num_images, rows * columns, 3 * patch * patch)

    def tokens(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Patches as tokens with their positions ``[N, L, C]``, in the dtype of the images."""
        return self.patch_embed(self.patches(images_NCHW)) + self.positions.to(images_NCHW.dtype)

    def encode(self, tokens_NLC: torch.Tensor) -> torch.Tensor:
        """Tokens, all or some of an image's, through all blocks and the last norm."""
        for block in self.blocks:
            tokens_NLC = block(tokens_NLC)
        return self.norm(tokens_NLC)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """``[N, C, h, w]``, channels_last in memory."""
        tokens_NLC = self.encode(self.tokens(images_NCHW))
        return tokens_NLC.unflatten(1, self.grid).permute(0, 3, 1, 2)
