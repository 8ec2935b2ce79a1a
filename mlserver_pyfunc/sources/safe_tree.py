"""Checks names and sizes in a tree that somebody else made, before it is written to disk."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import IO

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .tree import IGNORED_FOLDERS

MAX_ENTRIES = 50_000
MAX_DEPTH = 32
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
CHUNK = 2**20

# Not part of the function: never written, and left out of the tree's digest.
_SKIPPED = IGNORED_FOLDERS | {"__MACOSX"}


class Layout:
    """Checks the entries of a tree, before any is written: each against all others.

    docs/design/cache-and-lock.md says why to check one name at a time does not work.
    """

    def __init__(self) -> None:
        self.size = 0
        self._limit = settings.max_source_size()
        self._count = 0
        self._kinds: dict[str, str] = {}
        self._spelled: dict[str, str] = {}

    def add(self, name: str, kind: str = "file", size: int = 0) -> None:
        if kind == "folder" and name.rstrip("/") == ".":
            return
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise SourceError(f"expected at most {MAX_ENTRIES} entries, got more")
        parts = checked_parts(name.removesuffix("/") if kind == "folder" else name)
        for depth in range(1, len(parts)):
            self._take("/".join(parts[:depth]), "folder", name)
        path = "/".join(parts)
        if kind != "folder" and self._kinds.get(path) == kind:
            raise SourceError(f"entry {quoted(name)} appears twice")
        self._take(path, kind, name)
        if size < 0:
            raise SourceError(f"entry {quoted(name)}: expected a size, got {size}")
        self.size += size
        if self.size > self._limit:
            raise SourceError(f"expected at most {self._limit} bytes in all, got more")

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


def checked_parts(name: str, what: str = "entry") -> list[str]:
    """Splits an entry's name into its folders and file."""
    if problem := _problem(name):
        raise SourceError(f"{what} {quoted(name)}: {problem}")
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
    if has_control_characters(name):
        return "has a control character or is not UTF-8"
    if len(parts) > MAX_DEPTH:
        return f"expected at most {MAX_DEPTH} nested folders, got {len(parts)}"
    if max(len(part.encode()) for part in parts) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    if len(name.encode()) > MAX_PATH_BYTES:
        return f"has a path of more than {MAX_PATH_BYTES} bytes"
    return None


def has_control_characters(text: str) -> bool:
    """Whether a text holds control characters, or is not UTF-8."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def is_skipped(name: str) -> bool:
    """Whether an entry is never written: bytecode, git's own files, macOS's metadata."""
    return not _SKIPPED.isdisjoint(name.split("/"))


def inside(name: str, prefix: str) -> str | None:
    """Returns an entry's name below a folder of the tree; None if it is elsewhere."""
    name = "/".join(part for part in name.split("/") if part != ".")
    if not prefix:
        return name
    return name[len(prefix) + 1 :] or None if name.startswith(prefix + "/") else None


def checked_subdirectory(subdirectory: str | None) -> str:
    """Returns the subdirectory as a path without `.` parts; empty for the whole tree."""
    name = (subdirectory or "").rstrip("/")
    return "" if name in ("", ".") else "/".join(checked_parts(name, "subdirectory"))


def write(content: IO[bytes], root: Path, name: str, size: int, executable: bool = False) -> None:
    """Writes a file of so many bytes below the root, which must not exist."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    # Read-only: all functions with the same content share the tree.
    descriptor = os.open(path, flags, 0o555 if executable else 0o444)
    written = 0
    with os.fdopen(descriptor, "wb") as file:
        while written <= size and (chunk := content.read(CHUNK)):
            written += file.write(chunk)
    if written != size:
        raise SourceError(f"entry {quoted(name)}: expected {size} bytes, got {written}")


def check_is_no_web_page(path: Path, expected: str) -> None:
    """Checks that a file is not the page that says why there is no such file."""
    with path.open("rb") as file:
        if file.read(512).lstrip()[:1] == b"<":
            raise SourceError(f"expected {expected}, got a web page (HTML or XML)")


def printable(text: str) -> str:
    """Escapes line ends and control characters in foreign text."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def quoted(text: str, limit: int = 200) -> str:
    """Makes foreign text fit for an error: in quotes, of limited length, on one line."""
    shown = printable(text)
    return f'"{shown if len(shown) <= limit else shown[: limit - 3] + "..."}"'
