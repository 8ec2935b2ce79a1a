"""Writes the files that are made from the code: `make docs`."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import monitoring
from reference import reference

from mlserver_pyfunc import cli, models
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.deployment import DeploymentDefinition

ROOT = Path(__file__).resolve().parent.parent
PATCHES = ROOT / "docs" / "design" / "patches.md"
MANIFESTS = ROOT / "examples" / "kubernetes" / "README.md"


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema by which editors check and complete `function.yaml`.

    A digitalhub object is recognised by its `spec`, whose keys may be null: only the
    object's own form is described.
    """
    function = FunctionDefinition.model_json_schema()
    kept = DeploymentDefinition.model_json_schema()
    parts = {**function.pop("$defs"), **kept.pop("$defs"), "DeploymentDefinition": kept}
    named = {"properties": {"source": {"pattern": models.PATTERN}}, "required": ["source"]}
    is_model = {"anyOf": [{"required": ["model"]}, named]}
    handler = {"required": parts["SourceDefinition"].pop("required")}
    parts["SourceDefinition"] |= {"type": ["object", "string"], "if": is_model, "else": handler}
    function["properties"]["deployment"] = {"$ref": "#/$defs/DeploymentDefinition"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "function.yaml",
        "if": {"required": ["spec"]},
        "then": {
            "type": "object",
            "properties": {"kind": {"const": "openinference"}, "spec": {"type": "object"}},
        },
        "else": {"$ref": "#/$defs/FunctionDefinition"},
        "$defs": {**parts, "FunctionDefinition": function},
    }


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


def manifest_commands(document: Path) -> list[list[str]]:
    """Returns the arguments of each `mlserver-pyfunc manifest` command that a page shows."""
    text = document.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?mlserver-pyfunc (manifest .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


PATCHES_INTRODUCTION = """# Patches

Written by `make docs` from the table in `mlserver_pyfunc/hosts/mlserver/patches.py` and from
`mlserver_pyfunc/hosts/mlserver/reasons.md`.

MLServer has no public interface for some things that this runtime needs. So the runtime replaces
attributes of MLServer when it is imported, and changes settings of the process. This list has all
that it changes. At start a line in the server's log says how many are on and which are off.

A patch is applied only if three things are true. Otherwise it is left off, and the log says what is
lost. The server serves all the same.

1. The attribute is there.
2. It has the parameters that the replacement has, or is a base class of it.
3. Only for `fast_path`: its source is one that the patch was tested with. `seen_sources.json` has
   digests of them. The log names other patches whose source is none of these.

Patches are switched off by `MLSERVER_PYFUNC_PATCHES_OFF`, a list of names and groups with commas
between them. `MLSERVER_PYFUNC_FASTPATH=0` switches off the group `fast_path`.

To add a patch, write a function that takes what MLServer has and returns what takes its place, say
in `reasons.md` what happens without it, and add a row to the table.
"""

PATCH_GROUPS = {
    "fixes": "They correct MLServer for all runtimes in the server.",
    "fast_path": """They make requests to models of this runtime faster. Other runtimes answer the
same, byte for byte: `tests/hosts/mlserver/test_fastpath.py` compares that. The patches rely on each
other, so all of them are off if one does not fit. Those with a target that begins with `process`
act on other runtimes too.""",
    "triton": "They answer Triton's clients, for the models of all runtimes in the server.",
    "process": "They act on the whole process, other runtimes in the server included.",
}


def patches_page() -> str:
    """The table of patches, by group."""
    from mlserver_pyfunc.hosts.mlserver.patches import TABLE

    parts = [PATCHES_INTRODUCTION]
    for group, introduction in PATCH_GROUPS.items():
        rows = [row for row in TABLE if row.group == group]
        parts += [f"\n## {group}\n\n{introduction}\n"]
        parts += ["\n| patch | target | without it |\n|---|---|---|\n"]
        for row in rows:
            why = row.why.removeprefix("Without it, ")
            if row.upstream:
                link = f"https://github.com/SeldonIO/MLServer/issues/{row.upstream}"
                why += f" See [MLServer #{row.upstream}]({link})."
            parts += [f"| `{row.name}` | `{row.target}` | {why} |\n"]
    return "".join(parts)


GENERATED = {
    PATCHES: patches_page,
    ROOT / "docs" / "cli.md": reference,
    ROOT / "mlserver_pyfunc" / "function.schema.json": schema_text,
    **monitoring.FILES,
}

if __name__ == "__main__":
    for path, text in GENERATED.items():
        path.write_text(text())
        print(f"wrote {path.relative_to(ROOT)}")
    os.chdir(ROOT)
    for arguments in manifest_commands(MANIFESTS):
        cli.main(arguments, standalone_mode=False)
        print(f"wrote {arguments[-1]}")
