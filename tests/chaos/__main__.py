"""python -m tests.chaos --seconds 600 --seed 7"""

from __future__ import annotations

import argparse
import sys

from . import command_line
from .plants import PLANTS
from .run import Run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long calls are made")
    arguments = command_line.read(parser, PLANTS)
    seed = arguments.seed
    report = Run(seed, arguments.seconds, arguments.plant).run()
    print(report)
    if report.defects:
        print(f"repeat it by: python -m tests.chaos --seconds {arguments.seconds:g} --seed {seed}")
        sys.exit(1)


if __name__ == "__main__":
    main()
