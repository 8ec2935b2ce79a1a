"""What the documentation says of the platforms is what their pods have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.places import ROOT

from . import seldon_v2
from .cluster import Cluster, Object, StoredImage
from .deployments import IMAGE, MODEL, deploy, printed
from .functions import write_folder

ROW = re.compile(r"^\| `([a-z0-9-]+)` \| `(/v2.*?)` \| `(/v2.*?)` \| `(.*?)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "operations.md").read_text())


def test_every_platform_has_a_row() -> None:
    assert sorted(row[0] for row in ROWS) == ["kserve", "kubernetes", "seldon-v1", "seldon-v2"]


@pytest.mark.parametrize(("platform", "ready", "alive", "before"), ROWS, ids=[r[0] for r in ROWS])
def test_probes_and_hook_are_those_of_the_table(
    platform: str, ready: str, alive: str, before: str, tmp_path: Path, stock_image: StoredImage
) -> None:
    pod = _pod(platform, tmp_path, stock_image)
    (container,) = pod["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == ready.replace("NAME", MODEL)
    assert container["livenessProbe"]["httpGet"]["path"] == alive
    hook = container["lifecycle"]["preStop"]
    path, command = hook.get("httpGet", {}).get("path"), hook.get("exec", {}).get("command", [])
    assert before == (f"/{path}" if path else " ".join(command))


def _pod(platform: str, work: Path, image: StoredImage) -> Object:
    if platform != "seldon-v2":
        return deploy(platform, "storage", work, image).pod
    folder = write_folder(work / "artifacts" / MODEL, name=MODEL)
    objects = printed(platform, folder, "--storage-uri", "s3://models/iris")
    return seldon_v2.pod(Cluster(objects, {IMAGE: image}), work / "agent")
