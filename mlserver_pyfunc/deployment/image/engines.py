"""Image engines, called by their commands: docker, with or without buildx, podman and buildah."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.deployment.names import BuildError

from .engine_output import run
from .options import Options

_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Built:
    """An image that was built."""

    id: str | None  # digest of its configuration; None for an image of several platforms
    digest: str | None  # digest of its manifest; None if it was not pushed


class Engine:
    """One engine."""

    name = ""
    mounts = True  # whether builds have secret and cache mounts

    def answers(self) -> bool:
        """Tells whether the engine is on this machine and able to build."""
        return shutil.which(self.name) is not None and self._ask(["version"]) is not None

    def build(self, context: Path, name: str, options: Options, work: Path) -> Built:
        """Builds an image of a context. The engine writes its files into the folder `work`.

        Its output goes to standard error as it comes. If the build fails, `BuildError` has the step
        and the last lines.
        """
        raise NotImplementedError

    def has(self, reference: str) -> bool:
        """Tells whether an image is on this machine."""
        return self._ask(["image", "inspect", reference]) is not None

    def run_command(self, reference: str, ports: Mapping[int, int], host: str) -> list[str]:
        """Returns the command that runs an image in the foreground.

        `ports` has the ports of the host, published on its address `host`, by the container's.
        """
        published = [f"--publish={host}:{there}:{here}" for here, there in ports.items()]
        return [self.name, "run", "--rm", "--init", *published, reference]

    def _ask(self, arguments: Sequence[str]) -> str | None:
        """Returns the output of a command; None if it fails or does not answer in time."""
        try:
            done = subprocess.run(
                [self.name, *arguments],
                capture_output=True,
                text=True,
                timeout=_ANSWER_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def _common(self, tag: str, id_file: Path, options: Options) -> list[str]:
        given = [tag, f"--iidfile={id_file}"]
        if options.platforms:
            given.append(f"--platform={options.platforms}")
        if options.no_cache:
            given.append("--no-cache")
        given += [f"--build-arg={argument}" for argument in options.arguments]
        given += [f"--secret={secret}" for secret in options.secrets]
        return given


class Docker(Engine):
    """docker, by buildx if it is installed, else by the builder inside the engine."""

    name = "docker"
    mounts = False
    _buildx = False

    def answers(self) -> bool:
        """Tells whether docker answers, and finds out which builder it has."""
        if shutil.which(self.name) is None:
            return False
        text = self._ask(["version", "--format", "{{json .}}"])
        if text is None:
            return False
        try:
            version = json.loads(text)
            components = [item["Name"] for item in version["Server"].get("Components") or []]
            client = int(version["Client"]["Version"].partition(".")[0])
        except (ValueError, KeyError, TypeError):
            return True
        # podman can be installed under docker's name. It answers as docker does, without BuildKit.
        if any("podman" in name.lower() for name in components):
            return True
        self._buildx = self._ask(["buildx", "version"]) is not None
        # Before version 23, BuildKit is in the engine. From 23 on, the command needs buildx for it.
        self.mounts = self._buildx or 18 < client < 23
        return True

    def build(self, context: Path, name: str, options: Options, work: Path) -> Built:
        """Builds an image by buildx, or by the builder inside the engine."""
        id_file, metadata = work / "image.id", work / "metadata.json"
        command = [self.name, *(["buildx"] if self._buildx else []), "build"]
        command += self._common(f"--tag={name}", id_file, options)
        if self._buildx:
            command += ["--progress=plain", f"--metadata-file={metadata}"]
            command.append(self._output(name, options))
        elif options.platforms and "," in options.platforms:
            raise BuildError("several platforms: expected docker with buildx, podman or buildah")
        if options.epoch is not None and self.mounts:
            command.append(f"--build-arg=SOURCE_DATE_EPOCH={options.epoch}")
        # Engines before version 23 use BuildKit only if this variable is set.
        variables = {} if self._buildx else {"DOCKER_BUILDKIT": str(int(self.mounts))}
        run([*command, *options.extra, str(context)], variables)
        if self._buildx:
            built = json.loads(metadata.read_text()) if metadata.is_file() else {}
            digest = built.get("containerimage.digest") if options.push else None
            return Built(built.get("containerimage.config.digest") or _id(id_file), digest)
        if not options.push:
            return Built(_id(id_file), None)
        digests = re.findall(r"digest: (sha256:[0-9a-f]{64})", run([self.name, "push", name]))
        return Built(_id(id_file), digests[-1] if digests else None)

    def _output(self, name: str, options: Options) -> str:
        if "," in (options.platforms or "") and not options.push:
            raise BuildError("several platforms: docker keeps them in a registry only: add --push")
        kind = "type=image,push=true" if options.push else "type=docker"
        rewrites = options.epoch is not None and self._can_rewrite(options)
        rewrite = ",rewrite-timestamp=true" if rewrites else ""
        return f"--output={kind}{rewrite},name={name}"

    def _can_rewrite(self, options: Options) -> bool:
        """Tells whether the builder can set the times of files in layers.

        The option `rewrite-timestamp` came with BuildKit 0.13. The builder inside docker's engine
        (driver "docker") ignores it, or refuses to build, depending on its version.
        """
        chosen = [option for option in options.extra if option.startswith("--builder=")]
        builder = self._ask(["buildx", "inspect", *chosen]) or ""
        driver = re.search(r"^Driver:\s+(\S+)$", builder, re.MULTILINE)
        return driver is not None and driver[1] != "docker"


class Podman(Engine):
    """podman, which builds by the library of buildah, and runs images."""

    name = "podman"
    _build_command = "build"

    def build(self, context: Path, name: str, options: Options, work: Path) -> Built:
        """Builds an image in docker's format, since OCI's has no health check."""
        id_file, pushed = work / "image.id", work / "digest"
        several = "," in (options.platforms or "")
        if several:
            self._ask(["manifest", "rm", name])
        tag = f"--{'manifest' if several else 'tag'}={name}"
        common = [*self._common(tag, id_file, options), "--format=docker"]
        if options.epoch is not None:
            common.append(f"--timestamp={options.epoch}")
        if "--layers" not in " ".join(options.extra):
            common.append("--layers")
        run([self.name, self._build_command, *common, *options.extra, str(context)])
        image_id = None if several else _id(id_file)
        if not options.push:
            return Built(image_id, None)
        kind = ["manifest", "push", "--all"] if several else ["push"]
        tls = [option for option in options.extra if option.startswith("--tls-verify")]
        run([self.name, *kind, *tls, f"--digestfile={pushed}", name, f"docker://{name}"])
        return Built(image_id, pushed.read_text().strip() or None)


class Buildah(Podman):
    """buildah, which builds images and cannot run them."""

    name = "buildah"
    _build_command = "bud"

    def has(self, reference: str) -> bool:
        """Returns False, so that `holder` never chooses buildah to run an image."""
        return False


ENGINES: Mapping[str, type[Engine]] = {each.name: each for each in (Docker, Podman, Buildah)}


def choose(name: str | None = None) -> Engine:
    """Returns the engine of a name, or the first engine; raises `BuildError` if none answers."""
    for candidate in [name] if name else ENGINES:
        engine = ENGINES[candidate]()
        if engine.answers():
            return engine
    if name:
        raise BuildError(
            f"{name} does not answer: is it installed, and may you use it? {name} version shows it"
        )
    raise BuildError(
        f"no image engine answers, looked for {', '.join(ENGINES)}: install one, or write the "
        "context for another machine by --output DIR"
    )


def holder(reference: str) -> Engine | None:
    """Returns the first engine that has an image and can run it; None if there is none."""
    for make in ENGINES.values():
        engine = make()
        if engine.answers() and engine.has(reference):
            return engine
    return None


def _id(path: Path) -> str | None:
    text = path.read_text().strip() if path.is_file() else ""
    return text if not text or text.startswith("sha256:") else f"sha256:{text}"
