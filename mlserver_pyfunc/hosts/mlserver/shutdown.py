"""How the server ends: calls in flight are answered, and only MLServer's own processes reaped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Any

from mlserver.grpc.logging import logger as grpc_logger

from . import models

_STOPPING = "_pyfunc_stopping"


def drain_grpc_on_shutdown(stock: Any) -> Any:
    """Waits at shutdown for calls over gRPC as long as the models let them take.

    Without it, MLServer cancels calls over gRPC 5 s after SIGTERM.
    """

    async def stop(self: Any, sig: int | None = None) -> None:
        grpc_logger.info("Waiting up to %g s for gRPC server shutdown", models.longest_call())
        await self._server.stop(grace=models.longest_call())
        grpc_logger.info("gRPC server shutdown complete")

    return stop


def drain_on_interrupt(stock: Any) -> Any:
    """Answers the calls in flight after SIGINT as after SIGTERM. A second SIGINT ends them.

    Without it, Ctrl-C answers calls over REST that are in flight with 500.

    MLServer's handler of a signal and uvicorn's handler both run. uvicorn takes the second SIGINT
    that it hears of for the wish to end at once, and the first signal reaches it several times:
    from the kernel, from MLServer, and from its other server (of the metrics), which raises the
    signals that it has captured once more when it ends. So REST hears of SIGTERM alone, which
    counts only once, and nothing is raised again.
    """

    async def stop(self: Any, sig: int | None = None) -> None:
        servers = [
            getattr(host, "_server", None) for host in (self._rest_server, self._metrics_server)
        ]
        rest = servers[0]
        if sig is None or rest is None:
            await stock(self, sig)
            return
        if sig == signal.SIGINT and getattr(self, _STOPPING, False):
            rest.force_exit = True
            await self._grpc_server._server.stop(None)
            return
        setattr(self, _STOPPING, True)
        # Accept no new requests over REST while calls over gRPC are waited for.
        rest.should_exit = True
        _forget_signals(servers)
        await stock(self, signal.SIGTERM)
        _forget_signals(servers)

    return stop


def _forget_signals(servers: Iterable[Any]) -> None:
    for server in servers:
        captured = getattr(server, "_captured_signals", None)
        if captured is not None:
            captured.clear()


def reap_only_pool_workers(stock: Any) -> Any:
    """Waits for the processes of MLServer's pool one by one, and for no other process.

    Without it, MLServer's pool waits for any child process at each SIGCHLD. It takes the exit
    status of this runtime's workers, which says what killed them.
    """

    async def _handle_worker_stop(self: Any, signum: int, frame: Any) -> None:
        for pool in [self._default_pool, *self._pools.values()]:
            for pid in list(pool._workers):
                try:
                    stopped, status = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue
                if stopped and status:
                    await pool.on_worker_stop(pid, status)

    return _handle_worker_stop
