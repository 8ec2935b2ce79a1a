"""The context: the object that user code shares from load to unload."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ContextDecorator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .metrics import Metrics

DEVICE = "MLSERVER_PYFUNC_DEVICE"


@dataclass(frozen=True)
class Response:
    """A result in the form of Nuclio: `context.Response(body=..., status_code=...)`.

    A status of 400 and above answers with an error whose text is the body, and without the headers.
    The content type is ignored.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    status_code: int = 200


class NoTracer(ContextDecorator):
    """Stands in for a tracer of OpenTelemetry and for its spans, and records nothing."""

    trace_id = span_id = trace_flags = 0
    is_valid = is_remote = False
    is_recording = staticmethod(lambda: False)

    def __enter__(self) -> NoTracer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., NoTracer]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_, **__: self


@dataclass(kw_only=True, eq=False, repr=False)
class Context:
    """An object that lives as long as the loaded function and accepts any attribute."""

    Response = Response
    tracer: Any = field(default=NoTracer(), init=False)
    """A tracer of OpenTelemetry: its spans are parts of the trace of the request."""
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    model_name: str
    model_version: str | None
    definition: Mapping[str, Any]
    source_dir: Path
    init_parameters: Mapping[str, Any]
    metrics: Metrics
    device: str = field(default_factory=lambda: os.environ.get(DEVICE, ""), init=False)
    """Numbers of the devices that this worker has of the server's, such as "0" or "2,3"."""

    # Only so that type checkers accept attributes that user code sets.
    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f'context has no "{name}": set it in the init function')
