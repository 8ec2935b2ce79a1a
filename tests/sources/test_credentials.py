"""Credentials: they open what they should, and are found nowhere afterwards."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import SourceTree, fetch

from .servers import FileServer, GitServer, Repository, reply
from .test_http import BUNDLE

SECRET = "s3cr3t/p@ss:w0rd"
PROGRAM = str(Path(__file__).with_name("fetch_once.py"))


def fetched(uri: str) -> SourceTree:
    return fetch(SourceDefinition(source=uri, handler="model:predict"), Path("."))


@pytest.fixture
def url(git_server: GitServer, repository: Repository) -> str:
    repository.commit({"model.py": "x = 1"})
    return f"git+{git_server.url}/repository#main"


WAYS = {
    "token": ("oauth2", {"GIT_TOKEN": SECRET}),
    "token and user": ("x-token-auth", {"GIT_TOKEN": SECRET, "GIT_USERNAME": "x-token-auth"}),
    "password": ("ann", {"GIT_USERNAME": "ann", "GIT_PASSWORD": SECRET}),
    "netrc": ("ann", {}),
    "url": ("ann", {"GIT_TOKEN": "another"}),
}


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """A way to give a login, and the user that logs in by it."""
    user, variables = WAYS[request.param]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if request.param == "netrc":
        path = tmp_path / "home" / ".netrc"
        path.write_text(f"machine 127.0.0.1 login ann password {SECRET}\n")
        path.chmod(0o600)
    return request.param, user


def with_login(uri: str, kind: str) -> str:
    return uri.replace("://", f"://ann:{quote(SECRET, safe='')}@") if kind == "url" else uri


def test_logs_in_to_git(way: tuple[str, str], url: str, git_server: GitServer) -> None:
    kind, user = way
    git_server.login = f"{user}:{SECRET}"
    tree = fetched(with_login(url, kind))
    assert (tree.root / "model.py").read_text() == "x = 1"
    assert SECRET not in str(tree)


def test_says_how_to_log_in(url: str, git_server: GitServer) -> None:
    git_server.login = f"ann:{SECRET}"
    with pytest.raises(SourceError, match=r"authentication needed \(401\): set GIT_TOKEN"):
        fetched(url)


def test_says_that_the_login_is_wrong(
    url: str, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_server.login = f"ann:{SECRET}"
    monkeypatch.setenv("GIT_TOKEN", "wrong-one")
    with pytest.raises(
        SourceError, match=r"authentication failed \(401\): check GIT_TOKEN"
    ) as caught:
        fetched(url)
    assert "wrong-one" not in str(caught.value)


def test_a_token_is_not_given_to_another_host(
    url: str,
    git_server: GitServer,
    repository: Repository,
    pem: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIT_TOKEN", SECRET)
    other = GitServer(repository.folder.parent, pem)
    other.login = f"oauth2:{SECRET}"

    def redirect(request: object) -> bool:
        reply(request, 302, b"", {"Location": other.url + request.path})  # type: ignore[arg-type, attr-defined]
        return True

    git_server.before = redirect  # type: ignore[assignment]
    with pytest.raises(SourceError, match="authentication needed"):
        fetched(url)
    assert other.requests
    assert not any("authorization" in headers for _, _, headers in other.requests)
    other.close()


@pytest.mark.parametrize("name", ["GIT_TOKEN", "GIT_USERNAME"])
def test_rejects_a_credential_with_a_line_end(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TOKEN", "x")
    monkeypatch.setenv(name, "s3cr3t\nhost=evil.example")
    with pytest.raises(SourceError, match="has a control character") as caught:
        fetched(url)
    assert "s3cr3t" not in str(caught.value)


class Watch(threading.Thread):
    """Collects the argument list of every process that is seen."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue
            time.sleep(0.002)

    def stop(self) -> set[bytes]:
        self._done.set()
        self.join()
        return self.seen


