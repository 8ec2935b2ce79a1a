"""Whether requests are traced. Imports OpenTelemetry only if they are: docs/guides/tracing.md."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from .runner import logger

active: Any = None
"""The `spans.Tracing` that records requests; None if nothing does. Each request reads it."""

OFF = nullcontext()
_EXPORTER, _ENDPOINT = "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def start(endpoint: str | None = None) -> None:
    """Begins to trace, if variables of OpenTelemetry or MLServer's `tracing_server` say so."""
    global active
    endpoints = os.environ.get(_ENDPOINT), os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint and not any(endpoints):
        os.environ[_ENDPOINT] = f"http://{endpoint}"
    if endpoint or any(endpoints):
        os.environ.setdefault(_EXPORTER, "otlp")
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if active or is_disabled or os.environ.get(_EXPORTER, "none") == "none":
        return
    try:
        from .spans import Tracing

        active = Tracing()
    except Exception as error:
        logger.warning("requests are not traced: %s: %s", type(error).__name__, error)
