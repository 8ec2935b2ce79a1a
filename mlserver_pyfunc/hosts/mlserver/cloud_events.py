"""The CloudEvents headers that MLServer adds to requests and responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from mlserver.settings import ModelSettings

_PROBE_ID = "id of a probe"
_MAX_ID_CHARS = 256
"""Of an id that is sent as a header: many proxies take 4 KiB of headers, gRPC 8."""


class CloudEvents:
    """The headers of one model. All but the request's id are worked out once.

    Args:
        add: A method of MLServer's middleware, for requests or for responses.
        settings: The model's.
    """

    def __init__(self, add: Callable[[Any, ModelSettings], Any], settings: ModelSettings) -> None:
        probe = _Probe()
        add(probe, settings)
        fixed = {key: value for key, value in probe.headers.items() if value != _PROBE_ID}
        self._id_keys = [key for key, value in probe.headers.items() if value == _PROBE_ID]
        self._fixed = fixed
        self._metadata = [(key.lower(), value) for key, value in fixed.items()]
        self._http = [(key.encode(), value.encode()) for key, value in self._metadata]
        self._id_metadata_keys = [key.lower() for key in self._id_keys]
        self._id_http_keys = [key.encode() for key in self._id_metadata_keys]

    def headers(self, request_id: str | None) -> dict[str, str]:
        """As MLServer names them."""
        headers = self._fixed.copy()
        if request_id:
            for key in self._id_keys:
                headers[key] = request_id
        return headers

    def metadata(self, request_id: str | None) -> list[tuple[str, str]]:
        """As gRPC sends them."""
        if not is_sendable(request_id):
            return self._metadata
        return [*self._metadata, *[(key, request_id) for key in self._id_metadata_keys]]

    def http(self, request_id: str | None) -> list[tuple[bytes, bytes]]:
        """As ASGI sends them: a list for the caller to add to."""
        if not is_sendable(request_id):
            return self._http.copy()
        encoded = request_id.encode()
        return [*self._http, *[(key, encoded) for key in self._id_http_keys]]


class SendableHeaders(dict[str, str]):
    """Headers that MLServer adds to, but for values that none can hold.

    gRPC's call would not end over one, nor HTTP's connection be of use afterwards.
    """

    def update(self, headers: Mapping[str, str]) -> None:  # type: ignore[override]
        super().update({key: value for key, value in headers.items() if is_sendable(value)})


class _Probe:
    """Takes the headers that the middleware gives a request of a known id."""

    def __init__(self) -> None:
        self.id = _PROBE_ID
        self.parameters = self
        self.headers: dict[str, str] = {}


def is_sendable(request_id: str | None) -> TypeGuard[str]:
    """Whether there is an id, and a header may hold it: a client may send any text."""
    if not request_id or len(request_id) > _MAX_ID_CHARS:
        return False
    return request_id.isascii() and request_id.isprintable()
