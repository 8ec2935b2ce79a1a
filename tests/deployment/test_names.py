"""What may stand where a name is expected: nothing that a shell or a Dockerfile would read."""

from __future__ import annotations

import re

import pytest

from mlserver_pyfunc.definition.kubernetes_names import VARIABLE
from mlserver_pyfunc.deployment.names import (
    BuildError,
    checked_argument,
    checked_base,
    checked_image,
    checked_secret,
)


@pytest.mark.parametrize(
    ("name", "tagged"),
    [
        ("iris", "iris:latest"),
        ("iris:1", "iris:1"),
        ("localhost:5000/a/b-c_d.e:v1.0-rc1", "localhost:5000/a/b-c_d.e:v1.0-rc1"),
        ("Registry.Example.com/iris:1", "Registry.Example.com/iris:1"),
    ],
)
def test_takes_the_name_of_an_image(name: str, tagged: str) -> None:
    assert checked_image(name) == tagged


@pytest.mark.parametrize(
    "name",
    ["", "Iris", "iris:", "-iris", "iris:1 --push", "iris;ls", "a//b", "iris:1\n", "a@sha256:1"],
)
def test_refuses_what_is_no_name_of_an_image(name: str) -> None:
    with pytest.raises(BuildError, match="registry/name:tag"):
        checked_image(name)


def test_tells_that_names_are_in_lower_case() -> None:
    with pytest.raises(BuildError, match="in lower case"):
        checked_image("Iris:1")


def test_a_base_may_have_a_digest() -> None:
    name = f"python:3.12-slim@sha256:{'0' * 64}"
    assert checked_base(name) == name


@pytest.mark.parametrize("name", ["python:3.12 AS x", "python\nRUN ls", "$BASE", "a@sha256:0"])
def test_refuses_what_is_no_base(name: str) -> None:
    with pytest.raises(BuildError, match="base image"):
        checked_base(name)


def test_a_secret_is_known_by_its_id() -> None:
    assert checked_secret("id=netrc,src=/home/me/.netrc") == "netrc"
    assert checked_secret("id=token,env=TOKEN") == "token"


@pytest.mark.parametrize("text", ["netrc", "src=a", "id=a b,src=c", "id=a,src=b,target=c"])
def test_refuses_what_is_no_secret(text: str) -> None:
    with pytest.raises(BuildError, match="id=NAME,src=FILE"):
        checked_secret(text)


def test_an_argument_has_the_name_of_a_variable() -> None:
    assert checked_argument("A_1=b c") == "A_1"
    with pytest.raises(BuildError, match="NAME=VALUE"):
        checked_argument("1A=b")


@pytest.mark.parametrize("name", ["A", "_", "OMP_NUM_THREADS", "a1", "discovery.type", "a-b"])
def test_a_variable_has_a_name_that_engines_and_kubernetes_take(name: str) -> None:
    assert re.fullmatch(VARIABLE, name)


@pytest.mark.parametrize("name", ["", "1A", "a b", "a=b", "a\n", "a\nUSER root", "$A", "é"])
def test_refuses_what_is_no_name_of_a_variable(name: str) -> None:
    assert not re.fullmatch(VARIABLE, name)
