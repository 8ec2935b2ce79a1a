"""What the commands of this folder have in common."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Iterable


def read(parser: argparse.ArgumentParser, plants: Iterable[str]) -> argparse.Namespace:
    """Reads the arguments, with a seed and a defect to plant. Ends the run cleanly on SIGTERM."""
    parser.add_argument("--seed", type=int, help="to repeat a run; another one each time without")
    parser.add_argument(
        "--plant", choices=plants, default="", help="plant a defect, to see that it is found"
    )
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(10**6)
    print(f"seed {arguments.seed}", flush=True)
    # The server must not outlive a run that is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return arguments
