"""Looks for known vulnerabilities in the installed packages, or says that it cannot.

pip-audit asks PyPI's own service. Behind a mirror that has packages only, it finds nothing about
any of them and calls that "No known vulnerabilities found".
"""

from __future__ import annotations

import json
import subprocess
import sys

KNOWN: dict[str, str] = {}
"""Vulnerabilities that do not concern us: identifier and reason."""


def main() -> int:
    """Runs pip-audit, and returns 1 if there is a vulnerability that is not known."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable"]
    command += ["--format=json", "--progress-spinner=off", "--timeout=10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        print("audit: skipped, the service does not answer within 300 s")
        return 0
    code, lines = report(done.stdout, done.stderr)
    print(*lines, sep="\n")
    return code


def report(output: str, errors: str) -> tuple[int, list[str]]:
    """Returns the exit code and the lines for what pip-audit printed."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        last = errors.strip().splitlines()[-1:] or ["pip-audit printed nothing"]
        return 0, [f"audit: skipped, the service cannot be reached: {last[0][:200]}"]
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        return 0, ["audit: skipped, the service knows no package: is it behind a mirror?"]
    found = [
        f"audit: {package['name']} {package['version']}: {each['id']}, "
        f"fixed in {', '.join(each['fix_versions']) or 'no version'}"
        for package in audited
        for each in package["vulns"]
        if each["id"] not in KNOWN
    ]
    summary = f"audit: {len(audited)} of {len(packages)} packages looked up, {len(found)} findings"
    return int(bool(found)), [*found, summary]


if __name__ == "__main__":
    sys.exit(main())
