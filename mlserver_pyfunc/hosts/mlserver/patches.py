"""The table of all that this runtime changes in MLServer and in the process, and its `install`.

A patch replaces one attribute of MLServer. It is applied only to the versions of MLServer that it
was made for, and only if the attribute exists and takes the same parameters as the replacement.
Otherwise it is left off, one line in the log says what is lost, and the server serves all the same.
`mlserver-pyfunc env --patches` lists the table, and docs/design/patches.md is generated from it.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlserver
from mlserver.errors import MLServerError
from mlserver.grpc.logging import logger as grpc_logger
from mlserver.types import Datatype
from packaging.specifiers import SpecifierSet

from mlserver_pyfunc import settings
from mlserver_pyfunc.handler.shadowing import pin_package

from . import (
    errors,
    fast_path,
    models,
    process_tuning,
    repository,
    rest_bounds,
    rest_edges,
    rest_route,
    write_limit,
)
from .rest_response import ArrayData
from .triton import routes as triton_routes
from .triton import streams as triton_streams

FAST_PATH = "fast_path"
FAST_PATH_SWITCH = "MLSERVER_PYFUNC_FASTPATH"
OFF_SWITCH = "MLSERVER_PYFUNC_PATCHES_OFF"
_MARK = "_pyfunc_patch"
_STOPPING = "_pyfunc_stopping"
_WITHOUT = "Without it, "

logger = logging.getLogger("mlserver.pyfunc")


@dataclass(frozen=True)
class ProcessSetting:
    """A setting of the whole process, which other runtimes in the server have too.

    `function` sets it, and returns the reason if it leaves the setting as it is. A user switches
    off the rows of a `group` together. `upstream` is the number of MLServer's issue about it.
    """

    target: str
    function: Callable[..., Any]
    group: str = "process"
    upstream: int = 0
    versions: str = ">=0"

    @property
    def name(self) -> str:
        """What the row does, in one name."""
        return self.function.__name__

    @property
    def why(self) -> str:
        """What happens without it, as the docstring of its function says."""
        paragraphs = (inspect.getdoc(self.function) or "").split("\n\n")
        return next((" ".join(p.split()) for p in paragraphs if p.startswith(_WITHOUT)), "")

    def misfit(self) -> str:
        """Returns why it does not fit this MLServer; empty if it fits or is applied."""
        return ""

    def apply(self) -> str:
        """Applies it. Idempotent. Returns the reason if the setting is left as it is."""
        return self.function() or ""


class Patch(ProcessSetting):
    """An attribute of MLServer that is replaced.

    `target` is the path of the attribute, as `pkgutil.resolve_name` takes it. If the path leads
    through a function, its last part is a variable that the function closes over. `function`
    takes what is there and returns what takes its place.
    """

    def misfit(self) -> str:
        """Returns why it does not fit this MLServer; empty if it fits or is applied."""
        if not SpecifierSet(self.versions).contains(mlserver.__version__, prereleases=True):
            return f"expected MLServer {self.versions}, got {mlserver.__version__}"
        try:
            stock = getattr(*self._place())
            new = stock if self._is_applied(stock) else self.function(stock)
            if not inspect.isroutine(stock):
                is_class = isinstance(stock, type)
                fits = issubclass(new, stock) if is_class else isinstance(new, type(stock))
                return "" if fits else f"expected {self.target} to be a base of {new!r}"
            expected, got = _signature(new), _signature(stock)
        except Exception as error:
            return f"{self.target} cannot be replaced: {error}"
        return "" if expected == got else f"expected {self.target}{expected}, got {got}"

    def apply(self) -> str:
        """Puts the replacement in place, unless it is there already."""
        owner, name = self._place()
        stock = getattr(owner, name)
        if not self._is_applied(stock):
            new = self.function(stock)
            setattr(new, _MARK, {*getattr(stock, _MARK, ()), self._mark})
            is_bound = isinstance(inspect.getattr_static(owner, name), classmethod | staticmethod)
            setattr(owner, name, staticmethod(new) if is_bound else new)
        return ""

    def _is_applied(self, stock: Any) -> bool:
        # The mark is on the replacement, so it holds too if Python imports this module again.
        return self._mark in getattr(stock, _MARK, ())

    @property
    def _mark(self) -> str:
        # Rows with the same target wrap each other, in the order of the table.
        return f"{self.target} {self.name}"

    def _place(self) -> tuple[Any, str]:
        """Returns the object that has the attribute, and the attribute's name."""
        path, _, name = self.target.rpartition(".")
        owner: Any = pkgutil.resolve_name(path)
        if inspect.isfunction(owner):
            return (owner.__closure__ or ())[
                owner.__code__.co_freevars.index(name)
            ], "cell_contents"
        return owner, name


