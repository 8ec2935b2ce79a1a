"""Every place that says which Pythons are served says the same."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.specifiers import SpecifierSet

from mlserver_pyfunc.definition import PYTHON_VERSIONS
from mlserver_pyfunc.deployment.image.requirements import DEFAULT_PYTHON, SERVER_PYTHONS
from tests.places import ROOT

ABOUT = metadata.metadata("mlserver-pyfunc")
LIST = " or ".join([", ".join(SERVER_PYTHONS[:-1]), SERVER_PYTHONS[-1]])


def test_the_package_installs_on_those_that_it_builds_images_for() -> None:
    admitted = SpecifierSet(ABOUT["Requires-Python"])
    assert [f"3.{n}" for n in range(50) if f"3.{n}.0" in admitted] == [*SERVER_PYTHONS]
    classifiers = " ".join(ABOUT.get_all("Classifier") or [])
    assert re.findall(r"Python :: (3\.\d+)", classifiers) == [*SERVER_PYTHONS]
    assert DEFAULT_PYTHON in SERVER_PYTHONS
    assert set(SERVER_PYTHONS) <= set(PYTHON_VERSIONS)


@pytest.mark.parametrize("path", ["Makefile", ".ci/run"])
def test_the_commands_look_for_those(path: str) -> None:
    text = (ROOT / path).read_text()
    bounds = re.search(r"\(3, (\d+)\) <= sys\.version_info < \(3, (\d+)\)", text)
    assert bounds, f"{path}: no range of Pythons"
    found = [f"3.{n}" for n in range(int(bounds[1]), int(bounds[2]))]
    assert found == [*SERVER_PYTHONS], path
    looked = re.search(r"for python in .*", text)
    assert looked
    assert re.findall(r"python(3\.\d+)", looked[0]) == [*reversed(SERVER_PYTHONS)], path


@pytest.mark.parametrize("path", ["README.md", "docs/quickstart.md", "Makefile", ".ci/run"])
def test_the_texts_name_those(path: str) -> None:
    found = re.findall(r"Python (3\.\d+, [\d., ]*or 3\.\d+)", (ROOT / path).read_text())
    assert found, f"{path}: no Pythons named"
    assert set(found) == {LIST}, path
