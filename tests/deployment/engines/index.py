"""A package index behind a proxy that inspects TLS, with a certificate of its own authority."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx

from tests.sources.servers import Server, reply

_INDEX = "https://pypi.org"
_FILES = "https://files.pythonhosted.org"


@dataclass(frozen=True)
class Authority:
    """Who signs for the proxy.

    Attributes:
        bundle: Its certificate, which users are to trust.
        server: The proxy's certificate for loopback, with its key in the same file.
    """

    bundle: Path
    server: Path


def authority(folder: Path) -> Authority:
    """Makes an authority and has it sign."""
    ca, key, asked = folder / "ca.pem", folder / "key.pem", folder / "request.pem"
    fresh = ("-newkey", "rsa:2048", "-nodes")
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    commands: tuple[list[str | Path], ...] = (
        ["req", "-x509", *fresh, "-days", "2", "-subj", "/CN=inspector",
         "-keyout", folder / "ca-key.pem", "-out", ca],
        ["req", *fresh, "-subj", "/CN=localhost", "-keyout", key, "-out", asked],
        ["x509", "-req", "-in", asked, "-CA", ca, "-CAkey", folder / "ca-key.pem", "-days", "2",
         "-CAcreateserial", "-extfile", extensions, "-out", folder / "cert.pem"],
    )  # fmt: skip
    for command in commands:
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    server = folder / "server.pem"
    server.write_text(key.read_text() + (folder / "cert.pem").read_text())
    return Authority(ca, server)


class InspectedIndex(Server):
    """PyPI's simple pages and files, answered by HTTPS on loopback.

    Args:
        pem: Its certificate and key.
    """

    def __init__(self, pem: Path) -> None:
        self._upstream = httpx.Client(timeout=120, follow_redirects=True)
        super().__init__(self._answer, pem)

    @property
    def index(self) -> str:
        return f"{self.url}/simple"

    def close(self) -> None:
        super().close()
        self._upstream.close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        is_page = request.path.startswith("/simple/")
        url = f"{_INDEX if is_page else _FILES}{request.path}"
        got = self._upstream.get(url, headers={"Accept": "text/html" if is_page else "*/*"})
        content = got.content
        if is_page:
            content = content.replace(_FILES.encode(), self.url.encode())
        kind = got.headers.get("Content-Type", "application/octet-stream")
        reply(request, got.status_code, content, {"Content-Type": kind})
