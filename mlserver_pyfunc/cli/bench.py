"""`infer --bench`: sends many calls at once and prints how long they took."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from mlserver_pyfunc.client import CallError, InferInput

if TYPE_CHECKING:
    from mlserver_pyfunc.client import Client


def run(
    clients: Sequence[Client],
    model: str,
    inputs: Sequence[InferInput],
    seconds: float,
    *,
    as_json: bool,
) -> None:
    """Calls a model again and again, and prints percentiles of the latencies."""
    times: list[float] = []
    errors: Counter[str] = Counter()
    clients[0].infer(model, inputs)
    deadline = time.perf_counter() + seconds

    def work(client: Client) -> None:
        while (started := time.perf_counter()) < deadline:
            try:
                client.infer(model, inputs)
            except CallError as error:
                errors[str(error)] += 1
            else:
                times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        # What was measured until now is shown.
        deadline = started
        seconds = round(time.perf_counter() - started, 2)
        for thread in threads:
            thread.join()
    _print(np.array(times) * 1000, errors, seconds, as_json=as_json)
    if errors:
        raise click.exceptions.Exit(1)


def _print(
    times: np.ndarray[Any, np.dtype[np.float64]],
    errors: Counter[str],
    seconds: float,
    *,
    as_json: bool,
) -> None:
    percentiles = {
        f"p{rank:g}": float(np.percentile(times, rank)) if times.size else None
        for rank in (50, 90, 99, 100)
    }
    if as_json:
        summary = {"calls": int(times.size), "errors": dict(errors), "seconds": seconds}
        click.echo(json.dumps({**summary, "ms": percentiles}))
        return
    for message, count in errors.most_common():
        click.echo(f"{count} x {message}", err=True)
    click.echo(f"{times.size} calls in {seconds:g} s, {times.size / seconds:.0f} a second")
    if times.size:
        click.echo("  ".join(f"{name} {value:.2f} ms" for name, value in percentiles.items()))
