"""Trying again when the network fails in a way that may pass."""

from __future__ import annotations

import time

import tenacity

from mlserver_pyfunc.errors import SourceError

ATTEMPTS = 4


class TransientError(SourceError):
    """The network failed in a way that may pass."""


def retrying(deadline: float) -> tenacity.Retrying:
    """Calls again after a `TransientError`, with a growing pause; the last one is raised.

    Args:
        deadline: Of the monotonic clock; no attempt starts after it.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(ATTEMPTS)
        | tenacity.stop_after_delay(max(0.0, deadline - time.monotonic())),
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=8),
        reraise=True,
    )
