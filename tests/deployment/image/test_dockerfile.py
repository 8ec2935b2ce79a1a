"""The Dockerfile: within its rules in every variant, and nothing in it but what was meant."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.deployment.image.dockerfile import render
from mlserver_pyfunc.deployment.names import BuildError
from mlserver_pyfunc.deployment.server_settings import CONTAINER_VARIABLES
from tests.places import ROOT

HADOLINT = Path(sys.executable).with_name("hadolint")
STOCK = (ROOT / "Dockerfile").read_text()


def recipe(**keys: Any) -> dict[str, Any]:
    given = {
        "base": "python:3.12-slim",
        "python": "3.12",
        "server_image": None,
        "server_python": "3.12",
        "own": False,
        "requirements": False,
        "hashed": True,
        "wheel": "mlserver_pyfunc-1-py3-none-any.whl",
        "weights": False,
        "settings": CONTAINER_VARIABLES,
        **dict.fromkeys(("instructions", "arguments", "secrets"), ()),
        "env": {},
        "labels": {},
    }
    return {**given, **keys}


VARIANTS = [
    {
        "base": f"python:{python}-slim",
        "python": python,
        "server_python": "3.12" if python == "3.13" else python,
        "server_image": "python:3.12-slim" if python == "3.13" else None,
        "own": own or python == "3.13",
        "requirements": own or python == "3.13" or bool(extra),
        **extra,
    }
    for python, own, extra in itertools.product(
        ("3.10", "3.12", "3.13"),
        (False, True),
        (
            {},
            {
                "instructions": ["echo 1\necho 2", "mkdir -p /data"],
                "env": {"A": 'a "b" $c \\ d'},
                "labels": {"a.b": "c"},
                "arguments": ["RELEASE"],
                "secrets": ["ca-bundle", "apt-ca", "netrc"],
                "hashed": False,
            },
        ),
    )
]


@pytest.mark.parametrize("keys", VARIANTS)
def test_keeps_the_rules_of_hadolint_and_of_old_engines(keys: dict[str, Any]) -> None:
    text = render(recipe(**keys))
    # Each instruction is a step of its own, so that a change of one does not repeat those before.
    lint = subprocess.run(
        [HADOLINT, "--ignore=DL3059", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout + text
    assert "# syntax" not in text
    assert "<<" not in text


def test_what_changes_most_comes_last() -> None:
    keys = {"requirements": True, "instructions": ["mkdir /x"], "labels": {"commit": "1"}}
    keys["weights"] = True
    text = render(recipe(**keys))
    parts = [
        "RUN mkdir /x",
        "COPY server.txt",
        "COPY requirements.txt",
        "COPY --from=server /opt/mlserver",
        "COPY --from=sbom",
        "COPY weights",
        "COPY function",
        "LABEL commit",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_image_runs_as_a_user_of_group_0() -> None:
    last = render(recipe()).rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["1000:0"]


def test_an_own_environment_is_named_to_the_server() -> None:
    text = render(recipe(own=True, requirements=True))
    assert 'MLSERVER_PYFUNC_ENVIRONMENT="/opt/environment"' in text
    assert "MLSERVER_PYFUNC_ENVIRONMENT" not in render(recipe(requirements=True))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", '"plain"'),
        ("a b", '"a b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("$HOME ${X}", '"\\$HOME \\${X}"'),
        ("back\\slash", '"back\\\\slash"'),
        ("$(touch /x) `ls`; rm -rf /", '"\\$(touch /x) `ls`; rm -rf /"'),
    ],
)
def test_values_are_quoted(value: str, written: str) -> None:
    assert f"ENV A={written}\n" in render(recipe(env={"A": value}))
    assert f"LABEL a.b={written}\n" in render(recipe(labels={"a.b": value}))


@pytest.mark.parametrize(
    "keys",
    [
        {"env": {"A": "1\nUSER root"}},
        {"env": {"A B": "1"}},
        {"env": {"A=1\nUSER": "root"}},
        {"env": {"A\nUSER": "root"}},
        {"labels": {"a": "1\nUSER root"}},
    ],
)
def test_refuses_a_value_that_would_begin_another_line(keys: dict[str, Any]) -> None:
    with pytest.raises(BuildError):
        render(recipe(**keys))


@pytest.mark.parametrize("command", ["a \\\n  b", "a\nUSER root", "cat <<EOF", "echo \\"])
def test_an_instruction_stays_one_command(command: str) -> None:
    text = render(recipe(instructions=[command]))
    (line,) = [line for line in text.splitlines() if "/bin/sh" in line]
    assert json.loads(line.removeprefix("RUN ")) == ["/bin/sh", "-ec", command]


def test_a_function_may_set_a_variable_of_the_servers() -> None:
    text = render(recipe(env={"MLSERVER_DEBUG": "true"}))
    assert re.findall(r"MLSERVER_DEBUG=(\S+)", text) == ['"true"']


def test_every_step_trusts_the_ca_bundle_and_the_image_does_not_hold_it() -> None:
    secrets = ["ca-bundle", "apt-ca"]
    text = render(recipe(requirements=True, instructions=["true"], secrets=secrets))
    runs = re.findall(r"^RUN (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert len(runs) == 7
    assert all("--mount=type=secret,id=ca-bundle" in run for run in runs)
    assert not re.search(r"^ENV .*ca-bundle", text, re.MULTILINE)
    assert "/run/secrets" not in text.rpartition("\nFROM ")[2]


def test_the_stock_image_is_set_up_alike() -> None:
    (variables,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", STOCK, re.MULTILINE)
    stock = dict(pair.split("=", 1) for pair in variables.replace("\\\n", " ").split())
    assert stock.pop("PATH") == "/opt/mlserver/bin:$PATH"
    assert stock.pop("MLSERVER_MODELS_DIR") == "/mnt/models"
    assert stock == dict(CONTAINER_VARIABLES)
    built = render(recipe())
    for kind in ("USER 1000", "WORKDIR", "EXPOSE", "HEALTHCHECK", "    CMD", "CMD", "ENTRYPOINT"):
        pattern = rf"^{kind}.*$"
        found = re.findall(pattern, STOCK, re.MULTILINE)
        assert found == re.findall(pattern, built, re.MULTILINE), kind
