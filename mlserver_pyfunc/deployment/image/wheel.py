"""Writes this package as a wheel from its installed files, so that no index is needed for it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

DISTRIBUTION = "mlserver-pyfunc"
_PACKAGE = Path(__file__).resolve().parents[2]
_WHEEL = (
    "Wheel-Version: 1.0\nGenerator: mlserver-pyfunc\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)
_KEPT_METADATA = ("METADATA", "entry_points.txt")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def version() -> str:
    """Returns the version of this package."""
    return metadata.version(DISTRIBUTION)


def requirements() -> list[str]:
    """Returns the requirements of this package, without its extras."""
    lines = metadata.requires(DISTRIBUTION) or []
    return [line for line in lines if "extra" not in str(Requirement(line).marker)]


def write(folder: Path) -> Path:
    """Writes the wheel into a folder. Equal files give equal bytes."""
    distribution = metadata.distribution(DISTRIBUTION)
    info = f"mlserver_pyfunc-{distribution.version}.dist-info"
    path = folder / f"mlserver_pyfunc-{distribution.version}-py3-none-any.whl"
    files = {
        path.relative_to(_PACKAGE.parent).as_posix(): path.read_bytes()
        for path in sorted(_PACKAGE.rglob("*"))
        if path.is_file() and path.parent.name != "__pycache__"
    }
    for name in _KEPT_METADATA:
        files[f"{info}/{name}"] = (distribution.read_text(name) or "").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def _digest(data: bytes) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"sha256={encoded.decode().rstrip('=')}"
