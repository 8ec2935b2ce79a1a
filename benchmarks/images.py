"""Compares images of one function, ours and those of other tools: size, build and start.

    python -m benchmarks.images [--starts 3] [--only ours,mlserver,digitalhub]

podman builds all images on the same `python:3.12-slim`, which is made here. Needs root, podman,
buildah, runc and mmdebstrap. A rebuild follows a change of the source only. The time to ready is
from `podman run` until the model is ready, without a network and with a read-only root.

The function is examples/iris. MLServer's image follows the recipe of `mlserver dockerfile`. Its
base image is made like MLServer's own, but on `python:3.12-slim` instead of UBI with Conda, and
without the other runtimes. digitalhub's image has the published layers for Python 3.12, but not
the program `processor`, which only its registry has; so this image cannot be started here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import needs
from tests.deployment.engines import bases
from tests.deployment.engines.container import HARDENED
from tests.deployment.engines.engines import Engine
from tests.deployment.engines.storage import Storage

ROOT = Path(__file__).resolve().parent.parent
IRIS = ROOT / "examples" / "iris"
BASE = bases.name_of("3.12")
REQUIREMENTS = "scikit-learn>=1.5,<2"
_PLACE = "localhost/pyfunc-bench"

MLSERVER = f"""
FROM {BASE}
ENV MLSERVER_MODELS_DIR=/mnt/models MLSERVER_PATH=/opt/mlserver
RUN mkdir /opt/mlserver && useradd -u 1000 -d /opt/mlserver mlserver \\
    && chown -R 1000:0 /opt/mlserver && chmod -R 776 /opt/mlserver
RUN pip install --upgrade pip wheel setuptools \\
    && pip install "mlserver==1.7.1" "uvloop<0.22" && rm -rf /root/.cache/pip
WORKDIR /opt/mlserver
USER 1000
"""
MLSERVER_FUNCTION = f"""
FROM {_PLACE}/mlserver
COPY ./settings.jso[n] ./model-settings.jso[n] ./requirements.tx[t] ./
USER root
RUN pip install -r requirements.txt && mkdir -p ./envs/base && chown -R 1000:0 ./envs/base \\
    && chmod -R 776 ./envs/base && rm -rf /root/.cache/pip
USER 1000
COPY . .
ENV MLSERVER_MODELS_DIR=/opt/mlserver
CMD mlserver start $MLSERVER_MODELS_DIR
"""
MLSERVER_MODEL = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Iris(MLModel):
    async def load(self):
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        data = load_iris()
        self._names = np.array(data.target_names)
        self._model = LogisticRegression(max_iter=500).fit(data.data, data.target)
        return True

    async def predict(self, payload):
        features = NumpyCodec.decode_input(payload.inputs[0])
        found = [str(name) for name in self._names[self._model.predict(features)]]
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("species", found)]
        )
"""
DIGITALHUB = f"""
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends build-essential curl git \\
    libpq-dev default-libmysqlclient-dev && rm -rf /var/lib/apt/lists/*
RUN useradd -r -m -u 8877 nonroot
USER 8877
RUN python -m pip install "digitalhub[full]<0.16" digitalhub-runtime-python \\
    digitalhub-runtime-container digitalhub-runtime-modelserve digitalhub-runtime-dbt
RUN python -m pip install opentelemetry-api opentelemetry-sdk \\
    opentelemetry-exporter-otlp-proto-grpc opentelemetry-exporter-otlp-proto-http \\
    opentelemetry-exporter-prometheus
ENV PATH=/home/nonroot/.local/bin:$PATH
"""
DIGITALHUB_FUNCTION = f"""
FROM {_PLACE}/digitalhub
RUN python -m pip install "{REQUIREMENTS}"
COPY . /shared
"""


