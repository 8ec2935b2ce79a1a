"""Imports MLServer, first of all, without what few servers need: docs/performance.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_PANDAS_CODEC = "mlserver.codecs.pandas"
_CALLED = {
    "mlserver.batch_processing": "process_batch",
    "mlserver.kafka": "KafkaServer",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter": "OTLPSpanExporter",
}


def import_mlserver(module: str = "mlserver") -> None:
    """Imports a module of MLServer without pandas, and without clients that settings turn on."""
    if "mlserver" in sys.modules:
        return
    with ExitStack() as stack:
        stack.enter_context(_stand_in(_PANDAS_CODEC, _Codecs))
        for name, called in _CALLED.items():
            stand_in = stack.enter_context(_stand_in(name))
            vars(stand_in).update({called: _deferred(name, called), "CHOICES_TRANSPORT": ["rest"]})
        import_module(module)


@contextmanager
def _stand_in(name: str, kind: type[ModuleType] = ModuleType) -> Iterator[ModuleType]:
    """Puts a module in the place of another. Later imports find the real one."""
    module, real = kind(name), sys.modules.get(name)
    sys.modules[name] = real or module
    try:
        yield module
    finally:
        if real is None:
            del sys.modules[name]


def _deferred(module: str, name: str) -> Any:
    return lambda *values, **options: getattr(import_module(module), name)(*values, **options)


class _Codecs(ModuleType):
    """Makes its codec when MLServer asks for it, and so has imported what the codec builds on."""

    def __getattr__(self, name: str) -> Any:
        if name != "PandasCodec":
            raise AttributeError(name)
        from mlserver.codecs.base import RequestCodec, register_request_codec

        # There are no frames before pandas is imported, and so none of this type.
        body = {"ContentType": "pd", "TypeHint": _Codecs}
        return register_request_codec(_DeferredCodec(name, (RequestCodec,), body))


class _DeferredCodec(type):
    """A codec that gives the attributes of MLServer's own, which is imported at the first use."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if any(isinstance(base, cls) for base in bases):
            return type(name, (import_module(_PANDAS_CODEC).PandasCodec,), body)
        return super().__new__(cls, name, bases, body)

    def __getattribute__(cls, name: str) -> Any:
        is_unused = name in ("can_encode", "TypeHint") and "pandas" not in sys.modules
        if name.startswith("_") or name == "ContentType" or is_unused:
            return super().__getattribute__(name)
        return getattr(import_module(_PANDAS_CODEC).PandasCodec, name)
