"""Hostile archives: each gets one clear error, and leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import SourceTree, fetch
from mlserver_pyfunc.sources.safe_tree import MAX_DEPTH, MAX_ENTRIES

Entry = tuple[str, bytes, int]


def zip_with(*entries: Entry, change: Callable[[zipfile.ZipInfo], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Duplicate name")
                archive.writestr(info, content)
            if change:
                change(info)
    return buffer.getvalue()


def zip_named(*names: str) -> bytes:
    return zip_with(*((name, b"x", stat.S_IFREG | 0o644) for name in names))


def tar_with(*entries: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = target
    return entry


def tar_named(*names: str) -> bytes:
    return tar_with(*map(tar_entry, names))


def raw_tar(size: int, kind: bytes, name: str = "model.py") -> bytes:
    """A header that says more than there is."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.type = kind
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))


def negative_size(name: str) -> tarfile.TarInfo:
    """An entry that would make room for larger ones in the sum of sizes."""
    entry = tar_entry(name)
    entry.pax_headers = {"size": str(-(2**40))}
    return entry


def set_encrypted(info: zipfile.ZipInfo) -> None:
    info.flag_bits |= 1


def set_unknown_method(info: zipfile.ZipInfo) -> None:
    info.compress_type = 99


def lie_about_size(info: zipfile.ZipInfo) -> None:
    info.file_size = 3


def huge_size(info: zipfile.ZipInfo) -> None:
    info.file_size = 2**60


def overlapping() -> bytes:
    """Two names for the same bytes, as the densest bombs have."""
    content = zip_named("a", "b")
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    offset = second + 42
    return content[:offset] + struct.pack("<I", 0) + content[offset + 4 :]


pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")

REGULAR = stat.S_IFREG | 0o644

NAMES = {
    "../evil.py": 'leads outside by ".."',
    "a/../../evil.py": 'leads outside by ".."',
    "..": 'leads outside by ".."',
    "/etc/passwd": "got an absolute one",
    "//host/share": "got an empty name|got an absolute one",
    "C:/evil.py": "got a drive letter",
    "c:evil.py": "got a drive letter",
    "a\\..\\..\\evil.py": "has a backslash",
    "\\\\host\\share": "has a backslash",
    "a\nb": "has a control character",
    "a\x1b[2Jb": "has a control character",
    "a//b": "got an empty name",
    "/".join("d" * (MAX_DEPTH + 1)): f"expected at most {MAX_DEPTH} nested folders",
    "n" * 300: "more than 255 bytes",
    "/".join(["n" * 200] * 8): "more than 1024 bytes",
}

ZIPS: dict[str, tuple[bytes, str]] = {
    "link": (zip_with(("a", b"/etc/passwd", stat.S_IFLNK | 0o777)), "got a symbolic link"),
    "device": (zip_with(("a", b"", stat.S_IFCHR | 0o666)), "got a special file"),
    "block": (zip_with(("a", b"", stat.S_IFBLK | 0o666)), "got a special file"),
    "pipe": (zip_with(("a", b"", stat.S_IFIFO | 0o666)), "got a special file"),
    "socket": (zip_with(("a", b"", stat.S_IFSOCK | 0o666)), "got a special file"),
    "nul": (zip_named("model.py\0.txt"), "has a control character"),
    "case": (zip_named("Model.py", "model.py"), '"Model.py" and "model.py" differ only in case'),
    "case of a folder": (zip_named("Lib/a.py", "lib/b.py"), "differ only in case"),
    "accents": (zip_named("\u00e9.py", "e\u0301.py"), "differ only in case or accents"),
    "twice": (zip_named("a.py", "a.py"), '"a.py" appears twice'),
    "file and folder": (zip_named("a", "a/b"), '"a" is both a file and a folder'),
    "encrypted": (zip_with(("a", b"x", REGULAR), change=set_encrypted), "is encrypted"),
    "method": (zip_with(("a", b"x", REGULAR), change=set_unknown_method), "unknown compression"),
    "lie": (zip_with(("a", b"x" * 99, REGULAR), change=lie_about_size), "truncated or broken"),
    "huge": (zip_with(("a", b"x", REGULAR), change=huge_size), "expected at most 4294967296 bytes"),
    "ratio": (zip_with(("a", bytes(64 * 2**20), REGULAR)), "at most 200 times its size"),
    "overlap": (overlapping(), "truncated or broken"),
    "truncated": (zip_named("a.py", "b.py")[:-10], "truncated or broken"),
    "half": (zip_named("a.py", "b.py")[:40], "truncated or broken"),
    "html": (b"<!DOCTYPE html><html>404</html>", "got a web page"),
    "empty": (b"", "got an empty file"),
    "text": (b"hello", "got a file that begins b'hello'"),
}

