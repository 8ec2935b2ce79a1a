"""Options, from the command line to the objects, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.cli.deploy import manifest
from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition import read
from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests import ManifestError
from mlserver_pyfunc.sources import lock
from tests.places import IRIS

from .cases import CASES, IMAGE, SHAPES, containers, env, function, made, objects, of, one

CODE = "def f(x):\n    return x\n"


def call(*arguments: object, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(main, ["manifest", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


EVERY_OPTION = [
    "--name", "flowers", "--namespace", "team-a", "--image", IMAGE, "--min-replicas", "2",
    "--max-replicas", "5", "--cpu", "500m", "--memory", "2Gi", "--cpu-limit", "2", "--gpus", "1",
    "--env", "LOG_LEVEL=info", "--env", "EMPTY=", "--env", "YES=y",
    "--env", "NUMBER=1e3", "--secret", "AWS_SECRET_ACCESS_KEY=s3/secret",
    "--env-from", "secret/all", "--env-from", "configmap/more", "--volume", "pvc/data:/data:ro",
    "--volume", "pvc/out:/out", "--volume", "secret/keys:/keys", "--volume", "configmap/conf:/conf",
    "--volume", "emptydir:/scratch", "--node-selector", "disk=ssd",
    "--toleration", "gpu=yes:NoSchedule", "--toleration", "spot",
    "--service-account", "model-reader", "--image-pull-secret", "registry",
    "--image-pull-policy", "Always", "--label", "team=a", "--annotation", "a.org/b=c",
]  # fmt: skip


def test_the_command_line_gives_every_option_on() -> None:
    out, _ = call("kserve", IRIS, *EVERY_OPTION, "--target-cpu", "60", "--monitor")
    assert list(yaml.safe_load_all(out)) == made("kserve", "image", "everything")
    rest = ["--storage-uri", "gs://models/iris", "--runtime", "team-runtime", "--target-cpu", "60"]
    out, _ = call("kserve", IRIS, *EVERY_OPTION, *rest)
    assert list(yaml.safe_load_all(out)) == made("kserve", "storage", "everything")
    rest = ["--service-name", "flowers-rest", "--service-type", "LoadBalancer", "--monitor"]
    out, _ = call("kubernetes", IRIS, *EVERY_OPTION, *rest, "--target-cpu", "60")
    assert list(yaml.safe_load_all(out)) == made("kubernetes", "image", "everything")


def test_the_command_line_knows_every_option_and_platform() -> None:
    parameters = {each.name for each in manifest.params}
    beside = {"platform", "folder", "output"}
    assert parameters - beside == set(manifests.Options.model_fields)
    (platform,) = [each for each in manifest.params if each.name == "platform"]
    assert tuple(platform.type.choices) == manifests.PLATFORMS  # type: ignore[attr-defined]


def test_switches_reach_the_objects(tmp_path: Path) -> None:
    out, _ = call("kserve", IRIS, "--image", IMAGE, "--storage-uri", "gs://a/b",
                  "--cluster-runtime", "--mode", "knative", "--protocol", "grpc")  # fmt: skip
    first, _ = yaml.safe_load_all(out)
    assert first["kind"] == "ClusterServingRuntime"
    assert first["spec"]["containers"][0]["ports"][0]["name"] == "h2c"
    out, _ = call("kserve", IRIS, "--storage-uri", "gs://a/b", "--without-runtime")
    assert [each["kind"] for each in yaml.safe_load_all(out)] == ["InferenceService"]
    out, _ = call("kubernetes", IRIS, "--image", IMAGE, "--run-as-user", "any")
    assert "runAsUser" not in out
    call("kubernetes", IRIS, "--image", IMAGE, "-o", tmp_path / "out.yaml")
    assert one(list(yaml.safe_load_all((tmp_path / "out.yaml").read_text())), "Deployment")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--env", "A"], 'expected NAME=VALUE, got "A"'),
        (["--env", "1A=b"], 'expected the name of a variable, got "1A"'),
        (["--env", "API_KEY=s3cret"], "--secret API_KEY=SECRET/KEY"),
        (["--env", "DB=postgres://me:pass@db/x"], "--secret DB=SECRET/KEY"),
        (["--env", "MLSERVER_HTTP_PORT=1"], "is what the manifest itself sets"),
        (["--secret", "A=s3cret"], "secrets.A: expected SECRET/KEY"),
        (["--secret", "A=B/c"], 'expected a Kubernetes name (a-z, 0-9, "-" and "."), got "B"'),
        (["--secret", "A=b/c", "--env", "A=d"], "A is set in another way too"),
        (["--env-from", "a"], "expected secret/NAME|configmap/NAME"),
        (["--volume", "pvc/a"], "expected pvc/NAME:/PATH"),
        (["--volume", "pvc/a:/tmp"], "/tmp would hide /tmp"),
        (["--volume", "pvc/a:/opt/function"], "a mount at /opt/function would hide /opt/function"),
        (["--volume", "pvc/a:/opt/"], "/opt would hide /opt/function"),
        (["--volume", "pvc/a://mnt/models/."], "would hide /mnt/models"),
        (["--volume", "pvc/a:/a", "--volume", "pvc/b:/a/"], "/a is mounted twice"),
        (["--cpu", "3", "--cpu-limit", "2"], "expected cpu up to cpu_limit 2, got 3"),
        (["--cpu", "1500m", "--cpu-limit", "1"], "expected cpu up to cpu_limit 1, got 1500m"),
        (["--memory", "10"], "memory: expected 1M or more, for example 512Mi, got 10, which"),
        (["--volume", "pvc:/a"], "pvc: no name"),
        (["--volume", "nfs/a:/a"], "'pvc', 'secret', 'configmap' or 'emptydir'"),
        (["--name", "My_Name"], 'expected a DNS label'),
        (["--name", "1a"], "from a letter on"),
        (["--cpu", "much"], 'expected an amount, for example 500m, 2 or 1Gi, got "much"'),
        (["--min-replicas", "2"], "expected max_replicas too"),
        (["--min-replicas", "3", "--max-replicas", "2"], "up to max_replicas 2, got 3"),
        (["--image", "A B"], 'expected registry/name:tag or name@digest, got "A B"'),
        (["--node-selector", "a b=c"], "expected the key of a label"),
        (["--label", "a=b c"], "expected the value of a label"),
        (["--run-as-user", "0"], "run_as_user"),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_an_option(given: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["manifest", "kubernetes", str(IRIS), "--image", IMAGE, *given])
    assert done.exit_code in (2, 3)
    assert message in " ".join(done.stderr.split())
    assert "s3cret" not in done.stderr
    assert "pass@" not in done.stderr


def test_without_an_image_it_says_how_to_get_one() -> None:
    _, err = call("kserve", IRIS, code=3)
    assert "expected an image, got none" in err
    assert f"mlserver-pyfunc build {IRIS} -t NAME:TAG makes one" in err
    _, err = call("kserve", IRIS, "--shape", "inline", code=3)
    assert "expected --image with the runtime's own image" in err


def built(folder: Path, **more: Any) -> None:
    """Leaves a lock as a build does."""
    from mlserver_pyfunc.deployment.image import record

    (folder / "function.yaml").write_text(
        "model_name: m\nsource: {source: m.py, handler: f}\n"
        "inputs: [{name: x, datatype: FP32, shape: [-1]}]\n"
        "outputs: [{name: x, datatype: FP32, shape: [-1]}]\n"
    )
    (folder / "m.py").write_text(CODE)
    definition = read(folder / "function.yaml")
    made_of = record.inputs(definition, folder)
    text = yaml.safe_dump(
        {"version": 1, "image": {"name": "registry.example.com/m:1", "inputs": made_of, **more}}
    )
    (folder / lock.LOCK_NAME).write_text(text)


def test_the_image_built_last_is_used_by_its_digest(tmp_path: Path) -> None:
    built(tmp_path, digest="sha256:" + "a" * 64, id="sha256:" + "b" * 64)
    out, err = call("kubernetes", tmp_path)
    (container,) = containers(list(yaml.safe_load_all(out)))
    assert container["image"] == "registry.example.com/m@sha256:" + "a" * 64
    assert err == ""


def test_an_image_that_is_stale_or_was_not_pushed_is_warned_about(tmp_path: Path) -> None:
    built(tmp_path, id="sha256:" + "b" * 64)
    (tmp_path / "m.py").write_text(CODE + "# changed\n")
    out, err = call("kubernetes", tmp_path)
    assert containers(list(yaml.safe_load_all(out)))[0]["image"] == "registry.example.com/m:1"
    assert "is stale: source changed since it was built; mlserver-pyfunc build" in err
    assert "was not pushed, so a cluster cannot pull it" in err


def test_warns_of_what_an_image_without_the_function_may_lack(tmp_path: Path) -> None:
    definition = function(requirements=["scipy>=1"], python_version="3.13")
    options = manifests.options.parse({"image": "a:1", "shape": "inline"})
    found = manifests.derive("kserve", definition, tmp_path, options).warnings
    assert any("needs Python 3.13, scipy>=1" in each for each in found)
    options = manifests.options.parse({"image": "a:1"})
    assert manifests.derive("kserve", function(), tmp_path, options).warnings == []


def test_warns_of_workers_that_may_take_more_than_the_container_has(tmp_path: Path) -> None:
    definition = function(serving={"workers": 3, "memory_limit": "512M"})
    for memory, count in (("1Gi", 1), ("2Gi", 0), ("2G", 0), ("1500M", 1)):
        options = manifests.options.parse({"image": "a:1", "memory": memory})
        found = manifests.derive("kubernetes", definition, tmp_path, options).warnings
        assert len(found) == count, memory


def test_warns_of_names_that_platforms_change(tmp_path: Path) -> None:
    definition = function(model_name="My_Model")
    said = {
        "kserve": 'clients call "/v2/models/My_Model", not "my-model-',
        "seldon-v1": '"My_Model" is served as "my-model-',
        "seldon-v2": '"My_Model" is served under the Model\'s name',
    }
    for platform, text in said.items():
        given = {"storage_uri": "gs://a/b"} if platform == "seldon-v2" else {}
        options = manifests.options.parse({"image": "a:1", **given})
        found = manifests.derive(platform, definition, tmp_path, options).warnings
        assert any(text in each for each in found), found


def test_ports_in_the_folders_settings_are_refused_where_the_folder_is_mounted(
    tmp_path: Path,
) -> None:
    (tmp_path / "settings.json").write_text('{"http_port": 9000, "debug": false}')
    with pytest.raises(ManifestError, match="http_port would come before what the platform sets"):
        of(function(), tmp_path, "kserve", "storage")
    # A build leaves them out.
    of(function(), tmp_path, "kserve", "image")


def test_code_of_more_than_one_file_cannot_go_inline(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    definition = function(source={"source": "code", "handler": "a:f"})
    with pytest.raises(ManifestError, match='expected code of one file, got "code"; build an'):
        of(definition, tmp_path, "kserve", "inline")


def test_code_that_no_process_could_be_started_with_is_refused() -> None:
    for size, fits in ((90_000, True), (100_000, False)):
        definition = function(source={"code": f"f = {'1' * size!r}", "handler": "f"})
        if fits:
            of(definition, IRIS, "kserve", "inline")
            continue
        with pytest.raises(ManifestError, match="MLSERVER_MODEL_EXTRA: expected at most 131072"):
            of(definition, IRIS, "kserve", "inline")


def test_samples_of_a_warm_up_cannot_go_inline() -> None:
    definition = function(serving={"warmup": {"samples": ["one.json"]}})
    with pytest.raises(ManifestError, match=r"expected no serving\.warmup\.samples"):
        of(definition, IRIS, "kserve", "inline")


def test_a_password_in_a_source_never_goes_inline() -> None:
    definition = function(source={"source": "git+https://me:s3cret@h/r.git#v1", "handler": "f"})
    with pytest.raises(ManifestError) as raised:
        of(definition, IRIS, "kserve", "inline")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DB_PASSWORD", "x", True),
        ("HF_TOKEN", "x", True),
        ("apiKey", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("OPTIONS", {"list": [{"token": "x"}]}, True),
        ("URL", "https://me:x@host/", True),
        ("HF_TOKEN", "", False),
        ("MAX_TOKENS", "5", False),
        ("tokenizer", "bert", False),
        ("TOKEN_PATH", "/run/token", False),
        ("KEYBOARD", "qwerty", False),
        ("URL", "https://host:80/a@b", False),
        ("secret", 5, False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: Any, shown: bool) -> None:
    assert names.shows_a_secret(name, value) is shown


@pytest.mark.parametrize(
    "values",
    [
        {"init_parameters": {"store": {"password": "s3cret"}}},
        {"init_parameters": {"url": "postgres://me:s3cret@h/d"}},
        {"build": {"env": {"API_KEY": "s3cret"}}},
    ],
)
def test_a_secret_of_the_definition_is_not_printed(values: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="would show a secret") as raised:
        of(function(**values), IRIS, "kserve", "inline")
    assert "s3cret" not in str(raised.value)


def test_a_source_that_is_fetched_stays_where_it_is() -> None:
    uri = "git+https://example.com/r.git#" + "a" * 40
    definition = function(source={"source": uri, "handler": "a:f"})
    config_map = one(of(definition, IRIS, "kserve", "inline"), "ConfigMap")
    given = json.loads(config_map["data"]["MLSERVER_MODEL_EXTRA"])["function"]
    assert given["source"] == {"source": uri, "handler": "a:f"}


def test_build_variables_of_the_definition_are_set_where_no_build_did() -> None:
    definition = function(build={"env": {"OMP_NUM_THREADS": "1"}})
    for shape, there in (("image", False), ("inline", True)):
        (container,) = containers(of(definition, IRIS, "kserve", shape))
        assert ("OMP_NUM_THREADS" in env(container)) is there


def test_equal_names_give_equal_labels_and_others_others() -> None:
    given = ["iris", "My_Model", "my.model", "my-model", "ü", "1a", "-", "a" * 100, "a" * 101, "A"]
    labels = [names.derived_label(name) for name in given]
    assert labels[0] == "iris"
    assert len(set(labels)) == len(given)
    assert [names.label(label) for label in labels] == labels
    assert max(map(len, (names.derived_label(name, 48) for name in given))) <= 48


@pytest.mark.parametrize(("platform", "shape"), SHAPES)
def test_making_objects_twice_gives_the_same(platform: str, shape: str) -> None:
    assert objects(platform, shape) == objects(platform, shape)


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_the_text_reads_back_as_the_objects(platform: str, shape: str, case: str) -> None:
    found = made(platform, shape, case)
    assert list(yaml.safe_load_all(manifests.dump(found))) == found


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), (".5", 0.5), ("1Gi", 2**30), ("1.5M", 1.5e6), ("2e3", 2000),
     ("1E", 1e18), ("100n", 1e-7), ("3k", 3000), ("1E-3", 0.001), ("7Ei", 7 * 2**60)],
)  # fmt: skip
def test_an_amount_is_read_as_kubernetes_reads_it(text: str, number: float) -> None:
    assert names.amount(names.quantity(text)) == pytest.approx(number)


def test_a_volume_may_be_below_the_functions_folder() -> None:
    out, _ = call(
        "kubernetes", IRIS, "--image", IMAGE, "--volume", "pvc/w:/opt/function/weights:ro"
    )
    assert "/opt/function/weights" in out


def test_warns_that_seldon_2_does_not_scale_servers(tmp_path: Path) -> None:
    given = {"image": "a:1", "storage_uri": "gs://a/b", "max_replicas": 3}
    found = manifests.derive(
        "seldon-v2", function(), tmp_path, manifests.options.parse(given)
    ).warnings
    assert any("does not read a Server's minReplicas" in each for each in found)
    options = manifests.options.parse({**given, "with_runtime": False})
    found = manifests.derive("seldon-v2", function(), tmp_path, options).warnings
    assert not any("Server's minReplicas" in each for each in found)
