"""Whatever is asked for, the objects are such that platforms take them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.deployment import manifests

from . import schemas
from .cases import SHAPES, containers, env, of, pods
from .test_schemas import pod

FOLDER = Path(__file__).parent

LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", fullmatch=True)
VALUES = st.text(max_size=40).filter(lambda text: "{{" not in text and "://" not in text)
SIZES = st.from_regex(r"[1-9][0-9]{0,3}(M|Mi|Gi)", fullmatch=True)
CPUS = st.from_regex(r"[1-9][0-9]{0,2}m", fullmatch=True)
LIMITS = st.from_regex(r"[1-9][0-9]{0,3}k?", fullmatch=True)
# No name that sounds secret: those are refused.
ENV_NAMES = st.from_regex(r"[A-DF-HJ-NPQU-Z_][A-DF-HJ-NPQU-Z0-9_]{0,20}", fullmatch=True)
KEYS = st.from_regex(r"[a-z]{1,10}(/[a-z]{1,10})?", fullmatch=True)
PATHS = st.from_regex(r"/x[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True)
NAMED = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["pvc", "secret", "configmap"]),
        "name": LABELS,
        "path": PATHS,
        "read_only": st.booleans(),
    }
)
EMPTY = st.fixed_dictionaries({"kind": st.just("emptydir"), "path": PATHS})
SOURCES = st.fixed_dictionaries({"kind": st.sampled_from(["secret", "configmap"]), "name": LABELS})
SECRETS = st.fixed_dictionaries({"secret": LABELS, "key": LABELS})
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "name": LABELS,
        "namespace": LABELS,
        "replicas": st.integers(1, 9),
        "max_replicas": st.integers(1, 9),
        "cpu": CPUS,
        "memory": SIZES,
        "cpu_limit": LIMITS,
        "gpus": st.integers(0, 8),
        "gpu_resource": KEYS,
        "env": st.dictionaries(ENV_NAMES, VALUES, max_size=4),
        "secrets": st.dictionaries(ENV_NAMES.map("S_{}".format), SECRETS, max_size=3),
        "env_from": st.lists(SOURCES, max_size=3),
        "volumes": st.lists(NAMED | EMPTY, max_size=3, unique_by=lambda each: each["path"]),
        "node_selector": st.dictionaries(KEYS, LABELS, max_size=2),
        "tolerations": st.lists(st.fixed_dictionaries({"key": KEYS}), max_size=2),
        "service_account": LABELS,
        "image_pull_secrets": st.lists(LABELS, max_size=2, unique=True),
        "run_as_user": st.just("any") | st.integers(1, 2**31 - 1),
        "labels": st.dictionaries(KEYS, LABELS, max_size=2),
        "annotations": st.dictionaries(KEYS, VALUES, max_size=2),
    },
)
DEFINITIONS = st.fixed_dictionaries(
    {
        "source": st.fixed_dictionaries(
            {"code": st.text(min_size=1, max_size=200), "handler": st.just("f")}
        )
    },
    optional={
        "model_name": st.from_regex(r"[^/\s{]{1,80}", fullmatch=True),
        "model_version": st.from_regex(r"[^/\s]{1,20}", fullmatch=True),
        "init_parameters": st.dictionaries(st.text(max_size=9), VALUES, max_size=3),
        "build": st.fixed_dictionaries({"env": st.dictionaries(ENV_NAMES, VALUES, max_size=2)}),
        "serving": st.fixed_dictionaries(
            {
                "workers": st.integers(1, 9),
                "timeout": st.floats(0.1, 10_000),
                "init_timeout": st.floats(1, 10_000),
            }
        ),
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.text(min_size=1, max_size=9),
                    "datatype": st.sampled_from(["FP32", "BYTES"]),
                    "shape": st.just([-1]),
                    "description": VALUES,
                }
            ),
            max_size=2,
            unique_by=lambda tensor: tensor["name"],
        ),
    },
)


@pytest.mark.heavy
@pytest.mark.parametrize(("platform", "shape"), SHAPES)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(definition=DEFINITIONS.map(parse), options=OPTIONS)
def test_whatever_is_asked_for_is_valid(
    platform: str, shape: str, definition: FunctionDefinition, options: dict[str, Any]
) -> None:
    found = of(definition, FOLDER, platform, shape, **options)
    assert list(yaml.safe_load_all(manifests.dump(found))) == found
    for each in found:
        if schemas.knows(each):
            schemas.check(each)
        else:
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)
    for spec in pods(found):
        kubernetes_validate.validate(pod(spec), kubernetes_validate.latest_version(), strict=True)
    for container in containers(found):
        listed = [each["name"] for each in container["env"]]
        assert len(listed) == len(set(listed))
        paths = [each["mountPath"] for each in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        # What the user says wins over what the server ships with, and over nothing else.
        if each_is_whole(platform, shape):
            for name, value in options.get("env", {}).items():
                assert env(container)[name] == value


def each_is_whole(platform: str, shape: str) -> bool:
    """Whether the container is the function's own."""
    return (platform, shape) != ("kserve", "storage")


@given(text=st.text(max_size=30))
def test_text_is_never_read_as_anything_else(text: str) -> None:
    written = manifests.dump([{"v": text, "w": [text]}])
    assert yaml.safe_load(written) == {"v": text, "w": [text]}


LOOK_ALIKES = (
    "y Y n N yes No on OFF true False null ~ 1 -1 +1 1e3 1E5 0x1f 0o17 017 1_000 12:30 12:30:45 "
    "2001-01-01 .5 .inf .nan 1Gi 500m = << - ? !x &a *b @a `a % # [ {"
)


@pytest.mark.parametrize("text", [*LOOK_ALIKES.split(), "", " ", "- a", "a\x85\nb", "a\u2028\nb"])
def test_text_that_other_readers_take_for_something_else_is_quoted(text: str) -> None:
    written = manifests.dump([{"v": text}])
    assert re.fullmatch(r'v: (".*"|\'.*\')\n', written), written