TARS: dict[str, tuple[bytes, str]] = {
    "link": (tar_with(tar_entry("a", tarfile.SYMTYPE, "/etc/passwd")), "got a symbolic link"),
    "hard link": (tar_with(tar_entry("a", tarfile.LNKTYPE, "/etc/passwd")), "got a hard link"),
    "device": (tar_with(tar_entry("a", tarfile.CHRTYPE)), "got a special file"),
    "block": (tar_with(tar_entry("a", tarfile.BLKTYPE)), "got a special file"),
    "pipe": (tar_with(tar_entry("a", tarfile.FIFOTYPE)), "got a special file"),
    "sparse": (raw_tar(0, tarfile.GNUTYPE_SPARSE), "got a sparse file|truncated or broken"),
    "case": (tar_named("Model.py", "model.py"), "differ only in case"),
    "twice": (tar_named("a.py", "a.py"), "appears twice"),
    "huge": (raw_tar(2**40, tarfile.REGTYPE), "expected at most 4294967296 bytes"),
    # Older releases of Python end the archive at such an entry.
    "negative": (tar_with(negative_size(".git/a"), tar_entry("b")), "a size, got -|no files"),
    "short": (raw_tar(2**20, tarfile.REGTYPE), "truncated or broken|expected 1048576 bytes"),
    "header": (raw_tar(2**31, tarfile.XHDTYPE), "headers of at most 1048576 bytes"),
    "long name": (raw_tar(2**31, tarfile.GNUTYPE_LONGNAME), "headers of at most 1048576 bytes"),
    "chain": (gzip.compress(raw_chain := b"".join(
        [tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)[:156] + b"x" + bytes(355)] * 3000
    )), "truncated or broken"),
    "ratio": (tar_with(tar_entry("a"), content=bytes(64 * 2**20)), "at most 200 times its size"),
    "truncated": (tar_with(tar_entry("a"), content=os.urandom(9999))[:-500], "truncated or broken"),
    "gzip bomb": (gzip.compress(bytes(64 * 2**20)), "the archive holds no files"),
    "not tar": (gzip.compress(b"hello"), "truncated or broken"),
}  # fmt: skip


def load(folder: Path, name: str, content: bytes) -> SourceTree:
    (folder / name).write_bytes(content)
    return fetch(SourceDefinition(source=name, handler="model:predict"), folder)


def refusal(folder: Path, name: str, content: bytes) -> str:
    """The error, if there is one."""
    try:
        load(folder, name, content)
    except SourceError as error:
        return str(error)
    return ""


def check_rejected(folder: Path, cache: Path, name: str, content: bytes, cause: str) -> None:
    before = set(folder.rglob("*"))
    with pytest.raises(SourceError, match=cause) as caught:
        load(folder, name, content)
    message = str(caught.value)
    assert message.startswith(f'source "{name}": ')
    assert message.isprintable(), "an error is one line"
    assert not list(cache.glob("t*/*")), "the cache is as it was"
    left = {path for path in folder.rglob("*") if cache not in (path, *path.parents)}
    assert left == {*before, folder / name}


@pytest.mark.parametrize("kind", ZIPS)
def test_rejects_hostile_zips(kind: str, tmp_path: Path, cache_folder: Path) -> None:
    check_rejected(tmp_path, cache_folder, "a.zip", *ZIPS[kind])


@pytest.mark.parametrize("kind", TARS)
def test_rejects_hostile_tars(kind: str, tmp_path: Path, cache_folder: Path) -> None:
    check_rejected(tmp_path, cache_folder, "a.tar.gz", *TARS[kind])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("file", "make"), [("a.zip", zip_named), ("a.tar.gz", tar_named)])
def test_rejects_hostile_names(
    file: str, make: Callable[..., bytes], name: str, tmp_path: Path, cache_folder: Path
) -> None:
    check_rejected(tmp_path, cache_folder, file, make("model.py", name), NAMES[name])


def test_rejects_too_many_entries(tmp_path: Path, cache_folder: Path) -> None:
    content = zip_with(*((f"{number}", b"", REGULAR) for number in range(MAX_ENTRIES + 1)))
    cause = f"expected at most {MAX_ENTRIES} entries"
    check_rejected(tmp_path, cache_folder, "a.zip", content, cause)


def test_does_not_unpack_archives_inside_archives(tmp_path: Path) -> None:
    inner = zip_named("deep.py")
    tree = load(tmp_path, "a.zip", zip_with(("model.py", b"x", REGULAR), ("b.zip", inner, REGULAR)))
    assert (tree.root / "b.zip").read_bytes() == inner


def test_files_are_written_without_special_bits(tmp_path: Path) -> None:
    mode = stat.S_IFREG | stat.S_ISUID | stat.S_ISGID | 0o777
    tree = load(tmp_path, "a.zip", zip_with(("model.py", b"x", REGULAR), ("run", b"x", mode)))
    assert stat.S_IMODE((tree.root / "run").stat().st_mode) & ~0o555 == 0
    assert stat.S_IMODE((tree.root / "model.py").stat().st_mode) & 0o333 == 0


PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "a", "A", "b", "C:", "\\", "..\\", "~", "__pycache__", ".git"]),
    st.text(max_size=8),
)
ENTRY_NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check_nothing_outside(
    folder: Path, cache: Path, name: str, make: Callable[..., bytes], names: list[str]
) -> None:
    try:
        content = make(*names)
    except (ValueError, UnicodeError, struct.error):
        return  # the archive cannot say so
    assert refusal(folder, name, content).isprintable()
    for tree in cache.glob("trees/*"):
        for path in tree.rglob("*"):
            assert path.resolve().is_relative_to(tree.resolve())
            assert not path.is_symlink()
    outside = {path.name for path in folder.iterdir()} - {name, cache.name, "home"}
    assert not outside


@given(names=st.lists(ENTRY_NAMES, min_size=1, max_size=4))
@SLOW
def test_no_zip_writes_outside(names: list[str], tmp_path: Path, cache_folder: Path) -> None:
    check_nothing_outside(tmp_path, cache_folder, "a.zip", zip_named, names)


@given(names=st.lists(ENTRY_NAMES, min_size=1, max_size=4))
@SLOW
def test_no_tar_writes_outside(names: list[str], tmp_path: Path, cache_folder: Path) -> None:
    check_nothing_outside(tmp_path, cache_folder, "a.tar.gz", tar_named, names)


@given(data=st.data())
@SLOW
def test_broken_bytes_raise_our_errors_only(data: Any, tmp_path: Path) -> None:
    name, content = data.draw(
        st.sampled_from([("a.zip", zip_named("model.py", "b")), ("a.tar.gz", tar_named("a", "b"))])
    )
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    assert refusal(tmp_path, name, bytes(broken)).isprintable()
