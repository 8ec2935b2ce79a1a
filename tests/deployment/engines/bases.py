"""Base images like the official `python:X.Y-slim`, made on the spot: no registry is asked.

Debian's smallest system comes from its mirror, Python from an interpreter of this machine
that stands in a folder of its own, as pyenv's do.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.needs import prefix_of, require

from .storage import Storage

PACKAGES = (
    "ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libncursesw6",
    "libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g",
)  # fmt: skip
PLAIN_DEBIAN = "localhost/pyfunc-tests/plain-debian"
DEBIAN = "localhost/pyfunc-tests/debian"
_UNNEEDED = ("test", "idlelib", "lib2to3", "tkinter", "turtledemo", "__pycache__")
_LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def name_of(version: str) -> str:
    return f"docker.io/library/python:{version}-slim"


def make_debian(storage: Storage, cache: Path) -> None:
    """Makes the system that all bases stand on."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    root = cache / f"{codename}-{len(PACKAGES)}.tar"
    if not root.is_file():
        part = root.with_suffix(".part.tar")
        left_out = ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"]
        subprocess.run(
            [
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in left_out), codename, part,
            ],
            check=True,
        )  # fmt: skip
        part.rename(root)
    context = storage.root / "debian"
    context.mkdir()
    shutil.copyfile(root, context / "rootfs.tar")
    _build(storage, context, ["FROM scratch", "ADD rootfs.tar /"], PLAIN_DEBIAN)
    found = sorted(_LOCAL_CERTIFICATES.glob("*.crt")) if _LOCAL_CERTIFICATES.is_dir() else []
    lines = [f"FROM {PLAIN_DEBIAN}"]
    (context / "certificates").mkdir(parents=True)
    if found:
        # Outgoing TLS may be signed by an authority that only this machine knows.
        for path in found:
            (context / "certificates" / path.name).write_bytes(path.read_bytes())
        lines += [f"COPY certificates {_LOCAL_CERTIFICATES}", "RUN update-ca-certificates"]
    variables = _index_settings() | _certificate_settings(bool(found))
    lines += [f"ENV {name}={json.dumps(value)}" for name, value in variables.items()]
    _build(storage, context, lines, DEBIAN)


def make_python(storage: Storage, version: str) -> str:
    """Makes `python:X.Y-slim` where it is not there yet; returns its name."""
    name = name_of(version)
    if not _has(storage, name):
        _add_python(storage, version, DEBIAN, name, f"localhost/python:{version}-slim")
    return name


def make_plain_python(storage: Storage, version: str) -> str:
    """The same without this machine's authorities and index; returns its name."""
    name = f"localhost/pyfunc-tests/plain-python:{version}"
    if not _has(storage, name):
        _add_python(storage, version, PLAIN_DEBIAN, name)
    return name


def _has(storage: Storage, name: str) -> bool:
    return bool(storage.run("buildah", "images", "--quiet", name, check=False))


def _add_python(storage: Storage, version: str, system: str, *names: str) -> None:
    require(f"Python {version} in a folder")
    prefix = prefix_of(version)
    context = storage.root / f"python-{version}"
    context.mkdir()
    with tarfile.open(context / "python.tar", "w") as archive:
        for path in _tree(prefix, version):
            _add(archive, prefix, path)
    lines = [
        f"FROM {system}",
        "ADD python.tar /usr/local/",
        f"RUN ldconfig && ln -sf python{version} /usr/local/bin/python3"
        f" && ln -sf python{version} /usr/local/bin/python && ln -sf pip3 /usr/local/bin/pip",
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8",
        'CMD ["python3"]',
    ]
    _build(storage, context, lines, *names)


def _build(storage: Storage, context: Path, lines: list[str], *names: str) -> None:
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    tags = [part for name in names for part in ("--tag", name)]
    storage.run("buildah", "bud", "--layers=false", "--format=docker", *tags, context)
    shutil.rmtree(context)


def _tree(prefix: Path, version: str) -> Iterator[Path]:
    yield from (prefix / "bin" / name for name in (f"python{version}", "pip3", f"pip{version}"))
    yield from (prefix / "lib").glob("libpython*")
    library = prefix / "lib" / f"python{version}"
    for folder, folders, files in os.walk(library):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name not in _UNNEEDED and not name.startswith("config-") and _is_wanted(here / name)
        ]
        yield from (here / name for name in files)


def _is_wanted(path: Path) -> bool:
    return path.parent.name != "site-packages" or path.name.startswith("pip")


def _add(archive: tarfile.TarFile, prefix: Path, path: Path) -> None:
    if not path.exists():
        return
    entry = archive.gettarinfo(path, str(path.relative_to(prefix)))
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if not entry.isreg():
        archive.addfile(entry)
        return
    content = path.read_bytes()
    if path.parent.name == "bin" and content.startswith(b"#!"):
        content = content.replace(str(prefix).encode(), b"/usr/local")
    elif path.parent.name == "bin":
        content = _with_moving_library(content, prefix)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _with_moving_library(program: bytes, prefix: Path) -> bytes:
    """Lets an interpreter find its library wherever it stands, as the official images' do."""
    given, wanted = f"{prefix}/lib".encode(), b"$ORIGIN/../lib"
    if len(wanted) > len(given):
        return program
    return program.replace(given + b"\0", wanted.ljust(len(given), b"\0") + b"\0")


def _index_settings() -> dict[str, str]:
    """The package index that this machine uses, where pip is told of another than PyPI."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(["/etc/pip.conf", Path.home() / ".config" / "pip" / "pip.conf"])
    index = os.environ.get("PIP_INDEX_URL", parser.get("global", "index-url", fallback=""))
    if not index.startswith("http"):
        return {}
    return {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}


def _certificate_settings(has_own: bool) -> dict[str, str]:
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    return dict.fromkeys(names, _BUNDLE) if has_own else {}