def allow_empty_streams(stock: Any) -> Any:
    """Ends a gRPC stream without a request or without an answer like any other stream.

    Without it, a gRPC stream without a request or without an answer ends with INTERNAL: MLServer
    reads a variable that it sets only in the loop over them.

    gRPC's server has taken the bound method before a model is loaded, so a new method of the
    class would have no effect. But that method is a decorator's, and calls MLServer's function
    through a variable. The patch sets the variable.
    """

    async def f(self: Any, requests_stream: Any, context: Any) -> AsyncIterator[Any]:
        answered = False
        try:
            async for response in stock(self, requests_stream, context):
                answered = True
                yield response
        except UnboundLocalError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if answered or frame.f_code is not getattr(stock, "__code__", None):
                raise

    return f


def leave_context_anywhere(stock: Any) -> Any:
    """Ends a stream whose client has left without an error in the log.

    Without it, each stream that a client leaves logs the traceback of a ValueError.

    Nobody closes such a stream: asyncio does when its generator is freed, in a task of its own.
    MLServer then resets variables of the request's context, which is gone with its task.
    """

    @contextmanager
    def model_context(model_settings: Any) -> Iterator[None]:
        context = stock(model_settings)
        context.__enter__()
        try:
            yield
        finally:
            with suppress(ValueError):
                context.__exit__(None, None, None)

    return model_context


def drain_grpc_on_shutdown(stock: Any) -> Any:
    """Waits at shutdown for calls over gRPC as long as the models let them take.

    Without it, MLServer cancels calls over gRPC 5 s after SIGTERM.
    """

    async def stop(self: Any, sig: int | None = None) -> None:
        grpc_logger.info("Waiting up to %g s for gRPC server shutdown", models.longest_call())
        await self._server.stop(grace=models.longest_call())
        grpc_logger.info("gRPC server shutdown complete")

    return stop


def drain_on_interrupt(stock: Any) -> Any:
    """Answers the calls in flight after SIGINT as after SIGTERM. A second SIGINT ends them.

    Without it, Ctrl-C answers calls over REST that are in flight with 500.

    MLServer's handler of a signal and uvicorn's handler both run. uvicorn takes the second SIGINT
    that it hears of for the wish to end at once, and the first signal reaches it several times:
    from the kernel, from MLServer, and from its other server (of the metrics), which raises the
    signals that it has captured once more when it ends. So REST hears of SIGTERM alone, which
    counts only once, and nothing is raised again.
    """

    async def stop(self: Any, sig: int | None = None) -> None:
        servers = [
            getattr(host, "_server", None) for host in (self._rest_server, self._metrics_server)
        ]
        rest = servers[0]
        if sig is None or rest is None:
            await stock(self, sig)
            return
        if sig == signal.SIGINT and getattr(self, _STOPPING, False):
            rest.force_exit = True
            await self._grpc_server._server.stop(None)
            return
        setattr(self, _STOPPING, True)
        # Accept no new requests over REST while calls over gRPC are waited for.
        rest.should_exit = True
        _forget_signals(servers)
        await stock(self, signal.SIGTERM)
        _forget_signals(servers)

    return stop


def _forget_signals(servers: Iterable[Any]) -> None:
    for server in servers:
        captured = getattr(server, "_captured_signals", None)
        if captured is not None:
            captured.clear()


