"""Writes the files that are made from the code: `make docs`."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

from mlserver_pyfunc import cli, definition
from mlserver_pyfunc.cli.reference import reference

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = ROOT / "examples" / "kubernetes" / "README.md"


def schema_text() -> str:
    return json.dumps(definition.json_schema(), indent=2) + "\n"


def manifest_commands(document: Path) -> list[list[str]]:
    """Returns the arguments of each `mlserver-pyfunc manifest` command that a page shows."""
    text = document.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?mlserver-pyfunc (manifest .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


GENERATED = {
    ROOT / "docs" / "cli.md": reference,
    ROOT / "mlserver_pyfunc" / "function.schema.json": schema_text,
}

if __name__ == "__main__":
    for path, text in GENERATED.items():
        path.write_text(text())
        print(f"wrote {path.relative_to(ROOT)}")
    os.chdir(ROOT)
    for arguments in manifest_commands(MANIFESTS):
        cli.main(arguments, standalone_mode=False)
        print(f"wrote {arguments[-1]}")
