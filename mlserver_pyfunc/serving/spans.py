"""The spans of requests, by OpenTelemetry: docs/guides/tracing.md.

No span has a header, a value of a tensor, or the text of an error, which may quote a value.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, cast

from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach
from opentelemetry.sdk import _configuration as standard
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, ParentBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation import tracecontext
from prometheus_client import Counter

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.handler.call import InferenceCall

SPANS = Counter(
    "pyfunc_spans",
    "Spans: ended, exported, failed (the collector did not take them). The others were dropped.",
    ["state"],
)
UNRECORDED = nullcontext(False)
_ROOT = Context()
_W3C = tracecontext.TraceContextTextMapPropagator()
_given: ContextVar[int] = ContextVar("given", default=0)


class Tracing:
    """Makes the spans of all functions of the server, and exports them."""

    def __init__(self) -> None:
        requests = TracerProvider(id_generator=_Ids())
        # What a handler does for a request that is not recorded is not recorded either.
        handlers = TracerProvider(ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
        # What OTEL_TRACES_EXPORTER names, as `opentelemetry-instrument` finds it.
        found, *_ = standard._import_exporters(standard._get_exporter_names("traces"), [], [])
        for make in found.values():
            processor = _Processor(make())
            requests.add_span_processor(processor)
            handlers.add_span_processor(processor)
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(handlers)
        self._sampler, self._ids = requests.sampler, requests.id_generator
        self._requests = requests.get_tracer("mlserver_pyfunc")
        self.tracer = handlers.get_tracer("mlserver_pyfunc")
        fields = propagate.get_global_textmap().fields
        self._fields = {*fields, *(field.encode() for field in fields)}

    def request(
        self, name: str, headers: Iterable[tuple[Any, Any]], model: str
    ) -> AbstractContextManager[Any]:
        """Begins the span of a request, in the trace that its headers name. False if unrecorded.

        If there is a current span, which is MLServer's, then that is the span of the request. The
        name is a method of HTTP and a route, or a service of gRPC and a method.
        """
        span, parent, status = trace.get_current_span(), _ROOT, None
        if not span.get_span_context().is_valid:
            carrier = {_text(k): _text(v) for k, v in headers if k in self._fields}
            parent = propagate.extract(carrier, _ROOT) if carrier else _ROOT
            attributes, status = {"pyfunc.model": model}, "pyfunc.status"
            if name.startswith("POST"):
                attributes |= {"http.request.method": "POST", "http.route": name[5:]}
                status = "http.response.status_code"
            # First the sampler: a span that is not recorded costs three times as much.
            known = trace.get_current_span(parent).get_span_context().trace_id
            trace_id = known or self._ids.generate_trace_id()
            kind, sample = SpanKind.SERVER, self._sampler.should_sample
            if sample(parent, trace_id, name, kind, attributes).decision is Decision.DROP:
                return UNRECORDED
            token = _given.set(trace_id)
            span = self._requests.start_span(name, parent, kind, attributes)
            _given.reset(token)
        if not span.get_span_context().trace_flags.sampled:
            return UNRECORDED
        return Trace(self.tracer, span, parent, status)

    @contextmanager
    def batch(self, call: InferenceCall, calls: Sequence[InferenceCall]) -> Iterator[None]:
        """Records a batch in the trace of the first of its calls, to which the others link."""
        attributes = {"pyfunc.batch.requests": len(calls)}
        traces: list[Trace] = [each.trace for each in calls if each.trace]
        links = [Link(each.span.get_span_context()) for each in traces]
        with ExitStack() as stack:
            for each in traces:
                shown = stack.enter_context(each.below("batch", attributes=attributes, links=links))
                if each is traces[0]:
                    call.trace, links = shown, [Link(shown.span.get_span_context())]
            yield


class Trace(AbstractContextManager["Trace"]):
    """A span of a request that is recorded, and those below it. Ends it as a context manager.

    `status` names the attribute for the HTTP status, if it has one. None if the span is another's.
    """

    def __init__(self, tracer: Any, span: Span, context: Context, status: str | None = "") -> None:
        self.span = span
        self.began = time.time_ns()
        self._tracer = tracer
        self._context = trace.set_span_in_context(span, context)
        self._status = status
        self._handler: Trace | None = None

    def below(self, name: str, *, start: int | None = None, **given: Any) -> Trace:
        span = self._tracer.start_span(name, self._context, start_time=start, **given)
        return Trace(self._tracer, span, self._context)

    def enter(self) -> None:
        """Begins the handler's span, and makes it the current one of this job."""
        self._handler = self._handler or self.below("handler")
        attach(self._handler._context)

    def leave(self, error: BaseException | None = None) -> None:
        if self._handler is None:
            self._handler = self  # a job that begins yet has no span of its own
        else:
            self._handler.end(error)

    def for_worker(self, call_id: str) -> dict[str, Any]:
        """Returns what a worker needs to record the handler's span, whose id is given."""
        own = self.span.get_span_context()
        ids = {"id": RandomIdGenerator().generate_span_id(), "parent": own.span_id}
        handler = trace.NonRecordingSpan(_with_id(own, ids["id"]))
        told: dict[str, Any] = {"ids": ids, "label": self.label(call_id)}
        _W3C.inject(told, trace.set_span_in_context(handler))
        return told

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        own, recorded = self.span.get_span_context(), cast("ReadableSpan", self.span)
        for each in records:
            code, description = each["status"]
            span = ReadableSpan(
                each["name"], _with_id(own, each["id"]), _with_id(own, each["parent"]),
                recorded.resource, each["attributes"], [Event(*event) for event in each["events"]],
                kind=SpanKind(each["kind"]), status=trace.Status(StatusCode(code), description),
                start_time=each["start"], end_time=each["end"],
                instrumentation_scope=recorded.instrumentation_scope,
            )  # fmt: skip
            self._tracer.span_processor.on_end(span)

    def label(self, call_id: str) -> str:
        shown = f"trace {trace.format_trace_id(self.span.get_span_context().trace_id)}"
        return f"{call_id[:40]}, {shown}" if call_id else shown

    def end(self, error: BaseException | None = None, status: int = 0) -> None:
        """Ends the span, unless it has ended, with the kind of the error and the HTTP status."""
        if self._status is None or not self.span.is_recording():
            return
        number = status or (200 if error is None else getattr(error, "status_code", 500))
        if self._status:
            self.span.set_attribute(self._status, number)
        if error is not None:
            cause = error.__cause__ if isinstance(error, RequestError) else None
            self.span.set_attribute("error.type", type(cause or error).__qualname__)
            if number >= 500 or not self._status:
                self.span.set_status(StatusCode.ERROR)
        self.span.end()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.end(error)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _with_id(own: SpanContext, span_id: int) -> SpanContext:
    return SpanContext(own.trace_id, span_id, False, own.trace_flags, own.trace_state)


class _Ids(RandomIdGenerator):
    """Gives a trace the id that the sampler has decided about."""

    def generate_trace_id(self) -> int:
        return _given.get() or super().generate_trace_id()


class _Processor(BatchSpanProcessor):
    """Counts the spans that have ended, and those that the exporter has had."""

    def __init__(self, exporter: SpanExporter) -> None:
        export = exporter.export

        def counted(spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = export(spans)
            SPANS.labels("failed" if result.value else "exported").inc(len(spans))
            return result

        # Of this class alone: a wrapper would have to pass on what each exporter has besides.
        exporter.export = counted  # type: ignore[method-assign]
        super().__init__(exporter)

    def on_end(self, span: ReadableSpan) -> None:
        SPANS.labels("ended").inc()
        super().on_end(span)
