"""Command line of mutation testing.

    python -m tests.mutation mlserver_pyfunc/protocol/tensors.py
    python -m tests.mutation mlserver_pyfunc/serving/limits.py -- tests/serving/test_function.py
    python -m tests.mutation --since main
    python -m tests.mutation --since

The first form mutates files, and runs the tests of their packages. The second one names the tests.
The third one mutates only the lines that were changed since a commit; the last one since the branch
left `main`, or on `main` itself since the last commit. Survivors are printed. Kill each by a test;
if it is equal in effect, add it to `equal.txt`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.places import ROOT

from .mutants import Mutant, mutants_of
from .runner import run

PACKAGES = ("mlserver_pyfunc/handler/", "mlserver_pyfunc/protocol/", "mlserver_pyfunc/serving/")
"""What `--since` looks at."""

EQUAL = Path(__file__).with_name("equal.txt")
_HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@")


def main(arguments: list[str]) -> int:
    """Runs mutants, prints the survivors, and returns 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("paths", nargs="*", help="files to mutate")
    parser.add_argument(
        "--since", nargs="?", const="", metavar="COMMIT", help="mutate the lines changed since then"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="when to stop")
    parser.add_argument("--verbose", action="store_true", help="print what kills too")
    own, tests = _split(arguments)
    options = parser.parse_args(own)
    changed = {} if options.since is None else changed_lines(options.since or _base())
    paths = options.paths or sorted(changed)
    if not paths:
        print("no line of", *PACKAGES, "has changed")
        return 0
    mutants = (mutant for path in paths for mutant in mutants_of(ROOT, path))
    if changed:
        mutants = (mutant for mutant in mutants if _touches(mutant, changed))
    return _run(paths, mutants, tests or _tests_of(paths), options.seconds, options.verbose)


def _base() -> str:
    """Returns the commit at which this branch left `main`; on `main`, the last but one."""
    base, head = _git("merge-base", "HEAD", "main").strip(), _git("rev-parse", "HEAD").strip()
    return "HEAD~1" if base == head else base


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def changed_lines(commit: str) -> dict[str, set[int]]:
    """Returns the numbers of the lines that were changed or added since a commit, by file."""
    diff = _git("diff", "--unified=0", "--diff-filter=AM", commit, "--", *PACKAGES)
    lines: dict[str, set[int]] = {}
    path = ""
    for line in diff.splitlines():
        if line.startswith("+++ b/"):
            path = line.removeprefix("+++ b/")
        elif path.endswith(".py") and (hunk := _HUNK.match(line)):
            start, count = int(hunk[1]), int(hunk[2] or 1)
            lines.setdefault(path, set()).update(range(start, start + count))
    return lines


def equal() -> set[str]:
    """Returns the keys of mutants that change nothing that anybody could notice."""
    rows = [line.split(" | ") for line in EQUAL.read_text(encoding="utf-8").splitlines()]
    return {" | ".join(row[:3]) for row in rows if len(row) == 4}


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    index = arguments.index("--")
    return arguments[:index], arguments[index + 1 :]


def _touches(mutant: Mutant, changed: dict[str, set[int]]) -> bool:
    first, last = mutant.lines
    return not changed.get(mutant.path, set()).isdisjoint(range(first, last + 1))


def _tests_of(paths: list[str]) -> list[str]:
    return sorted({f"tests/{Path(path).parts[1]}" for path in paths})


def _run(
    paths: list[str], mutants: Iterator[Mutant], tests: list[str], seconds: float, verbose: bool
) -> int:
    known = equal()
    counts: Counter[str] = Counter()

    def show(mutant: Mutant, fate: str) -> None:
        fate = "equal" if fate != "killed" and mutant.key in known else fate
        counts[fate] += 1
        if verbose or fate in ("survived", "untested"):
            where = f"{mutant.path}:{mutant.lines[0]}: {mutant.function}"
            print(f"{fate}: {where}: {mutant.change}", flush=True)

    is_whole = run(ROOT, paths, _until(time.monotonic() + seconds, mutants), tests, show)
    print(f"{sum(counts.values())} mutants:", *(f"{n} {fate}" for fate, n in counts.items()))
    return int(not is_whole or bool(counts["survived"] + counts["untested"]))


def _until(end: float, mutants: Iterator[Mutant]) -> Iterator[Mutant]:
    for mutant in mutants:
        if time.monotonic() > end:
            print("the time is up:", 1 + sum(1 for _ in mutants), "mutants left out")
            return
        yield mutant


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
