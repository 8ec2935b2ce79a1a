"""How a function's code is loaded: the same description and steps in the server and in workers.

The server makes a `HandlerSpec` from the definition. The in-process runner uses it as it is; a
worker receives it as JSON. Both then run the steps of `HandlerLoader` in order.

Needs only NumPy and the standard library.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlserver_pyfunc.errors import BindError, describe
from mlserver_pyfunc.protocol.contract import TensorSpec

from . import digitalhub
from .binding import RESERVED, CallPlan, bind
from .context import Context
from .function_package import FunctionPackage
from .resolver import Resolver
from .signature import Derived, Signature, derive


@dataclass(frozen=True)
class HandlerSpec:
    """All that a process must know to load a function and to call it.

    `written` names the lists of tensors that the definition has, `lenient` the sides of the
    contract that only warn. `inline` has source text by module. The memory limit is in bytes.
    """

    model_name: str
    model_version: str | None
    handler: str
    init_function: str | None
    unload_function: str | None
    init_parameters: Mapping[str, Any]
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    source_dir: Path
    default_module: str | None
    inline: Mapping[str, str]
    definition: Mapping[str, Any]
    concurrency: int
    memory_limit: int | None
    lenient: Sequence[str] = ()
    dialect: str | None = None
    project: str | None = None
    written: Sequence[str] = ("inputs", "outputs")

    def to_json(self) -> dict[str, Any]:
        """Returns the specification as a JSON object. The source folder becomes absolute."""
        return {
            **vars(self),
            "inputs": [spec.keys for spec in self.inputs],
            "outputs": [spec.keys for spec in self.outputs],
            "source_dir": str(self.source_dir.resolve()),
            "inline": dict(self.inline),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HandlerSpec:
        """Makes a specification from the JSON object that `to_json` returned."""
        tensors = {key: [*map(TensorSpec.of, values[key])] for key in ("inputs", "outputs")}
        tuples = {key: tuple(values[key]) for key in ("lenient", "written")}
        return cls(**{**values, **tensors, **tuples, "source_dir": Path(values["source_dir"])})

    def new_context(self, logger: logging.Logger) -> Context:
        """Makes the context that user code gets in this process."""
        context = Context(
            logger=logger,
            model_name=self.model_name,
            model_version=self.model_version,
            definition=self.definition,
            source_dir=self.source_dir,
            init_parameters=self.init_parameters,
        )
        if self.dialect == "digitalhub":
            digitalhub.complete(context, self.project)
        return context


class HandlerLoader:
    """Loads one function's code into this process.

    `plan` and `derived` are there when the "bind" step has run.
    """

    def __init__(self, spec: HandlerSpec, context: Context) -> None:
        self.plan: CallPlan | None = None
        self.unload: Callable[[], Any] | None = None
        self.derived = Derived()
        self._spec = spec
        self._package = FunctionPackage(spec.model_name, spec.source_dir, spec.inline)
        self._resolver = Resolver(self._package.load, spec.default_module, context)

    def load_steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yields the phase and the function of each load step, in the order in which to run them.

        The caller decides on which thread a step runs. It awaits the step's result if that can
        be awaited, and words a failure by `cause_of`.
        """
        spec, resolver = self._spec, self._resolver
        yield "import", lambda: self._package.load(resolver.module_of(spec.handler))
        if (init := spec.init_function) is not None:
            yield "init", lambda: resolver.call_with_context(resolver.resolve(init))
        yield "bind", self._bind

    def close(self) -> None:
        """Forgets the function's modules. Calls in flight keep working."""
        self._package.close()

    @property
    def tensors(self) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """All inputs and all outputs: the declared and the derived ones."""
        inputs, outputs = self.derived.specs
        return [*self._spec.inputs, *inputs], [*self._spec.outputs, *outputs]

    def _bind(self) -> None:
        spec = self._spec
        reserved = digitalhub.RESERVED if spec.dialect == "digitalhub" else RESERVED
        handler = self._resolver.resolve(spec.handler)
        signature = Signature.of(handler)
        self.derived = derive(signature, spec.inputs, spec.outputs, spec.written, reserved)
        plan = bind(handler, self.tensors[0], reserved, signature)
        if self._spec.unload_function:
            unload = self._resolver.resolve(self._spec.unload_function)
            self.unload = lambda: self._resolver.call_with_context(unload)
        self.plan = plan


def cause_of(error: BaseException) -> str:
    """Words the failure of a load step."""
    return str(error) if isinstance(error, BindError) else describe(error)
