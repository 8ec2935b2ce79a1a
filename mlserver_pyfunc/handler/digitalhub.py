"""What a handler that is written for digitalhub asks for: request, run, project and logger.

digitalhub gives a handler the request as the protocol's JSON has it, with flat lists, and objects
of its own SDK. Without its platform, what is logged to these goes to the server's log, and the
metrics of a run to the server's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

from . import binding
from .call import InferenceCall
from .context import Context

_MAX_LOGGED_CHARS = 500


class FlatObject(SimpleNamespace):
    """A request, or a tensor of it, that can be written as a dict and as JSON.

    Elements of tensors are in row-major order; those of BYTES are text, or base64 if one is none.
    """

    def dict(self) -> dict[str, Any]:
        """Returns the fields by name. The objects in its lists become dicts too."""
        return {
            name: [each.dict() for each in value] if name in ("inputs", "outputs") else value
            for name, value in vars(self).items()
        }

    def json(self) -> str:
        return json.dumps(self.dict())


def flat_request(call: InferenceCall) -> FlatObject:
    """Makes the request of a call. What it does not have is None, as for requested outputs."""
    body = call.event.body
    nothing = dict.fromkeys(("datatype", "shape", "parameters"))
    inputs = [FlatObject(**{"parameters": None, **tensor}) for tensor in body["inputs"]]
    outputs = [FlatObject(**{**output, **nothing}) for output in body.get("outputs", ())]
    return FlatObject(
        id=body["id"] or None, parameters=body.get("parameters"), inputs=inputs, outputs=outputs
    )


class LoggedObject:
    """Stands for an object of digitalhub's SDK. Each method writes a line to the log."""

    def __init__(self, kind: str, name: str, logger: Any) -> None:
        self.name = name
        self._kind = kind
        self._logger = logger

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)

        def log(*args: Any, **kwargs: Any) -> None:
            given = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
            text = ", ".join(given)[:_MAX_LOGGED_CHARS]
            self._logger.info("%s.%s(%s)", self._kind, name, text)

        return log


class LoggedRun(LoggedObject):
    """Stands for a run. What it logs as a metric is a metric of the handler, too."""

    def __init__(self, context: Context, logger: Any) -> None:
        super().__init__("run", context.model_name, logger)
        self._metrics = context.metrics

    def log_metric(self, key: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Sets the gauge `digitalhub_run_metric` to a number, or to the last one of a list."""
        self.__getattr__("log_metric")(key, value, *args, **kwargs)
        text = "Last value of each metric that the handler has logged."
        gauge = self._metrics.gauge("digitalhub_run_metric", text, ["key"])
        with suppress(TypeError, ValueError, IndexError):
            gauge.labels(key).set(value[-1] if isinstance(value, list) else value)


# In Python 3.10, LoggerAdapter takes no type argument.
class NuclioLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger with the methods of Nuclio's, which take values by name."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logger, {})

    def _log_with(self, level: int, message: str, *args: Any, **values: Any) -> None:
        shown = " ".join(f"{key}={value!r}" for key, value in values.items())
        self.log(level, f"{message} {shown}" if shown else message, *args)

    debug_with = partialmethod(_log_with, logging.DEBUG)
    info_with = partialmethod(_log_with, logging.INFO)
    warn_with = partialmethod(_log_with, logging.WARNING)
    error_with = partialmethod(_log_with, logging.ERROR)


def complete(context: Context, project: str | None) -> None:
    """Gives a context what digitalhub's has: `project`, `run` and Nuclio's logger."""
    context.logger = logger = NuclioLogger(context.logger)
    context.project = LoggedObject("project", project or "", logger)
    context.run = LoggedRun(context, logger)


RESERVED: Mapping[str, binding.Getter] = {**binding.RESERVED, "request": flat_request}
"""Reserved names of handlers that are written for digitalhub, with their getters."""
