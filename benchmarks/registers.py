"""Registers, spills and shared memory of the Triton kernels, compiled without a GPU.

    python -m benchmarks.registers [--architecture 90] [OP ...]

``blocks`` is how many blocks the 65536 registers of a multiprocessor hold.
"""

from __future__ import annotations

import argparse

from ptr_fast.kernels import cubins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", default=list(cubins.OPS), metavar="OP")
    parser.add_argument("--architecture", type=int, default=90)
    args = parser.parse_args()
    print(f"{'kernel':22}{'case':36}{'warps':>6}{'registers':>10}{'spilled':>8}{'blocks':>7}{'shared':>8}")
    for op in args.ops:
        for row in cubins.compile_all(op, (args.architecture,)):
            used = cubins.resources(row["ptx"], args.architecture)
            blocks = 65536 // (-(-used["registers"] // 8) * 8 * 32 * row["num_warps"])
            print(
                f"{row['kernel']:22}{row['case']:36}{row['num_warps']:6}{used['registers']:10}"
                f"{used['spilled_bytes']:8}{blocks:7}{row['shared_bytes']:8}"
            )


if __name__ == "__main__":
    main()
