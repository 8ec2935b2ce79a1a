"""Command line of the fuzzer.

    python -m tests.fuzz                                 # the targets
    python -m tests.fuzz rest_json --runs 100000         # fuzz one, from the kept corpus
    python -m tests.fuzz rest_json --file crash-da39a3   # run one input
    python -m tests.fuzz --coverage                      # lines that the corpus executes
    python -m tests.fuzz rest_json --keep                # add to the corpus what runs have found

New inputs, and those that fail, are in `.artifacts/fuzz/TARGET`. `--keep` adds the fewest that
execute the lines, one after the other, which no input of the corpus does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.places import ROOT

FOUND = ROOT / ".artifacts" / "fuzz"


def main() -> int:
    """Runs a command of the fuzzer."""
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("target", nargs="?")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--seed", type=int, default=0, help="0 for another one each time")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if options.runs is not None:
        return _fuzz_in_fork(options.target, options.runs, options.seed)
    from .targets import TARGETS

    names = [options.target] if options.target else list(TARGETS)
    if options.file:
        TARGETS[options.target].run(options.file.read_bytes())
    elif options.coverage:
        _show_coverage(names)
    elif options.keep:
        for name in names:
            _keep(name)
    else:
        print(*TARGETS, sep="\n")
    return 0


def _fuzz_in_fork(name: str, runs: int, seed: int) -> int:
    """Fuzzes a target in a fork, which libFuzzer ends before it removes its temporary files."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    in_memory = Path("/dev/shm").is_dir() and "TMPDIR" not in os.environ
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if in_memory else None) as work:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            tempfile.tempdir = work
            _fuzz(name, runs, seed)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise


def _fuzz(name: str, runs: int, seed: int) -> None:
    """Fuzzes a target. Ends the process."""
    import atheris

    with atheris.instrument_imports(include=["mlserver_pyfunc"]):
        from .targets import CORPUS, TARGETS
    target = TARGETS[name]
    found = FOUND / name
    (found / "new").mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0], f"-runs={runs}", f"-max_len={target.max_bytes}", f"-seed={seed}",
        f"-artifact_prefix={found}/", "-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1",
        "-reload=0",
    ]  # fmt: skip
    if target.words:
        words = found / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        arguments.append(f"-dict={words}")
    arguments += [str(folder) for folder in (found / "new", CORPUS / name) if folder.is_dir()]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()


def _escaped(word: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word.encode())


def _show_coverage(names: list[str]) -> None:
    from . import coverage
    from .targets import CORPUS, TARGETS

    taken: set[coverage.Step] = set()
    for name in names:
        inputs = coverage.read(CORPUS / name)
        print(f"{name}: {len(inputs)} inputs of {sum(map(len, inputs))} bytes")
        taken.update(*(coverage.steps(TARGETS[name], data) for data in inputs))
    for module in sorted({module for name in names for module in TARGETS[name].modules}):
        every = coverage.functions(taken, module)
        entered = [each for each in every if len(each.missed) < len(each.lines)]
        lines = sum(len(each.lines) for each in entered)
        missed = sorted(line for each in entered for line in each.missed)
        print(f"\n{module}: {lines - len(missed)} of {lines} lines of {len(entered)} functions")
        print("  lines not executed:", _ranges(missed))
        print("  not called:", ", ".join(e.name for e in every if e not in entered) or "none")


def _ranges(lines: list[int]) -> str:
    ranges: list[list[int]] = []
    for line in lines:
        if ranges and line - ranges[-1][1] <= 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) or "none"


def _keep(name: str) -> None:
    from . import coverage
    from .targets import CORPUS, TARGETS

    corpus, found = CORPUS / name, coverage.read(FOUND / name / "new")
    added = coverage.additions(TARGETS[name], coverage.read(corpus), found)
    corpus.mkdir(parents=True, exist_ok=True)
    for data in added:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    print(f"{name}: added {len(added)} of {len(found)} inputs, {sum(map(len, added))} bytes")


if __name__ == "__main__":
    sys.exit(main())
