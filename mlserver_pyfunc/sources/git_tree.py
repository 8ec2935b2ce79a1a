"""Writes the files of a commit from git's objects to a folder.

`git checkout` would run filters (LFS, or any that .gitattributes names), convert line ends, and
write through links that the same commit creates; git has had several security fixes for that
(CVE-2021-21300, CVE-2024-32002). So git only lists and prints objects, and we write the files by
the same rules as those of an archive (see `safe_tree`), links last.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .safe_tree import Layout, create, is_skipped, quoted

if TYPE_CHECKING:
    from .git_client import GitClient

_LFS = b"version https://git-lfs.github.com/spec/"
_CHUNK = 2**20


def tree_of(client: GitClient, commit: str, subdirectory: str) -> str:
    """Returns the name of the tree object of a subdirectory."""
    tree = f"{commit}^{{tree}}"
    parts = subdirectory.split("/") if subdirectory else []
    for depth, part in enumerate(parts, 1):
        path = "/".join(parts[:depth])
        lines = client.local("ls-tree", "-z", tree, "--", part).split(b"\0")
        if not lines[0]:
            raise SourceError(f'subdirectory "{subdirectory}" is not in the repository')
        mode, kind, name = lines[0].partition(b"\t")[0].decode().split()
        if mode == "120000":
            raise SourceError(f'subdirectory "{subdirectory}": "{path}" is a symbolic link')
        if kind != "tree":
            raise SourceError(f'subdirectory "{subdirectory}": "{path}" is not a folder')
        tree = name
    return tree


def entries(client: GitClient, tree: str) -> list[tuple[str, str, str]]:
    """Lists the mode, object name and path of each file below a tree."""
    listed = []
    for line in client.local("ls-tree", "-r", "-z", "--full-tree", tree).split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, name = head.decode().split()
            listed.append((mode, name, os.fsdecode(path)))
    return listed


def export(client: GitClient, tree: str, root: Path) -> None:
    """Writes the files of a tree exactly as the repository holds them."""
    files = [entry for entry in entries(client, tree) if not is_skipped(entry[2])]
    for mode, _, path in files:
        if mode == "160000":
            raise SourceError(f"{quoted(path)} is a submodule: submodules are not fetched")
    layout = Layout(settings.max_source_size())
    sizes = client.sizes([name for _, name, _ in files])
    for (mode, _, path), size in zip(files, sizes, strict=True):
        if mode == "120000":
            layout.add_link(path)
        else:
            layout.add_file(path, size)
    links = {}
    for mode, name, path in files:
        with client.blob(name) as content:
            if mode == "120000":
                links[path] = os.fsdecode(content.read())
            else:
                _write(content, root, path, mode == "100755")
    _link(links, root)


def _write(content: IO[bytes], root: Path, path: str, executable: bool) -> None:
    chunk = content.read(_CHUNK)
    if chunk.startswith(_LFS) and len(chunk) < 1024:
        raise SourceError(
            f"{quoted(path)} is a Git LFS pointer: its content is not in the repository, "
            "and LFS is not fetched"
        )
    with os.fdopen(create(root, path, executable), "wb") as file:
        while chunk:
            file.write(chunk)
            chunk = content.read(_CHUNK)


def _link(links: dict[str, str], root: Path) -> None:
    # Links come last, so that no file is ever written through one. Each is checked after all
    # exist: a link may lead outside by way of another link.
    for path, target in links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, root / path)
    top = os.path.realpath(root)
    for path, target in links.items():
        real = os.path.realpath(root / path)
        if os.path.isabs(target) or os.path.commonpath([top, real]) != top:
            raise SourceError(f"{quoted(path)} is a link that leads outside, to {quoted(target)}")
