"""Real servers on loopback for the tests, and the repositories that they serve."""

from __future__ import annotations

import base64
import gzip
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from typing_extensions import Self

from tests.needs import require

GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *arguments: str, **options: Any) -> str:
    """Runs git as the owner of a repository would."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=GIT_ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
        **options,
    )
    return done.stdout.strip()


class Repository:
    """A git repository that a test fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch=main")

    def commit(self, files: dict[str, str], message: str = "change") -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.folder, "add", "--all", "--force")
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message", message)
        return self.head()

    def head(self) -> str:
        return git(self.folder, "rev-parse", "HEAD")

    def run(self, *arguments: str, **options: Any) -> str:
        return git(self.folder, *arguments, **options)

    def config(self, key: str, value: str) -> None:
        git(self.folder, "config", key, value)


def certificate(folder: Path) -> Path:
    """A self-signed certificate for loopback, with its key in the same file."""
    require("openssl")
    path = folder / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return path


class Server:
    """An HTTP or HTTPS server in a thread. `requests` records what was asked of it."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None], pem: Path | None) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((self.command, self.path, headers))
                self.close_connection = True
                answer(self)

            do_POST = do_HEAD = do_CONNECT = do_GET  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.timeout = 10
        if pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if pem else 'http'}://{self.host}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class GitServer(Server):
    """`git http-backend` behind HTTPS.

    Attributes:
        login: `user:password` to ask for, if any.
        protocol_2: Whether clients may speak protocol version 2.
        before: Called with each request; True if it answered it.
    """

    def __init__(self, root: Path, pem: Path | None) -> None:
        self.root = root
        self.login: str | None = None
        self.protocol_2 = True
        self.before: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False
        super().__init__(self._answer, pem)

    @property
    def fetches(self) -> int:
        """How many times objects were sent."""
        return sum(method == "POST" for method, _, _ in self.requests)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.before(request):
            return
        if self.login:
            expected = "Basic " + base64.b64encode(self.login.encode()).decode()
            if request.headers.get("Authorization") != expected:
                reply(request, 401, b"no", {"WWW-Authenticate": 'Basic realm="git"'})
                return
        self._backend(request)

    def _backend(self, request: BaseHTTPRequestHandler) -> None:
        body = _body(request)
        path, _, query = request.path.partition("?")
        environment = {
            **GIT_ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if self.protocol_2 and "Git-Protocol" in request.headers:
            environment["GIT_PROTOCOL"] = request.headers["Git-Protocol"]
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "http-backend"],
            input=body,
            env=environment,
            capture_output=True,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        reply(request, status, content, headers)


class FileServer(Server):
    """Files over HTTP, with ranges.

    Attributes:
        files: Content by path.
        script: Called before each answer; True if it answered.
    """

    def __init__(self, pem: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.script: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False
        super().__init__(self._answer, pem)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.script(request):
            return
        content = self.files.get(request.path.partition("?")[0])
        if content is None:
            reply(request, 404, b"not here")
            return
        tag = f'"{len(content)}-{hash(content)}"'
        wanted = request.headers.get("Range", "")
        if wanted and request.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            reply(request, 206, content[start:], {"Content-Range": span, "ETag": tag})
            return
        reply(request, 200, content, {"ETag": tag, "Accept-Ranges": "bytes"})


class CutServer(ThreadingTCPServer):
    """Passes connections on to a port, and cuts those whose answers are longer than some bytes.

    Attributes:
        cuts: How many connections to cut yet.
    """

    daemon_threads = True

    def __init__(self, target: int, cuts: float, after: int = 100_000) -> None:
        self.target = target
        self.cuts = cuts
        self.after = after
        super().__init__(("127.0.0.1", 0), _CutConnection)
        self.port: int = self.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _CutConnection(BaseRequestHandler):
    server: CutServer

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.target)) as ahead:
            threading.Thread(target=self._pass_on, args=(ahead,), daemon=True).start()
            count = 0
            while data := ahead.recv(2**16):
                count += len(data)
                if count > self.server.after and self.server.cuts > 0:
                    self.server.cuts -= 1
                    return
                self.request.sendall(data)

    def _pass_on(self, ahead: socket.socket) -> None:
        with suppress(OSError):
            while data := self.request.recv(2**16):
                ahead.sendall(data)


def reply(
    request: BaseHTTPRequestHandler,
    status: int,
    content: bytes,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> None:
    """Answers a request; with a length greater than the content's, it is cut off."""
    request.send_response(status)
    for name, value in (headers or {}).items():
        if name.lower() != "content-length":
            request.send_header(name, value)
    request.send_header("Content-Length", str(len(content) if length is None else length))
    request.send_header("Connection", "close")
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
    else:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return body
