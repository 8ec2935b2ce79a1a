"""The bill of materials in an image: valid, and the packages that the image has."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from .build import build
from .engines import Engine
from .functions import Case, write_clash, write_file

pytestmark = pytest.mark.timeout(900)

OCI = "org.opencontainers.image"
PLACES = {"server": "/opt/mlserver", "function": "/opt/environment"}
LIST = (
    "import json; from importlib.metadata import distributions as of; "
    "print(json.dumps([(each.metadata['Name'], each.version) for each in of()]))"
)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("write", "names"), [(write_file, ["server"]), (write_clash, ["function", "server"])]
)
def test_it_is_valid_and_has_the_packages_of_the_image(
    write: Callable[[Path], None], names: list[str], builder: Engine, tmp_path: Path
) -> None:
    write(tmp_path / "function")
    built = build(builder, Case("sbom", ("3.12",), write, "3.12", 2, ""), tmp_path / "function")

    def run(*command: str) -> str:
        options = ("--rm", "--network=none", built.tag)
        return builder.storage.run(builder.runner, "run", *options, *command)

    assert run("ls", "/opt/sbom").split() == [f"{name}.cdx.json" for name in names]
    for name in names:
        text = run("cat", f"/opt/sbom/{name}.cdx.json")
        document = json.loads(text)
        validator = JsonStrictValidator(SchemaVersion.from_version(document["specVersion"]))
        assert validator.validate_str(text) is None
        listed = {(_normal(each["name"]), each["version"]) for each in document["components"]}
        found = json.loads(run(f"{PLACES[name]}/bin/python", "-c", LIST))
        assert listed == {(_normal(each), version) for each, version in found}
        wanted = "tabulate" if write is write_file else "numpy"
        assert wanted in dict(listed)
    labels = builder.inspect(built.tag)["Config"]["Labels"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", labels[f"{OCI}.created"])
    assert labels[f"{OCI}.base.name"] == "python:3.12-slim"
