"""Writes the folder from which an engine builds an image: the Dockerfile, and all that goes in."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlserver_pyfunc.definition import FILE_NAME, FunctionDefinition, SourceDefinition
from mlserver_pyfunc.definition.locate import FunctionFolder
from mlserver_pyfunc.definition.model_settings import (
    IMPLEMENTATION,
    MODEL_SETTINGS,
    SERVER_SETTINGS,
    read_settings,
)
from mlserver_pyfunc.deployment.names import (
    BuildError,
    checked_argument,
    checked_base,
    checked_secret,
)
from mlserver_pyfunc.deployment.server_settings import CONTAINER_VARIABLES
from mlserver_pyfunc.environments.environment import with_needs
from mlserver_pyfunc.sources import SourceTree, lock
from mlserver_pyfunc.sources.safe_tree import quoted
from mlserver_pyfunc.sources.tree import Provenance, file_sha256, tree_sha256
from mlserver_pyfunc.sources.uri import checked_scheme

from . import dockerfile, requirements, source_files, wheel

SOURCE = "source"
_PORTS = ("host", "http_port", "grpc_port", "metrics_port", "model_repository_root")
_LATEST = 10**9
"""Upper bound of the times of files, in seconds since 1970."""
_LARGE_BYTES = 1024 * 1024
_LABEL = "io.mlserver-pyfunc"


@dataclass(frozen=True)
class Options:
    """How to build an image: the options of `mlserver-pyfunc build`."""

    engine: str | None = None  # None: the first that answers
    platforms: str | None = None  # "linux/amd64,linux/arm64"; None: the platform of the engine
    push: bool = False
    no_cache: bool = False
    arguments: Sequence[str] = ()  # "NAME=VALUE", or "NAME" for a variable of this process
    secrets: Sequence[str] = ()  # "id=NAME,src=FILE"
    ca_bundle: Path | None = None  # PEM file of authorities that the programs of the build trust
    server_image: str = f"python:{requirements.DEFAULT_PYTHON}-slim"
    """Gives the server's Python, if MLServer cannot run on the function's."""
    extra: Sequence[str] = ()  # further options of the engine


def write(opened: FunctionFolder, target: Path, options: Options) -> None:
    """Writes the build context of a function into an empty folder, or one that is not there yet."""
    definition, folder = opened.definition, opened.folder
    settings = _settings(opened)
    tree = lock.fetch_locked(definition, folder)
    definition = with_needs(definition, tree)
    locked = lock.read(folder) or lock.Lock()
    kept = locked.image.server if locked.image and not options.no_cache else ()
    installed = requirements.resolve(definition, locked.resolved or (), options.platforms, kept)
    target.mkdir(parents=True, exist_ok=True)
    files = source_files.selected(tree, folder)
    for name in source_files.like_credentials(files):
        hint = f"leave it out by {source_files.IGNORE_FILE} if it is one"
        print(f"warning: {quoted(name)} looks like a credential: {hint}", file=sys.stderr)
    _copy(files, target / "function" / SOURCE)
    _write_function(_inside(definition, tree), tree, settings, target)
    for name in definition.serving.samples:
        if (folder / name).is_file():
            sample = target / "function" / name
            sample.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, sample)
    (target / "server.txt").write_text(installed.server, encoding="utf-8")
    if installed.function:
        (target / "requirements.txt").write_text(installed.function, encoding="utf-8")
    if installed.own:
        provides = {"python_version": installed.python, "requirements": list(installed.given)}
        _write_json(target / "environment.json", provides)
    package = wheel.write(target)
    for script in ("tools.sh", "python.sh"):
        shutil.copy(Path(__file__).with_name(script), target / script)
    weights = _set_apart(target / "function" / SOURCE, target / "weights")
    text = dockerfile.render(_recipe(opened, tree, installed, package.name, weights, options))
    (target / "Dockerfile").write_text(text, encoding="utf-8")
    _normalize(target)


def _recipe(
    opened: FunctionFolder,
    tree: SourceTree,
    installed: requirements.Installed,
    package: str,
    weights: bool,
    options: Options,
) -> dict[str, Any]:
    definition = opened.definition
    is_copied = installed.server_python != installed.python
    base = checked_base(definition.base_image or f"python:{installed.python}-slim")
    return {
        "base": base,
        "python": installed.python,
        # Its /usr/local has the server's Python. If None, the base has it.
        "server_image": checked_base(options.server_image) if is_copied else None,
        "server_python": installed.server_python,
        "own": installed.own,  # whether the function has an environment of its own
        "requirements": bool(installed.function),
        "hashed": requirements.is_hashed(installed.function),
        "wheel": package,
        "weights": weights,  # whether large files have a layer of their own
        "instructions": definition.build.instructions,
        "env": definition.build.env,
        "settings": {**CONTAINER_VARIABLES, "MLSERVER_MODEL_NAME": opened.model_name},
        "labels": {**_labels(opened, tree, base), **definition.build.labels},
        "arguments": [checked_argument(argument) for argument in options.arguments],
        "secrets": [checked_secret(secret) for secret in options.secrets],
    }


def _labels(opened: FunctionFolder, tree: SourceTree, base: str) -> Mapping[str, str]:
    origin = _origin(tree)
    tensors = opened.definition.model_dump(
        mode="json", include={"inputs", "outputs"}, exclude_defaults=True
    )
    labels = {
        "org.opencontainers.image.title": opened.model_name,
        "org.opencontainers.image.version": opened.model_version,
        "org.opencontainers.image.source": origin.source if "://" in origin.source else None,
        "org.opencontainers.image.revision": origin.commit,
        "org.opencontainers.image.base.name": base.partition("@")[0],
        "org.opencontainers.image.base.digest": base.partition("@")[2],
        f"{_LABEL}.source": origin.source,
        f"{_LABEL}.source.sha256": origin.sha256,
        f"{_LABEL}.source.tree-sha256": origin.tree_sha256,
        f"{_LABEL}.contract": json.dumps(tensors, sort_keys=True, separators=(",", ":")),
        f"{_LABEL}.version": wheel.version(),
    }
    return {name: value for name, value in labels.items() if value}


def _origin(tree: SourceTree) -> Provenance:
    given = tree.provenance
    scheme = "inline" if tree.inline else checked_scheme(given.source)
    place, mark, ref = given.source, "", ""
    if scheme == "git+file":
        place, mark, ref = place.partition("#")
    is_local = scheme in ("", "file", "git+file")
    name = f"{Path(place.rstrip('/')).name or '.'}{mark}{ref}" if is_local else given.source
    return Provenance(name, given.commit, given.sha256, given.tree_sha256)


def _inside(definition: FunctionDefinition, tree: SourceTree) -> FunctionDefinition:
    """Returns the definition for the image, whose source is the folder beside it."""
    given = definition.source
    handlers = {
        name: value if ":" in value or tree.module is None else f"{tree.module}:{value}"
        for name in ("handler", "init_function", "unload_function")
        if (value := getattr(given, name)) is not None
    }
    inside = {"model": tree.model, "format": given.format} if tree.kind else handlers
    return definition.model_copy(
        update={
            "source": SourceDefinition(source=SOURCE, **inside),
            "image": None,
            "base_image": None,
            "build": type(definition.build)(),
            "deployment": {},
        }
    )


def _write_function(
    inside: FunctionDefinition,
    tree: SourceTree,
    settings: Mapping[str, Mapping[str, Any]],
    target: Path,
) -> None:
    folder = target / "function"
    kept = inside.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    # An empty list says more than none: without one, the signature tells the tensors.
    kept |= {key: [] for key in ("inputs", "outputs") if key in inside.written and key not in kept}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1000)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    pinned = lock.Lock(
        source=SOURCE,
        tree_sha256=tree_sha256(folder / SOURCE),
        requirements=inside.requirements,
        origin=_origin(tree),
    )
    lock.write_to(pinned, folder)
    for name, value in settings.items():
        _write_json(folder / name, value)


def _settings(opened: FunctionFolder) -> Mapping[str, Mapping[str, Any]]:
    settings = {MODEL_SETTINGS: _model_settings(opened)}
    of_server = opened.folder / SERVER_SETTINGS
    if of_server.is_file():
        given = read_settings(of_server)
        settings[SERVER_SETTINGS] = {k: v for k, v in given.items() if k not in _PORTS}
    return settings


def _model_settings(opened: FunctionFolder) -> Mapping[str, Any]:
    """Returns model-settings.json without the name, which platforms give, and without paths."""
    settings: dict[str, Any] = {"implementation": IMPLEMENTATION}
    if opened.settings_file:
        settings.update(read_settings(opened.settings_file))
    settings.pop("name", None)
    parameters = dict(settings.pop("parameters", None) or {})
    parameters.pop("uri", None)
    extra = dict(parameters.pop("extra", None) or {})
    extra.pop("function", None)
    if extra:
        parameters["extra"] = extra
    if opened.model_version:
        parameters["version"] = opened.model_version
    return {**settings, "parameters": parameters} if parameters else settings


def _copy(files: Mapping[str, Path | bytes], target: Path) -> None:
    target.mkdir(parents=True)
    if not files:
        raise BuildError(
            f"the source has no file that goes into an image: see {source_files.IGNORE_FILE}"
        )
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copy(content, path, follow_symlinks=False)


def _set_apart(source: Path, target: Path) -> bool:
    """Moves large files of a source, such as weights: their layer comes before that of the code."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size >= _LARGE_BYTES:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    return target.is_dir()


def _normalize(root: Path) -> None:
    """Sets the rights and times of all files, so that contexts are equal on every machine.

    Real times would miss the cache of layers, and one time for all would hide changes: BuildKit
    takes a file of equal size and time for unchanged. So a digest of the content makes the time.
    """
    for path in [root, *root.rglob("*")]:
        when = 0
        if not path.is_symlink():
            if path.is_file():
                when = int(file_sha256(path)[:12], 16) % _LATEST
            is_executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_executable else 0o644)
        os.utime(path, (when, when), follow_symlinks=False)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
