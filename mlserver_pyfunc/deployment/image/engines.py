"""Image engines: docker, with or without buildx, podman and buildah, by their commands."""

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
class Request:
    """What to build.

    Attributes:
        context: The folder with the Dockerfile.
        name: To tag it with.
        platforms: `linux/amd64,...`; None for the engine's own.
        push: Push it too.
        no_cache: Take no layer from a build before.
        arguments: `NAME=VALUE`, or `NAME` for the environment's.
        secrets: `id=NAME,src=FILE`.
        epoch: SOURCE_DATE_EPOCH.
        extra: The engine's own options.
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
        id: Of its configuration; None for a list of platforms.
        digest: Of its manifest; known once it was pushed.
    """

    id: str | None
    digest: str | None


class Engine:
    """One engine. Subclasses say what their commands are called.

    Attributes:
        name: Of the command.
        mounts: Whether its builds have secret and cache mounts.
    """

    name = ""
    mounts = True

    def answers(self) -> bool:
        """Whether it is here and able to build."""
        return shutil.which(self.name) is not None and self._ask(["version"]) is not None

    def build(self, request: Request, work: Path) -> Built:
        """Builds an image; what the engine says goes to standard error as it comes.

        Args:
            request: What to build.
            work: A folder for files of the engine's.

        Raises:
            BuildError: It failed: names the step, with the engine's last lines.
        """
        raise NotImplementedError

    def has(self, reference: str) -> bool:
        """Whether an image is on this machine."""
        return self._ask(["image", "inspect", reference]) is not None

    def run_command(self, reference: str, ports: Mapping[int, int], host: str) -> list[str]:
        """The command that runs an image in the foreground.

        Args:
            reference: The image.
            ports: Of the host, by those of the container.
            host: Address to publish them on.
        """
        published = [f"--publish={host}:{there}:{here}" for here, there in ports.items()]
        return [self.name, "run", "--rm", "--init", *published, reference]

    def _ask(self, arguments: Sequence[str]) -> str | None:
        """What a command prints; None where it fails or does not answer."""
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

    def _common(self, request: Request, options: Mapping[str, str]) -> list[str]:
        given = [f"--tag={request.name}", *(f"--{name}={value}" for name, value in options.items())]
        if request.platforms:
            given.append(f"--platform={request.platforms}")
        if request.no_cache:
            given.append("--no-cache")
        given += [f"--build-arg={argument}" for argument in request.arguments]
        given += [f"--secret={secret}" for secret in request.secrets]
        return given


class Docker(Engine):
    """docker: by buildx where it is there, else by the BuildKit or the builder in the engine."""

    name = "docker"

    def __init__(self) -> None:
        self._buildx = False
        self._buildkit = False

    @property
    def mounts(self) -> bool:  # type: ignore[override]
        return self._buildx or self._buildkit

    def answers(self) -> bool:
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
        # podman answers as docker does, but has the old builder only.
        is_docker = not any("podman" in name.lower() for name in components)
        self._buildx = is_docker and self._ask(["buildx", "version"]) is not None
        # From 23 on the command needs buildx for BuildKit; before, the engine has it.
        self._buildkit = is_docker and not self._buildx and 18 < client < 23
        return True

    def build(self, request: Request, work: Path) -> Built:
        told, metadata = work / "image.id", work / "metadata.json"
        command = [self.name, *(["buildx"] if self._buildx else []), "build"]
        command += self._common(request, {"iidfile": str(told)})
        if self._buildx:
            command += ["--progress=plain", f"--metadata-file={metadata}", *self._output(request)]
        elif request.platforms and "," in request.platforms:
            raise BuildError("several platforms: expected docker with buildx, podman or buildah")
        if request.epoch is not None and self.mounts:
            command.append(f"--build-arg=SOURCE_DATE_EPOCH={request.epoch}")
        # Engines before 23 build by BuildKit only where asked to.
        variables = {} if self._buildx else {"DOCKER_BUILDKIT": str(int(self._buildkit))}
        run([*command, *request.extra, str(request.context)], variables)
        if self._buildx:
            facts = json.loads(metadata.read_text()) if metadata.is_file() else {}
            digest = facts.get("containerimage.digest") if request.push else None
            return Built(facts.get("containerimage.config.digest") or _id(told), digest)
        if not request.push:
            return Built(_id(told), None)
        said = run([self.name, "push", request.name])
        return Built(_id(told), _digest_in(said))

    def _output(self, request: Request) -> list[str]:
        several = "," in (request.platforms or "")
        if several and not request.push:
            raise BuildError("several platforms: docker keeps them in a registry only: add --push")
        kind = "type=image,push=true" if request.push else "type=docker"
        rewrites = request.epoch is not None and self._can_rewrite(request)
        rewrite = ",rewrite-timestamp=true" if rewrites else ""
        return [f"--output={kind}{rewrite},name={request.name}"]

    def _can_rewrite(self, request: Request) -> bool:
        """Whether the builder can set the times of files: the engine's own ignores that it
        should, or refuses to build."""
        chosen = [option for option in request.extra if option.startswith("--builder=")]
        told = self._ask(["buildx", "inspect", *chosen]) or ""
        return "Driver:" in told and re.search(r"^Driver:\s+docker$", told, re.MULTILINE) is None


class _Containers(Engine):
    """What podman and buildah, of one library, have in common."""

    build_command: Sequence[str] = ()

    def build(self, request: Request, work: Path) -> Built:
        told, pushed = work / "image.id", work / "digest"
        several = "," in (request.platforms or "")
        options = {"iidfile": str(told), "format": "docker"}
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
            return Built(None if several else _id(told), None)
        kind = ["manifest", "push", "--all"] if several else ["push"]
        tls = [option for option in request.extra if option.startswith("--tls-verify")]
        target = [request.name, f"docker://{request.name}"]
        run([self.name, *kind, *tls, f"--digestfile={pushed}", *target])
        return Built(None if several else _id(told), pushed.read_text().strip() or None)


class Podman(_Containers):
    """podman."""

    name = "podman"
    build_command = ("build",)


class Buildah(_Containers):
    """buildah, which builds and runs nothing."""

    name = "buildah"
    build_command = ("bud",)

    def has(self, reference: str) -> bool:
        return False


ENGINES: Mapping[str, Callable[[], Engine]] = {
    "docker": Docker,
    "podman": Podman,
    "buildah": Buildah,
}


def choose(name: str | None = None) -> Engine:
    """The engine of a name, or the first that answers.

    Raises:
        BuildError: None does.
    """
    for candidate in [name] if name else NAMES:
        engine = ENGINES[candidate]()
        if engine.answers():
            return engine
    if name:
        raise BuildError(
            f"{name} does not answer: is it installed, and may you use it? {name} version tells"
        )
    raise BuildError(
        f"no image engine answers, looked for {', '.join(NAMES)}: install one, or write the "
        "context for another machine by --output DIR"
    )


def holder(reference: str) -> Engine | None:
    """The first engine that has an image and can run it."""
    for make in ENGINES.values():
        engine = make()
        if engine.answers() and engine.has(reference):
            return engine
    return None


def _id(path: Path) -> str | None:
    text = path.read_text().strip() if path.is_file() else ""
    return text if not text or text.startswith("sha256:") else f"sha256:{text}"


def _digest_in(said: str) -> str | None:
    found = re.findall(r"digest: (sha256:[0-9a-f]{64})", said)
    return found[-1] if found else None
