"""The figures of the pages on operations are those of the code."""

from __future__ import annotations

import pytest
from uvicorn.protocols.http import flow_control

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.deployment import server_settings
from mlserver_pyfunc.deployment.manifests import pod
from mlserver_pyfunc.hosts.common import json_body
from mlserver_pyfunc.hosts.mlserver import process_tuning
from mlserver_pyfunc.serving import batching, limits
from mlserver_pyfunc.serving.workers import dispatcher, pool, process
from mlserver_pyfunc.serving.workers.child import program
from mlserver_pyfunc.serving.workers.wire import durations, messages, shared_memory
from tests.places import DOCS

WORDS = {1: "a", 1.25: "a quarter more than", 3: "three", 10: "ten"}
BRIEF = f"{durations.BRIEF_SECONDS * 1000:g} ms"
KIB, MIB = 2**10, 2**20
DEFAULTS = ServingDefinition()
FIGURES = {
    "isolation.md": [
        f"typically take less than {BRIEF}, a worker gets up to {dispatcher.MAX_CALLS} calls",
        f"Tensors over {messages.INLINE_BYTES // KIB} KiB travel in shared memory",
        f"| `timeout` | {DEFAULTS.timeout:g} |",
        f"| `init_timeout` | {DEFAULTS.init_timeout:g} |",
        f"| `max_queue` | {DEFAULTS.max_queue} |",
        f"does not end within {WORDS[dispatcher.CANCEL_SECONDS]} second",
        f"again after {pool.FIRST_DELAY:g} s, {2 * pool.FIRST_DELAY:g} s, ... "
        f"{pool.LONGEST_DELAY:g} s. After {WORDS[pool.CRASH_LOOP]} such failures",
    ],
    "batching.md": [f"After {WORDS[batching._LIGHT_LOAD]} such delays without a request"],
    "operations.md": [
        f"`passed its time limit of {DEFAULTS.timeout:g} s`",
        f"only if {WORDS[limits._MARGIN]} the average",
        f"about {flow_control.HIGH_WATER_LIMIT // KIB} KiB and what the kernels hold",
        f"{server_settings.LEAN['grpc_max_message_length'] // MIB} MiB in images and with `serve`",
        f"get {process_tuning._STOCK_GRACE:g} s, as MLServer gives them",
        f"| `/v2/health/live` | `sleep {pod.PRE_STOP_SECONDS}` |",
        f"If a client does not read for {settings.write_timeout():g} s",
        f"default {settings.write_timeout():g} |",
        f"{settings.DEFAULT_MAX_BODY // MIB} MiB by default",
        f"| JSON | {json_body.MAX_DEPTH} levels, {json_body.MAX_LISTS:,} lists and objects, "
        f"{json_body.MAX_VALUES:,} values |",
        f"calls that still run get {limits.UNLOAD_SECONDS:g} s, after them `unload_function` (in "
        f"every worker) gets {limits.UNLOAD_SECONDS:g} s",
        f"more than `timeout` and {2 * limits.UNLOAD_SECONDS:g} s, plus the "
        f"{pod.PRE_STOP_SECONDS} s that its hook waits",
        f"Lines are cut after {process.LINE_CHARS:,} characters",
        f"about {process._CHUNK / process._PAUSE / 1e6:.1f} MB/s",
    ],
    "design/worker-protocol.md": [
        f"in packets of up to {messages.PACKET_BYTES // KIB} KiB",
        f"{BRIEF}, a worker gets up to {dispatcher.MAX_CALLS} calls in advance",
        f"a timer checks it every {dispatcher._CHECK_SECONDS * 1000:g} ms",
        f"up to {messages.INLINE_BYTES // KIB} KiB in all travel in the packet",
        f"mapped with {shared_memory.SIZE // 2**30} GiB of address space",
        f"to {shared_memory.KEPT_BYTES // MIB} MiB of free memory are kept",
    ],
}


@pytest.mark.parametrize(
    ("page", "figure"), [(page, figure) for page in FIGURES for figure in FIGURES[page]]
)
def test_a_page_has_the_figures_of_the_code(page: str, figure: str) -> None:
    assert figure in " ".join((DOCS / page).read_text().split())


def test_workers_cut_their_lines_as_the_server_does() -> None:
    assert program.LOG_CHARS == process.LINE_CHARS
