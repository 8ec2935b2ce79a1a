"""A collector of OpenTelemetry, as far as tests need one: OTLP over HTTP and gRPC."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.waiting import wait_until


@dataclass(frozen=True)
class Span:
    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[str]
    links: list[str]
    failed: bool
    text: str
    """All that it holds, to search in."""


@dataclass
class Collector:
    """What has arrived. It answers with a status, or not at all while it is 0."""

    url: str = ""
    status: int = 200
    requests: int = 0
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    answer: threading.Event = field(default_factory=threading.Event)
    grpc_address: str = ""

    def tree(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def wait_for(self, trace: str, *names: str, seconds: float = 60) -> list[Span]:
        """Waits until a trace has spans of these names, and returns all that it has."""
        self.wait_until(lambda: {span.name for span in self.tree(trace)} >= {*names}, seconds)
        return self.tree(trace)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        wait_until(condition, lambda: self.spans[-20:], seconds)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.requests += 1
            if not collector.status:
                collector.answer.wait()
                return
            if collector.status == 200:
                _collect(collector, body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    def export(body: bytes, _: Any) -> bytes:
        _collect(collector, body)
        return b""

    method = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    other = grpc.server(ThreadPoolExecutor(1))
    other.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"Export": method})]
    )
    collector.grpc_address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    other.start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        collector.answer.set()
        other.stop(None)
        server.shutdown()
        server.server_close()


def _collect(collector: Collector, body: bytes) -> None:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        collector.services.add(_attributes(resource.resource.attributes)["service.name"])
        for scope in resource.scope_spans:
            collector.spans += map(_span, scope.spans)


def _span(span: Any) -> Span:
    return Span(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[event.name for event in span.events],
        links=[link.span_id.hex() for link in span.links],
        failed=span.status.code == 2,
        text=str(span),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }
