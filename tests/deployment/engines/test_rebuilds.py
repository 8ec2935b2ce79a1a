"""What a second build makes anew: only what changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from .build import build
from .container import HARDENED
from .engines import Engine
from .functions import NUMBERS, Case, write_file

CASE = Case("file", ("3.12",), write_file, "3.12", 2, "")

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Cold:
    """A build with nothing to reuse, of a folder that is the test's to change."""

    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def cold(builder: Engine, tmp_path_factory: pytest.TempPathFactory) -> Cold:
    folder = tmp_path_factory.mktemp("cold") / "function"
    write_file(folder)
    (folder / "weights.bin").write_bytes(b"w" * 2**20)
    return Cold(folder, build(builder, CASE, folder, "--no-cache", name="cold").seconds)


def test_a_source_only_change_reuses_every_layer_of_dependencies(
    builder: Engine, tmp_path: Path, cold: Cold, record_property: Callable[[str, object], None]
) -> None:
    # What a build reuses is of the last before it.
    primed = builder.layers(build(builder, CASE, cold.folder, name="primed").tag)
    write_file(cold.folder, factor=9)
    warm = build(builder, CASE, cold.folder, name="warm")
    record_property("cold_seconds", round(cold.seconds, 1))
    record_property("warm_seconds", round(warm.seconds, 1))
    after = builder.layers(warm.tag)
    pairs = zip(primed, after, strict=True)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    assert len(after) - shared == 1, "one layer has the source"
    layers = builder.unpack_layers(warm.tag, builder.base("3.12"), tmp_path)
    for layer in layers[shared - len(after) :]:
        files = {str(path.relative_to(layer)) for path in layer.rglob("*") if path.is_file()}
        assert all(name.startswith("opt/function/") for name in files), sorted(files)[:5]
        assert "opt/function/source/weights.bin" not in files
    assert warm.seconds < cold.seconds, (warm.seconds, cold.seconds)
    # The change is of one character: a file of equal size and time must not pass for unchanged.
    with builder.running(warm.tag, *HARDENED) as container:
        container.wait_until_ready(CASE.name)
        assert container.infer(CASE.name, [NUMBERS])["rest"]["y"] == [9.0, -22.5, 36.0]
