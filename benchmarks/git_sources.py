"""Measures how long it takes to fetch a git source, compared with plain `git clone`.

    python benchmarks/git_sources.py [--runs 5]

The script makes a repository of 1,000 commits and 50 MB. `git http-backend` serves it over HTTPS
on the loopback device. Each run takes all cases in turn and fetches in a new process. A figure is
the median of the runs: "fetch" is the call only, "start" includes Python and the imports.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.sources.servers import GIT_ENVIRONMENT, GitServer, certificate

COMMITS = 1000
FILES = 400
FILE_BYTES = 50_000

PROGRAM = """
import sys, time
from pathlib import Path
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.sources import fetch
source = SourceDefinition(source=sys.argv[1], handler="model:predict")
start = time.perf_counter()
tree = fetch(source, Path("."))
print(time.perf_counter() - start)
"""


def make_repository(folder: Path) -> None:
    """Makes a repository whose commits each replace one file: 50 MB of history, 20 MB of files."""
    noise = random.Random(0)
    subprocess.run(["git", "init", "--quiet", "--bare", folder], check=True, env=GIT_ENVIRONMENT)
    lines = []
    for number in range(COMMITS):
        content = noise.randbytes(FILE_BYTES)
        message = f"commit {number}".encode()
        who = f"a <a@example.com> {1_700_000_000 + number} +0000".encode()
        lines.append(
            b"commit refs/heads/main\ncommitter " + who + b"\ndata %d\n" % len(message) + message
            + b"\nM 100644 inline data/%03d.bin\n" % (number % FILES)
            + b"data %d\n" % len(content) + content + b"\n"
        )  # fmt: skip
    subprocess.run(
        ["git", "-C", folder, "fast-import", "--quiet"],
        input=b"".join(lines),
        check=True,
        env=GIT_ENVIRONMENT,
    )
    subprocess.run(
        ["git", "-C", folder, "symbolic-ref", "HEAD", "refs/heads/main"],
        check=True,
        env=GIT_ENVIRONMENT,
    )
    subprocess.run(["git", "-C", folder, "repack", "-adq"], check=True, env=GIT_ENVIRONMENT)


def fetch(uri: str, environment: dict[str, str]) -> tuple[float, float]:
    """Fetches in a new process; returns the seconds of the call and of the whole process."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout), time.perf_counter() - started


def clone(arguments: list[str], target: Path, environment: dict[str, str]) -> tuple[float, float]:
    shutil.rmtree(target, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", *arguments, target], check=True, env=environment)
    seconds = time.perf_counter() - started
    return seconds, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_repository(work / "served" / "repository.git")
        pem = certificate(work)
        server = GitServer(work / "served", pem)
        url = f"{server.url}/repository.git"
        commit = subprocess.run(
            ["git", "-C", work / "served" / "repository.git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            env=GIT_ENVIRONMENT,
        ).stdout.strip()
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
            "MLSERVER_PYFUNC_CACHE": str(work / "cache"),
            "SSL_CERT_FILE": str(pem),
        }
        plain = {**GIT_ENVIRONMENT, "GIT_SSL_CAINFO": str(pem)}
        cases = {
            "git clone": lambda: clone([url], work / "clone", plain),
            "git clone --depth 1": lambda: clone(["--depth=1", url], work / "clone", plain),
            "cold, branch": lambda: fetch(f"git+{url}#main", environment),
            "warm, branch": lambda: fetch(f"git+{url}#main", environment),
            "warm, pinned commit": lambda: fetch(f"git+{url}#{commit}", environment),
        }
        times: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
        requests: dict[str, int] = {}
        for _ in range(runs):
            shutil.rmtree(work / "cache", ignore_errors=True)
            for case, run in cases.items():
                server.requests.clear()
                times[case].append(run())
                requests[case] = len(server.requests)
        server.close()
    print(f"{'case':24}{'fetch':>10}{'start':>10}{'requests':>10}")
    for case, pairs in times.items():
        inner, outer = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{case:24}{inner:>8.2f} s{outer:>8.2f} s{requests[case]:>10}")
    if requests["warm, pinned commit"]:
        sys.exit("a pinned commit in the cache must touch no network")


if __name__ == "__main__":
    main()
