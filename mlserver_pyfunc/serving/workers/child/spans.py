"""Records the spans of user code in a worker, if the function's environment has OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlserver_pyfunc.handler.context import Context


def new_recorder(handlers: Context) -> Any:
    """Makes what collects the spans of each call, and the tracer. None without OpenTelemetry."""
    try:
        from opentelemetry import context, trace
        from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        from opentelemetry.trace.propagation import tracecontext
    except ImportError:
        return None

    key, w3c = context.create_key("pyfunc"), tracecontext.TraceContextTextMapPropagator()

    class Recorder(SpanProcessor):
        def enter(self, told: Mapping[str, str], records: list[dict[str, Any]] | None) -> None:
            """Makes the handler's span the current one; none if the call is not recorded."""
            above = w3c.extract(told, context.Context())
            context.attach(context.set_value(key, records, above))

        def on_end(self, span: ReadableSpan) -> None:
            records: Any = context.get_value(key)
            if records is None or not span.parent or not span.context:
                return
            records.append({
                "name": span.name,
                "kind": span.kind.value,
                "id": span.context.span_id,
                "parent": span.parent.span_id,
                "start": span.start_time,
                "end": span.end_time,
                "attributes": dict(span.attributes or {}),
                "events": [(e.name, dict(e.attributes or {}), e.timestamp) for e in span.events],
                "status": [span.status.status_code.value, span.status.description],
            })  # fmt: skip

    # Of a call whose request is not recorded, no span is recorded either.
    provider, recorder = TracerProvider(ParentBased(ALWAYS_OFF), shutdown_on_exit=False), Recorder()
    provider.add_span_processor(recorder)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    handlers.tracer = provider.get_tracer("mlserver_pyfunc")
    return recorder
