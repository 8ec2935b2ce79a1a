"""The shorter path of a request through MLServer."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlserver.errors import ModelNotFound
from mlserver.handlers import DataPlane
from mlserver.registry import MultiModelRegistry
from mlserver.settings import ModelParameters, ModelSettings, Settings
from mlserver.types import InferenceRequest
from prometheus_client import REGISTRY

from mlserver_pyfunc import PyFuncRuntime
from mlserver_pyfunc.hosts.mlserver.data_plane import infer
from mlserver_pyfunc.protocol.request import Parameters, RequestParameters

FUNCTION = """\
source: {code: "def f(x):\\n    return x\\n", handler: f}
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""


@pytest.fixture
def data_plane() -> Iterator[DataPlane]:
    before = set(REGISTRY._collector_to_names)
    yield DataPlane(Settings(), MultiModelRegistry())
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


def settings(folder: Path, version: str) -> ModelSettings:
    (folder / "function.yaml").write_text(FUNCTION)
    parameters = ModelParameters(uri=str(folder), version=version)
    return ModelSettings(name="m", implementation=PyFuncRuntime, parameters=parameters)


async def ask(data_plane: DataPlane, version: str | None) -> object:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}
    payload = InferenceRequest(id="a", inputs=[tensor])
    vars(payload)["parameters"] = RequestParameters(Parameters(), dict)
    return await infer(data_plane, payload, "m", version)


def counted(version: str | None) -> float:
    labels = {"model": "m", "version": str(version)}
    return REGISTRY.get_sample_value("model_infer_request_success_total", labels) or 0


async def test_what_is_kept_of_a_model_goes_with_it(data_plane: DataPlane, tmp_path: Path) -> None:
    registry = data_plane._model_registry
    kept = []
    for version in ("1", "2", "3"):
        model = await registry.load(settings(tmp_path, version))
        for asked in (version, None, version):
            response = await ask(data_plane, asked)
            assert response.model_version == version
        assert set(model.model_metrics) == {version, None}
        kept += [weakref.ref(metrics) for metrics in model.model_metrics.values()]
        await registry.unload_version("m", version)
        with pytest.raises(ModelNotFound):
            await ask(data_plane, version)
    del model
    gc.collect()
    assert [ref() for ref in kept] == [None] * 6


async def test_a_reload_counts_on_under_the_same_labels(
    data_plane: DataPlane, tmp_path: Path
) -> None:
    registry = data_plane._model_registry
    for count in (1, 2):
        await registry.load(settings(tmp_path, "1"))
        await ask(data_plane, "1")
        assert counted("1") == count
    await registry.unload("m")
