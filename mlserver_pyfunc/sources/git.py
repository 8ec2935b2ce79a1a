"""A git repository at a branch, a tag or a commit: fetches the files of that one commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError

from . import cache, credentials
from .digest import RENEW, DigestError
from .git_errors import UnsupportedError
from .git_tree import entries, export, tree_of
from .progress import logger
from .safe_tree import checked_subdirectory, quoted
from .tree import Pin, Provenance, SourceTree
from .uri import nearest, parts_of, redacted, split_fragment

if TYPE_CHECKING:
    from .git_client import GitClient

SCHEMES = ("https", "ssh", "file")

_COMMIT = re.compile(r"[0-9a-fA-F]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-fA-F]{4,39}")
_CHECK_SECONDS = 15.0


@dataclass(frozen=True)
class _Remote:
    url: str
    ref: str
    credentials: credentials.Credentials | None

    def client(self, work: Path, seconds: float) -> GitClient:
        # GitPython is slow to import, and a commit that is in the cache does not need it.
        try:
            from .git_client import GitClient
        except ImportError:
            raise SourceError("the git program is not installed, or not in PATH") from None
        return GitClient(self.url, self.credentials, work, seconds)


def fetch(source: SourceDefinition, folder: Path, pin: Pin) -> SourceTree:
    """Fetches the files of one commit, without `.git`."""
    uri = source.source or ""
    if source.sha256:
        raise SourceError("sha256 is for a file or an archive, got git: pin a commit instead")
    remote = parsed(uri)
    subdirectory = checked_subdirectory(source.subdirectory)
    entry = _entry(remote, subdirectory, pin)
    commit = entry.metadata.get("commit", pin.commit)
    return SourceTree(entry.path, Provenance(redacted(uri), commit, tree_sha256=entry.sha256))


def _entry(remote: _Remote, subdirectory: str, pin: Pin) -> cache.Entry:
    if _COMMIT.fullmatch(remote.ref):
        return _obtained(remote, remote.ref.lower(), subdirectory)
    if pin.commit:
        _check_not_moved(remote, pin.commit)
        known = cache.find_tree(pin.tree_sha256) if pin.tree_sha256 else None
        return known or _obtained(remote, pin.commit, subdirectory)
    if not _SHORT_COMMIT.fullmatch(remote.ref):
        return _obtained(remote, _with_client(remote, _resolved), subdirectory)
    key = _key(remote, remote.ref.lower(), subdirectory)
    known = cache.find(key)
    if known:
        return known
    commit = _with_client(remote, _resolved)
    entry = _obtained(remote, commit, subdirectory)
    if commit.startswith(remote.ref.lower()):
        cache.remember(key, entry)
    return entry


def _check_not_moved(remote: _Remote, commit: str) -> None:
    if _SHORT_COMMIT.fullmatch(remote.ref) and commit.startswith(remote.ref.lower()):
        return
    try:
        now = _with_client(remote, _resolved, _CHECK_SECONDS)
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


def _obtained(remote: _Remote, commit: str, subdirectory: str) -> cache.Entry:
    def make(work: Path) -> dict[str, str]:
        client = remote.client(work, settings.fetch_timeout())
        found = _fetched(client, remote, commit, subdirectory)
        tree = tree_of(client, found, subdirectory)
        client.open()
        try:
            export(client, tree, work / cache.TREE)
        finally:
            client.close()
        return {"commit": found}

    return cache.obtain(_key(remote, commit, subdirectory), make)


def _key(remote: _Remote, commit: str, subdirectory: str) -> str:
    return f"git {remote.url} {commit} {subdirectory}"


def _with_client(
    remote: _Remote, action: Callable[[GitClient, str], str], seconds: float | None = None
) -> str:
    with cache.workspace() as work:
        client = remote.client(work, seconds or settings.fetch_timeout())
        return action(client, remote.ref)


def parsed(uri: str) -> _Remote:
    """Splits a URI into repository, ref and credentials.

    git reads an argument that begins with "-" as an option, `--upload-pack=PROGRAM` for example,
    and ssh a host likewise (CVE-2017-1000117). Not all git commands accept `--` before a ref. So
    no part of the URI may begin with "-".
    """
    url, ref = split_fragment(uri[len("git+") :])
    plain, login = credentials.for_git(url)
    ref = unquote(ref)
    parts = parts_of(plain)
    if parts.scheme not in SCHEMES:
        expected = ", ".join(f"git+{name}://" for name in SCHEMES)
        raise SourceError(f'expected one of {expected}, got "{parts.scheme}"')
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise SourceError(f'expected git+file:///path, got host "{parts.netloc}"')
    if parts.scheme != "file" and not parts.hostname:
        raise SourceError("has no host")
    if parts.netloc.startswith("-") or "@-" in parts.netloc:
        raise SourceError('its host or user begins with "-"')
    if parts.path.lstrip("/").startswith("-"):
        raise SourceError('its path begins with "-"')
    _check_ref(ref)
    return _Remote(plain, ref, login)


def _check_ref(ref: str) -> None:
    if ref.startswith("-"):
        raise SourceError(f'ref {quoted(ref)} begins with "-"')
    if re.search(r"[\s\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.lock$|\.$", ref):
        raise SourceError(f"ref {quoted(ref)} is not a branch, a tag or a commit")


class _MissingRefError(SourceError):
    """The remote does not have the ref."""


def _resolved(client: GitClient, ref: str) -> str:
    """Returns the commit that a ref of the remote points to."""
    if not ref:
        head = client.refs("HEAD").get("HEAD")
        if not head:
            raise _MissingRefError("the repository has no default branch: name a ref")
        return head
    names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
    if ref.startswith(("heads/", "tags/")):
        names.append(f"refs/{ref}")
    refs = client.refs(*names, *(f"{name}^{{}}" for name in names))
    found = {name: refs.get(f"{name}^{{}}", refs[name]) for name in names if name in refs}
    if len(set(found.values())) > 1:
        raise SourceError(f'ref "{ref}" is ambiguous: write one of ' + " or ".join(found))
    if found:
        return next(iter(found.values()))
    if _SHORT_COMMIT.fullmatch(ref):
        commit = _lengthened(client, ref.lower())
        if commit:
            return commit
    refs = client.refs("refs/heads/*", "refs/tags/*")
    known = sorted({name.split("/", 2)[2] for name in refs if not name.endswith("^{}")})
    if not known:
        raise _MissingRefError(f'no ref "{ref}": the repository is empty')
    raise _MissingRefError(f'no ref "{ref}" in the repository, nearest: {nearest(ref, known)}')


def _lengthened(client: GitClient, short: str) -> str | None:
    client.init("history")
    client.fetch(
        f'commits, for "{short}"', "--filter=tree:0", "origin",
        "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*",
    )  # fmt: skip
    commits = client.local("rev-list", "--all").decode().split()
    found = [commit for commit in commits if commit.startswith(short)]
    if len(found) > 1:
        raise SourceError(f'commit "{short}" is ambiguous: {", ".join(sorted(found)[:5])}')
    return found[0] if found else None


def _fetched(client: GitClient, remote: _Remote, commit: str, subdirectory: str) -> str:
    """Fetches a commit in the cheapest way that the server allows, and returns its full name.

    A server may refuse single commits (`uploadpack.allowAnySHA1InWant`) and partial clones
    (`uploadpack.allowFilter`), and says so only when it is asked. So the ways are tried from the
    cheapest to the dearest, each in an empty repository.
    """
    ways = [_shallow, _full]
    if subdirectory:
        ways.insert(0, _partial)
    for number, way in enumerate(ways):
        client.init(f"repository-{number}")
        try:
            way(client, redacted(remote.url), commit, subdirectory)
        except UnsupportedError as error:
            logger.debug("%s: %s", way.__name__, error)
            continue
        found = _full_name(client, commit)
        if found:
            return found
    raise SourceError(f"commit {commit} is not in the repository")


def _partial(client: GitClient, url: str, commit: str, subdirectory: str) -> None:
    message = client.fetch(url, "--depth=1", "--filter=blob:none", "origin", commit)
    # Such a server has ignored the filter, and has sent all files.
    if "filtering not recognized" in message:
        return
    tree = tree_of(client, commit, subdirectory)
    blobs = sorted({name for mode, name, _ in entries(client, tree) if mode != "160000"})
    if blobs:
        client.fetch(url, "--filter=blob:none", "--stdin", "origin", wanted=blobs)


def _shallow(client: GitClient, url: str, commit: str, subdirectory: str) -> None:
    client.fetch(url, "--depth=1", "origin", commit)


def _full(client: GitClient, url: str, commit: str, subdirectory: str) -> None:
    client.fetch(url, "origin", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def _full_name(client: GitClient, commit: str) -> str | None:
    try:
        return client.local("rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
    except SourceError:
        return None
