"""python -m tests.chaos --seconds 600 --seed 7"""

from __future__ import annotations

import argparse
import random
import signal
import sys

from .plants import PLANTS
from .run import Run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long calls are made")
    parser.add_argument("--seed", type=int, help="to repeat a run; another one each time without")
    parser.add_argument(
        "--plant", choices=PLANTS, default="", help="plant a defect, to see that it is found"
    )
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    # The server must not outlive a run that is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Run(seed, arguments.seconds, arguments.plant).run()
    print(report)
    if report.defects:
        print(f"repeat it by: python -m tests.chaos --seconds {arguments.seconds:g} --seed {seed}")
        sys.exit(1)


if __name__ == "__main__":
    main()