def reap_only_pool_workers(stock: Any) -> Any:
    """Waits for the processes of MLServer's pool one by one, and for no other process.

    Without it, MLServer's pool waits for any child process at each SIGCHLD. It takes the exit
    status of this runtime's workers, which says what killed them.
    """

    async def _handle_worker_stop(self: Any, signum: int, frame: Any) -> None:
        for pool in [self._default_pool, *self._pools.values()]:
            for pid in list(pool._workers):
                try:
                    stopped, status = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue
                if stopped and status:
                    await pool.on_worker_stop(pid, status)

    return _handle_worker_stop


def refuse_typed_fp16(stock: Any) -> Any:
    """Says in the error that gRPC has no field for typed FP16.

    Without it, MLServer puts FP16 into the field for bytes, and the error is about bytes.
    """

    def _get_contents(type_object: Any, datatype: Datatype) -> Any:
        is_ours = isinstance(type_object, ArrayData)
        if datatype is Datatype.FP16 and is_ours and len(type_object):
            raise MLServerError(
                f'output "{type_object.spec.name}": expected a request with raw_input_contents, '
                "got a typed one, and gRPC has no typed FP16",
                400,
            )
        return stock(type_object, datatype)

    return _get_contents


_fix = partial(Patch, group="fixes", versions="~=1.7.1")
_fast = partial(Patch, group=FAST_PATH, versions="==1.7.1")
_triton = partial(Patch, group="triton", versions="~=1.7.1")
_pool = "mlserver.parallel.registry:InferencePoolRegistry"
_servicer = "mlserver.grpc.servicers:InferenceServicer"
_converters = "mlserver.grpc.converters"
_registry = "mlserver.registry"
_data_plane = "mlserver.handlers:DataPlane"
_handlers = "mlserver.handlers:ModelRepositoryHandlers"
_repository = "mlserver.repository"
_deprecated = "mlserver.grpc.model_repository:ModelRepositoryServicer"
# MLServer calls it for each model. See `rest_route.once_for_app`.
_app = "mlserver.rest.server:RESTServer.add_custom_handlers"

TABLE: tuple[ProcessSetting, ...] = (
    _fix("mlserver.grpc.utils.STATUS_CODE_MAPPING", errors.extend_error_mapping, upstream=488),
    _fix("mlserver.rest.errors.Response", errors.send_retry_after),
    _fix(f"{_data_plane}.ready", models.separate_readiness_from_availability),
    _fix(f"{_data_plane}.model_ready", models.separate_readiness_from_availability),
    _fix("mlserver.handlers.dataplane.ModelNotReady", errors.answer_not_ready_with_503),
    _fix(f"{_registry}:MultiModelRegistry._get_model_registry", models.name_served_models),
    _fix(f"{_registry}:SingleModelRegistry.get_model", models.name_served_versions),
    _fix(_app, rest_edges.answer_at_the_edges),
    _fix("mlserver.rest.requests:Request.body", rest_bounds.inflate_bodies),
    _fix(f"{_repository}.repository:SchemalessModelRepository.list", repository.name_by_definition),
    _fix(f"{_repository}.load._folder_matches", repository.accept_folder_names),
    _fix(f"{_registry}:MultiModelRegistry.load", repository.load_in_turn),
    _fix(f"{_registry}:SingleModelRegistry._load_model", repository.begin_again_by_definition),
    _fix(f"{_registry}:SingleModelRegistry._reload_model", repository.begin_again_by_definition),
    _fix(f"{_handlers}.load", repository.serve_in_turn),
    _fix(f"{_handlers}.unload", repository.serve_in_turn),
    _fix(f"{_servicer}.ModelStreamInfer.f", allow_empty_streams, upstream=1750),
    _fix(f"{_servicer}.ModelStreamInfer.f", write_limit.limit_grpc_writes),
    _fix("uvicorn.protocols.http.flow_control:FlowControl.drain", write_limit.limit_rest_writes),
    _fix("mlserver.server:MLServer.stop", drain_on_interrupt),
    _fix("mlserver.handlers.dataplane.model_context", leave_context_anywhere),
    _fix(f"{_servicer}.RepositoryModelLoad.f", repository.guard_grpc),
    _fix(f"{_servicer}.RepositoryModelUnload.f", repository.guard_grpc),
    _fix(f"{_deprecated}.RepositoryModelLoad.f", repository.guard_grpc),
    _fix(f"{_deprecated}.RepositoryModelUnload.f", repository.guard_grpc),
    _fix(_app, repository.guard_rest),
    _fix("mlserver.grpc.server:GRPCServer.stop", drain_grpc_on_shutdown),
    _fix(f"{_pool}._handle_worker_stop", reap_only_pool_workers, upstream=1234),
    _fix(f"{_converters}:InferTensorContentsConverter._get_contents", refuse_typed_fp16),
    _fix("fastapi:FastAPI.build_middleware_stack", rest_bounds.guard_requests),
    _fast(f"{_servicer}._InsertHeaders", fast_path.read_grpc_requests),
    _fast(f"{_converters}:ModelInferResponseConverter.from_types", fast_path.write_grpc_responses),
    _fast(f"{_servicer}._SetTrailingMetadata", fast_path.send_prepared_metadata),
    _fast(f"{_data_plane}.infer", fast_path.patched_infer),
    _fast(_app, rest_route.add_rest_routes, upstream=854),
    _triton(_app, triton_routes.answer_triton_calls),
    _triton(f"{_servicer}.ModelStreamInfer.f", triton_streams.answer_in_triton_form),
    _triton(f"{_servicer}._GetReturnRaw", triton_streams.send_raw_outputs),
    Patch(
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_headers_complete",
        process_tuning.drop_trailers,
    ),
    ProcessSetting("process: mallopt of glibc", process_tuning.raise_malloc_thresholds, FAST_PATH),
    ProcessSetting("process: gc.set_threshold", process_tuning.raise_gc_threshold, FAST_PATH),
    ProcessSetting("process: sys.stdout and sys.stderr", process_tuning.line_buffer_stdout),
    ProcessSetting('process: logger "mlserver.grpc"', errors.log_refusals_without_traceback),
    ProcessSetting('process: logger "mlserver.parallel"', process_tuning.hide_pool_warning),
    ProcessSetting("process: sys.meta_path", pin_package),
)


