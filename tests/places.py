"""Folders that tests use."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
IRIS = EXAMPLES / "iris"
SCHEMA = ROOT / "mlserver_pyfunc" / "function.schema.json"
FUNCTIONS = ROOT / "tests" / "testing" / "functions"

# Published files that the tests check against. They lie beside the clone, not in it.
SHARED = ROOT.parent / "shared"
PROTOCOL = Path(os.environ.get("OPEN_INFERENCE_PROTOCOL", SHARED / "protocol"))
CRDS = Path(os.environ.get("CRD_SCHEMAS", SHARED / "crds"))
