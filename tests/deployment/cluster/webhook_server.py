"""KServe's webhooks behind HTTPS, and their registration with an API server."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

from . import kserve_webhook
from .kserve_webhook import Installation, KServeRefusalError

Object = dict[str, Any]

_KINDS = (("mutate", "MutatingWebhookConfiguration"), ("check", "ValidatingWebhookConfiguration"))


class Webhooks:
    """What a server of webhooks answers by; `installation` may change at any time."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.installation: Installation = kserve_webhook.CURRENT
        self._url, self._certificate = url, certificate

    def configurations(self) -> Iterator[tuple[str, Object]]:
        """Paths in the API and the objects that register the webhooks there."""
        bundle = base64.b64encode(self._certificate.read_bytes()).decode()
        for path, kind in _KINDS:
            rule = {
                "apiGroups": ["serving.kserve.io"],
                "apiVersions": ["v1beta1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["inferenceservices"],
            }
            webhook = {
                "name": f"inferenceservice.kserve-webhook-server.{path}",
                "clientConfig": {"url": f"{self._url}/{path}", "caBundle": bundle},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "rules": [rule],
            }
            group = "admissionregistration.k8s.io/v1"
            metadata = {"name": "inferenceservice.serving.kserve.io"}
            body = {"apiVersion": group, "kind": kind, "metadata": metadata, "webhooks": [webhook]}
            yield f"/apis/{group}/{kind.lower()}s", body

    def answer(self, path: str, request: Object) -> Object:
        """The response to a review."""
        service, before = request["object"], request.get("oldObject")
        response: Object = {"uid": request["uid"], "allowed": True}
        try:
            if path == "/check":
                kserve_webhook.refuse(service, before, self.installation)
                return response
            found = kserve_webhook.defaulted(service, self.installation)
        except KServeRefusalError as error:
            return {**response, "allowed": False, "status": {"message": str(error)}}
        patch = [
            {"op": "add", "path": "/spec", "value": found["spec"]},
            {
                "op": "add",
                "path": "/metadata/annotations",
                "value": found["metadata"]["annotations"],
            },
        ]
        encoded = base64.b64encode(json.dumps(patch).encode()).decode()
        return {**response, "patchType": "JSONPatch", "patch": encoded}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    webhooks: Webhooks


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = self.server.webhooks.answer(self.path.partition("?")[0], review["request"])
        data = json.dumps({**review, "request": None, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def webhooks(work: Path) -> Iterator[Webhooks]:
    """Starts a server of webhooks, with a certificate of its own."""
    key, certificate = work / "webhook.key", work / "webhook.crt"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.webhooks = Webhooks(f"https://127.0.0.1:{server.server_port}", certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.webhooks
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
