"""Starts a worker: run by path, in the function's interpreter.

Makes `mlserver_pyfunc` importable by its own folder alone. The folder around it is not
added to `sys.path`: there the server's packages are, of another Python or version.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def main() -> None:
    """Runs the worker program. Arguments are descriptors: SOCKET WAKEUP TOKENS INBOUND OUTBOUND."""
    package = Path(__file__).resolve().parents[3]
    spec = spec_from_file_location(
        "mlserver_pyfunc", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["mlserver_pyfunc"] = module
    spec.loader.exec_module(module)
    from mlserver_pyfunc.serving.workers.child import program

    program.main(*map(int, sys.argv[1:6]))


if __name__ == "__main__":
    main()