@dataclass(frozen=True)
class Row:
    """The figures of an image: sizes in bytes, times in seconds."""

    name: str
    size: int
    above_base: int
    layers: int
    cold: float
    rebuild: float
    ready: float | None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument("--starts", type=int, default=3, help="starts of each image")
    parser.add_argument("--only", default="ours,mlserver,digitalhub")
    parser.add_argument("--output", type=Path, help="a Markdown file to write the table to")
    arguments = parser.parse_args()
    if not needs.is_there("image builds"):
        sys.exit(f"images cannot be built here, they need {needs.line('image builds')}")
    makers = {"ours": _ours, "mlserver": _mlserver, "digitalhub": _digitalhub}
    with tempfile.TemporaryDirectory(prefix="images-") as work:
        storage = Storage(Path(work, "storage"))
        try:
            bases.make_debian(storage, Path(work))
            engine = Engine("podman", storage)
            engine.base("3.12")
            rows = []
            for name in arguments.only.split(","):
                rows.append(makers[name](engine, Path(work, name), arguments.starts))
                print(rows[-1], file=sys.stderr, flush=True)
        finally:
            storage.close()
    text = _table(rows)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


def _ours(engine: Engine, work: Path, starts: int) -> Row:
    shutil.copytree(IRIS, work)
    program = Path(sys.executable).with_name("mlserver-pyfunc")
    tag = f"{_PLACE}/ours"

    def build() -> None:
        command = [program, "build", work, "--tag", tag, "--engine", "podman"]
        subprocess.run(command, env=engine.env, check=True, stdout=-3, stderr=-3)

    return _measured(engine, "mlserver-pyfunc build", tag, build, work / "model.py", starts)


def _mlserver(engine: Engine, work: Path, starts: int) -> Row:
    work.mkdir()
    (work / "model.py").write_text(MLSERVER_MODEL)
    (work / "requirements.txt").write_text(f"{REQUIREMENTS}\n")
    settings = {"name": "iris", "implementation": "model.Iris"}
    (work / "model-settings.json").write_text(json.dumps(settings))
    (work / "settings.json").write_text(json.dumps({"parallel_workers": 0}))
    tag = f"{_PLACE}/mlserver-function"

    def build() -> None:
        _build(engine, MLSERVER, work, f"{_PLACE}/mlserver")
        _build(engine, MLSERVER_FUNCTION, work, tag)

    return _measured(engine, "mlserver build", tag, build, work / "model.py", starts)


def _digitalhub(engine: Engine, work: Path, starts: int) -> Row:
    shutil.copytree(IRIS, work)
    tag = f"{_PLACE}/digitalhub-function"

    def build() -> None:
        _build(engine, DIGITALHUB, work, f"{_PLACE}/digitalhub")
        _build(engine, DIGITALHUB_FUNCTION, work, tag)

    return _measured(engine, "digitalhub", tag, build, work / "model.py", 0)


def _build(engine: Engine, dockerfile: str, context: Path, tag: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(dockerfile)
        file.flush()
        command = ["podman", "build", "--layers", "--file", file.name, "--tag", tag, context]
        engine.storage.run(*command)


def _measured(
    engine: Engine, name: str, tag: str, build: Callable[[], None], source: Path, starts: int
) -> Row:
    cold = _timed(build)
    source.write_text(source.read_text() + "\n# changed\n")
    rebuild = _timed(build)
    facts, base = engine.inspect(tag), engine.inspect(BASE)
    ready = statistics.median(_start(engine, tag) for _ in range(starts)) if starts else None
    return Row(
        name,
        facts["Size"],
        facts["Size"] - base["Size"],
        len(facts["RootFS"]["Layers"]) - len(base["RootFS"]["Layers"]),
        cold,
        rebuild,
        ready,
    )


def _start(engine: Engine, tag: str) -> float:
    started = time.monotonic()
    writable = ["--env=MLSERVER_ENVIRONMENTS_DIR=/tmp/envs", "--env=MLSERVER_METRICS_DIR=/tmp/m"]
    with engine.running(tag, *HARDENED, *writable) as container:
        container.wait_until_ready("iris")
        return time.monotonic() - started


def _timed(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _table(rows: list[Row]) -> str:
    lines = [
        "| image | MB | above the base | layers added | cold build | after a change of the source "
        "| start to ready |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ready = "not measured" if row.ready is None else f"{row.ready:.1f} s"
        lines.append(
            f"| {row.name} | {row.size / 1e6:.0f} | {row.above_base / 1e6:.0f} | {row.layers} "
            f"| {row.cold:.0f} s | {row.rebuild:.1f} s | {ready} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
