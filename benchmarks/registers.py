"""Registers, spills and shared memory of every kernel that the product launches on a GPU, compiled without one.

    python -m benchmarks.registers [--architecture 90] [--json] [CASE ...]     of Triton
    python -m benchmarks.registers --cuda [--json]                             of CUDA C++, all architectures

Of CUDA the rows are those that ptxas wrote when the native module was built. Shared memory is what the kernel has of
itself; a launch asks for more by its shapes.

Cases: :data:`benchmarks.launch_cases.CASES`; all of them by default. ``blocks`` is how many blocks the 65536 registers
of a multiprocessor hold.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from benchmarks.launch_cases import CASES
from benchmarks.launches import ARCHITECTURES, Launch, recorded
from ptr_fast import native


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], metavar="CASE")
    parser.add_argument("--architecture", type=int, choices=list(ARCHITECTURES), default=90)
    parser.add_argument("--json", action="store_true", help="one object per kernel instead of a table")
    parser.add_argument("--cuda", action="store_true", help="the kernels of csrc/kernels/*.cu, as Markdown")
    args = parser.parse_args()
    if args.cuda:
        rows = native.cuda_kernels()
        if not rows:
            raise SystemExit(f"there are no CUDA kernels: {native.why_no_cuda() or 'this version has none'}")
        print("\n".join(map(json.dumps, rows) if args.json else cuda_table(rows)))
        return
    with recorded(args.architecture) as launches:
        for case in args.cases or CASES:
            CASES[case]()
    if args.json:
        for launch in launches:
            print(json.dumps(asdict(launch)))
    else:
        _print_table(launches)


def cuda_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table: a row a kernel, under each architecture registers, spilled and shared bytes."""
    architectures = sorted({row["architecture"] for row in rows})
    by_kernel: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        spilled = row["spill_stores"] + row["spill_loads"]
        cell = f"{row['registers']} / {spilled} / {row['static_shared']}"
        by_kernel.setdefault((row["source"], row["kernel"]), {})[row["architecture"]] = cell
    heads = [f"sm_{each}" for each in architectures]
    lines = [f"| source | kernel | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    for (source, kernel), cells in sorted(by_kernel.items()):
        found = " | ".join(cells.get(each, "no code") for each in architectures)
        lines.append(f"| {source} | `{kernel}` | {found} |")
    return [*lines, "", "Registers of a thread / spilled bytes of a thread / static shared bytes of a block."]


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
