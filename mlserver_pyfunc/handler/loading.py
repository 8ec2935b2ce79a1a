"""How a function's code is loaded: the same description and steps in the server and in workers.

The server makes a `HandlerSpec` from the definition. The in-process runner uses it as it is; a
worker receives it as JSON. Both then run the steps of `HandlerLoader` in order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlserver_pyfunc.errors import BindError, describe
from mlserver_pyfunc.models.model import Model, load
from mlserver_pyfunc.protocol.contract import TensorSpec

from . import digitalhub
from .binding import RESERVED, CallPlan, bind
from .context import Context
from .function_package import FunctionPackage
from .metrics import Metrics
from .resolver import Resolver
from .signature import Derived, Signature, derive


@dataclass(frozen=True)
class HandlerSpec:
    """All that a process must know to load a function and to call it."""

    model_name: str
    model_version: str | None
    definition: Mapping[str, Any]  # as JSON and with all keys
    written: Sequence[str]  # names of the lists of tensors that the definition has
    init_parameters: Mapping[str, Any]
    source_dir: Path
    default_module: str | None
    inline: Mapping[str, str]  # source text by module
    model: str = ""  # path of a model file in the source, which has a kind and no handler
    kind: str = ""

    @property
    def source(self) -> Mapping[str, Any]:
        """The part of the definition that names the functions to call."""
        source: Mapping[str, Any] = self.definition["source"]
        return source

    def to_json(self) -> dict[str, Any]:
        """Returns the specification as a JSON object. The source folder becomes absolute."""
        source_dir = str(self.source_dir.resolve())
        return {**vars(self), "source_dir": source_dir, "inline": dict(self.inline)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HandlerSpec:
        return cls(**{**values, "source_dir": Path(values["source_dir"])})

    def new_context(self, logger: logging.Logger, metrics: Metrics) -> Context:
        context = Context(
            logger=logger,
            model_name=self.model_name,
            model_version=self.model_version,
            definition=self.definition,
            source_dir=self.source_dir,
            init_parameters=self.init_parameters,
            metrics=metrics,
        )
        if self.definition["dialect"] == "digitalhub":
            digitalhub.complete(context, self.definition["project"])
        return context


class HandlerLoader:
    """Loads one function's code into this process.

    `plan` and `derived` are there when the "bind" step has run.
    """

    def __init__(self, spec: HandlerSpec, context: Context) -> None:
        self.plan: CallPlan | None = None
        self.unload: Callable[[], Any] | None = None
        self.derived = Derived()
        self._model: Model | None = None
        self._spec = spec
        self._inputs = [*map(TensorSpec.of, spec.definition["inputs"])]
        self._outputs = [*map(TensorSpec.of, spec.definition["outputs"])]
        self._package = FunctionPackage(spec.model_name, spec.source_dir, spec.inline)
        self._resolver = Resolver(self._package.load, spec.default_module, context)

    def load_steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yields the phase and the function of each load step, in the order in which to run them.

        The caller decides on which thread a step runs. It awaits the step's result if that can
        be awaited, and words a failure by `cause_of`.
        """
        spec, resolver = self._spec, self._resolver
        if spec.kind:
            yield "import", self._load_model
        else:
            yield "import", lambda: self._package.load(resolver.module_of(spec.source["handler"]))
        if (init := spec.source["init_function"]) is not None:
            yield "init", lambda: resolver.call_with_context(resolver.resolve(init))
        yield "bind", self._bind

    def close(self) -> None:
        """Forgets the function's modules. Calls in flight keep working."""
        self._package.close()

    @property
    def tensors(self) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """All inputs and all outputs: the declared and the derived ones."""
        inputs, outputs = self.derived.specs
        return [*self._inputs, *inputs], [*self._outputs, *outputs]

    def _load_model(self) -> None:
        spec, serving = self._spec, self._spec.definition["serving"]
        calls = serving["workers"] * serving["concurrency"]
        threads = max(1, len(os.sched_getaffinity(0)) // calls)
        self._model = load(spec.kind, spec.source_dir / spec.model, threads, spec.init_parameters)

    def _bind(self) -> None:
        spec, is_digitalhub = self._spec, self._spec.definition["dialect"] == "digitalhub"
        reserved = digitalhub.RESERVED if is_digitalhub else RESERVED
        model, resolve = self._model, self._resolver.resolve
        handler = model.handler if model else resolve(spec.source["handler"])
        signature = Signature.of(handler)
        if model:
            inputs = self._left_out("inputs", self._inputs, model.inputs)
            outputs = self._left_out("outputs", self._outputs, model.outputs)
            self.derived = Derived(inputs, outputs)
        else:
            self.derived = derive(signature, self._inputs, self._outputs, spec.written, reserved)
        plan = bind(handler, self.tensors[0], reserved, signature)
        if path := spec.source["unload_function"]:
            unload = self._resolver.resolve(path)
            self.unload = lambda: self._resolver.call_with_context(unload)
        self.plan = plan

    def _left_out(
        self, side: str, written: Sequence[TensorSpec], own: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Returns the tensors of a model if the definition leaves them out; checks its own."""
        is_written = side in self._spec.written
        if not own and not is_written:
            raise BindError(f"the model does not tell its {side}: write them in the definition")
        has = {f"{each['name']} {each['datatype']}" for each in own}
        given = [f"{spec.name} {spec.datatype.name}" for spec in written]
        if own and is_written and not has.issuperset(given):
            listed = ", ".join(sorted(has))
            raise BindError(f"{side} of the model are {listed}; got {', '.join(given)}")
        return [] if is_written else own


def cause_of(error: BaseException) -> str:
    """Words the failure of a load step."""
    return str(error) if isinstance(error, BindError) else describe(error)
