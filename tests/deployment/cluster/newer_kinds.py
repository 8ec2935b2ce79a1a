"""A door to an API server of Kubernetes 1.20 that also has kinds of later versions.

`autoscaling/v2` and `policy/v1` have the fields of the beta versions that 1.20 serves: their names
alone are changed on the way. Empty texts are left out, which this build of the server reads as
null.
"""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import create_default_context
from typing import Any

NAMES = {"autoscaling/v2": "autoscaling/v2beta2", "policy/v1": "policy/v1beta1"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    url: str
    opener: urllib.request.OpenerDirector


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        path = self.path
        for new, old in NAMES.items():
            path = path.replace(f"/apis/{new}", f"/apis/{old}")
        if body:
            body = json.dumps(_without_empty(json.loads(body))).encode()
            for new, old in NAMES.items():
                body = body.replace(
                    f'"apiVersion": "{new}"'.encode(), f'"apiVersion": "{old}"'.encode()
                )
        wanted = ("Authorization", "Content-Type", "Accept")
        headers = {name: self.headers[name] for name in wanted if name in self.headers}
        request = urllib.request.Request(self.server.url + path, body, headers, method=self.command)
        try:
            with self.server.opener.open(request, timeout=60) as answer:
                self._answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.headers, error.read())

    def _answer(self, status: int, headers: Any, data: bytes) -> None:
        for new, old in NAMES.items():
            data = data.replace(f'"{old}"'.encode(), f'"{new}"'.encode())
        if self.path.partition("?")[0] == "/apis":
            data = _with_versions_as_named(data)
        self.send_response(status)
        self.send_header("Content-Type", headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PATCH = do_DELETE = do_POST = _pass_on  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


def _with_versions_as_named(data: bytes) -> bytes:
    found = json.loads(data)
    for group in found["groups"]:
        for each in (*group["versions"], group["preferredVersion"]):
            each["version"] = each["groupVersion"].rpartition("/")[2]
    return json.dumps(found).encode()


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_empty(part) for name, part in value.items() if part != ""}
    return [_without_empty(part) for part in value] if isinstance(value, list) else value


@contextlib.contextmanager
def door(url: str, ca: Path) -> Iterator[str]:
    """Starts the door; gives its URL."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.url = url
    server.opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=create_default_context(cafile=str(ca))),
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
