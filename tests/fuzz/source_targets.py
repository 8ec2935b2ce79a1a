"""Targets that decode what comes with a source or a request besides tensors."""

from __future__ import annotations

import atexit
import contextlib
import gzip
import json
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import yaml

from mlserver_pyfunc import sources
from mlserver_pyfunc.definition import SourceDefinition, reading, yaml_reader
from mlserver_pyfunc.errors import DefinitionError, SourceError
from mlserver_pyfunc.hosts.mlserver import rest_bounds
from mlserver_pyfunc.sources import archive, git, lock, uri
from mlserver_pyfunc.sources.tree import LOCK_NAME

SECRET = "s3cr3t"

_WORK = Path(tempfile.mkdtemp(prefix="fuzz-"))
_SOURCE = SourceDefinition(source="a.zip", handler="model:predict")
_MAX_INFLATED = 2**20

atexit.register(shutil.rmtree, _WORK, ignore_errors=True)


def zip_archive(data: bytes) -> None:
    """A zip archive."""
    path = _WORK / "archive" / "a.zip"
    with _folder(path, data) as root:
        if not _is_unpacked(path, root):
            return
        contents = {}
        with zipfile.ZipFile(path) as opened:
            for entry in opened.infolist():
                # Those that are not unpacked, such as folders and bytecode, may be unreadable.
                errors = zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError
                with contextlib.suppress(*errors):
                    contents[entry.filename] = opened.read(entry)
        _check_files(root, contents)


def tar_archive(data: bytes) -> None:
    """A tar archive, before it is compressed."""
    path = _WORK / "archive" / "a.tar.gz"
    with _folder(path, gzip.compress(data, 1)) as root:
        if not _is_unpacked(path, root):
            return
        contents = {}
        with tarfile.open(path) as opened:
            for entry in opened:
                content = opened.extractfile(entry) if entry.isreg() else None
                if content is not None:
                    contents[entry.name] = content.read()
        _check_files(root, contents)


@contextlib.contextmanager
def _folder(path: Path, content: bytes) -> Iterator[Path]:
    """Writes an archive, and sees to it that nothing appears outside the yielded folder."""
    root = path.parent / "inside" / "tree"
    root.mkdir(parents=True)
    path.write_bytes(content)
    try:
        yield root
        beside = {each.name for each in path.parent.iterdir()}
        assert beside == {path.name, "inside"}, f"written outside: {beside}"
        beside = {each.name for each in root.parent.iterdir()}
        assert beside == {"tree"}, f"written outside: {beside}"
    finally:
        shutil.rmtree(path.parent)


def _is_unpacked(path: Path, root: Path) -> bool:
    try:
        archive.unpack(_SOURCE, path, root)
    except SourceError as error:
        assert str(error).isprintable()
        return False
    return True


def _check_files(root: Path, contents: Mapping[str, bytes]) -> None:
    """Compares each file with the entry that it is of, which may be below a folder."""
    for file in root.rglob("*"):
        assert not file.is_symlink()
        if file.is_dir():
            continue
        name = file.relative_to(root).as_posix()
        entries = [each for each in contents if f"/{_plain(each)}".endswith(f"/{name}")]
        assert file.read_bytes() in [contents[each] for each in entries], f"another {name}"


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part != ".")


def source_uri(data: bytes) -> None:
    """The URI of a source; and a password, with the URI behind it."""
    text = data.decode("utf-8", "surrogateescape")
    _check_form(text)
    plain, user = uri.split_user(text)
    assert len(plain) + len(user) in (len(text), len(text) - 1)
    with contextlib.suppress(SourceError):
        uri.parts_of(text)
    query = f"https://host/{text.replace('#', '')}?key={SECRET}"
    for secret in (f"git+https://user:{SECRET}{text}@host/path", query):
        assert SECRET not in uri.redacted(secret), f"{secret!r} is shown with its secret"
        assert SECRET not in _check_form(secret), f"{secret!r} is shown with its secret"


def _check_form(text: str) -> str:
    """Reads a URI, and returns the error."""
    try:
        sources.check_form(text)
        if text.startswith("git+"):
            with uri.naming(text):
                remote = git.parsed(text)
            assert not remote.url.startswith("-")
            assert not remote.ref.startswith("-")
    except SourceError as error:
        assert str(error).isprintable()
        return str(error)
    return ""


class _Stock(yaml.SafeLoader):
    """PyYAML's safe loader, without dates."""


_Stock.yaml_implicit_resolvers = yaml_reader._Loader.yaml_implicit_resolvers


def yaml_text(data: bytes) -> None:
    """A definition in YAML."""
    text = data.decode("utf-8", "replace")
    try:
        value = yaml_reader.load(text, "function.yaml")
    except yaml_reader.YamlError as error:
        assert 1 <= error.line <= len(text.splitlines()) + 1
        return
    assert repr(value) == repr(yaml.load(text, _Stock)), "another value than PyYAML's"
    # Workers get it as JSON.
    json.dumps(value)
    problems = None
    with contextlib.suppress(DefinitionError):
        problems = reading.problems(value) if isinstance(value, Mapping) else ["no mapping"]
    try:
        reading.parse(value)
    except DefinitionError:
        assert problems != [], "refused without a problem"
        return
    assert problems == [], "accepted with a problem"


def function_lock(data: bytes) -> None:
    """A `function.lock`."""
    folder = _WORK / "lock"
    folder.mkdir(exist_ok=True)
    (folder / LOCK_NAME).write_bytes(data)
    try:
        found = lock.read(folder)
    except SourceError as error:
        str(error)
        return
    assert found is not None
    lock.write_to(found, folder)
    assert lock.read(folder) == found, "another lock when it is written and read again"


def compressed_body(data: bytes) -> None:
    """A compressed REST body. The first byte is for its encoding."""
    encoding = "gzip" if data[:1] < b"\x80" else "deflate"
    body = data[1:]
    with mock.patch.object(rest_bounds, "MAX_BODY", _MAX_INFLATED):
        try:
            got: bytes | None = rest_bounds.inflate(body, encoding)
        except (EOFError, OSError, zlib.error):
            got = None
        except rest_bounds.BodyTooLargeError:
            return
    expected = _inflated(body, encoding)
    if expected is not None:
        assert got == expected, "another body than Python's own modules give"


def _inflated(body: bytes, encoding: str) -> bytes | None:
    """Inflates a body with what Python has for it; None if it is not of that encoding."""
    try:
        if encoding == "gzip":
            return gzip.decompress(body) if body else None
        return zlib.decompress(body)
    except (OSError, EOFError, zlib.error):
        return None
