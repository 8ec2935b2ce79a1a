from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlserver.types import Parameters

from mlserver_pyfunc.errors import BindError
from mlserver_pyfunc.handler.binding import bind
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.metrics import Metrics
from mlserver_pyfunc.handler.resolver import Resolver
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES


def spec(name: str, **more: bool) -> TensorSpec:
    return TensorSpec(name, DATATYPES["INT64"], (1,), **more)


def _context(**init_parameters: Any) -> Context:
    import logging

    return Context(
        logger=logging.getLogger("test"),
        model_name="iris",
        model_version="1",
        definition={},
        source_dir=Path("/nowhere"),
        init_parameters=init_parameters,
        metrics=Metrics(print),
    )


REQUEST = types.SimpleNamespace(
    id="r-1",
    parameters=Parameters(headers={"x-trace": "abc"}, mode="fast"),
    inputs=[types.SimpleNamespace(name="x", parameters={"unit": "cm"})],
    outputs=[types.SimpleNamespace(name="y")],
)


def call(function: Callable[..., Any], *names: str, optional: tuple[str, ...] = ()) -> Any:
    """Binds a handler to inputs of these names and calls it; each input is its own name."""
    specs = [spec(name) for name in names] + [spec(name, optional=True) for name in optional]
    inputs: Any = {name: name for name in names}
    by_name = {each.name: each for each in specs}
    return bind(function, specs)(InferenceCall(_context(), inputs, by_name, REQUEST))


def refused(function: Callable[..., Any], *names: str) -> str:
    with pytest.raises(BindError) as caught:
        bind(function, [spec(name) for name in names])
    return str(caught.value)


def test_parameters_get_the_inputs_of_their_names_in_any_order() -> None:
    assert call(lambda b, a: (a, b), "a", "b") == ("a", "b")


def test_dashes_and_dots_of_a_name_are_underscores() -> None:
    assert call(lambda sepal_length, x_1: (sepal_length, x_1), "sepal-length", "x.1") == (
        "sepal-length",
        "x.1",
    )


def test_a_handler_may_leave_inputs_out() -> None:
    assert call(lambda b: b, "a", "b") == "b"
    assert call(lambda: "nothing", "a", "b") == "nothing"


def test_one_free_parameter_gets_the_one_input() -> None:
    assert call(lambda anything: anything, "x") == "x"
    assert call(lambda anything, context: (anything, context.model_name), "x") == ("x", "iris")


def test_two_free_parameters_are_refused_with_the_names_on_offer() -> None:
    assert refused(lambda p, q: None, "x") == (
        'handler parameter "p", "q" matches nothing, expected one of '
        "x, request, context, inputs, parameters, headers, event, cancelled, project, run"
    )


def test_a_free_parameter_is_refused_where_there_are_several_inputs() -> None:
    assert '"p" matches nothing, expected one of a, b, request' in refused(lambda p: p, "a", "b")


def test_a_free_keyword_only_parameter_is_refused() -> None:
    def handler(*, p: Any) -> None: ...

    assert '"p" matches nothing' in refused(handler, "x")


def test_a_free_parameter_beside_a_matched_one_is_refused() -> None:
    assert '"p" matches nothing' in refused(lambda x, p: p, "x")


def test_a_default_whose_name_matches_nothing_is_kept() -> None:
    assert call(lambda x, threshold=0.5: (x, threshold), "x") == ("x", 0.5)


def test_a_free_parameter_beside_defaults_gets_the_one_input() -> None:
    assert call(lambda p, threshold=0.5: (p, threshold), "x") == ("x", 0.5)


def test_an_input_goes_before_a_default() -> None:
    assert call(lambda x=None: x, "x") == "x"


def test_an_absent_optional_input_is_none_or_the_default() -> None:
    assert call(lambda a, b, c=7: (a, b, c), "a", optional=("b", "c")) == ("a", None, 7)


