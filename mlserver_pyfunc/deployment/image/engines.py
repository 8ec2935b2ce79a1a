"""Image engines, called by their commands: docker, with or without buildx, podman and buildah."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.deployment.names import BuildError

from .engine_output import run

NAMES = ("docker", "podman", "buildah")
_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class BuildRequest:
    """An image to build.

    Attributes:
        context: Folder with the Dockerfile.
        name: Name and tag of the image.
        platforms: `linux/amd64,...`; None for the platform of the engine.
        push: Whether to push the image.
        no_cache: Whether to build every layer again.
        arguments: Build arguments: `NAME=VALUE`, or `NAME` for a variable of this process.
        secrets: Secrets: `id=NAME,src=FILE`.
        epoch: SOURCE_DATE_EPOCH, in seconds since 1970.
        extra: Further options of the engine.
    """

    context: Path
    name: str
    platforms: str | None = None
    push: bool = False
    no_cache: bool = False
    arguments: Sequence[str] = ()
    secrets: Sequence[str] = ()
    epoch: int | None = None
    extra: Sequence[str] = ()


@dataclass(frozen=True)
class Built:
    """An image that was built.

    Attributes:
        id: Digest of the image's configuration; None for an image of several platforms.
        digest: Digest of the image's manifest; None if the image was not pushed.
    """

    id: str | None
    digest: str | None


class Engine:
    """One engine.

    Attributes:
        name: Name of the command.
        mounts: Whether builds have secret and cache mounts.
    """

    name = ""
    mounts = True

    def answers(self) -> bool:
        """Tells whether the engine is on this machine and able to build."""
        return shutil.which(self.name) is not None and self._ask(["version"]) is not None

    def build(self, request: BuildRequest, work: Path) -> Built:
        """Builds an image. The engine's output goes to standard error as it comes.

        Args:
            request: The image to build.
            work: Folder for files that the engine writes.

        Raises:
            BuildError: The build failed. The message has the step and the last lines of output.
        """
        raise NotImplementedError

    def has(self, reference: str) -> bool:
        """Tells whether an image is on this machine."""
        return self._ask(["image", "inspect", reference]) is not None

    def run_command(self, reference: str, ports: Mapping[int, int], host: str) -> list[str]:
        """Returns the command that runs an image in the foreground.

        Args:
            reference: Name or id of the image.
            ports: Ports of the host, by port of the container.
            host: Address to publish the ports on.
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

    def _common(self, request: BuildRequest, options: Mapping[str, str]) -> list[str]:
        given = [f"--tag={request.name}", *(f"--{name}={value}" for name, value in options.items())]
        if request.platforms:
            given.append(f"--platform={request.platforms}")
        if request.no_cache:
            given.append("--no-cache")
        given += [f"--build-arg={argument}" for argument in request.arguments]
        given += [f"--secret={secret}" for secret in request.secrets]
        return given


