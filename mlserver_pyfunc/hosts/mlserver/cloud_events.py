"""The CloudEvents headers that MLServer adds to requests and responses.

MLServer makes them anew for each request and each response. Only the request's id differs, so here
they are made once for a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from mlserver.settings import ModelSettings

_PROBE_ID = "id of a probe"
_MAX_ID_CHARS = 256
"""Length of an id that is sent as a header. Many proxies take 4 KiB of headers, gRPC 8 KiB."""


class CloudEvents:
    """The headers of one model, for its requests or for its responses.

    MLServer's middleware is public, and the names of its headers are not. So this gives it a
    request with a known id, and looks which headers have that id. `add` is the middleware's method
    for requests or that for responses.
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
        """Returns the headers with MLServer's names."""
        ids = dict.fromkeys(self._id_keys, request_id) if request_id else {}
        return {**self._fixed, **ids}

    def metadata(self, request_id: str | None) -> list[tuple[str, str]]:
        """Returns the headers as gRPC sends them."""
        if not is_sendable(request_id):
            return self._metadata
        return [*self._metadata, *[(key, request_id) for key in self._id_metadata_keys]]

    def http(self, request_id: str | None) -> list[tuple[bytes, bytes]]:
        """Returns the headers as ASGI sends them, in a list that the caller may change."""
        if not is_sendable(request_id):
            return self._http.copy()
        encoded = request_id.encode()
        return [*self._http, *[(key, encoded) for key in self._id_http_keys]]


class SendableHeaders(dict[str, str]):
    """Headers to which MLServer adds. Drops values that a header cannot hold.

    The values come from clients. With such a value, a call over gRPC would never end, and a
    connection over HTTP would be broken.
    """

    def update(self, headers: Mapping[str, str]) -> None:  # type: ignore[override]
        """Adds the headers whose values can be sent."""
        super().update({key: value for key, value in headers.items() if is_sendable(value)})


class _Probe:
    """Collects the headers that the middleware adds to a request with a known id."""

    def __init__(self) -> None:
        self.id = _PROBE_ID
        self.parameters = self
        self.headers: dict[str, str] = {}


def is_sendable(request_id: str | None) -> TypeGuard[str]:
    """Returns whether there is an id that a header can hold. A client may send any text."""
    if not request_id or len(request_id) > _MAX_ID_CHARS:
        return False
    return request_id.isascii() and request_id.isprintable()
