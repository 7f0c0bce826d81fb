"""Registers, spills and shared memory of every Triton kernel that the product launches, compiled without a GPU.

    python -m benchmarks.registers [--architecture 90] [--json] [CASE ...]

Cases: :data:`benchmarks.launch_cases.CASES`; all of them by default. ``blocks`` is how many blocks the 65536 registers
of a multiprocessor hold.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from benchmarks.launch_cases import CASES
from benchmarks.launches import ARCHITECTURES, Launch, recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=list(CASES), metavar="CASE")
    parser.add_argument("--architecture", type=int, choices=list(ARCHITECTURES), default=90)
    parser.add_argument("--json", action="store_true", help="one object per kernel instead of a table")
    args = parser.parse_args()
    with recorded(args.architecture) as launches:
        for case in args.cases:
            CASES[case]()
    if args.json:
        for launch in launches:
            print(json.dumps(asdict(launch)))
    else:
        _print_table(launches)


def _print_table(launches: list[Launch]) -> None:
    print(f"{'kernel':26}{'warps':>6}{'registers':>10}{'spilled':>8}{'blocks':>7}{'shared':>8}  compiled for")
    for launch in launches:
        blocks = 65536 // (-(-launch.registers // 8) * 8 * 32 * launch.num_warps)
        print(
            f"{launch.kernel:26}{launch.num_warps:6}{launch.registers:10}{launch.spilled_bytes:8}{blocks:7}"
            f"{launch.shared_bytes:8}  {launch.arguments}"
        )


if __name__ == "__main__":
    main()