@pytest.mark.parametrize(
    ("given", "input_given", "mode"),
    [
        ({"mode": "fast", "other": 1}, False, "fast"),
        ({"mode": None}, False, "slow"),
        ({}, False, "slow"),
        ({"mode": "fast"}, True, "input"),
    ],
)
def test_a_parameter_of_the_request_goes_before_a_default(
    given: dict[str, Any], input_given: bool, mode: str
) -> None:
    def handler(x: Any, mode: str = "slow", top: int = 3) -> Any:
        return mode, top

    specs = [spec("x"), TensorSpec("mode", DATATYPES["BYTES"], (1,), optional=True)]
    inputs: Any = {"x": "x"}
    if input_given:
        inputs["mode"] = np.array([b"input"], dtype=object)
    by_name = {each.name: each for each in specs}
    request = types.SimpleNamespace(id="r-1", parameters=given)
    made = bind(handler, specs)(InferenceCall(_context(), inputs, by_name, request))
    assert made == (mode, 3)


def test_an_absent_optional_input_of_an_annotated_parameter_is_none() -> None:
    def handler(k: int) -> Any:
        return k

    plan = bind(handler, [spec("k", optional=True)])
    assert plan(InferenceCall(_context(), {}, {}, REQUEST)) is None


def test_an_input_hides_a_reserved_name() -> None:
    assert call(lambda run, event: (run, event), "run", "event") == ("run", "event")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inputs", {"x": "x"}),
        ("parameters", {"mode": "fast"}),
        ("headers", {"x-trace": "abc"}),
        ("project", None),
        ("run", None),
    ],
)
def test_reserved_names(name: str, expected: Any) -> None:
    function = eval(f"lambda {name}: {name}")
    assert call(function, "x") == expected


def test_the_request_looks_like_the_protocols() -> None:
    array = np.array([[1, 2]])
    specs = [spec("x")]
    plan = bind(lambda request: request, specs)
    request = plan(InferenceCall(_context(), {"x": array}, {"x": specs[0]}, REQUEST))
    assert (request.id, request.parameters, request.outputs) == ("r-1", {"mode": "fast"}, ["y"])
    tensor = request.inputs[0]
    assert (tensor.name, tensor.shape, tensor.datatype) == ("x", [1, 2], "INT64")
    assert tensor.data is array
    assert tensor.parameters == {"unit": "cm"}


def test_a_digitalhub_handler_of_context_and_request() -> None:
    assert call(lambda context, request: (context.model_name, request.id)) == ("iris", "r-1")


def test_a_digitalhub_handler_of_five_parameters() -> None:
    array = np.array([1, 2])
    specs = [spec("x")]

    def handler(project: Any, run: Any, context: Any, event: Any, request: Any) -> Any:
        return project, run, context.model_version, event, request

    plan = bind(handler, specs)
    project, run, version, event, request = plan(
        InferenceCall(_context(), {"x": array}, {"x": specs[0]}, REQUEST)
    )
    assert (project, run, version, request.id) == (None, None, "1", "r-1")
    assert event.body == {
        "id": "r-1",
        "parameters": {"mode": "fast"},
        "inputs": [
            {
                "name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2],
                "parameters": {"unit": "cm"},
            }
        ],
        "outputs": [{"name": "y"}],
    }  # fmt: skip
    assert event.get_header("X-Trace") == "abc"
    assert event.get_header("x-model-name") == "iris"
    assert event.get_header("absent", 3) == 3
    assert (event.method, event.content_type) == ("POST", "application/json")


def test_keywords_take_the_inputs_that_are_left() -> None:
    assert call(lambda a, **rest: (a, rest), "a", "b", "c") == ("a", {"b": "b", "c": "c"})
    assert call(lambda **rest: rest, "a", optional=("b",)) == {"a": "a"}


def test_keywords_do_not_take_an_input_that_has_a_parameter() -> None:
    def handler(a: float, c: Any = 7, **rest: Any) -> Any:
        return a, c, rest

    specs = [TensorSpec("a", DATATYPES["FP64"], (1,)), spec("b"), spec("c", optional=True)]
    inputs: Any = {"a": np.ones(1), "b": "b"}
    by_name = {each.name: each for each in specs}
    a, c, rest = bind(handler, specs)(InferenceCall(_context(), inputs, by_name, REQUEST))
    assert (type(a), a, c, rest) == (float, 1.0, 7, {"b": "b"})


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Defaults:
    z: int = 0


