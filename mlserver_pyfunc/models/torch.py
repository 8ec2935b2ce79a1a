"""Programs that torch.export has written. They tell their tensors and dynamic sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlserver_pyfunc.errors import BindError

from .model import ROWS, Model, tensor


def load(path: Path, kind: str, threads: int, options: Mapping[str, Any]) -> Model:
    """Loads a program. Its inputs are named as its parameters are, its outputs if it has a dict."""
    import torch
    from torch.utils import _pytree as pytree

    torch.set_num_threads(threads)
    program = torch.export.load(path)
    module, told = program.module(), program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names, results = [*map(str, told.user_inputs)], told.user_outputs
    axes: dict[str, str] = {}
    inputs = [_tensor(name, values.get(name), axes) for name in names]
    given = zip(_names(program.call_spec.out_spec, len(results)), results, strict=True)
    outputs = [_tensor(name, values.get(result), axes) for name, result in given]

    def predict(**given: Any) -> dict[str, Any]:
        # Copies, because a program may write into its inputs.
        tensors = [torch.tensor(given[name]) for name in names]
        args, kwargs = pytree.tree_unflatten(tensors, program.call_spec.in_spec)
        with torch.inference_mode():
            leaves = pytree.tree_leaves(module(*args, **kwargs))
        return {o["name"]: leaf.numpy() for o, leaf in zip(outputs, leaves, strict=True)}

    return Model(predict, inputs, outputs)


def _names(spec: Any, count: int) -> list[str]:
    """Names outputs by the keys of a dict, else `output`, or `output_0` and so on."""
    if spec.type is dict and len(spec.context) == count:
        return list(spec.context)
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _tensor(name: str, value: Any, axes: dict[str, str]) -> dict[str, Any]:
    """Describes a tensor. The first size of all that is dynamic is that of the rows."""
    if not hasattr(value, "shape"):
        raise BindError(f'"{name}" is no tensor, got {value}')
    shape: list[int | str] = []
    for size in map(str, value.shape):
        if size.isidentifier():
            shape.append(axes.setdefault(size, size if axes else ROWS))
        else:
            shape.append(int(size) if size.isdigit() else -1)
    return tensor(name, str(value.dtype).removeprefix("torch."), shape)
