"""All errors of this package: docs/architecture.md shows the tree of them.

Needs only the standard library, because workers in other interpreters import it too.
"""

from __future__ import annotations

import sys

MAX_MESSAGE_CHARS = 2000
"""Maximum length of a message, in characters."""

MAX_HEADER_BYTES = 3 * MAX_MESSAGE_CHARS
"""Maximum length of a message in a gRPC header, in bytes: clients accept 8 KiB of headers."""


class PyFuncError(Exception):
    """Base of all errors. `str(error)` can be shown to clients: no traceback, no secret."""


class DependencyError(PyFuncError):
    """A package that this one needs is missing, or its version does not fit."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"mlserver-pyfunc lacks a dependency: {cause}; "
            f"run pip install mlserver-pyfunc, in the environment of {sys.executable}"
        )


class DefinitionError(PyFuncError):
    """The function definition cannot be read or is not valid."""


class SourceError(PyFuncError):
    """The source cannot be fetched, verified or unpacked."""


class BindError(PyFuncError):
    """A handler, init or unload function cannot be found, or cannot be called as written."""


class LoadError(PyFuncError):
    """A function did not become ready. The message names function, phase and cause."""

    def __init__(self, model_name: str, phase: str, cause: str) -> None:
        super().__init__(safe_message(f'function "{model_name}" failed to load: {phase}: {cause}'))
        self.model_name = model_name
        self.phase = phase


class RequestError(PyFuncError):
    """The answer to one inference request is an error.

    Attributes:
        status: HTTP status. gRPC clients get the corresponding code.
    """

    status = 500

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(safe_message(message))
        if status is not None:
            self.status = status


class InferenceError(RequestError):
    """Answers a request with your own message and status: raise it in a handler.

    Args:
        message: Text for the client, sent as it is.
        status: HTTP status from 400 to 599. gRPC clients get the corresponding code.

    Raises:
        ValueError: `status` is not an error status.

    Examples:
        >>> def double(x):
        ...     if len(x) > 3:
        ...         raise InferenceError("expected at most 3 values", status=413)
        ...     return [2 * value for value in x]
        >>> double([1, 2])
        [2, 4]
        >>> double([1, 2, 3, 4])
        Traceback (most recent call last):
        mlserver_pyfunc.errors.InferenceError: expected at most 3 values
    """

    status = 400

    def __init__(self, message: str, status: int = 400) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"expected an HTTP error status from 400 to 599, got {status}")
        super().__init__(message, status)


class ContractError(RequestError):
    """The request breaks the function's tensor contract. Status 400."""

    status = 400


class ResponseError(RequestError):
    """The handler's result breaks the function's tensor contract. Status 500."""


class HandlerError(RequestError):
    """The handler raised an exception that is not one of ours. Status 500."""


class WorkerError(RequestError):
    """The worker process died during the call. Status 500."""


class OverloadedError(RequestError):
    """The queue is full, no worker can be started, or the function is not loaded. Status 503.

    Attributes:
        retry_after: Time in seconds after which the client should try again.
    """

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TimeLimitError(RequestError):
    """The call took longer than its time limit. Status 504."""

    status = 504


def safe_message(message: object) -> str:
    """Converts a message to text that every route can send.

    Escapes characters that UTF-8 cannot encode; cuts the text at `MAX_MESSAGE_CHARS`, and at
    `MAX_HEADER_BYTES` in the encoding of gRPC headers.
    """
    message = message if isinstance(message, str) else _safe_str(message)
    if not message.isascii():
        # File names that are not UTF-8 contain lone surrogates (PEP 383).
        message = message.encode(errors="backslashreplace").decode()
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 3] + "..."
    excess = _header_bytes(message) - MAX_HEADER_BYTES
    while excess > 0:
        # One character takes at most 12 bytes: four bytes of UTF-8, each written as %XX.
        message = message[: -max(excess // 12, 1) - 3] + "..."
        excess = _header_bytes(message) - MAX_HEADER_BYTES
    return message


def describe(error: BaseException) -> str:
    """Describes an exception like the last line of a traceback: `ValueError: bad input`."""
    text, name = _safe_str(error), type(error).__name__
    return f"{name}: {text}" if text else name


def _safe_str(value: object) -> str:
    # `__str__` may be user code, which can raise anything.
    try:
        return str(value)
    except BaseException:
        return "(its message cannot be shown)"


def _header_bytes(message: str) -> int:
    """Counts the bytes of a message in a gRPC header, in which gRPC writes bytes as %XX."""
    if message.isascii() and message.isprintable():
        return len(message)
    encoded = message.encode()
    return len(encoded) + 2 * sum(not 0x20 <= byte < 0x7F for byte in encoded)