@dataclass
class Pair:
    x: int
    z: int


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        (Point, ["x"], Point(1)),
        (Point, ["x", "y"], Point(1, 1)),
        (Point, ["x", "other"], Point(1)),
        (Pair, ["x"], "the array"),
        (Defaults, ["x"], "the array"),
    ],
)
def test_an_object_is_made_of_inputs_if_it_needs_no_others(
    kind: Any, names: list[str], expected: Any
) -> None:
    def handler(given: Any) -> Any:
        return "the array" if isinstance(given, np.ndarray) else given

    handler.__annotations__["given"] = kind
    specs = [spec(name) for name in names]
    inputs: Any = {name: np.ones(1, np.int64) for name in names}
    by_name = {each.name: each for each in specs}
    assert bind(handler, specs)(InferenceCall(_context(), inputs, by_name, REQUEST)) == expected


def test_an_object_keeps_the_default_of_an_absent_input() -> None:
    def handler(point: Point) -> Any:
        return point

    specs = [spec("x"), spec("y", optional=True)]
    by_name = {each.name: each for each in specs}
    inputs: Any = {"x": np.ones(1, np.int64)}
    assert bind(handler, specs)(InferenceCall(_context(), inputs, by_name, REQUEST)) == Point(1)


def _of_tensors(x: Any, context: Any) -> None: ...
def _of_request(x: Any, request: Any) -> None: ...
def _of_headers(x: Any, /, headers: Any, event: Any) -> None: ...
def _of_parameter(x: Any, top: int = 1) -> None: ...
def _of_event(x: Any, cancelled: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "fields"),
    [
        (_of_tensors, set()),
        (_of_request, {"request"}),
        (_of_headers, {"headers", "event"}),
        (lambda parameters, /, x: None, {"parameters"}),
        (_of_parameter, {"parameters", "top"}),
        (_of_event, {"cancelled"}),
    ],
)
def test_the_fields_of_the_request_that_a_handler_asks_for(
    handler: Callable[..., Any], fields: set[str]
) -> None:
    assert bind(handler, [spec("x")]).required_fields == fields


def test_variable_positional_parameters_get_nothing() -> None:
    assert call(lambda *args, x: (args, x), "x") == ((), "x")


def test_positional_only_parameters() -> None:
    def handler(a: Any, b: Any = 3, /, c: Any = 4) -> Any:
        return a, b, c

    assert call(handler, "a", "b", "c") == ("a", "b", "c")


def test_a_positional_only_default_that_nothing_matches_is_kept_in_its_place() -> None:
    def handler(x: Any, scale: Any = 3, /, context: Any = None) -> Any:
        return x, scale, context.model_name

    assert call(handler, "x") == ("x", 3, "iris")


def test_a_positional_only_parameter_behind_a_kept_default_gets_its_own_input() -> None:
    def handler(scale: Any = 3, x: Any = 4, /) -> Any:
        return scale, x

    assert call(handler, "x") == (3, "x")


def test_an_absent_optional_input_keeps_the_default_of_a_positional_only_parameter() -> None:
    def handler(x: Any, y: Any = 3, /) -> Any:
        return x, y

    assert call(handler, "x", optional=("y",)) == ("x", 3)


def test_an_absent_optional_input_without_a_default_is_none_in_its_place() -> None:
    plan = bind(lambda a, b, /, c: (a, b, c), [spec("a"), spec("b", optional=True), spec("c")])
    inputs: Any = {"a": "a", "c": "c"}
    assert plan(InferenceCall(_context(), inputs, {}, REQUEST)) == ("a", None, "c")


def test_a_positional_only_parameter_of_a_reserved_name() -> None:
    assert call(lambda context, /, x: (context.model_name, x), "x") == ("iris", "x")


