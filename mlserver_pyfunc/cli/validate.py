"""`validate`: checks functions and prints the findings by file and line."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("validate")
@click.argument("folders", type=click.Path(path_type=Path), nargs=-1)
@click.option("--fix", is_flag=True, help="Mend what leaves no doubt, and show the rest.")
@click.option("--fetch", is_flag=True, help="Also fetch a remote source and check the code in it.")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings, too.")
@click.option("--rules", is_flag=True, help="Only list the rules.")
@click.option("--explain", metavar="RULE", help="Only explain a rule, with examples.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="Form of the findings: github makes annotations.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    folders: tuple[Path, ...],
    fix: bool,
    fetch: bool,
    strict: bool,
    rules: bool,
    explain: str | None,
    form: str,
    as_json: bool,
) -> None:
    """Check the functions in FOLDERS without running their code.

    Without FOLDERS, checks the function in this folder. Prints what is wrong by file, line and
    column. Exits with 1 if there is an error.
    """
    # To look for plugins in all installed packages takes pydantic a fifth of the command's time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from mlserver_pyfunc.validation import RULES, formats, validate
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
    folders = folders or (Path(),)
    findings = [finding for folder in folders for finding in validate(folder, fetch=fetch)]
    if fix and (count := formats.fix(findings)):
        click.echo(f"mended: {count}", err=True)
        findings = [finding for folder in folders for finding in validate(folder, fetch=fetch)]
    write = {"json": formats.as_json, "github": formats.github}
    if as_json or form != "text":
        click.echo(write["json" if as_json else form](findings))
    else:
        named = ", ".join(map(str, folders))
        click.echo(formats.text(findings) if findings else f"{named}: nothing wrong was found")
    failing = ("error", "warning") if strict else ("error",)
    if any(finding.severity in failing for finding in findings):
        raise click.exceptions.Exit(1)
