"""The error taxonomy: what went wrong, in words for a client, with an HTTP status.

This module imports no package, so that a worker in a foreign interpreter can use it too.
"""

from __future__ import annotations

import sys

MAX_MESSAGE_CHARS = 2000
"""gRPC carries messages in a header of 8 KiB at most: longer ones would be lost."""

MAX_HEADER_BYTES = 3 * MAX_MESSAGE_CHARS


class PyFuncError(Exception):
    """Any failure of ours. `str(error)` is fit for a client: no traceback, no secret."""


class DependencyError(PyFuncError):
    """A package that this one needs is not installed, or not in a version that fits."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"mlserver-pyfunc lacks a dependency: {cause}; "
            f"run pip install mlserver-pyfunc, in the environment of {sys.executable}"
        )


class DefinitionError(PyFuncError):
    """The function definition cannot be read, or says something impossible."""


class SourceError(PyFuncError):
    """The source cannot be fetched, verified or unpacked."""


class BindError(PyFuncError):
    """A handler, init or unload function cannot be found or called as it is written."""


class LoadError(PyFuncError):
    """A function did not become ready. Names the function, the phase and the cause."""

    def __init__(self, model_name: str, phase: str, cause: str) -> None:
        super().__init__(safe_message(f'function "{model_name}" failed to load: {phase}: {cause}'))
        self.model_name = model_name
        self.phase = phase


class RequestError(PyFuncError):
    """An error answered to one inference request, with its HTTP status."""

    status = 500

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(safe_message(message))
        if status is not None:
            self.status = status


class InferenceError(RequestError):
    """Raise this in a handler to answer a request with a message and status of your own.

    Args:
        message: Shown to the client as it is.
        status: HTTP status, 400 to 599. gRPC clients get the code that corresponds.

    Raises:
        ValueError: `status` is not an error status.
    """

    status = 400

    def __init__(self, message: str, status: int = 400) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"expected an HTTP error status from 400 to 599, got {status}")
        super().__init__(message, status)


class ContractError(RequestError):
    """The request does not keep the function's tensor contract."""

    status = 400


class ResponseError(RequestError):
    """The handler's result does not keep the function's tensor contract."""

    status = 500


class HandlerError(RequestError):
    """The handler raised something that is not ours."""

    status = 500


class OverloadedError(RequestError):
    """The queue is full. `retry_after` is in seconds."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WorkerError(RequestError):
    """The worker process died during the call."""

    status = 500


class TimeLimitError(RequestError):
    """The call took longer than `serving.timeout`."""

    status = 504


def safe_message(message: object) -> str:
    """A message as every route can send it: of characters that UTF-8 has, cut to
    `MAX_MESSAGE_CHARS`, and to `MAX_HEADER_BYTES` as gRPC writes it."""
    message = message if isinstance(message, str) else _said(message)
    if not message.isascii():
        # Names of files that are no UTF-8 hold lone surrogates.
        message = message.encode(errors="backslashreplace").decode()
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 3] + "..."
    excess = _header_bytes(message) - MAX_HEADER_BYTES
    while excess > 0:
        # A character takes up to 12 bytes.
        message = message[: -max(excess // 12, 1) - 3] + "..."
        excess = _header_bytes(message) - MAX_HEADER_BYTES
    return message


def _said(value: object) -> str:
    try:
        return str(value)
    except BaseException:
        return "(its message cannot be shown)"


def _header_bytes(message: str) -> int:
    """The bytes that a gRPC header takes: those that are no printable ASCII are written %XX."""
    if message.isascii() and message.isprintable():
        return len(message)
    encoded = message.encode()
    return len(encoded) + 2 * sum(not 0x20 <= byte < 0x7F for byte in encoded)


def describe(error: BaseException) -> str:
    """Names an exception as Python's own last line does: `ValueError: bad input`."""
    text, name = _said(error), type(error).__name__
    return f"{name}: {text}" if text else name
