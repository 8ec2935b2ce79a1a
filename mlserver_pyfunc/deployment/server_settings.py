"""The server's ports and lean settings, once for all places where the server runs.

`serve`, the image that `build` makes, the stock `Dockerfile` and the manifests take them from here;
a test compares the `Dockerfile`, which is a file of its own. docs/performance.md says what each
setting saves.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from mlserver_pyfunc.settings import DEFAULT_MAX_BODY, REPOSITORY_API

METRICS_PATH = "/metrics"

PART_SECONDS = 35
"""Longest time in which a server that ends lets its clients leave, and answers them meanwhile."""


@dataclass(frozen=True)
class Ports:
    """The ports that the server listens on, in a container and on a developer's machine."""

    http: int = 8080
    grpc: int = 8081
    metrics: int = 8082

    def variables(self) -> dict[str, str]:
        """Returns the ports as environment variables of MLServer."""
        return {f"MLSERVER_{name.upper()}_PORT": str(port) for name, port in vars(self).items()}


PORTS = Ports()


def free_ports(count: int) -> list[int]:
    """Finds ports of the loopback interface that nothing listens on now.

    MLServer does not say which port it got for port 0. Another process can take one in between.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


LEAN: Mapping[str, int] = {
    "parallel_workers": 0,
    "debug": False,
    "gzip_enabled": False,
    # gRPC refuses messages over 4 MiB by default.
    "grpc_max_message_length": DEFAULT_MAX_BODY,
}
"""MLServer's settings by name. Settings and variables of the user win over them."""

REPOSITORY_API_VARIABLES = {REPOSITORY_API: "loopback"}
"""Variables by which only this machine may load and unload models."""

LEAN_VARIABLES = {f"MLSERVER_{name.upper()}": str(value).lower() for name, value in LEAN.items()}
"""The lean settings as environment variables of MLServer."""

CONTAINER_VARIABLES = {
    "PYTHONUNBUFFERED": "1",
    # Only /tmp is written to, so the root file system may be read-only.
    "HOME": "/tmp",
    "USER": "mlserver",
    "MLSERVER_ENVIRONMENTS_DIR": "/tmp/mlserver/envs",
    "MLSERVER_METRICS_DIR": "/tmp/mlserver/metrics",
    "MLSERVER_PYFUNC_CACHE": "/tmp/mlserver-pyfunc",
    # MLServer imports it before it listens, and the patches with it: gRPC takes no options later.
    "MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION": "mlserver_pyfunc.SchemalessModelRepository",
    **REPOSITORY_API_VARIABLES,
    **LEAN_VARIABLES,
}
"""The environment variables of every image: the stock one, and those of functions."""
