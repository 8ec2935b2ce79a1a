"""Image engines, called by their commands: docker with buildx, podman and buildah."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from mlserver_pyfunc import settings
from mlserver_pyfunc.deployment.names import BuildError

if TYPE_CHECKING:
    from .build_context import Options


_ANSWER_SECONDS = 20
LAST_LINES = 12
"""Number of lines of the engine's output that an error carries."""

_STEP = re.compile(
    r"^(?:\[[\d/]+\] )?STEP \d+(?:/\d+)?:? ?(?P<buildah>.+)$"
    r"|^#\d+ \[(?P<buildkit>.+\d+/\d+\] .+)$"
    r"|^ > \[(?P<failed>.+\d+/\d+\] .+):$"
)
_BLOCK_END = "------"


@dataclass(frozen=True)
class Built:
    """An image that was built."""

    id: str | None  # digest of its configuration; None for an image of several platforms
    digest: str | None  # digest of its manifest; None if it was not pushed


class Engine:
    """One engine."""

    name = ""

    def answers(self) -> bool:
        return self._ask(["version"]) is not None

    def build(self, context: Path, name: str, options: Options, work: Path) -> Built:
        """Builds an image of a context. The engine writes its files into the folder `work`.

        Its output goes to standard error as it comes. If the build fails, `BuildError` has the step
        and the last lines.
        """
        raise NotImplementedError

    def has(self, reference: str) -> bool:
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
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        label = f"--label=org.opencontainers.image.created={when}"
        given = [tag, f"--iidfile={id_file}", label]
        if options.platforms:
            given.append(f"--platform={options.platforms}")
        if options.no_cache:
            given.append("--no-cache")
        given += [f"--build-arg={argument}" for argument in options.arguments]
        given += [f"--secret={secret}" for secret in options.secrets]
        return given


class Docker(Engine):
    """docker, which builds by its plugin buildx."""

    name = "docker"

    def answers(self) -> bool:
        """Tells whether docker answers and has buildx. podman under docker's name has none."""
        version = self._ask(["version"])
        is_docker = version is not None and "podman" not in version.lower()
        return is_docker and self._ask(["buildx", "version"]) is not None

    def build(self, context: Path, name: str, options: Options, work: Path) -> Built:
        """Builds an image by buildx, which pushes it too."""
        if "," in (options.platforms or "") and not options.push:
            raise BuildError("several platforms: docker keeps them in a registry only: add --push")
        kind = "type=image,push=true" if options.push else "type=docker"
        id_file, metadata = work / "image.id", work / "metadata.json"
        command = ["docker", "buildx", "build", *self._common(f"--tag={name}", id_file, options)]
        command += ["--progress=plain", f"--metadata-file={metadata}"]
        command.append(f"--output={kind},name={name}")
        _run([*command, *options.extra, str(context)])
        built = json.loads(metadata.read_text()) if metadata.is_file() else {}
        digest = built.get("containerimage.digest") if options.push else None
        return Built(built.get("containerimage.config.digest") or _id(id_file), digest)


class Podman(Engine):
    """podman, which builds by the library of buildah, and runs images."""

    name = "podman"

    def build(self, context: Path, name: str, options: Options, work: Path) -> Built:
        """Builds an image in docker's format, since OCI's has no health check."""
        id_file, pushed = work / "image.id", work / "digest"
        several = "," in (options.platforms or "")
        if several:
            self._ask(["manifest", "rm", name])
        tag = f"--{'manifest' if several else 'tag'}={name}"
        common = [*self._common(tag, id_file, options), "--format=docker"]
        if "--layers" not in " ".join(options.extra):
            common.append("--layers")
        _run([self.name, "build", *common, *options.extra, str(context)])
        image_id = None if several else _id(id_file)
        if not options.push:
            return Built(image_id, None)
        kind = ["manifest", "push", "--all"] if several else ["push"]
        tls = [option for option in options.extra if option.startswith("--tls-verify")]
        _run([self.name, *kind, *tls, f"--digestfile={pushed}", name, f"docker://{name}"])
        return Built(image_id, pushed.read_text().strip() or None)


class Buildah(Podman):
    """buildah, which builds images and cannot run them."""

    name = "buildah"


ENGINES: Mapping[str, type[Engine]] = {each.name: each for each in (Docker, Podman, Buildah)}


def choose(name: str | None = None) -> Engine:
    """Returns the engine of a name, or the first engine; raises `BuildError` if none answers."""
    for candidate in [name] if name else ENGINES:
        engine = ENGINES[candidate]()
        if engine.answers():
            return engine
    if name:
        raise BuildError(
            f"{name} does not answer: is it installed, docker with its plugin buildx, and may you "
            f"use it? {name} version shows it"
        )
    raise BuildError(
        f"no image engine answers, looked for {', '.join(ENGINES)}: install one, or write the "
        "context for another machine by --output DIR"
    )


def holder(reference: str) -> Engine | None:
    """Returns the first engine that has an image and can run it; None if there is none."""
    engines = (Docker(), Podman())
    return next((each for each in engines if each.answers() and each.has(reference)), None)


def _id(path: Path) -> str | None:
    text = path.read_text().strip() if path.is_file() else ""
    return text if not text or text.startswith("sha256:") else f"sha256:{text}"


def _run(command: Sequence[str]) -> None:
    last: deque[str] = deque(maxlen=400)
    step = ""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            print(line, file=sys.stderr, flush=True)
            last.append(line)
            if match := _STEP.match(line):
                step = next(group for group in match.groups() if group).replace("]", ":", 1)
    if process.returncode:
        raise BuildError(_explanation(command[0], step, list(last)))


def _explanation(engine: str, step: str, lines: Sequence[str]) -> str:
    text = "\n".join(f"  {line}" for line in _useful(lines)[-LAST_LINES:])
    where = f' at step "{step[:200]}"' if step else ""
    hint = settings.trust_hint("\n".join(lines))
    return f"{engine} failed{where}; its last lines:\n{text}" + (f"\n{hint}" if hint else "")


def _useful(output: Sequence[str]) -> list[str]:
    """Returns the output of the failed step. BuildKit repeats it before the Dockerfile's text."""
    lines = [line for line in output if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith(" > [")]
    if starts:
        block = lines[starts[-1] + 1 :]
        lines = block[: block.index(_BLOCK_END)] if _BLOCK_END in block else block
    return lines