class Docker(Engine):
    """docker, by buildx if it is installed, else by the builder inside the engine."""

    name = "docker"

    def __init__(self) -> None:
        self._buildx = False
        self._buildkit = False

    @property
    def mounts(self) -> bool:  # type: ignore[override]
        """Whether builds have secret and cache mounts, which need BuildKit."""
        return self._buildx or self._buildkit

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
        is_docker = not any("podman" in name.lower() for name in components)
        self._buildx = is_docker and self._ask(["buildx", "version"]) is not None
        # Before version 23, BuildKit is in the engine. From 23 on, the command needs buildx for it.
        self._buildkit = is_docker and not self._buildx and 18 < client < 23
        return True

    def build(self, request: BuildRequest, work: Path) -> Built:
        """Builds an image by buildx, or by the builder inside the engine."""
        id_file, metadata = work / "image.id", work / "metadata.json"
        command = [self.name, *(["buildx"] if self._buildx else []), "build"]
        command += self._common(request, {"iidfile": str(id_file)})
        if self._buildx:
            command += ["--progress=plain", f"--metadata-file={metadata}", *self._output(request)]
        elif request.platforms and "," in request.platforms:
            raise BuildError("several platforms: expected docker with buildx, podman or buildah")
        if request.epoch is not None and self.mounts:
            command.append(f"--build-arg=SOURCE_DATE_EPOCH={request.epoch}")
        # Engines before version 23 use BuildKit only if this variable is set.
        variables = {} if self._buildx else {"DOCKER_BUILDKIT": str(int(self._buildkit))}
        run([*command, *request.extra, str(request.context)], variables)
        if self._buildx:
            built = json.loads(metadata.read_text()) if metadata.is_file() else {}
            digest = built.get("containerimage.digest") if request.push else None
            return Built(built.get("containerimage.config.digest") or _id(id_file), digest)
        if not request.push:
            return Built(_id(id_file), None)
        output = run([self.name, "push", request.name])
        return Built(_id(id_file), _digest_in(output))

    def _output(self, request: BuildRequest) -> list[str]:
        several = "," in (request.platforms or "")
        if several and not request.push:
            raise BuildError("several platforms: docker keeps them in a registry only: add --push")
        kind = "type=image,push=true" if request.push else "type=docker"
        rewrites = request.epoch is not None and self._can_rewrite(request)
        rewrite = ",rewrite-timestamp=true" if rewrites else ""
        return [f"--output={kind}{rewrite},name={request.name}"]

    def _can_rewrite(self, request: BuildRequest) -> bool:
        """Tells whether the builder can set the times of files in layers.

        The option `rewrite-timestamp` came with BuildKit 0.13. The builder inside docker's engine
        (driver "docker") ignores it, or refuses to build, depending on its version.
        """
        chosen = [option for option in request.extra if option.startswith("--builder=")]
        builder = self._ask(["buildx", "inspect", *chosen]) or ""
        driver = re.search(r"^Driver:\s+(\S+)$", builder, re.MULTILINE)
        return driver is not None and driver[1] != "docker"


class _Containers(Engine):
    """The part that podman and buildah share, since both build by the library of buildah."""

    build_command: Sequence[str] = ()

    def build(self, request: BuildRequest, work: Path) -> Built:
        """Builds an image in docker's format, since OCI's has no health check."""
        id_file, pushed = work / "image.id", work / "digest"
        several = "," in (request.platforms or "")
        options = {"iidfile": str(id_file), "format": "docker"}
        if request.epoch is not None:
            options["timestamp"] = str(request.epoch)
        common = self._common(request, options)
        if several:
            self._ask(["manifest", "rm", request.name])
            common[0] = f"--manifest={request.name}"
        if "--layers" not in " ".join(request.extra):
            common.append("--layers")
        command = [self.name, *self.build_command, *common, *request.extra, str(request.context)]
        run(command)
        if not request.push:
            return Built(None if several else _id(id_file), None)
        kind = ["manifest", "push", "--all"] if several else ["push"]
        tls = [option for option in request.extra if option.startswith("--tls-verify")]
        target = [request.name, f"docker://{request.name}"]
        run([self.name, *kind, *tls, f"--digestfile={pushed}", *target])
        return Built(None if several else _id(id_file), pushed.read_text().strip() or None)


class Podman(_Containers):
    """podman, which builds and runs images."""

    name = "podman"
    build_command = ("build",)


class Buildah(_Containers):
    """buildah, which builds images and cannot run them."""

    name = "buildah"
    build_command = ("bud",)

    def has(self, reference: str) -> bool:
        """Returns False, so that `holder` never chooses buildah to run an image."""
        return False


ENGINES: Mapping[str, Callable[[], Engine]] = {
    "docker": Docker,
    "podman": Podman,
    "buildah": Buildah,
}


def choose(name: str | None = None) -> Engine:
    """Returns the engine of a name, or the first engine that answers.

    Raises:
        BuildError: No engine answers.
    """
    for candidate in [name] if name else NAMES:
        engine = ENGINES[candidate]()
        if engine.answers():
            return engine
    if name:
        raise BuildError(
            f"{name} does not answer: is it installed, and may you use it? {name} version shows it"
        )
    raise BuildError(
        f"no image engine answers, looked for {', '.join(NAMES)}: install one, or write the "
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


def _digest_in(output: str) -> str | None:
    found = re.findall(r"digest: (sha256:[0-9a-f]{64})", output)
    return found[-1] if found else None
