"""The files that `init` writes: a new function, or the definition of a function that exists."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import yaml

from mlserver_pyfunc.errors import BindError, DefinitionError
from mlserver_pyfunc.handler.annotations import Record, Value
from mlserver_pyfunc.handler.binding import RESERVED
from mlserver_pyfunc.handler.signature import OUTPUT, Signature

from .derived import with_signature
from .model_settings import MODEL_SETTINGS, SETTINGS_TEXT
from .models import FunctionDefinition, SourceDefinition, TensorDefinition
from .rendering import render
from .static import FunctionNode, UnknownError, is_static, signature_of

_GUESS = {"datatype": "FP32", "shape": [-1]}


def starter(name: str) -> dict[str, str]:
    """Returns the files of a new function that works, by file name."""
    return {
        "function.yaml": render("definition/templates/starter.yaml.jinja", name=name),
        "model.py": render("definition/templates/starter.py.jinja"),
        MODEL_SETTINGS: SETTINGS_TEXT,
    }


def described(name: str, folder: Path, module: Path, function: str) -> dict[str, str]:
    """Returns a definition of a function by file name, without running its code, or raises."""
    try:
        tree = ast.parse(module.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{module}: {error.strerror}") from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{module}: not Python: {error}") from None
    functions = _functions(tree)
    if function not in functions:
        names = ", ".join(functions) or "none"
        raise DefinitionError(f'{module}: no function "{function}", it has {names}')
    node = functions[function]
    is_bound = node not in tree.body and not is_static(node)
    try:
        signature = signature_of(tree, node, is_bound=is_bound, strict=False)
        guessed, guesses = _guessed(signature)
        found = with_signature(_NOTHING, guessed)
    except (UnknownError, BindError) as error:
        raise DefinitionError(f"{node.name}: {error}") from None
    return of_tensors(name, folder, module, found, function, guesses)


def of_tensors(
    name: str,
    folder: Path,
    file: Path,
    found: FunctionDefinition,
    handler: str | None = None,
    guesses: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Returns a definition of code or of a model file, whose tensors were found, by file name."""
    lines = {
        kind: [_line(tensor, guesses) for tensor in getattr(found, kind)]
        for kind in ("inputs", "outputs")
    }
    source = json.dumps(Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix())
    template = "definition/templates/described.yaml.jinja"
    definition = render(template, name=name, source=source, handler=handler, **lines)
    return {"function.yaml": definition, MODEL_SETTINGS: SETTINGS_TEXT}


def name_of(folder: Path) -> str:
    """Makes a model name from the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name) or "function"


def _functions(tree: ast.Module) -> dict[str, FunctionNode]:
    """Returns the functions that a definition may call, by the path that it gives for them."""
    found: dict[str, FunctionNode] = {}
    for node in tree.body:
        if isinstance(node, FunctionNode):
            found[node.name] = node
        if not isinstance(node, ast.ClassDef):
            continue
        for method in node.body:
            if not isinstance(method, FunctionNode):
                continue
            if method.name == "__call__":
                found[node.name] = method
            elif not method.name.startswith("_"):
                found[f"{node.name}.{method.name}"] = method
    return found


_NOTHING = FunctionDefinition(source=SourceDefinition(code="-", handler="f"))


def _guessed(signature: Signature) -> tuple[Signature, dict[str, str]]:
    """Guesses arrays where no annotation tells more, and returns the guesses by tensor, too."""
    forms = dict(signature.forms)
    guesses: dict[str, str] = {}
    for name, parameter in signature.parameters.items():
        form = forms.get(name)
        is_annotated = isinstance(form, Value) and form.problem
        is_needed = form is None and parameter.default is parameter.empty
        if name not in RESERVED and (is_annotated or is_needed):
            forms[name], guesses[name] = _guess(form)
    result = signature.result or Value({}, problem="not annotated", is_unknown=True)
    fields = dict(result.fields) if isinstance(result, Record) else {OUTPUT: result}
    for name, value in fields.items():
        is_unknown = value is result and value.is_unknown
        if value.problem and (is_unknown or not value.tensor.keys().isdisjoint(_GUESS)):
            fields[name], guesses[name] = _guess(value)
    result = replace(result, fields=fields) if isinstance(result, Record) else fields[OUTPUT]
    return replace(signature, forms=forms, result=result), guesses


def _guess(form: Value | Record | None) -> tuple[Value, str]:
    known = form.tensor if isinstance(form, Value) else {}
    words = " and ".join(key for key in _GUESS if key not in known)
    return Value({**_GUESS, **known}), words


def _line(tensor: TensorDefinition, guesses: Mapping[str, str]) -> str:
    keys = tensor.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, width=10**6)
    guess = guesses.get(tensor.name)
    return f"- {text.strip()}{f'  # a guess: {guess}' if guess else ''}"
