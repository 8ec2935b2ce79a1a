"""The names and sizes in a tree that somebody else made: what may be written to disk."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from mlserver_pyfunc.errors import SourceError

from .digest import IGNORED_FOLDERS

MAX_ENTRIES = 50_000
MAX_DEPTH = 32
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024

# Never written: not part of the function, and left out of the tree's digest.
_SKIPPED = IGNORED_FOLDERS | {"__MACOSX"}


class Layout:
    """Checks a tree's entries one by one, before any is written.

    Args:
        max_size: Bytes that all files may have together.
    """

    def __init__(self, max_size: int) -> None:
        self.size = 0
        self._max_size = max_size
        self._count = 0
        self._kinds: dict[str, str] = {}
        self._spelled: dict[str, str] = {}

    def add_file(self, name: str, size: int) -> None:
        """Takes in a file.

        Raises:
            SourceError: The name is unsafe or taken, or the tree grows too large.
        """
        self._add(name, "file")
        self.size += size
        if self.size > self._max_size:
            raise SourceError(f"expected at most {self._max_size} bytes in all, got more")

    def add_link(self, name: str) -> None:
        """Takes in a symbolic link."""
        self._add(name, "link")

    def add_folder(self, name: str) -> None:
        """Takes in a folder."""
        if name.rstrip("/") != ".":
            self._add(name.removesuffix("/"), "folder")

    def _add(self, name: str, kind: str) -> None:
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise SourceError(f"expected at most {MAX_ENTRIES} entries, got more")
        parts = checked_parts(name)
        for depth in range(1, len(parts)):
            self._take("/".join(parts[:depth]), "folder", name)
        path = "/".join(parts)
        if kind != "folder" and self._kinds.get(path) == kind:
            raise SourceError(f"entry {quoted(name)} is there twice")
        self._take(path, kind, name)

    def _take(self, path: str, kind: str, name: str) -> None:
        known = self._kinds.setdefault(path, kind)
        if known != kind:
            raise SourceError(
                f"entry {quoted(name)}: {quoted(path)} is both a {known} and a {kind}"
            )
        folded = unicodedata.normalize("NFC", path).casefold()
        spelled = self._spelled.setdefault(folded, path)
        if spelled != path:
            raise SourceError(
                f"entries {quoted(spelled)} and {quoted(path)} differ only in case or accents"
            )


def checked_parts(name: str) -> list[str]:
    """Splits an entry's name into its folders and file.

    Raises:
        SourceError: It is not a relative path that stays below the root on every system.
    """
    problem = _problem(name)
    if problem:
        raise SourceError(f"entry {quoted(name)}: {problem}")
    return [part for part in name.split("/") if part != "."]


def _problem(name: str) -> str | None:
    parts = [part for part in name.split("/") if part != "."]
    if not parts or "" in parts[1:]:
        return "expected a relative path, got an empty name"
    if parts[0] == "":
        return "expected a relative path, got an absolute one"
    if ".." in parts:
        return 'leads outside by ".."'
    if re.match(r"[A-Za-z]:", parts[0]):
        return "expected a relative path, got a drive letter"
    if "\\" in name:
        return "has a backslash"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "has a control character or is not UTF-8"
    if len(parts) > MAX_DEPTH:
        return f"expected at most {MAX_DEPTH} nested folders, got {len(parts)}"
    if max(len(part.encode()) for part in parts) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if len(name.encode()) > MAX_PATH_BYTES:
        return f"has a path of more than {MAX_PATH_BYTES} bytes"
    return None


def is_skipped(name: str) -> bool:
    """Whether an entry is never written: bytecode, git's own files, macOS's extras."""
    return not _SKIPPED.isdisjoint(name.split("/"))


def inside(name: str, prefix: str) -> str | None:
    """An entry's name below a folder of the tree, or None if it is elsewhere."""
    name = "/".join(part for part in name.split("/") if part != ".")
    if not prefix:
        return name
    return name[len(prefix) + 1 :] or None if name.startswith(prefix + "/") else None


def checked_subdirectory(subdirectory: str | None) -> str:
    """The subdirectory as a path without `.` parts; empty for the whole tree.

    Raises:
        SourceError: It is not a path below the root.
    """
    name = (subdirectory or "").rstrip("/")
    if name in ("", "."):
        return ""
    problem = _problem(name)
    if problem:
        raise SourceError(f'subdirectory "{subdirectory}": {problem}')
    return "/".join(checked_parts(name))


def create(root: Path, name: str, executable: bool = False) -> int:
    """Opens a new file below the root and gives its descriptor; it must not exist yet."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    # Cached trees are shared by every function that has the same content.
    return os.open(path, flags, 0o555 if executable else 0o444)


def printable(text: str) -> str:
    """Someone else's text without line ends and control characters."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def quoted(text: str, limit: int = 200) -> str:
    """Someone else's text fit for an error: in quotes, bounded, on one line."""
    shown = printable(text)
    return f'"{shown if len(shown) <= limit else shown[: limit - 3] + "..."}"'
