"""A process that fetches one source and says what it got: a start of the server, in small.

The URI comes by argument, or where it holds a secret by standard input. With LOCK_FOLDER set
the source is locked there first.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import lock


def main() -> None:
    uri = sys.argv[1] if sys.argv[1:] else sys.stdin.read()
    definition = parse({"source": {"source": uri, "handler": "model:predict"}})
    folder = Path(os.environ.get("LOCK_FOLDER", "."))
    try:
        if "LOCK_FOLDER" in os.environ:
            lock.write(definition, folder)
        tree = lock.fetch_locked(definition, folder)
    except SourceError as error:
        sys.exit(f"SourceError: {error}")
    print(tree.provenance.commit or tree.provenance.sha256, tree.provenance.tree_sha256)
    print(tree.provenance.as_parameters())


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"))
    main()