def test_positional_only_free_parameter() -> None:
    def handler(anything: Any, /) -> Any:
        return anything

    assert call(handler, "x") == "x"


def test_functions_written_in_c() -> None:
    assert call(str.upper, "x") == "X"
    assert call(np.char.upper, "x") == "X"
    assert call(len, "xy") == 2


def test_a_partial_gets_what_it_does_not_have() -> None:
    def handler(x: Any, scale: Any) -> Any:
        return x, scale

    assert call(functools.partial(handler, scale=3), "x") == ("x", 3)
    assert call(functools.partial(handler, "first"), "scale") == ("first", "scale")


def test_a_decorated_handler_keeps_its_signature() -> None:
    def handler(x: Any, context: Any) -> Any:
        return x, context.model_name

    @functools.wraps(handler)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    assert call(wrapped, "x") == ("x", "iris")


class Model:
    """A class whose instance is called, and whose methods are handlers."""

    def __init__(self, weights: str = "none", context: Any = None) -> None:
        self.weights = weights
        self.context = context

    def predict(self, x: Any) -> Any:
        return self.weights, x

    def __call__(self, x: Any) -> Any:
        return "called", x

    @classmethod
    def of_class(cls, x: Any) -> Any:
        return cls.__name__, x

    @staticmethod
    def of_nothing(x: Any) -> Any:
        return x

    async def predict_async(self, x: Any) -> Any:
        return x


def test_a_bound_method_and_a_callable_object() -> None:
    assert call(Model("w").predict, "x") == ("w", "x")
    assert call(Model(), "x") == ("called", "x")


async def _async(x: Any) -> Any: ...
async def _async_generator(x: Any) -> Any:
    yield x


def _generator(x: Any) -> Any:
    yield x


class _Callable:
    def __init__(self, function: Any) -> None:
        type(self).__call__ = function


class _AsyncCallable:
    async def __call__(self, x: Any) -> Any: ...


class _GeneratorCallable:
    def __call__(self, x: Any) -> Any:
        yield x


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda x: x, "sync"),
        (_async, "async"),
        (_generator, "generator"),
        (_async_generator, "async generator"),
        (functools.partial(_async), "async"),
        (functools.partial(functools.partial(_generator)), "generator"),
        (Model().predict, "sync"),
        (Model().predict_async, "async"),
        (Model(), "sync"),
        (_AsyncCallable(), "async"),
        (_GeneratorCallable(), "generator"),
        (str.upper, "sync"),
    ],
)
def test_how_a_handler_runs_is_known_at_load(function: Any, kind: str) -> None:
    plan = bind(function, [spec("x")])
    assert plan.kind == kind


def _module(**names: Any) -> types.ModuleType:
    module = types.ModuleType("model")
    vars(module).update(names)
    return module


def _resolver(module: types.ModuleType, default: str | None = "model", **init: Any) -> Resolver:
    return Resolver(lambda name: module, default, _context(**init))


def test_a_bare_name_is_of_the_default_module() -> None:
    resolver = _resolver(_module(f=len))
    assert resolver.resolve("f") is len
    assert (resolver.module_of("f"), resolver.module_of("a.b:f")) == ("model", "a.b")


def test_a_bare_name_in_a_folder_is_refused() -> None:
    with pytest.raises(BindError, match=r'"f" names no module, expected "module.path:callable"'):
        _resolver(_module(), default=None).resolve("f")


def test_a_method_is_of_the_one_instance_of_its_class() -> None:
    resolver = _resolver(_module(Model=Model), weights="w")
    predict = resolver.resolve("Model.predict")
    assert predict("x") == ("w", "x")
    assert resolver.resolve("model:Model.predict_async").__self__ is predict.__self__
    assert predict.__self__.context.model_name == "iris"


def test_a_class_is_called_through_its_one_instance() -> None:
    assert _resolver(_module(Model=Model)).resolve("Model")("x") == ("called", "x")


