"""The table of all that this runtime changes in MLServer and in the process, and its `install`."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlserver

from mlserver_pyfunc import settings
from mlserver_pyfunc.handler.shadowing import pin_package
from mlserver_pyfunc.hosts.common import tuning

from . import (
    access_log,
    connections,
    errors,
    grpc_calls,
    models,
    process_tuning,
    repository,
    rest_bounds,
    rest_edges,
    rest_route,
    triton,
)

FAST_PATH = "fast_path"
FAST_PATH_SWITCH = "MLSERVER_PYFUNC_FASTPATH"
OFF_SWITCH = "MLSERVER_PYFUNC_PATCHES_OFF"
_MARK = "_pyfunc_patch"
_HERE = Path(__file__).parent
_REASONS = (_HERE / "reasons.md").read_text(encoding="utf-8").split("\n## ")[1:]
WITHOUT = {name: " ".join(words) for name, *words in map(str.split, _REASONS)}
"""What happens without each patch, by its name."""
_SEEN: dict[str, list[str]] = json.loads((_HERE / "seen_sources.json").read_bytes())
"""Digests of the sources that each target was tested with, in MLServer 1.7.1 and 1.7.2rc1."""

logger = logging.getLogger("mlserver.pyfunc")


@dataclass(frozen=True)
class ProcessSetting:
    """A setting of the whole process, which other runtimes in the server have too."""

    target: str
    function: Callable[..., Any]  # sets it; returns the reason if it leaves the setting as it is
    group: str = "process"  # of rows that a user switches off together
    upstream: int = 0  # number of MLServer's issue about it

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def why(self) -> str:
        return f"Without it, {WITHOUT.get(self.name, 'MLServer is as it is.')}"

    def misfit(self) -> str:
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
        if expected != got:
            return f"expected {self.target}{expected}, got {got}"
        is_off = self.group == FAST_PATH and self.is_unseen()
        return f"the source of {self.target} is none that it was tested with" if is_off else ""

    def is_unseen(self) -> bool:
        """Returns whether it was not tested with this source of what it replaces."""
        is_of_mlserver = self.target.startswith(f"{mlserver.__name__}.")
        return is_of_mlserver and self.digest() not in ("", *_SEEN.get(self.target, ()))

    def digest(self) -> str:
        """Returns a digest of the source of what it replaces; empty if that is data."""
        *_, (_, stock) = [("", getattr(*self._place())), *_replaced(getattr(*self._place()))]
        try:
            return hashlib.sha256(inspect.getsource(stock).encode()).hexdigest()[:12]
        except TypeError:
            return ""
        except OSError:
            return "no source"

    def apply(self) -> str:
        owner, name = self._place()
        stock = getattr(owner, name)
        new = stock if self._is_applied(stock) else self.function(stock)
        if new is not stock:
            setattr(new, _MARK, (self.name, stock))
            is_bound = isinstance(inspect.getattr_static(owner, name), classmethod | staticmethod)
            setattr(owner, name, staticmethod(new) if is_bound else new)
        return ""

    def _is_applied(self, stock: Any) -> bool:
        return any(name == self.name for name, _ in _replaced(stock))

    def _place(self) -> tuple[Any, str]:
        path, _, name = self.target.rpartition(".")
        owner: Any = pkgutil.resolve_name(path)
        if inspect.isfunction(owner):
            return (owner.__closure__ or ())[
                owner.__code__.co_freevars.index(name)
            ], "cell_contents"
        return owner, name


def _replaced(attribute: Any) -> Iterator[tuple[str, Any]]:
    """Returns the patches of an attribute, the last one first, and what each has replaced."""
    while mark := getattr(attribute, _MARK, None):
        yield mark
        attribute = mark[1]


_fix = partial(Patch, group="fixes")
_fast = partial(Patch, group=FAST_PATH)
_triton = partial(Patch, group="triton")
_pool = "mlserver.parallel.registry:InferencePoolRegistry"
_servicer = "mlserver.grpc.servicers:InferenceServicer"
_converter = "mlserver.grpc.converters:ModelInferResponseConverter"
_registry = "mlserver.registry"
_data_plane = "mlserver.handlers:DataPlane"
_handlers = "mlserver.handlers:ModelRepositoryHandlers"
_repository = "mlserver.repository"
_http = "uvicorn.protocols.http"
_httptools = f"{_http}.httptools_impl:HttpToolsProtocol"
_deprecated = "mlserver.grpc.model_repository:ModelRepositoryServicer"
# MLServer calls it for each model. See `rest_route.once_for_app`.
_app = "mlserver.rest.server:RESTServer.add_custom_handlers"

TABLE: tuple[ProcessSetting, ...] = (
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
    _fix(f"{_servicer}.ModelStreamInfer.f", connections.end_grpc_streams, upstream=1750),
    _fix(f"{_http}.flow_control:FlowControl.drain", connections.limit_rest_writes),
    _fix("mlserver.logging:ModelLoggerFormatter.format", process_tuning.write_valid_json),
    _fix("mlserver.server:MLServer.stop", process_tuning.drain_on_interrupt),
    _fix("mlserver.handlers.dataplane.model_context", connections.leave_context_anywhere),
    _fix(f"{_servicer}.RepositoryModelLoad.f", repository.guard_grpc),
    _fix(f"{_servicer}.RepositoryModelUnload.f", repository.guard_grpc),
    _fix(f"{_deprecated}.RepositoryModelLoad.f", repository.guard_grpc),
    _fix(f"{_deprecated}.RepositoryModelUnload.f", repository.guard_grpc),
    _fix(_app, repository.guard_rest),
    _fix("mlserver.grpc.server:GRPCServer.stop", process_tuning.drain_grpc_on_shutdown),
    _fix("mlserver.grpc.server:GRPCServer._get_options", connections.age_grpc_connections),
    _fix(f"{_http}.h11_impl:H11Protocol.connection_made", connections.age_rest_connections),
    _fix(f"{_pool}._handle_worker_stop", process_tuning.reap_only_pool_workers, upstream=1234),
    _fix(f"{_converter}.from_types", grpc_calls.write_grpc_responses),
    _fix(_app, rest_bounds.guard_requests),
    _fast(f"{_servicer}._InsertHeaders", grpc_calls.read_grpc_requests),
    _fast(f"{_servicer}.ModelInfer.f", grpc_calls.answer_grpc_calls),
    _fast(_app, rest_route.add_rest_routes, upstream=854),
    _triton(_app, triton.answer_triton_calls),
    _triton(f"{_servicer}.ModelStreamInfer.f", triton.answer_in_triton_form),
    _triton(f"{_servicer}._GetReturnRaw", triton.send_raw_outputs),
    _fix(f"{_servicer}.ModelInfer.f", access_log.log_grpc_calls),
    _fix(f"{_servicer}.ModelStreamInfer.f", access_log.log_grpc_streams),
    Patch(f"{_httptools}.on_headers_complete", process_tuning.drop_trailers),
    Patch(f"{_httptools}.connection_made", connections.age_rest_connections),
    ProcessSetting(
        "process: STATUS_CODE_MAPPING of mlserver.grpc", errors.extend_error_mapping, "fixes", 488
    ),
    ProcessSetting("process: mallopt of glibc", tuning.raise_malloc_thresholds, FAST_PATH),
    ProcessSetting("process: gc.set_threshold", tuning.raise_gc_threshold, FAST_PATH),
    ProcessSetting("process: sys.stdout and sys.stderr", process_tuning.line_buffer_stdout),
    ProcessSetting("process: loggers of MLServer and uvicorn", process_tuning.shorten_host_log),
    ProcessSetting("process: sys.meta_path", pin_package),
)


def install() -> dict[ProcessSetting, str]:
    """Applies the table and logs the result. Returns why each row is off; empty if it is on."""
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
    on = [row for row, reason in off.items() if isinstance(row, Patch) and not reason]
    if unseen := dict.fromkeys(row.name for row in on if row.is_unseen()):
        details += f"; not tested with the source of this MLServer: {', '.join(unseen)}"
    level = logging.WARNING if misfits else logging.INFO
    logger.log(level, "MLServer %s: %d patches are on%s", mlserver.__version__, count, details)
    return off


def _switched_off() -> dict[str, str]:
    names = os.environ.get(OFF_SWITCH, "").replace(",", " ").split()
    for name in set(names).difference(*((row.group, row.name) for row in TABLE)):
        logger.warning('%s: expected patches or groups of them, got "%s"', OFF_SWITCH, name)
    chosen = dict.fromkeys(names, OFF_SWITCH)
    if not settings.is_enabled(FAST_PATH_SWITCH):
        chosen[FAST_PATH] = FAST_PATH_SWITCH
    return chosen


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))