def install() -> dict[ProcessSetting, str]:
    """Applies the table, and logs in one line what is on and off. Idempotent.

    Returns the reason why each row is off; an empty text if it is on.
    """
    chosen = _switched_off()
    off = {row: chosen.get(row.group) or chosen.get(row.name) or row.misfit() for row in TABLE}
    misfits = [row for row, reason in off.items() if reason and reason not in chosen.values()]
    # The patches of the fast path rely on each other: one of them alone would give MLServer's
    # own code a request that it cannot read.
    fast = [row for row in TABLE if row.group == FAST_PATH]
    missing = [row.name for row in fast if off[row] and isinstance(row, Patch)]
    if missing:
        off.update({row: f"{missing[0]} is off" for row in fast if not off[row]})
    off = {row: reason or row.apply() for row, reason in off.items()}
    shown = []
    for row, reason in off.items():
        name = row.group if row.group in chosen else row.name
        lost = f". {row.why}" if row in misfits else ""
        shown += [f"; {name} is off: {reason}{lost}"] if reason else []
    count, details = len(TABLE) - len(shown), "".join(dict.fromkeys(shown))
    level = logging.WARNING if misfits else logging.INFO
    logger.log(level, "MLServer %s: %d patches are on%s", mlserver.__version__, count, details)
    return off


def _switched_off() -> dict[str, str]:
    """Returns the names that the environment switches off, and what says so."""
    names = os.environ.get(OFF_SWITCH, "").replace(",", " ").split()
    for name in set(names).difference(*((row.group, row.name) for row in TABLE)):
        logger.warning('%s: expected patches or groups of them, got "%s"', OFF_SWITCH, name)
    chosen = dict.fromkeys(names, OFF_SWITCH)
    if not settings.is_enabled(FAST_PATH_SWITCH):
        chosen[FAST_PATH] = FAST_PATH_SWITCH
    return chosen


def _signature(function: Callable[..., Any]) -> str:
    """Returns a function's parameters as they are written, without annotations."""
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))
