"""Runs the checks of a folder in order; later checks use the results of earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.definition.locate import Place, place_of, settings_file_of
from mlserver_pyfunc.definition.model_settings import (
    IMPLEMENTATION,
    SERVER_SETTINGS,
    ModelSettings,
    disagreements,
    parse_settings,
    seldon_model,
)
from mlserver_pyfunc.definition.yaml_reader import read_text
from mlserver_pyfunc.errors import DefinitionError, PyFuncError
from mlserver_pyfunc.sources import check_form, lock
from mlserver_pyfunc.sources.tree import LOCK_NAME, DigestError

from . import code, definition_rules
from .document import Document
from .findings import Finding


def validate(path: Path, *, fetch: bool = False) -> list[Finding]:
    """Checks a function's folder or definition file without running the function's code.

    With `fetch`, a remote source is fetched and checked too. Findings are sorted by file and line.
    """
    findings = list(_all(path, fetch=fetch))
    return sorted(set(findings), key=lambda f: (str(f.file), f.line, f.column, f.rule, f.message))


def _all(path: Path, *, fetch: bool) -> Iterator[Finding]:
    settings: Mapping[str, Any] = {}
    settings_file = settings_file_of(path)
    for file in (path / SERVER_SETTINGS, settings_file):
        if file is None or not file.is_file():
            continue
        try:
            settings = parse_settings(file.name, file.read_text(encoding="utf-8"))
        except ValueError as error:
            yield Finding("M201", str(error), file, 1)
            if file == settings_file:
                return
    try:
        place = place_of(path, settings_file, settings if settings_file else {})
    except DefinitionError as error:
        hint = "" if path.suffix == ".py" else ": write one by mlserver-pyfunc init"
        yield Finding("D001", f"{error}{hint}", path, 1)
        return
    file = place.file or settings_file or path
    try:
        document = _document(place, file)
        found = list(definition_rules.check(document))
        lines = Document(settings_file, read_text(settings_file)) if settings_file else None
    except OSError as error:
        yield Finding("D001", error.strerror or str(error), file, 1)
        return
    except DefinitionError as error:
        message, column = getattr(error, "problem", str(error)), getattr(error, "column", 0)
        yield Finding("D002", message, file, getattr(error, "line", 1), column)
        return
    yield from found
    is_wrong = any(finding.severity == "error" for finding in found)
    definition = None if is_wrong else parse(document.value())
    if lines:
        yield from _settings_findings(lines, settings, definition)
    if definition:
        yield from _source_findings(definition, document, place.folder, fetch=fetch)


def _document(place: Place, file: Path) -> Document:
    if isinstance(place.inline, str):
        place.inline_value()
        return Document(file, place.inline, is_embedded=True)
    keys = () if place.inline is None else ("parameters", "extra", "function")
    return Document(file, read_text(file), keys)


def _settings_findings(
    lines: Document, settings: Mapping[str, Any], definition: FunctionDefinition | None
) -> Iterator[Finding]:
    implementation = settings.get("implementation")
    if implementation != IMPLEMENTATION:
        message = f'implementation: expected "{IMPLEMENTATION}", got "{implementation}"'
        yield lines.finding("M202", message, ["implementation"], IMPLEMENTATION)
    if int(settings.get("max_batch_size") or 0) > 1:
        message = "max_batch_size: MLServer would join requests before their tensors are checked"
        yield lines.finding("M204", message, ["max_batch_size"])
    if definition is None:
        return
    name = settings.get("name")
    by_seldon = seldon_model(lines.path.absolute(), name or "") is not None
    if name and not by_seldon and definition.model_name not in (None, name):
        message = f'name: "{name}", but the definition\'s model_name is "{definition.model_name}"'
        yield lines.finding("M203", message, ["name"])
    version = None if by_seldon else (settings.get("parameters") or {}).get("version")
    given = ModelSettings.model_validate(settings)
    for message in disagreements(definition, given, version):
        yield lines.finding("M203", message, [message.split()[0]])


def _source_findings(
    definition: FunctionDefinition, document: Document, folder: Path, *, fetch: bool
) -> Iterator[Finding]:
    source = definition.source
    is_remote = "://" in (source.source or "") and not (source.source or "").startswith("file://")
    keys = ["spec", "source"] if "spec" in document.value() else ["source"]
    at = [*keys, "source"]
    if is_remote and not source.is_inline and not fetch:
        try:
            check_form(source.source or "")
        except PyFuncError as error:
            yield document.finding("S301", str(error), at)
            return
        message = f'"{source.source}" is remote: add --fetch to fetch it and check its code'
        yield document.finding("S302", message, at)
        return
    try:
        tree = lock.fetch_locked(definition, folder)
    except (PyFuncError, OSError) as error:
        is_of_lock = (folder / LOCK_NAME).is_file() and isinstance(error, DigestError)
        rule = "S303" if is_of_lock else "S301"
        yield document.finding(rule, str(error), at)
        return
    if not tree.kind:
        yield from code.check(definition, tree, document, keys)
