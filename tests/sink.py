"""A stub of a sink of CloudEvents."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sink:
    """An HTTP server that keeps events. `answer` decides on its answer to each."""

    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], bytes]] = []
        self.released = threading.Event()
        self.answer: Callable[[int], int] = lambda number: 200
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = sink.answer(len(sink.events))
                sink.events.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def bodies(self, kind: str) -> list[Any]:
        wanted = f"org.kubeflow.serving.inference.{kind}"
        return [json.loads(b) for h, b in self.events if h["ce-type"] == wanted]

    def hang(self, number: int) -> int:
        self.released.wait()
        return 200
