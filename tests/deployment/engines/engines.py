"""The image engines under test, by what is the same in all of them."""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import bases
from .container import Container, running
from .storage import Storage

ENGINES = tuple(os.environ.get("PYFUNC_TEST_ENGINES", "podman buildah").split())
"""Those that are tested; `docker_engines.py` names docker here."""


@dataclass(frozen=True)
class Engine:
    """An engine that builds images.

    Attributes:
        name: As `--engine` takes it.
        storage: Where podman and buildah have theirs; the base images are made there.
    """

    name: str
    storage: Storage
    _bases: set[str] = field(default_factory=set)

    @property
    def runner(self) -> str:
        """The command that runs and looks at what it built."""
        return "docker" if self.name == "docker" else "podman"

    @property
    def env(self) -> dict[str, str]:
        return self.storage.env

    def base(self, version: str) -> str:
        """Gives the name of `python:X.Y-slim`, which the engine has then."""
        name = bases.make_python(self.storage, version)
        self.have(name)
        return name

    def have(self, name: str) -> None:
        """Makes an image of podman's and buildah's storage known to the engine."""
        if self.name == "docker" and name not in self._bases:
            archive = self.storage.root / "base.tar"
            short = name.removeprefix("docker.io/library/")
            self.storage.run("buildah", "push", "-q", name, f"docker-archive:{archive}:{short}")
            self.storage.run("docker", "load", "-i", archive)
            archive.unlink()
            self._bases.add(name)

    def build(self, context: Path, tag: str, dockerfile: Path | None = None) -> None:
        """Builds a context as any CI would, with nothing of ours in between."""
        command = {
            "podman": ["podman", "build", "--format", "docker"],
            "buildah": ["buildah", "bud", "--layers", "--format", "docker"],
            "docker": ["docker", "build"],
        }[self.name]
        # Docker before 23 has BuildKit, but uses it only where asked to.
        if dockerfile is not None:
            command += ["--file", str(dockerfile)]
        self.storage.run(*command, "--tag", tag, context, env={"DOCKER_BUILDKIT": "1"})

    def inspect(self, image: str) -> dict[str, Any]:
        (found,) = json.loads(self.storage.run(self.runner, "image", "inspect", image))
        return dict(found)

    def layers(self, image: str) -> list[str]:
        """The digests of an image's layers, unpacked, the base's first."""
        return list(self.inspect(image)["RootFS"]["Layers"])

    def history(self, image: str) -> str:
        return self.storage.run(self.runner, "history", "--no-trunc", image)

    def unpack_layers(self, image: str, above: str, target: Path) -> list[Path]:
        """Unpacks each layer that an image has above another; a folder each."""
        saved = target / "saved"
        archive = target / "saved.tar"
        self.storage.run(self.runner, "save", "-o", archive, image)
        with tarfile.open(archive) as tar:
            tar.extractall(saved, filter="fully_trusted")
        archive.unlink()
        (manifest,) = json.loads((saved / "manifest.json").read_text())
        folders = []
        for number, layer in enumerate(manifest["Layers"][len(self.layers(above)) :]):
            folder = target / f"layer-{number}"
            folder.mkdir()
            self.storage.run("tar", "-xf", saved / layer, "-C", folder, "--no-same-owner")
            folders.append(folder)
        return folders

    @contextlib.contextmanager
    def running(self, image: str, *options: str) -> Iterator[Container]:
        """Runs an image with these options, gone at the end."""
        with running(self.env, image, *options, engine=self.runner) as container:
            yield container
