"""A git repository at a branch, a tag or a commit: fetches the files of that one commit.

docs/design/cache-and-lock.md says why git checks out nothing, and what a URI must not hold.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import cache
from .progress import logger
from .safe_tree import Layout, checked_subdirectory, is_skipped, quoted, write
from .tree import RENEW, DigestError, Provenance, SourceTree
from .uri import Credentials, for_git, parts_of, redacted, split_fragment

if TYPE_CHECKING:
    from .git_client import GitClient

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_CHECK_SECONDS = 15.0
_LINK = "120000"
_SUBMODULE = "160000"
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = 1024  # that a pointer is below
_ALL_REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


@dataclass(frozen=True)
class _Remote:
    url: str
    ref: str
    credentials: Credentials | None

    def client(self, work: Path, seconds: float) -> GitClient:
        # GitPython is slow to import, and a commit that is in the cache does not need it.
        try:
            from .git_client import GitClient
        except ImportError:
            raise SourceError("the git program is not installed, or not in PATH") from None
        return GitClient(self.url, self.credentials, work, seconds)


def fetch(source: SourceDefinition, folder: Path, pin: Provenance) -> SourceTree:
    """Fetches the files of one commit, without `.git`."""
    uri = source.source or ""
    if source.sha256:
        raise SourceError("sha256 is for a file or an archive, got git: pin a commit instead")
    remote = parsed(uri)
    subdirectory = checked_subdirectory(source.subdirectory)
    commit, digest = remote.ref.lower(), None
    if not _COMMIT.fullmatch(commit):
        if pin.commit:
            _check_not_moved(remote, pin.commit)
            digest = pin.tree_sha256
        commit = pin.commit or _resolved(remote, settings.fetch_timeout())

    def make(work: Path) -> dict[str, str]:
        client = remote.client(work, settings.fetch_timeout())
        found = _fetched(client, commit, subdirectory)
        _export(client, found, subdirectory, work / cache.TREE)
        return {"commit": found}

    entry = cache.obtain(f"git {remote.url} {commit} {subdirectory}", make, digest=digest)
    found = entry.metadata.get("commit", pin.commit)
    return SourceTree(entry.path, Provenance(redacted(uri), found, tree_sha256=entry.sha256))


def _check_not_moved(remote: _Remote, commit: str) -> None:
    try:
        now = _resolved(remote, _CHECK_SECONDS)
    except _MissingRefError as error:
        raise DigestError(f"function.lock has commit {commit}, but {error}; {RENEW}") from None
    except SourceError as error:
        logger.warning(
            'cannot check whether "%s" still is commit %s of function.lock: %s',
            remote.ref or "HEAD", commit, error,
        )  # fmt: skip
        return
    if now != commit:
        raise DigestError(
            f'"{remote.ref or "HEAD"}" moved: function.lock has commit {commit}, got {now}; {RENEW}'
        )


def parsed(uri: str) -> _Remote:
    """Splits a URI into repository, ref and credentials, none of which may begin with "-"."""
    url, ref = split_fragment(uri[len("git+") :])
    plain, login = for_git(url)
    ref = unquote(ref)
    parts = parts_of(plain)
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise SourceError(f'expected git+file:///path, got host "{parts.netloc}"')
    if parts.scheme != "file" and not parts.hostname:
        raise SourceError("has no host")
    if parts.netloc.startswith("-") or "@-" in parts.netloc:
        raise SourceError('its host or user begins with "-"')
    if parts.path.lstrip("/").startswith("-"):
        raise SourceError('its path begins with "-"')
    if ref.startswith("-"):
        raise SourceError(f'ref {quoted(ref)} begins with "-"')
    if re.search(r"[\s\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.lock$|\.$", ref):
        raise SourceError(f"ref {quoted(ref)} is not a branch, a tag or a commit")
    return _Remote(plain, ref, login)


class _MissingRefError(SourceError):
    """The remote does not have the ref."""


def _resolved(remote: _Remote, seconds: float) -> str:
    ref = remote.ref
    with cache.workspace() as work:
        client = remote.client(work, seconds)
        refs = client.refs()
        if not ref and "HEAD" not in refs:
            raise _MissingRefError("the repository has no default branch: name a ref")
        names = [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        if ref.startswith(("heads/", "tags/")):
            names.append(f"refs/{ref}")
        if not ref or ref.startswith("refs/"):
            names = [ref or "HEAD"]
        found = {name: refs.get(f"{name}^{{}}", refs[name]) for name in names if name in refs}
        if len(set(found.values())) > 1:
            raise SourceError(f'ref "{ref}" is ambiguous: write one of ' + " or ".join(found))
        if found:
            return next(iter(found.values()))
    branches_and_tags = (name for name in refs if re.match("refs/(heads|tags)/", name))
    known = sorted({name.split("/", 2)[2].removesuffix("^{}") for name in branches_and_tags})
    if not known:
        raise _MissingRefError(f'no ref "{ref}": the repository is empty')
    if re.fullmatch("[0-9a-f]{4,39}", ref):
        raise _MissingRefError(f'no ref "{ref}" in the repository: write all 40 digits of a commit')
    near = ", ".join(map(quoted, get_close_matches(ref, known, 3, 0.5) or known[:5]))
    raise _MissingRefError(f'no ref "{ref}" in the repository, nearest: {near}')


def _fetched(client: GitClient, commit: str, subdirectory: str) -> str:
    """Fetches a commit in the cheapest way that the server allows, and returns its full name.

    A server may refuse single commits (`uploadpack.allowAnySHA1InWant`) and single files, and says
    so only when it is asked. All branches and tags are fetched then, into an empty repository.
    """
    from .git_client import UnsupportedError

    client.init("one-commit")
    try:
        _fetch_one(client, commit, subdirectory)
    except UnsupportedError as error:
        logger.debug("fetching all refs: %s", error)
        client.init("all-refs")
        client.fetch("origin", *_ALL_REFS)
    try:
        return client.local("rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
    except SourceError:
        raise SourceError(f"commit {commit} is not in the repository") from None


def _fetch_one(client: GitClient, commit: str, subdirectory: str) -> None:
    if not subdirectory:
        client.fetch("--depth=1", "origin", commit)
        return
    messages = client.fetch("--depth=1", "--filter=blob:none", "origin", commit)
    # Such a server has ignored the filter, and has sent all files.
    if "filtering not recognized" in messages:
        return
    listed = _entries(client, commit, subdirectory)
    blobs = {name for mode, name, _, _ in listed if mode != _SUBMODULE}
    if blobs:
        client.fetch("--filter=blob:none", "--stdin", "origin", wanted=sorted(blobs))


def _entries(
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
            if not size.isdigit() and mode != _SUBMODULE:
                raise SourceError("the server did not send all files of the commit")
            listed.append((mode, name, os.fsdecode(path), int(size) if size.isdigit() else 0))
    return listed


def _export(client: GitClient, commit: str, subdirectory: str, root: Path) -> None:
    """Writes the files of a commit exactly as the repository holds them."""
    layout, links = Layout(), {}
    listed = _entries(client, commit, subdirectory, "--long")
    files = [entry for entry in listed if not is_skipped(entry[2])]
    for mode, _, path, size in files:
        if mode == _SUBMODULE:
            raise SourceError(f"{quoted(path)} is a submodule: submodules are not fetched")
        layout.add(path, "link" if mode == _LINK else "file", size)
    try:
        for mode, name, path, size in files:
            content = client.blob(name)
            if mode == _LINK:
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
            what = "a symbolic link" if mode == _LINK else "not a folder"
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
