"""Tries again after failures of the network that are likely to pass."""

from __future__ import annotations

import time

import tenacity

from mlserver_pyfunc.errors import SourceError

ATTEMPTS = 4


class TransientError(SourceError):
    """The network failed in a way that is likely to pass."""


def retrying(deadline: float) -> tenacity.Retrying:
    """Returns a caller that tries again after a `TransientError`, with growing pauses.

    No attempt starts after `deadline` (monotonic clock). The error of the last one is raised.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(ATTEMPTS)
        | tenacity.stop_after_delay(max(0.0, deadline - time.monotonic())),
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=8),
        reraise=True,
    )
