"""Starts a worker. The function's interpreter runs this file by its path."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def main() -> None:
    """Runs the worker program."""
    # Not by `sys.path`: docs/design/worker-protocol.md says why.
    package = Path(__file__).resolve().parents[3]
    spec = spec_from_file_location(
        "mlserver_pyfunc", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["mlserver_pyfunc"] = module
    spec.loader.exec_module(module)
    from mlserver_pyfunc.serving.workers.child import guardian

    *descriptors, server = map(int, sys.argv[1:7])
    # Before all other imports: the guardian needs none of them.
    guardian.fork_worker(server, descriptors)
    from mlserver_pyfunc.serving.workers.child import program

    program.main(*descriptors)


if __name__ == "__main__":
    main()
