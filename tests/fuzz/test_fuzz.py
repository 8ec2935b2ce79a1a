"""The targets find nothing in the kept corpus, and something in a decoder with a defect.

A defect is planted in each target's decoder, so that a target which compares nothing fails here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.definition import yaml_reader
from mlserver_pyfunc.hosts.common import grpc_messages, json_body
from mlserver_pyfunc.hosts.mlserver import rest_bounds
from mlserver_pyfunc.protocol import bytes_tensors, tensors
from mlserver_pyfunc.serving.workers.wire import codec
from mlserver_pyfunc.sources import archive, lock, safe_tree, uri
from tests.fuzz.coverage import read
from tests.fuzz.targets import CORPUS, TARGETS
from tests.places import ROOT

MAX_CORPUS_BYTES = 300_000
RUNS = 3000


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_shows_no_defect(name: str) -> None:
    inputs = read(CORPUS / name)
    assert inputs
    for data in inputs:
        TARGETS[name].run(data)


def test_the_corpus_is_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < MAX_CORPUS_BYTES


def _reads_a_byte_past(buffer: bytes) -> list[bytes]:
    data, elements, position = bytes(buffer), [], 0
    while position < len(data):
        end = position + 4 + int.from_bytes(data[position : position + 4], "little")
        elements.append(data[position + 4 : end])
        if end > len(data) + 1:
            raise tensors.TensorError("an element", "less")
        position = end
    return elements


def _takes_infinity(datatype: Any, array: Any) -> Any:
    with np.errstate(over="ignore"):
        return array.astype(datatype.dtype) if datatype.dtype.kind == "f" else None


def _drops_the_rest_of_a_length(field_number: int, size: int) -> bytes:
    return bytes([field_number << 3 | 2, size & 0x7F])


def _takes_the_first_of_two_keys(source: Any, key: str) -> Any:
    return {name: json_body._plain(source[name]) for name in list(source.keys()) if name != key}


class _EveryTag:
    def __contains__(self, tag: object) -> bool:
        return True


def _cuts_a_byte(content: Any, root: Any, name: str, *rest: Any) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content.read()[:-1])


PLANTED: list[tuple[str, Any, str, Any]] = [
    ("rest_binary", bytes_tensors, "split_elements", _reads_a_byte_past),
    ("rest_json", tensors, "_exact_cast", _takes_infinity),
    ("rest_json", json_body, "_without", _takes_the_first_of_two_keys),
    ("grpc_typed", grpc_messages, "_head", _drops_the_rest_of_a_length),
    ("grpc_typed", grpc_messages, "_FIXED_WIDTH", frozenset({"FP32", "FP64", "INT8"})),
    ("grpc_typed", grpc_messages, "_packable", lambda datatype, array: array.tobytes()),
    ("grpc_raw", tensors, "_normal_bools", lambda array: array),
    ("grpc_raw", bytes_tensors, "split_elements", _reads_a_byte_past),
    ("worker", codec, "_joined", lambda layout, parts: b"".join(map(bytes, parts))),
    ("worker", codec, "_UNREADABLE", (ValueError,)),
    ("zip", archive, "write", _cuts_a_byte),
    ("zip", safe_tree, "_problem", lambda name: None),
    ("tar", archive, "write", _cuts_a_byte),
    ("uri", uri, "split_user", lambda url: (url, "")),
    ("yaml", yaml_reader, "MAX_DEPTH", 10_000),
    ("yaml", yaml_reader, "_JSON_TAGS", _EveryTag()),
    ("lock", lock, "_HEADER", "{"),
    ("inflate", rest_bounds, "_has_zlib_header", lambda body: False),
]


@pytest.mark.parametrize(
    ("name", "module", "attribute", "defect"),
    PLANTED,
    ids=[f"{name}-{attribute}" for name, _, attribute, _ in PLANTED],
)
def test_a_planted_defect_is_found(
    name: str, module: Any, attribute: str, defect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, attribute, defect)
    assert any(_fails(TARGETS[name].run, data) for data in read(CORPUS / name))


def _fails(run: Callable[[bytes], None], data: bytes) -> bool:
    try:
        run(data)
    except Exception:
        return True
    return False


@pytest.mark.heavy
@pytest.mark.needs("atheris")
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_no_defect_and_leaves_no_files(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", str(RUNS)]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"stat::number_of_executed_units: {RUNS}" in done.stderr
    assert list(tmp_path.iterdir()) == []
