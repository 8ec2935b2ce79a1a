"""What a server imports before somebody needs it, and what its functions cost in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlserver_pyfunc import Server

from .models import inline, tensor, write_model

X, Y = (tensor(name, "FP32", [-1]) for name in "xy")
_HEAVY = """
import sys
heavy = ("pandas", "aiokafka", "tritonclient", "opentelemetry.exporter.otlp.proto.grpc")
"""
_LIGHT = (
    _HEAVY
    + """
from mlserver_pyfunc.hosts.mlserver.light_import import import_mlserver
import_mlserver("mlserver.cli")
import mlserver_pyfunc.hosts.mlserver.runtime
"""
)


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_mlserver_comes_without_what_few_servers_need() -> None:
    assert run(_LIGHT + "print([name for name in heavy if name in sys.modules])") == "[]\n"


def test_a_stand_in_gives_way_to_what_it_stands_for() -> None:
    code = """
import mlserver.codecs, mlserver.server, mlserver.tracing
from mlserver import Settings
from mlserver.codecs.base import find_request_codec, find_request_codec_by_payload
codec = mlserver.codecs.PandasCodec
assert find_request_codec("pd") is codec and issubclass(codec, mlserver.codecs.RequestCodec)
assert find_request_codec_by_payload([1]) is None and "pandas" not in sys.modules
exporter = mlserver.tracing._create_span_exporter(Settings(tracing_server="127.0.0.1:1"))
assert type(exporter).__name__ == "OTLPSpanExporter"
kafka = mlserver.server.KafkaServer(Settings(), None)
assert type(kafka).__module__ == "mlserver.kafka.server"
class Own(codec):
    ContentType = "own"
import pandas
from mlserver.codecs.pandas import PandasCodec as stock
assert pandas.__file__ and issubclass(Own, stock) and codec.TypeHint is pandas.DataFrame
frame = pandas.DataFrame({"a": [1, 2]})
assert find_request_codec_by_payload(frame) in (codec, stock)
assert codec.decode_request(codec.encode_request(frame)).equals(frame)
assert Own.encode_request(frame).parameters.content_type == "own"
"""
    run(_LIGHT + code)


def test_a_handler_that_imports_pandas_gets_it(tmp_path: Path) -> None:
    source = "import pandas\ndef handler(x):\n    return pandas.Series(x).cumsum().to_numpy()\n"
    write_model(tmp_path / "sums", inline(source, "handler", {"inputs": [X], "outputs": [Y]}))
    with Server(tmp_path) as server:
        assert server.infer(x=[1.0, 2.0])["y"].tolist() == [1.0, 3.0]


def test_fifty_functions_take_little_more_memory_than_one(tmp_path: Path) -> None:
    megabytes = {}
    for count in (1, 50):
        folder = tmp_path / str(count)
        for number in range(count):
            source = f"def handler(x):\n    return x + {number}\n"
            definition: dict[str, Any] = {"inputs": [X], "outputs": [Y]}
            write_model(folder / f"f{number}", inline(source, "handler", definition))
        with Server(folder) as server:
            assert len(server.models) == count
            status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
            megabytes[count] = next(int(line.split()[1]) for line in status if "VmRSS" in line)
    more = (megabytes[50] - megabytes[1]) / 1000
    assert more < 40, json.dumps(megabytes)  # measured: 6 MB
