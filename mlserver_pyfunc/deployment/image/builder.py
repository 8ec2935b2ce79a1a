"""Builds an image from a function's folder, or writes the context for a builder elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.deployment.image import record
from mlserver_pyfunc.deployment.names import BuildError, checked_image, checked_secret
from mlserver_pyfunc.environments.uv import configured_indexes
from mlserver_pyfunc.sources import lock

from . import build_context, dockerfile, engines, requirements
from .build_context import Options


@dataclass(frozen=True)
class Result:
    """An image that was built: its entry in the lock, and the name of the engine."""

    record: lock.ImageRecord
    engine: str


def build(folder: Path, name: str, options: Options) -> Result:
    """Builds a function's image and records it in the function's lock."""
    name = checked_image(name)
    engine = engines.choose(options.engine)
    opened = open_folder(folder)
    with (
        TemporaryDirectory(prefix="mlserver-pyfunc-") as work,
        _secret_files(options.secrets, options.ca_bundle, with_indexes=True) as secrets,
    ):
        options = replace(options, secrets=secrets)
        target = Path(work, "context")
        parts = record.inputs(opened.definition, opened.folder)
        build_context.write(opened, target, options)
        server = requirements.pins((target / "server.txt").read_text(encoding="utf-8"))
        built = engine.build(target, name, options, Path(work))
    made = lock.ImageRecord(
        name=name, digest=built.digest, id=built.id, inputs=parts, server=server
    )
    lock.record_image(made, opened.folder)
    return Result(made, engine.name)


def write_context(folder: Path, target: Path, options: Options) -> None:
    """Writes the context of a function's image into an empty folder, for a builder elsewhere."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BuildError(f"{target}: expected an empty folder, or none")
    with _secret_files(options.secrets, options.ca_bundle, with_indexes=False) as secrets:
        build_context.write(open_folder(folder), target, replace(options, secrets=secrets))


@contextmanager
def _secret_files(
    given: Sequence[str], ca_bundle: Path | None, *, with_indexes: bool
) -> Iterator[list[str]]:
    """Yields the secrets of a build, `id=NAME,src=FILE`, while their files exist.

    `with_indexes` passes on the package indexes that this machine uses. Their URLs may hold
    passwords, so they must not be build arguments, which stay in the image's history.
    """
    secrets = list(given)
    names = {checked_secret(secret) for secret in given}
    with TemporaryDirectory(prefix="mlserver-pyfunc-") as work:
        texts = _trust(ca_bundle) if ca_bundle else {}
        if with_indexes and not names & {"uv.toml", "pip.conf"}:
            texts |= _indexes()
        for name, text in texts.items():
            path = Path(work, name)
            path.touch(0o600)
            path.write_text(text, encoding="utf-8")
            secrets.append(f"id={name},src={path}")
        yield secrets


def _trust(ca_bundle: Path) -> dict[str, str]:
    try:
        text = ca_bundle.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BuildError(f"CA bundle: {ca_bundle}: {reason}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise BuildError(f"CA bundle: {ca_bundle}: expected certificates in PEM form")
    # apt has no variable for a file of authorities, only one for a configuration file, so a second
    # secret holds the configuration that names the first.
    place = f"/run/secrets/{dockerfile.CA_SECRET}"
    return {
        dockerfile.CA_SECRET: text,
        dockerfile.APT_SECRET: f'Acquire::https::CaInfo "{place}";\n',
    }


def _indexes() -> dict[str, str]:
    """Returns configuration files of uv and pip; none if only the public index is used."""
    first, others = configured_indexes()
    first = first if first and _is_remote(first) else None
    others = [index for index in others if _is_remote(index)]
    if not first and not others:
        return {}
    settings, lines = [], ["[global]"]
    if first:
        settings.append(f"index-url = {json.dumps(first)}")
        lines.append(f"index-url = {first}")
    if others:
        settings.append(f"extra-index-url = {json.dumps(others)}")
        settings.append('index-strategy = "unsafe-best-match"')
        lines.append(f"extra-index-url = {' '.join(others)}")
    return {"uv.toml": "\n".join(settings) + "\n", "pip.conf": "\n".join(lines) + "\n"}


def _is_remote(index: str) -> bool:
    return index.startswith(("https://", "http://"))
