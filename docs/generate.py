"""Writes the files that are generated from the code: `make docs`."""

from __future__ import annotations

import json
from pathlib import Path

from mlserver_pyfunc import definition
from mlserver_pyfunc.cli.reference import reference

ROOT = Path(__file__).resolve().parent.parent


def schema_text() -> str:
    return json.dumps(definition.json_schema(), indent=2) + "\n"


GENERATED = {
    ROOT / "docs" / "cli.md": reference,
    ROOT / "mlserver_pyfunc" / "function.schema.json": schema_text,
}

if __name__ == "__main__":
    for path, text in GENERATED.items():
        path.write_text(text())
        print(f"wrote {path.relative_to(ROOT)}")
