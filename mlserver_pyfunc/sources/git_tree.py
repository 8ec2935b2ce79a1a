"""Writes the files of a commit from git's objects to a folder.

`git checkout` would run filters (LFS, or any that .gitattributes names), convert line ends, and
write through links that the same commit creates; git has had several security fixes for that
(CVE-2021-21300, CVE-2024-32002). So git only lists and prints objects, and we write the files by
the same rules as those of an archive (see `safe_tree`), links last.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlserver_pyfunc.errors import SourceError

from .safe_tree import Layout, is_skipped, quoted, write

if TYPE_CHECKING:
    from .git_client import GitClient

LINK = "120000"
SUBMODULE = "160000"

_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = 1024  # that a pointer is below


def entries(
    client: GitClient, commit: str, subdirectory: str, *options: str
) -> list[tuple[str, str, str, int]]:
    """Lists mode, object, path and size of what is below a subdirectory.

    With the option `--long`, git tells the sizes. Without it they are 0.
    """
    tree = _tree_of(client, commit, subdirectory)
    listed = []
    for line in client.local("ls-tree", "-r", "-z", "--full-tree", *options, tree).split(b"\0"):
        if line:
            head, _, path = line.partition(b"\t")
            mode, _, name, size = [*head.decode().split(), "0"][:4]
            if not size.isdigit() and mode != SUBMODULE:
                raise SourceError("the server did not send all files of the commit")
            listed.append((mode, name, os.fsdecode(path), int(size) if size.isdigit() else 0))
    return listed


def export(client: GitClient, commit: str, subdirectory: str, root: Path) -> None:
    """Writes the files of a commit exactly as the repository holds them."""
    layout, links = Layout(), {}
    listed = entries(client, commit, subdirectory, "--long")
    files = [entry for entry in listed if not is_skipped(entry[2])]
    for mode, _, path, size in files:
        if mode == SUBMODULE:
            raise SourceError(f"{quoted(path)} is a submodule: submodules are not fetched")
        layout.add(path, "link" if mode == LINK else "file", size)
    try:
        for mode, name, path, size in files:
            content = client.blob(name)
            if mode == LINK:
                links[path] = os.fsdecode(content.read())
                continue
            write(content, root, path, size, mode == "100755")
            if size < _LFS_SIZE and (root / path).read_bytes().startswith(_LFS):
                raise SourceError(
                    f"{quoted(path)} is a Git LFS pointer: its content is not in the repository, "
                    "and LFS is not fetched"
                )
    finally:
        client.close()
    _link(links, root)


def _tree_of(client: GitClient, commit: str, subdirectory: str) -> str:
    tree = f"{commit}^{{tree}}"
    parts = subdirectory.split("/") if subdirectory else []
    for depth, part in enumerate(parts, 1):
        path = "/".join(parts[:depth])
        lines = client.local("ls-tree", "-z", tree, "--", part).split(b"\0")
        if not lines[0]:
            raise SourceError(f'subdirectory "{subdirectory}" is not in the repository')
        mode, kind, name = lines[0].partition(b"\t")[0].decode().split()
        if kind != "tree":
            what = "a symbolic link" if mode == LINK else "not a folder"
            raise SourceError(f'subdirectory "{subdirectory}": "{path}" is {what}')
        tree = name
    return tree


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
