"""Every convolution of the encoders, forward and backward, against float64: a program, because a fault may end it.

    python convolution_sweep.py 1,4 24x24,25x31        # widths (num_filters) and sizes of images to go through

oneDNN reads ``ONEDNN_MAX_CPU_ISA`` once per process, and what it writes past the end of a buffer shows when the buffer
is freed, if the allocator looks (``MALLOC_CHECK_=3``). A shape is printed before it runs; a wrong number ends the
program.
"""

import itertools
import sys
from unittest.mock import patch

import torch
from torch.nn import functional as F

from ptr_fast.config import EncoderConfig
from ptr_fast.nets import make_encoder
from ptr_fast.nets.init import draw_weights, keyed_generator
from ptr_fast.nets.layers import Conv2d
from ptr_fast.types import CameraSpec

ENCODERS = ("conv3", "resnet_small", "resnet18", "resnet34", "resnet50")
# Of the largest magnitude; a sum of 4608 products in float32 is 1e-6 off.
BOUND = 1e-5

# num_in, num_out, kernel, stride, padding, height, width
Shape = tuple[int, int, int, int, tuple[int, int], int, int]


def shapes_of(name: str, num_filters: int, height: int, width: int) -> list[Shape]:
    """The convolutions that one encoder runs on images of one size; none is computed."""
    shapes: list[Shape] = []

    def record(conv: Conv2d, x: torch.Tensor, padding: int | tuple[int, int] = 0) -> torch.Tensor:
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        pads = (padding, padding) if isinstance(padding, int) else padding
        shapes.append((conv.in_channels, conv.out_channels, kernel, stride, pads, x.shape[2], x.shape[3]))
        size = [(x.shape[2 + i] + 2 * pads[i] - kernel) // stride + 1 for i in range(2)]
        return x.new_zeros(len(x), conv.out_channels, *size).contiguous(memory_format=torch.channels_last)

    config = EncoderConfig(name=name, num_filters=num_filters, num_groups=1, embedding_dim=4)
    encoder = draw_weights(make_encoder(config, [CameraSpec(name="camera", height=height, width=width)]), 0, "sweep")
    with patch.object(Conv2d, "convolve", record), torch.no_grad():
        encoder.embed(torch.zeros(1, 3, height, width).contiguous(memory_format=torch.channels_last))
    return shapes


def check(shape: Shape, num_batch: int) -> None:
    num_in, num_out, kernel, stride, padding, height, width = shape
    generator = keyed_generator(0, str(shape), num_batch)
    conv = Conv2d(num_in, num_out, kernel, stride)
    conv.initialise(generator)
    x = torch.randn(num_batch, num_in, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x, conv.weight))
    expected = F.conv2d(exact_x, exact_weight, None, stride, padding)
    outer = torch.randn(expected.shape, generator=generator).contiguous(memory_format=torch.channels_last)
    y = conv.convolve(x, padding)
    ours = (y, *torch.autograd.grad(y, (x, conv.weight), outer))
    theirs = (expected, *torch.autograd.grad(expected, (exact_x, exact_weight), outer.double()))
    for what, a, b in zip(("output", "input gradient", "weight gradient"), ours, theirs, strict=True):
        error = float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max())
        assert error <= BOUND, f"{what} is {error:.1e} off"


def main(widths: str, sizes: str) -> None:
    torch.set_num_threads(1)
    shapes = dict.fromkeys(
        shape
        for name, num_filters, size in itertools.product(ENCODERS, widths.split(","), sizes.split(","))
        for shape in shapes_of(name, int(num_filters), *map(int, size.split("x")))
    )
    for shape, num_batch in itertools.product(shapes, (1, 3)):
        print("in {}, out {}, kernel {}, stride {}, padding {}, {}x{}".format(*shape), "batch", num_batch, flush=True)
        check(shape, num_batch)
    print(len(shapes), "shapes")


if __name__ == "__main__":
    main(*sys.argv[1:])
