"""Networks of the masked autoencoder: an encoder of the seen patches and a decoder of all.

Shapes: N frames, L patches of a frame, V seen ones, C width of the encoder's tokens, W of the decoder's, P pixels of a
patch times 3.
Source: He et al. 2022, "Masked autoencoders are scalable vision learners". Deviation: no class token.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ptr_fast.config import PolicySpec
from ptr_fast.learners.masked_autoencoder.config import MaskedAutoencoderConfig
from ptr_fast.learners.representation.networks import RepresentationNetworks
from ptr_fast.nets.encoders import Encoder, ImageEncoder, OwnEncoders, make_encoder
from ptr_fast.nets.encoders.frozen_resnet.trunk import MEAN, STD
from ptr_fast.nets.encoders.vit.trunk import Block, VisionTransformer, sine_cosine_positions
from ptr_fast.nets.init import draw_weights, xavier_uniform_
from ptr_fast.nets.layers import Dense, LayerNorm, initialise_layers

__all__ = ["Autoencoder", "Decoder", "MaskedAutoencoderNetworks", "patch_targets", "seen_and_hidden"]


def seen_and_hidden(noise_NL: torch.Tensor, mask_ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the seen patches ``[N, V]``, which have the least noise, and of the hidden ones ``[N, L - V]``."""
    num_patches = noise_NL.shape[1]
    num_seen = min(max(int(num_patches * (1.0 - mask_ratio)), 1), num_patches - 1)
    order_NL = noise_NL.argsort(dim=1, stable=True)
    return order_NL[:, :num_seen], order_NL[:, num_seen:]


def patch_targets(patches_NLP: torch.Tensor, normalise: bool) -> torch.Tensor:
    """What the decoder has to paint: the patches, or each less its mean, over its standard deviation."""
    if not normalise:
        return patches_NLP
    variance_NL1, mean_NL1 = torch.var_mean(patches_NLP, dim=2, keepdim=True)
    return (patches_NLP - mean_NL1) / (variance_NL1 + 1e-6).sqrt()


def rows_of(values_NLX: torch.Tensor, number_NM: torch.Tensor) -> torch.Tensor:
    """``[N, M, X]``: the rows of each entry that are named."""
    return values_NLX.gather(1, number_NM[..., None].expand(-1, -1, values_NLX.shape[2]))


class Decoder(nn.Module):
    """Tokens of the seen patches to all patches of a frame.

    Args:
        grid: rows and columns of patches.
        num_channels: C.
        num_pixels: P.
        width, depth, heads: of the decoder.
    """

    positions: torch.Tensor

    def __init__(
        self, grid: tuple[int, int], num_channels: int, num_pixels: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.embed = Dense(num_channels, width)
        self.hidden_token = nn.Parameter(torch.empty(width))
        self.register_buffer("positions", sine_cosine_positions(*grid, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.paint = LayerNorm(width), Dense(width, num_pixels)

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier uniform weights, zero biases, the token of hidden patches normal with deviation 0.02."""
        initialise_layers((layer for layer in self.modules() if layer is not self), generator)
        for layer in self.modules():
            if isinstance(layer, Dense):
                xavier_uniform_(layer.weight, generator)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.hidden_token, std=0.02, generator=generator)

    def forward(self, seen_NVC: torch.Tensor, seen_NV: torch.Tensor, hidden_NM: torch.Tensor) -> torch.Tensor:
        """Painted patches ``[N, L, P]``, of tokens whose patches have the numbers ``seen_NV``."""
        given_NVW = self.embed(seen_NVC)
        blank_NMW = self.hidden_token.to(given_NVW.dtype).expand(*hidden_NM.shape, -1)
        place_NL = torch.cat([seen_NV, hidden_NM], dim=1).argsort(dim=1)
        x_NLW = rows_of(torch.cat([given_NVW, blank_NMW], dim=1), place_NL) + self.positions.to(given_NVW.dtype)
        for block in self.blocks:
            x_NLW = block(x_NLW)
        return self.paint(self.norm(x_NLW))


class Autoencoder(nn.Module):
    """An image encoder whose trunks are vision transformers, and a decoder for each of them.

    Attributes:
        encoder: of all cameras.
        decoders: one where the cameras share an encoder, else one of each camera.
    """

    def __init__(self, encoder: Encoder, config: MaskedAutoencoderConfig) -> None:
        super().__init__()
        self.encoder = encoder
        sizes = config.decoder_width, config.decoder_depth, config.decoder_heads
        self.decoders = nn.ModuleList(
            Decoder(trunk.grid, trunk.num_channels, trunk.patch_embed.in_features, *sizes) for trunk in self.trunks()
        )

    def initialise(self, generator: torch.Generator) -> None:
        """Encoder, then decoders; the trunks begin as if they were shown frames normalised as ImageNet's."""
        self.encoder.initialise(generator)
        for trunk in self.trunks():
            _begin_normalised(trunk)
        for decoder in self.decoders:
            cast(Decoder, decoder).initialise(generator)

    def trunks(self) -> list[VisionTransformer]:
        """The trunk of every encoder."""
        encoders = self.encoder.encoders if isinstance(self.encoder, OwnEncoders) else [self.encoder]
        return [cast(VisionTransformer, cast(ImageEncoder, encoder).trunk) for encoder in encoders]

    def of_camera(self, number: int) -> tuple[VisionTransformer, Decoder]:
        """What sees and paints the frames of a camera, by its number among the encoder's."""
        trunks, part = self.trunks(), number if len(self.decoders) > 1 else 0
        return trunks[part], cast(Decoder, self.decoders[part])

    def painted(
        self, number: int, images_NCHW: torch.Tensor, seen_NV: torch.Tensor, hidden_NM: torch.Tensor
    ) -> torch.Tensor:
        """All patches ``[N, L, P]`` of frames of a camera, from the seen ones alone; in the dtype of the images."""
        trunk, decoder = self.of_camera(number)
        tokens_NVC = trunk.encode(rows_of(trunk.tokens(images_NCHW), seen_NV))
        return decoder(tokens_NVC, seen_NV, hidden_NM)


@torch.no_grad()
def _begin_normalised(trunk: VisionTransformer) -> None:
    """Folds (x - mean) / deviation of every colour into the drawn embedding of patches.

    He et al. show normalised frames. Frames in [0, 1] differ by a tenth of what the positions do, and so few updates
    would see little but positions.
    """
    embed, num_pixels = trunk.patch_embed, trunk.patch**2
    mean, deviation = (torch.tensor(values).repeat_interleave(num_pixels) for values in (MEAN, STD))
    embed.weight.div_(deviation)
    embed.bias.copy_(-embed.weight @ mean)


class MaskedAutoencoderNetworks(RepresentationNetworks):
    """What the network of a configuration can do."""

    name = "autoencoder"

    def make_network(self, spec: PolicySpec, seed: int) -> Autoencoder:
        """See :class:`~ptr_fast.learners.representation.networks.RepresentationNetworks`."""
        encoder = make_encoder(self.config.encoder, spec.cameras)
        return draw_weights(Autoencoder(encoder, self.config), seed, self.name)
