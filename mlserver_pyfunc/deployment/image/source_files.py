"""Selects the files of a function's source that go into its image."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pathspec import GitIgnoreSpec

from mlserver_pyfunc.definition import FILE_NAME
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS, SERVER_SETTINGS
from mlserver_pyfunc.deployment.names import BuildError
from mlserver_pyfunc.sources import SourceTree
from mlserver_pyfunc.sources.safe_tree import quoted
from mlserver_pyfunc.sources.tree import LOCK_NAME, file_sha256

IGNORE_FILE = ".dockerignore"

# No line of .dockerignore takes these in.
_OURS = (IGNORE_FILE, FILE_NAME, LOCK_NAME, MODEL_SETTINGS, SERVER_SETTINGS)

_LOOKED_AT = 64 * 1024
_CREDENTIAL_NAME = re.compile(r"(secret|password|credential)s?\.(json|ya?ml|toml|ini|txt)$", re.I)
_KEY = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(AKIA|ASIA)[0-9A-Z]{16}\b|"
    rb"\b(gh[pousr]_|github_pat_|glpat-|hf_|xox[abp]-|sk-)[A-Za-z0-9_-]{20}"
)


def selected(tree: SourceTree, folder: Path) -> dict[str, Path | bytes]:
    """Returns the files that go into the image, or their contents, by their path in it."""
    if tree.file and (tree.kind or not _is_inside(tree.root, folder)):
        # The source is one file elsewhere, or a model: the files beside it are not part of it.
        return {tree.file: tree.root / tree.file}
    walked = _walk(tree.root, "", _spec(tree.root))
    files: dict[str, Path | bytes] = {name: tree.root / name for name in walked}
    for module, code in tree.inline.items():
        files[f"{module.replace('.', '/')}.py"] = code.encode()
    return dict(sorted(files.items()))


def like_credentials(files: Mapping[str, Path | bytes]) -> Iterator[str]:
    """Yields the names of files whose name or beginning looks like a credential."""
    for name, content in files.items():
        if isinstance(content, Path):
            with suppress(OSError), content.open("rb") as file:
                content = file.read(_LOOKED_AT)
        if _CREDENTIAL_NAME.search(name) or (isinstance(content, bytes) and _KEY.search(content)):
            yield name


def sha256(files: Mapping[str, Path | bytes]) -> str:
    """Returns one digest over the paths and contents of selected files."""
    digest = hashlib.sha256()
    for name, content in files.items():
        if isinstance(content, Path) and content.is_symlink():
            content = os.fsencode(os.readlink(content))
        if isinstance(content, Path):
            digest.update(f"{file_sha256(content)}  {name}\0".encode())
        else:
            digest.update(f"{hashlib.sha256(content).hexdigest()}  {name}\0".encode())
    return digest.hexdigest()


def _spec(root: Path) -> GitIgnoreSpec:
    given = root / IGNORE_FILE
    lines = given.read_text(encoding="utf-8").splitlines() if given.is_file() else []
    asked = [_anchored(line.strip()) for line in lines if not line.startswith("#")]
    left_out = Path(__file__).with_name("left_out.gitignore").read_text(encoding="utf-8")
    return GitIgnoreSpec.from_lines(
        [*left_out.splitlines(), *asked, *(f"/{name}" for name in _OURS)]
    )


def _anchored(line: str) -> str:
    """Translates a line of .dockerignore, which is relative to the root, into one of .gitignore."""
    mark, pattern = ("!", line[1:].strip()) if line.startswith("!") else ("", line)
    return f"{mark}/{pattern.lstrip('/')}" if pattern else ""


def _walk(root: Path, prefix: str, spec: GitIgnoreSpec) -> Iterator[str]:
    for entry in sorted(os.scandir(root / prefix), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if entry.name != ".git":
                yield from _walk(root, f"{name}/", spec)
        elif not spec.match_file(name):
            if entry.is_symlink():
                _check_link(root, name)
            yield name


def _check_link(root: Path, name: str) -> None:
    target = os.readlink(root / name)
    if os.path.isabs(target) or not _is_inside((root / name).resolve(), root):
        raise BuildError(
            f"{quoted(name)} links to {quoted(target)}, outside of the source: an image has "
            f"no such place; copy what it links to, or leave it out by {IGNORE_FILE}"
        )


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
