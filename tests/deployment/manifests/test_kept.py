"""Options of a manifest that the definition keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.deployment.image import record
from mlserver_pyfunc.validation import validate

from .cases import containers, env, function, of, one

KEPT = {
    "replicas": 2,
    "cpu": 2,
    "memory": "4Gi",
    "env": {"LOG_LEVEL": "info", "THREADS": 4},
    "secrets": {"TOKEN": "hub/token"},
    "volumes": ["pvc/weights:/weights:ro"],
    "node_selector": {"disk": "ssd"},
    "tolerations": ["gpu=yes:NoSchedule"],
    "service_type": "NodePort",
    "service_name": "flowers",
    "presets": {
        "gpu": {"gpus": 1, "env": {"THREADS": "1"}},
        "busy": {"min_replicas": 2, "max_replicas": 8},
    },
}
SOURCE = {"code": "def f(x):\n    return x\n", "handler": "f"}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path, KEPT)


def written(folder: Path, kept: Any) -> Path:
    definition = {"model_name": "m", "source": SOURCE, "inputs": [TENSOR], "outputs": [TENSOR]}
    text = yaml.safe_dump({**definition, "deployment": kept}, sort_keys=False)
    (folder / "function.yaml").write_text(text)
    return folder


def printed(folder: Path, *options: str, platform: str = "kubernetes") -> list[dict[str, Any]]:
    words = ["manifest", platform, str(folder), "--image", "a:1", *options]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


def test_a_manifest_has_what_the_definition_keeps(folder: Path) -> None:
    found = printed(folder)
    spec = one(found, "Deployment")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["replicas"] == 2
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert {"LOG_LEVEL": "info", "THREADS": "4"}.items() <= env(container).items()
    (secret,) = [each for each in container["env"] if each["name"] == "TOKEN"]
    assert secret["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "/weights" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"][0]["effect"] == "NoSchedule"
    service = one(found, "Service")
    assert (service["spec"]["type"], service["metadata"]["name"]) == ("NodePort", "flowers")


def test_options_of_the_command_line_come_first_and_mappings_are_merged(folder: Path) -> None:
    found = printed(folder, "--replicas", "3", "--env", "THREADS=8", "--volume", "emptydir:/a")
    (container,) = containers(found)
    assert one(found, "Deployment")["spec"]["replicas"] == 3
    assert {"LOG_LEVEL": "info", "THREADS": "8"}.items() <= env(container).items()
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert "/a" in mounts
    assert "/weights" not in mounts


def test_a_preset_comes_over_the_other_kept_options(folder: Path) -> None:
    (container,) = containers(printed(folder, "--preset", "gpu"))
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"LOG_LEVEL": "info", "THREADS": "1"}.items() <= env(container).items()
    scaled = printed(folder, "--preset", "busy", "--max-replicas", "9")
    assert one(scaled, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 9
    fixed = printed(folder, "--preset", "busy", "--replicas", "4")
    assert one(fixed, "Deployment")["spec"]["replicas"] == 4


def test_kept_options_of_another_platform_have_no_effect(folder: Path) -> None:
    service = one(printed(folder, platform="kserve"), "InferenceService")
    assert service["spec"]["predictor"]["minReplicas"] == 2


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"replica": 2}, 'deployment.replica: unknown key, did you mean "replicas"?'),
        ({"cpu": "much"}, "deployment.cpu: expected an amount"),
        ({"env": {"API_KEY": "s3cret"}}, "give --secret API_KEY=SECRET/KEY"),
        ({"volumes": ["weights"]}, 'deployment.volumes.0: expected pvc/NAME:/PATH'),
        ({"image": "a:1"}, "deployment.image: unknown key"),
        ({"env": "A=b"}, "deployment.env: expected a mapping"),
        ({"presets": ["gpu"]}, "deployment.presets: expected a mapping"),
        ({"presets": {"p": {"gpu": 1}}}, 'deployment.presets.p.gpu: unknown key, did you mean'),
        ({"cpu": 2, "presets": {"s": {"cpu_limit": 1}}}, "deployment: presets.s: expected cpu"),
    ],
)  # fmt: skip
def test_what_is_kept_is_checked_by_validate_and_by_manifest(
    kept: dict[str, Any], message: str, tmp_path: Path
) -> None:
    written(tmp_path, kept)
    (finding,) = validate(tmp_path)
    assert finding.rule == "D109"
    assert message in finding.message
    line = (tmp_path / "function.yaml").read_text().splitlines()[finding.line - 1]
    assert line.strip(" -").partition(":")[0] in finding.message
    done = CliRunner().invoke(main, ["manifest", "kubernetes", str(tmp_path), "--image", "a:1"])
    assert done.exit_code == 3
    assert message.split(":")[-1] in " ".join(done.stderr.split())
    assert "s3cret" not in done.stderr + finding.message


def test_a_preset_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    words = ["manifest", "kubernetes", str(folder), "--image", "a:1", "--preset", "big"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 3
    assert '--preset: expected one of gpu, busy, got "big"' in done.stderr
    assert validate(folder) == []


def test_what_is_kept_is_neither_in_the_pods_nor_part_of_the_image(tmp_path: Path) -> None:
    def with_replicas(number: int) -> FunctionDefinition:
        return function(deployment={"replicas": number})

    assert "replicas" not in str(
        one(of(with_replicas(3), tmp_path, "kserve", "inline"), "ConfigMap")
    )
    assert record.inputs(with_replicas(1), tmp_path) == record.inputs(with_replicas(2), tmp_path)
