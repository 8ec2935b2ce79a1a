"""A fake cluster behind HTTP."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from types import TracebackType
from typing import Any

from .fake_api import FakeCluster
from .server_side_apply import RefusalError

Object = dict[str, Any]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        cluster = self.server.cluster
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        with cluster.lock:
            cluster.requests.append((self.command, self.path))
            hiccup = cluster.hiccups.pop(0) if cluster.hiccups else None
            if hiccup == 0:
                self.close_connection = True
                self.connection.close()
                return
            try:
                if hiccup is not None:
                    raise RefusalError(hiccup, "ServiceUnavailable", "the server is shutting down")
                if self.command == "PATCH":
                    assert self.headers["Content-Type"] == "application/apply-patch+yaml"
                status, answer = cluster.answer(self.command, self.path, body)
            except RefusalError as refusal:
                status, answer = refusal.status, refusal.body
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "text/plain" if isinstance(answer, str) else "application/json"
        )
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_DELETE = do_POST = _serve  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a hiccup cut is no news."""


class Served:
    """A fake cluster that listens.

    Args:
        cluster: What answers.
        context: To answer over TLS.
    """

    def __init__(self, cluster: FakeCluster, context: SSLContext | None = None) -> None:
        self.cluster = cluster
        self._server = _Server(cluster)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def kubeconfig(url: str, namespace: str = "") -> Object:
    context = {"cluster": "fake", "user": "dev", **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "dev", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "fake", "context": context}],
    }