def test_class_methods_and_static_methods_need_no_instance() -> None:
    resolver = _resolver(_module(Model=Model))
    assert resolver.resolve("Model.of_class")("x") == ("Model", "x")
    assert resolver.resolve("Model.of_nothing")("x") == "x"


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(BindError) as caught:
        _resolver(_module(predict=len, _hidden=len, number=3)).resolve("handler")
    assert str(caught.value) == 'module "model" has no "handler", it has predict'
    with pytest.raises(BindError, match="it has no callables"):
        _resolver(_module()).resolve("handler")


def test_a_method_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(BindError, match=r'no "Model.predct", it has predict, '):
        _resolver(_module(Model=Model)).resolve("Model.predct")


def test_a_class_whose_instances_cannot_be_called_is_refused() -> None:
    class Plain: ...

    with pytest.raises(BindError, match='"Plain" is a class whose instances cannot be called'):
        _resolver(_module(Plain=Plain)).resolve("Plain")


def test_a_name_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(BindError, match='"number" is not callable, it is a int'):
        _resolver(_module(number=3)).resolve("number")


def _init(function: Callable[..., Any], **parameters: Any) -> Any:
    return _resolver(_module(), **parameters).call_with_context(function)


def test_init_gets_the_context_and_its_parameters_by_name() -> None:
    assert _init(lambda: "none") == "none"
    assert _init(lambda context: context.model_name) == "iris"
    assert _init(lambda depth, context: (depth, context.model_name), depth=3) == (3, "iris")
    assert _init(lambda depth=5: depth) == 5
    assert _init(lambda **kwargs: kwargs, a=1, b=2) == {"a": 1, "b": 2}
    assert _init(lambda a, **kwargs: (a, kwargs), a=1, b=2) == (1, {"b": 2})
    assert _init(lambda a, *args, b=2: (a, args, b), a=1, args=3) == (1, (), 2)
    assert _init(lambda a=5, context=None, /: (a, context.model_name)) == (5, "iris")


def test_init_knows_the_context_by_its_usual_names_and_by_its_annotation() -> None:
    def annotated(depth: int, c: Context) -> tuple[str, int]:
        return c.model_name, depth

    def quoted(c: nuclio_sdk.Context) -> str:  # type: ignore[name-defined]  # noqa: F821
        return str(c.model_name)

    def by_place(depth: int, ctx: Any, /, extra: int = 2) -> tuple[str, int, int]:
        return ctx.model_name, depth, extra

    assert _init(lambda ctx: ctx.model_name) == "iris"
    assert _init(lambda _: "called") == "called"
    assert _init(annotated, depth=3) == ("iris", 3)
    assert _init(quoted) == "iris"
    assert _init(by_place, depth=3) == ("iris", 3, 2)
    assert _init(dict) == {}


def test_init_of_digitalhub_gets_its_context_first() -> None:
    assert _init(lambda ctx, depth: (ctx.model_name, depth), depth=3) == ("iris", 3)


@pytest.mark.parametrize(
    "init", [lambda weights: weights, lambda weights, context: weights, lambda weights, /: weights]
)
def test_no_other_parameter_of_init_is_given_the_context(init: Callable[..., Any]) -> None:
    with pytest.raises(BindError, match=r'requires "weights".* init_parameters: depth, context'):
        _init(init, depth=3)


def test_init_parameters_that_are_missing_are_a_load_error() -> None:
    def setup(context: Any, weights: Any) -> None: ...

    with pytest.raises(BindError) as caught:
        _init(setup, depth=3)
    assert str(caught.value).endswith(
        'setup" requires "weights", which is not in init_parameters: depth, context'
    )


def test_a_parameter_that_is_called_as_a_table_needs_the_type_of_the_frame() -> None:
    age = TensorSpec("age", DATATYPES["INT64"], (-1,), axes=("people",))
    with pytest.raises(BindError, match=r"\"people\" matches nothing, .*; annotate a table as its"):
        bind(lambda people, x: 0, [age, TensorSpec("x", DATATYPES["FP32"], (1,))])
