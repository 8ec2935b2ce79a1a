"""Functions of several Pythons and of dependencies that conflict, in one server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server.models import ECHO, MODELS, tensor, tensor_name, write_model, write_repository
from tests.server.process import ServerProcess, serving
from tests.server.test_protocol import *  # noqa: F403
from tests.server.wire import Request, Tensor, rest_infer

NEEDS = {
    "3.10": ["numpy==1.26.*", "pydantic==1.10.*"],
    "3.11": ["numpy>=2.1,<3", "pydantic==2.9.*"],
    "3.12": ["numpy==1.26.*", "protobuf==3.20.*"],
    "3.13": ["numpy>=2.1,<3", "pydantic>=2.10,<3"],
}

REPORT = """
import json, sys
from importlib import metadata
from mlserver_pyfunc import InferenceError

def report(x):
    import numpy
    versions = {}
    for name in ("numpy", "pydantic", "protobuf", "mlserver"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"mlserver", "pydantic", "yaml", "starlette"})
    return json.dumps({"python": sys.version, "numpy": numpy.__version__, "versions": versions, "loaded": loaded, "path": sys.path})
"""
