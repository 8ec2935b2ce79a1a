"""A process that fetches one source and says what it got: a start of the server, in small."""

from __future__ import annotations

import sys
from pathlib import Path

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import fetch

if __name__ == "__main__":
    try:
        tree = fetch(SourceDefinition(source=sys.argv[1], handler="model:predict"), Path("."))
    except SourceError as error:
        sys.exit(f"SourceError: {error}")
    print(tree.provenance.commit or tree.provenance.sha256, tree.provenance.tree_sha256)
