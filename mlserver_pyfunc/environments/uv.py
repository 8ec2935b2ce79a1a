"""What we ask of uv, which finds interpreters and installs packages into environments."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import PyFuncError

ERROR_LINES = 8
"""How much of uv's own explanation an error carries."""

_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}
SERVING_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The version of this interpreter, as definitions give versions."""

_ASIDES = ("Using Python", "hint: ")
_UV_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


class UvError(PyFuncError):
    """uv failed; carries its own explanation."""


def find_uv() -> str:
    """The path of uv.

    Raises:
        UvError: There is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        pass
    found = shutil.which("uv")
    if found is None:
        raise UvError('uv is not installed: pip install "mlserver-pyfunc[isolation]"')
    return found


def is_installed() -> bool:
    """Whether there is a uv to run."""
    try:
        find_uv()
    except UvError:
        return False
    return True


def run(
    arguments: Sequence[str], *, given: str = "", on_line: Callable[[str], None] | None = None
) -> str:
    """Runs uv.

    Args:
        arguments: After `uv`.
        given: Its standard input.
        on_line: Takes each line in which it tells what it does, as it comes.

    Returns:
        Its standard output.

    Raises:
        UvError: It failed.
    """
    command = [find_uv(), "--no-progress", "--color", "never", *arguments]
    with TemporaryFile() as output, TemporaryFile() as source:
        source.write(given.encode())
        source.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=source, stdout=output, stderr=subprocess.PIPE, env=_environment()
            )
        except OSError as error:
            raise UvError(f"uv cannot be run: {error}") from None
        assert process.stderr is not None
        lines = []
        with process, process.stderr as told:
            for raw in told:
                line = raw.decode(errors="replace").rstrip()
                lines.append(line)
                if on_line is not None and line.strip():
                    on_line(without_passwords(line))
        output.seek(0)
        if process.returncode:
            raise UvError(_explanation(lines))
        return output.read().decode()


def find_python(version: str) -> Path:
    """An interpreter of a version such as `3.12` on this machine.

    Looks at the serving one, PATH, pyenv and uv's own; downloads one only where
    `MLSERVER_PYFUNC_PYTHON_DOWNLOADS` or uv's own setting allows it.

    Raises:
        UvError: There is none.
    """
    for candidate in _candidates(version):
        if release_of(candidate).rpartition(".")[0] == version:
            return candidate
    try:
        if settings.python_downloads():
            run(["python", "install", version])
        return Path(run(["python", "find", "--no-project", "--system", version]).strip())
    except UvError:
        raise UvError(
            f"no Python {version} on this machine (looked in PATH, pyenv and uv's own): install "
            f"one, or set {settings.PYTHON_DOWNLOADS}=1 to let uv download it"
        ) from None


def _candidates(version: str) -> Iterator[Path]:
    if version == SERVING_PYTHON:
        yield Path(getattr(sys, "_base_executable", "") or sys.executable)
    for entry in os.get_exec_path():
        candidate = Path(entry, f"python{version}")
        # A shim answers for whatever version is chosen where it runs.
        if candidate.is_file() and candidate.parent.name != "shims":
            yield candidate
    root = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser())
    versions = (root / "versions").glob(f"{version}.*")
    for folder in sorted(versions, key=_release, reverse=True):
        yield folder / "bin" / f"python{version}"


def _release(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.name))


@cache
def release_of(python: Path) -> str:
    """The full version of an interpreter, `3.12.1`; empty where it does not run."""
    code = "import sys, ssl, venv; print('%d.%d.%d' % sys.version_info[:3])"
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", code], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment.setdefault("UV_PYTHON_DOWNLOADS", "never")
    if settings.python_downloads():
        environment["UV_PYTHON_DOWNLOADS"] = "automatic"
    bundle = settings.ca_bundle()
    if bundle:
        environment["SSL_CERT_FILE"] = bundle
    if os.environ.get(settings.CACHE):
        environment.setdefault("UV_CACHE_DIR", str(settings.cache_folder() / "uv"))
    if not any(name in environment for name in _UV_INDEX_VARIABLES):
        found = _pip_settings()
        for name, value in found.items():
            environment.setdefault(_PIP_TO_UV[name], value)
        if "extra-index-url" in found:
            # To pip all indexes are one; uv would look no further than the first that knows a name.
            environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return environment


def indexes() -> tuple[str | None, list[str]]:
    """The package indexes that uv and pip are set to on this machine: the first, and others."""
    environment = _environment()
    first = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    text = f"{environment.get('UV_INDEX', '')} {environment.get('UV_EXTRA_INDEX_URL', '')}"
    # An index may have a name in front, `name=https://...`.
    others = [re.sub(r"^[\w.-]+=", "", entry) for entry in text.split()]
    return first, others


def _pip_settings() -> dict[str, str]:
    """What pip's environment variables and files say about indexes, in uv's spelling."""
    found: dict[str, str] = {}
    for path in _pip_files():
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update((k, v) for k, v in parser.items(section) if k in _PIP_TO_UV)
    for name in _PIP_TO_UV:
        value = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
        if value:
            found[name] = value
    return {name: _separated(name, value) for name, value in found.items() if value.strip()}


def _separated(name: str, value: str) -> str:
    # uv reads find-links by commas, the others by spaces.
    return ("," if name == "find-links" else " ").join(value.split())


def _pip_files() -> Iterator[Path]:
    chosen = os.environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    for folder in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    home = Path(os.path.expanduser("~"))
    yield home / ".pip" / "pip.conf"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf")
    if chosen:
        yield Path(chosen)


def _explanation(told: Sequence[str]) -> str:
    """uv's words on one line, without its drawing."""
    lines = (re.sub(r"^[^\w'\"(<]+", "", line).strip() for line in told)
    said = [line for line in lines if line and not line.startswith(_ASIDES)]
    text = without_passwords(" ".join(said[-ERROR_LINES:])) or "uv failed without a word"
    hint = settings.trust_hint(text)
    return f"{text}; {hint}" if hint else text


def without_passwords(text: str) -> str:
    """Hides credentials in URLs."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)
