"""What a second build makes anew: only what changed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

from .build import build
from .engines import Engine
from .functions import Case, write_file

CASE = Case("file", ("3.12",), write_file, "3.12", 2, "")
EPOCH = "1700000000"

pytestmark = pytest.mark.timeout(600)


def test_a_source_only_change_reuses_every_layer_of_dependencies(
    engine: Engine, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "function"
    write_file(folder)
    cold = build(engine, CASE, folder, "--no-cache", name="cold")
    before = engine.layers(cold.tag)
    # With everything in place, and with the source changed.
    write_file(folder, factor=9)
    warm = build(engine, CASE, folder, name="warm")
    record_property("cold_seconds", round(cold.seconds, 1))
    record_property("warm_seconds", round(warm.seconds, 1))
    after = engine.layers(warm.tag)
    assert len(after) == len(before)
    shared = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=True))
    )
    assert shared < len(after), "the source changed, but no layer did"
    target = tmp_path / "layers"
    target.mkdir()
    layers = engine.unpack_layers(warm.tag, engine.base("3.12"), target)
    changed = layers[shared - len(after) :]
    for layer in changed:
        files = {str(path.relative_to(layer)) for path in layer.rglob("*") if path.is_file()}
        assert all(name.startswith("opt/function/") for name in files), sorted(files)[:5]
    assert warm.seconds < cold.seconds / 2, (warm.seconds, cold.seconds)


def test_equal_input_gives_equal_layers(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.env, "SOURCE_DATE_EPOCH", EPOCH)
    layers = []
    for number in range(2):
        folder = tmp_path / str(number) / "function"
        write_file(folder)
        built = build(engine, CASE, folder, "--no-cache", name=f"equal-{number}")
        layers.append(engine.layers(built.tag))
    assert layers[0] == layers[1]