def traces(secret: str) -> list[bytes]:
    """The forms in which a secret may be found."""
    forms = {secret, quote(secret), quote(secret, safe="")}
    for user in ("ann", "oauth2", "x-token-auth"):
        forms.add(base64.b64encode(f"{user}:{secret}".encode()).decode())
    return [form.encode() for form in forms]


def check_no_trace(uri: str, folder: Path, cache: Path, fails: bool = False) -> str:
    """Fetches in a process that logs all it can, and searches all that it leaves."""
    watch = Watch()
    watch.start()
    environment = {**os.environ, "LOG_LEVEL": "DEBUG", "LOCK_FOLDER": str(folder)}
    done = subprocess.run(
        [sys.executable, PROGRAM],
        input=uri.encode(),
        capture_output=True,
        env=environment,
        check=False,
    )
    arguments = watch.stop()
    assert (done.returncode != 0) == fails, done.stderr.decode()
    left = [path for base in (cache, folder) for path in base.rglob("*") if path.is_file()]
    assert left or fails
    places = {
        "output": done.stdout,
        "log": done.stderr,
        **{f"arguments {number}": words for number, words in enumerate(arguments)},
        **{str(path): str(path).encode() + path.read_bytes() for path in left},
    }
    for form in traces(SECRET):
        for place, content in places.items():
            assert form not in content, f"the secret is in {place}"
    assert any(b"fetch_once" in words for words in arguments), "the watch saw the process"
    return done.stderr.decode()


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "function"
    folder.mkdir()
    return folder


def test_no_trace_of_a_git_login(
    way: tuple[str, str], url: str, git_server: GitServer, beside: Path, cache_folder: Path
) -> None:
    kind, user = way
    git_server.login = f"{user}:{SECRET}"
    check_no_trace(with_login(url, kind), beside, cache_folder)


@pytest.mark.parametrize("outcome", ["refused", "missing", "broken"])
@pytest.mark.parametrize("way", ["token", "url"], indirect=True)
def test_no_trace_of_a_git_login_that_fails(
    outcome: str,
    way: tuple[str, str],
    url: str,
    git_server: GitServer,
    beside: Path,
    cache_folder: Path,
) -> None:
    kind, user = way
    git_server.login = f"{user}:{SECRET}" if outcome != "refused" else "nobody:else"
    if outcome == "missing":
        url = url.replace("#main", "#absent")
    if outcome == "broken":

        def fail(request: object) -> bool:
            reply(request, 500, b"no")  # type: ignore[arg-type]
            return True

        git_server.before = fail  # type: ignore[assignment]
    check_no_trace(with_login(url, kind), beside, cache_folder, fails=True)


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("url", "works"),
        ("netrc", "works"),
        ("query", "works"),
        ("url", "refused"),
        ("query", "refused"),
        ("query", "truncated"),
    ],
)
def test_no_trace_of_an_http_login(
    kind: str,
    outcome: str,
    secure_file_server: FileServer,
    tmp_path: Path,
    beside: Path,
    cache_folder: Path,
) -> None:
    netrc = tmp_path / "home" / ".netrc"
    if kind == "netrc":
        netrc.write_text(f"machine 127.0.0.1 login ann password {SECRET}\n")
        netrc.chmod(0o600)
    secure_file_server.files["/b.zip"] = BUNDLE
    if outcome == "refused":
        secure_file_server.script = lambda request: not reply(request, 403, SECRET.encode())
    if outcome == "truncated":
        secure_file_server.script = lambda request: not reply(request, 200, b"PK", length=100)
    query = f"?X-Amz-Signature={quote(SECRET, safe='')}" if kind == "query" else ""
    uri = with_login(f"zip+{secure_file_server.url}/b.zip{query}", kind)
    check_no_trace(uri, beside, cache_folder, fails=outcome != "works")
    sent = secure_file_server.requests[0]
    assert kind == "query" or "authorization" in sent[2]
