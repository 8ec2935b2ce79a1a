"""What an image installs: one environment where that is possible, two where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.deployment.image import requirements
from mlserver_pyfunc.deployment.image.requirements import Installed, is_hashed
from mlserver_pyfunc.deployment.names import BuildError
from mlserver_pyfunc.errors import PyFuncError

pytestmark = pytest.mark.usefixtures("packages")


def resolved(*lines: str, locked: tuple[str, ...] = (), **keys: Any) -> Installed:
    source = {"source": "model.py", "handler": "predict"}
    definition = parse({"source": source, "requirements": list(lines), **keys})
    return requirements.resolve(definition, locked)


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if "==" in line]


def test_a_function_without_requirements_adds_nothing_to_the_server() -> None:
    got = resolved()
    assert (got.python, got.server_python, got.own) == ("3.12", "3.12", False)
    assert names(got.server) == ["server==1.0", "shared==1.1"]
    assert got.function == ""


def test_what_agrees_with_the_server_is_put_on_top_of_it() -> None:
    got = resolved("extra")
    assert not got.own
    assert names(got.server) == ["server==1.0", "shared==1.1"]
    assert names(got.function) == ["extra==1.0"]


def test_the_server_takes_the_versions_that_the_function_needs() -> None:
    got = resolved("older")
    assert not got.own
    assert names(got.server) == ["server==1.0", "shared==1.0"]
    assert names(got.function) == ["older==1.0"]


def test_what_clashes_with_the_server_gets_an_environment_of_its_own() -> None:
    got = resolved("shared>=2")
    assert got.own
    assert (got.python, got.server_python) == ("3.12", "3.12")
    assert names(got.server) == ["server==1.0", "shared==1.1"]
    assert names(got.function) == ["numpy==2.0", "shared==2.0"]
    assert got.given == ["shared>=2", "numpy"]


def test_a_python_that_the_server_cannot_run_on_stands_beside_its_own() -> None:
    got = resolved("extra", python_version="3.13")
    assert got.own
    assert (got.python, got.server_python) == ("3.13", "3.12")
    assert names(got.function) == ["extra==1.0", "numpy==2.0", "shared==2.0"]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_the_server_runs_on_the_functions_python_where_it_can(python: str) -> None:
    got = resolved("extra", python_version=python)
    assert (got.python, got.server_python, got.own) == (python, python, False)


def test_versions_that_a_lock_holds_are_kept() -> None:
    got = resolved("shared>=1", locked=("shared==1.0",))
    assert not got.own
    assert names(got.server) == ["server==1.0", "shared==1.0"]


def test_the_server_keeps_the_versions_of_the_image_before_while_they_fit() -> None:
    source = {"source": "model.py", "handler": "predict"}

    def server(*lines: str) -> list[str]:
        definition = parse({"source": source, "requirements": list(lines)})
        return names(requirements.resolve(definition, (), None, kept).server)

    kept = ["server==1.0", "shared==1.0"]
    assert requirements.pins(resolved("older").server) == kept
    assert server() == kept
    assert server("extra") == kept
    kept = ["server==0.1"]
    assert server() == ["server==1.0", "shared==1.1"]


def test_every_package_has_its_hashes() -> None:
    got = resolved("extra")
    assert is_hashed(got.server)
    assert is_hashed(got.function)
    assert not is_hashed("a==1\n")


def test_requirements_that_contradict_each_other_are_told_in_uvs_words() -> None:
    with pytest.raises(PyFuncError, match=r"shared==9"):
        resolved("shared==9")


def test_a_function_that_must_share_the_server_cannot_clash_with_it() -> None:
    with pytest.raises(BuildError, match=r"serving.isolation is none"):
        resolved("shared>=2", serving={"isolation": "none"})


@pytest.mark.parametrize("line", ["extra @ file:///home/me/extra", "extra @ file:extra.whl"])
def test_a_package_of_this_machine_is_refused(line: str) -> None:
    with pytest.raises(BuildError, match="is of this machine"):
        resolved(line)
