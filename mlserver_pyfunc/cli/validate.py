"""`validate`: checks a function and prints the findings by file and line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .failure import folder_argument


@click.command("validate")
@folder_argument
@click.option("--fetch", is_flag=True, help="Also fetch a remote source and check the code in it.")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings, too.")
@click.option("--rules", is_flag=True, help="Only list the rules.")
@click.option("--explain", metavar="RULE", help="Only explain a rule, with examples.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(
    folder: Path, fetch: bool, strict: bool, rules: bool, explain: str | None, as_json: bool
) -> None:
    """Check the function in FOLDER without running its code.

    Prints what is wrong by file and line. Exits with 1 if there is an error.
    """
    from mlserver_pyfunc.validation import RULES, validate
    from mlserver_pyfunc.validation.findings import EXPLANATIONS

    if rules:
        for rule, (severity, holds) in RULES.items():
            click.echo(f"{rule}  {severity:8} {holds}")
        return
    if explain is not None:
        if explain.upper() not in EXPLANATIONS:
            raise click.BadParameter(f'no rule "{explain}", --rules lists them')
        click.echo(EXPLANATIONS[explain.upper()])
        return
    findings = validate(folder, fetch=fetch)
    if as_json:
        click.echo(json.dumps([_plain(finding) for finding in findings], indent=2))
    else:
        _print(findings, folder)
    failing = ("error", "warning") if strict else ("error",)
    if any(finding.severity in failing for finding in findings):
        raise click.exceptions.Exit(1)


_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}


def _print(findings: list[Any], folder: Path) -> None:
    for finding in findings:
        path = finding.file.absolute()
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else finding.file
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        line = lines[finding.line - 1].rstrip()[:200] if finding.line <= len(lines) else ""
        indent = len(line) - len(line.lstrip())
        severity = click.style(finding.severity, fg=_COLORS[finding.severity], bold=True)
        place = f"{path}:{finding.line}:{indent + 1}"
        click.echo(f"{place}: {severity} {finding.rule}: {finding.message}")
        if line.strip():
            mark = click.style("^" * (len(line) - indent), fg=_COLORS[finding.severity])
            margin = " " * len(str(finding.line))
            click.echo(f"{finding.line} | {line}\n{margin} | {' ' * indent}{mark}")
    kinds = [finding.severity for finding in findings]
    counts = [f"{kind}s: {kinds.count(kind)}" for kind in _COLORS if kind in kinds]
    click.echo(", ".join(counts) or f"{folder}: nothing wrong was found")


def _plain(finding: Any) -> dict[str, Any]:
    return {**asdict(finding), "file": str(finding.file), "severity": finding.severity}
