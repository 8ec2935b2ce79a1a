"""The iris example by every kind of source, served for real."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml

from mlserver_pyfunc import definition
from mlserver_pyfunc.sources import lock
from tests.hosts.mlserver.process import serving
from tests.places import IRIS

from .servers import FileServer, GitServer, Repository
from .test_s3 import endpoint, s3  # noqa: F401 - fixtures

pytestmark = pytest.mark.server

CODE = (IRIS / "model.py").read_text()
REQUEST = {
    "inputs": [
        {
            "name": "features",
            "datatype": "FP32",
            "shape": [2, 4],
            "data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
        }
    ]
}


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("iris-main/model.py", CODE)
    return buffer.getvalue()


def _write(models: Path, name: str, source: dict[str, Any]) -> Path:
    """Writes the iris example as a model with another source."""
    folder = models / name
    folder.mkdir(parents=True)
    written = {**yaml.safe_load((IRIS / "function.yaml").read_text()), "model_name": name}
    entry_points = {"handler": "model:predict", "init_function": "model:train"}
    written["source"] = {**entry_points, **source}
    (folder / "function.yaml").write_text(yaml.safe_dump(written))
    shutil.copy(IRIS / "model-settings.json", folder)
    return folder


def _metadata_over_grpc(address: str, name: str) -> dict[str, Any]:
    """The parameters of a model's metadata, which only MLServer's own messages have."""
    from mlserver.grpc import dataplane_pb2 as messages

    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        reply = call(messages.ModelMetadataRequest(name=name).SerializeToString(), timeout=60)
    parameters = messages.ModelMetadataResponse.FromString(reply).parameters
    return {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in parameters.items()
    }


def test_every_kind_of_source_gives_the_same_answers(
    tmp_path: Path,
    cache_folder: Path,
    repository: Repository,
    git_server: GitServer,
    file_server: FileServer,
    s3: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = repository.commit({"services/iris/model.py": CODE})
    git_server.login = "user:kept-secret"
    monkeypatch.setenv("GIT_USERNAME", "user")
    monkeypatch.setenv("GIT_PASSWORD", "kept-secret")
    archive = _zip()
    digest = hashlib.sha256(archive).hexdigest()
    file_server.files = {"/iris.zip": archive, "/model.py": CODE.encode()}
    s3.put_object(Bucket="models", Key="iris.zip", Body=archive)
    s3.put_object(Bucket="models", Key="iris/model.py", Body=CODE.encode())
    (tmp_path / "iris.zip").write_bytes(archive)
    git = f"{git_server.url}/repository"
    here = {"subdirectory": "services/iris"}
    kinds: dict[str, dict[str, Any]] = {
        "file": {"source": str(IRIS / "model.py")},
        "folder": {"source": str(IRIS)},
        "code": {"code": CODE},
        "base64": {"base64": base64.b64encode(CODE.encode()).decode()},
        "zip": {"source": str(tmp_path / "iris.zip"), "sha256": digest},
        "git-branch": {"source": f"git+{git}#main", **here},
        "git-commit": {"source": f"git+{git}#{commit}", **here},
        "git-file": {"source": f"git+file://{repository.folder}#main", **here},
        "https-file": {"source": f"{file_server.url}/model.py"},
        "https-zip": {"source": f"zip+{file_server.url}/iris.zip", "sha256": digest},
        "s3-zip": {"source": "zip+s3://models/iris.zip", "sha256": digest},
        "s3-prefix": {"source": "s3://models/iris/"},
    }
    models = tmp_path / "models"
    for name, source in kinds.items():
        _write(models, name, source)
    locked = _write(models, "locked", kinds["git-branch"])
    lock.write(definition.read(locked / "function.yaml"), locked)
    names = [*kinds, "locked"]
    env = {"MLSERVER_PYFUNC_CACHE": os.environ["MLSERVER_PYFUNC_CACHE"]}
    with serving(models, tmp_path, *names, env=env) as server:
        answers = {}
        for name in names:
            reply = server.client.post(f"/v2/models/{name}/infer", json=REQUEST)
            assert reply.status_code == 200, f"{name}: {reply.text}\n{server.log}"
            answers[name] = reply.json()["outputs"]
        assert answers["file"][0]["data"] == ["setosa", "virginica"]
        assert {
            name: answer == answers["file"] for name, answer in answers.items()
        } == dict.fromkeys(names, True)
        shown = {name: _shown(server.client, name) for name in names}
        for name in ("git-branch", "git-commit", "git-file", "locked"):
            assert shown[name]["commit"] == commit
        for name in ("zip", "https-zip", "s3-zip"):
            assert shown[name]["sha256"] == digest
        assert shown["code"]["sha256"] == hashlib.sha256(CODE.encode()).hexdigest()
        for name in names:
            assert _metadata_over_grpc(server.grpc_address, name) == shown[name]
        assert "kept-secret" not in server.log + json.dumps(shown)


def _shown(client: httpx.Client, name: str) -> dict[str, str]:
    parameters: dict[str, str] = client.get(f"/v2/models/{name}").json()["parameters"]
    return parameters


def test_a_ref_that_moved_under_a_lock_stops_the_load(
    tmp_path: Path, repository: Repository
) -> None:
    repository.commit({"model.py": CODE})
    models = tmp_path / "models"
    folder = _write(models, "moved", {"source": f"git+file://{repository.folder}#main"})
    lock.write(definition.read(folder / "function.yaml"), folder)
    repository.commit({"model.py": CODE + "\n# changed\n"})
    from tests.hosts.mlserver.process import ServerProcess

    env = {"MLSERVER_PYFUNC_CACHE": os.environ["MLSERVER_PYFUNC_CACHE"]}
    server = ServerProcess(models, tmp_path, env)
    server.start()
    try:
        server.wait_for_end()
        assert 'function "moved" failed to load: fetch: ' in server.log
        assert "function.lock" in server.log
    finally:
        server.close()
