"""Files that only the steps of a build see: certificate authorities, and the package indexes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlserver_pyfunc.deployment.names import BuildError, checked_secret
from mlserver_pyfunc.environments.package_indexes import configured_indexes

from . import dockerfile


@contextmanager
def files(
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
