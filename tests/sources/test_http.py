"""Files and archives over HTTP, from a real server that fails as it is told to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import SourceTree, fetch

from .servers import CutServer, FileServer, reply

HERE = Path(".")


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


BUNDLE = zipped({"model.py": b"x = 1", "big.bin": bytes(range(256)) * 8000})


def fetched(uri: str, **keys: str) -> SourceTree:
    return fetch(SourceDefinition(source=uri, handler="model:predict", **keys), HERE)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_gives_a_file_as_a_module(file_server: FileServer) -> None:
    file_server.files["/a/model.py"] = b"x = 1"
    tree = fetched(f"{file_server.url}/a/model.py")
    assert tree.module == "model"
    assert [path.name for path in tree.root.iterdir()] == ["model.py"]
    assert tree.provenance.sha256 == sha256(b"x = 1")


@pytest.mark.parametrize("form", ["zip+{}/bundle", "{}/bundle.zip", "zip+{}/bundle?id=5"])
def test_gives_the_files_of_an_archive(form: str, file_server: FileServer) -> None:
    file_server.files["/bundle"] = file_server.files["/bundle.zip"] = BUNDLE
    tree = fetched(form.format(file_server.url))
    assert (tree.root / "model.py").read_text() == "x = 1"
    assert tree.provenance.sha256 == sha256(BUNDLE)


def test_gives_an_archive_over_tls(secure_file_server: FileServer) -> None:
    secure_file_server.files["/b.zip"] = BUNDLE
    assert fetched(f"zip+{secure_file_server.url}/b.zip").provenance.sha256 == sha256(BUNDLE)


def test_a_digest_that_is_in_the_cache_touches_no_network(file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE
    url = f"{file_server.url}/b.zip"
    root = fetched(url, sha256=sha256(BUNDLE).upper()).root
    file_server.requests.clear()
    assert fetched(url, sha256=sha256(BUNDLE)).root == root
    assert file_server.requests == []


def test_an_archive_without_a_digest_is_fetched_at_every_start(file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE
    fetched(f"{file_server.url}/b.zip")
    file_server.files["/b.zip"] = zipped({"model.py": b"x = 2"})
    tree = fetched(f"{file_server.url}/b.zip")
    assert (tree.root / "model.py").read_text() == "x = 2"


@pytest.mark.parametrize("hours", [-24, 24])
def test_an_archive_is_fetched_at_every_start_though_the_clock_jumps(
    hours: float, file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.files["/b.zip"] = BUNDLE
    clock = time.time
    with monkeypatch.context() as jump:
        jump.setattr(time, "time", lambda: clock() + hours * 3600)
        fetched(f"{file_server.url}/b.zip")
    file_server.files["/b.zip"] = zipped({"model.py": b"x = 2"})
    tree = fetched(f"{file_server.url}/b.zip")
    assert (tree.root / "model.py").read_text() == "x = 2"


def test_rejects_a_digest_that_differs(file_server: FileServer, cache_folder: Path) -> None:
    file_server.files["/b.zip"] = BUNDLE
    with pytest.raises(SourceError, match=f"expected sha256 {'0' * 64}, got {sha256(BUNDLE)}"):
        fetched(f"{file_server.url}/b.zip", sha256="0" * 64)
    assert not list(cache_folder.glob("t*/*"))


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 451])
def test_does_not_try_again_when_it_is_refused(status: int, file_server: FileServer) -> None:
    file_server.script = lambda request: not reply(request, status, b"no")
    with pytest.raises(SourceError, match=rf"\({status}\)"):
        fetched(f"{file_server.url}/b.zip")
    assert len(file_server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_tries_again_when_the_server_fails(status: int, file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE

    def fail_at_first(request: BaseHTTPRequestHandler) -> bool:
        if len(file_server.requests) > 1:
            return False
        reply(request, status, b"busy")
        return True

    file_server.script = fail_at_first
    assert fetched(f"{file_server.url}/b.zip").provenance.sha256 == sha256(BUNDLE)
    file_server.script = lambda request: not reply(request, status, b"busy")
    with pytest.raises(SourceError, match=rf"the server failed \({status}\)"):
        fetched(f"{file_server.url}/b.zip")


def cut(server: FileServer, content: bytes, at: int, **headers: str) -> None:
    """Breaks the first connection after some bytes."""

    def script(request: BaseHTTPRequestHandler) -> bool:
        if len(server.requests) > 1:
            return False
        tag = f'"{len(content)}-{hash(content)}"'
        reply(request, 200, content[:at], {"ETag": tag, **headers}, length=len(content))
        return True

    server.script = script


@pytest.mark.parametrize("at", [0, 1, 1000, len(BUNDLE) // 2, len(BUNDLE) - 1])
def test_resumes_where_the_connection_broke(at: int, file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE
    cut(file_server, BUNDLE, at)
    assert fetched(f"{file_server.url}/b.zip").provenance.sha256 == sha256(BUNDLE)
    start = int(file_server.requests[1][2].get("range", "bytes=0-")[len("bytes=") : -1])
    # What the socket had not yet handed over is lost with the connection.
    assert at - 2**20 < start <= at


def test_starts_over_when_the_file_changed_in_between(file_server: FileServer) -> None:
    file_server.files["/b.zip"] = zipped({"model.py": b"x = 2"})
    cut(file_server, BUNDLE, 100_000)
    tree = fetched(f"{file_server.url}/b.zip")
    assert (tree.root / "model.py").read_text() == "x = 2"


def test_starts_over_when_nothing_tells_the_version(file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE
    cut(file_server, BUNDLE, 100_000, ETag='W/"weak"')
    assert fetched(f"{file_server.url}/b.zip").provenance.sha256 == sha256(BUNDLE)
    assert "range" not in file_server.requests[1][2]


def test_gives_up_on_a_download_that_is_always_truncated(
    file_server: FileServer, cache_folder: Path
) -> None:
    file_server.script = lambda request: not reply(request, 200, b"PK", length=1000)
    with pytest.raises(SourceError, match="truncated: the connection broke"):
        fetched(f"{file_server.url}/b.zip")
    assert not list(cache_folder.glob("t*/*"))


@pytest.mark.parametrize("after", [0, 1000, 100_000])
def test_a_tls_connection_that_breaks_off_is_tried_again(
    after: int, secure_file_server: FileServer, cache_folder: Path
) -> None:
    content = zipped({"model.py": b"x = 1", "noise.bin": random.Random(1).randbytes(400_000)})
    secure_file_server.files["/b.zip"] = content
    with CutServer(secure_file_server.port, float("inf"), after) as server:
        uri = f"https://127.0.0.1:{server.port}/b.zip"
        with pytest.raises(SourceError, match="the connection broke"):
            fetched(uri)
        assert not [*cache_folder.glob("t*/*"), *cache_folder.glob("index/*")]
        server.cuts = 1
        assert fetched(uri).provenance.sha256 == sha256(content)
        assert server.cuts == 0, "the connection was not cut"


def redirecting(target: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def script(request: BaseHTTPRequestHandler) -> bool:
        if not request.path.startswith("/start"):
            return False
        reply(request, 302, b"", {"Location": target})
        return True

    return script


def test_follows_redirects(file_server: FileServer, secure_file_server: FileServer) -> None:
    secure_file_server.files["/b.zip"] = BUNDLE
    file_server.script = redirecting(f"{secure_file_server.url}/b.zip")
    assert fetched(f"{file_server.url}/start.zip").provenance.sha256 == sha256(BUNDLE)


def test_does_not_follow_a_redirect_from_https_to_http(
    file_server: FileServer, secure_file_server: FileServer
) -> None:
    file_server.files["/b.zip"] = BUNDLE
    secure_file_server.script = redirecting(f"{file_server.url}/b.zip")
    with pytest.raises(SourceError, match="redirects from https to http: not followed"):
        fetched(f"{secure_file_server.url}/start.zip")
    assert file_server.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"])
def test_does_not_follow_a_redirect_to_a_file(target: str, file_server: FileServer) -> None:
    file_server.script = redirecting(target)
    with pytest.raises(
        SourceError, match=r"redirects from http to (file|ftp|gopher): not followed"
    ):
        fetched(f"{file_server.url}/start.zip")


@pytest.mark.parametrize(
    "target", ["http://[", "http://127.0.0.1:99999/b.zip", "http://127.0.0.1:x/"]
)
def test_does_not_follow_a_redirect_to_no_address(target: str, file_server: FileServer) -> None:
    file_server.script = redirecting(target)
    with pytest.raises(SourceError, match=r"not an address, or a redirect to none|not a URL"):
        fetched(f"{file_server.url}/start.zip")
    assert len(file_server.requests) == 1


def test_gives_up_on_redirects_without_end(file_server: FileServer) -> None:
    file_server.script = redirecting("/start.zip")
    with pytest.raises(SourceError, match="too many redirects"):
        fetched(f"{file_server.url}/start.zip")


def test_rejects_a_certificate_that_is_not_trusted(
    secure_file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SourceError, match=r"the TLS connection failed: self.signed certificate"):
        fetched(f"{secure_file_server.url}/b.zip")


def test_rejects_an_unknown_host() -> None:
    with pytest.raises(SourceError, match=r'unknown host "nowhere\.invalid"'):
        fetched("https://nowhere.invalid/b.zip")


def test_rejects_a_server_that_is_not_there(file_server: FileServer) -> None:
    file_server.close()
    with pytest.raises(SourceError, match="cannot connect: connect"):
        fetched(f"{file_server.url}/b.zip")


def test_stops_at_the_time_limit(file_server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_FETCH_TIMEOUT", "0.5")

    def drip(request: BaseHTTPRequestHandler) -> bool:
        request.send_response(200)
        request.end_headers()
        for _ in range(40):
            request.wfile.write(b"x")
            time.sleep(0.1)
        return True

    file_server.script = drip
    with pytest.raises(SourceError, match=r"expected to be fetched in 0.5 s, gave up"):
        fetched(f"{file_server.url}/b.zip")


def test_stops_when_nothing_comes(file_server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_FETCH_TIMEOUT", "1")
    ended = threading.Event()
    file_server.script = lambda request: ended.wait(3600)
    with pytest.raises(SourceError, match="expected to be fetched in 1 s, gave up"):
        fetched(f"{file_server.url}/b.zip")
    ended.set()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n"])
def test_stops_while_headers_drip(
    start: bytes, file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_FETCH_TIMEOUT", "0.5")

    def drip(request: BaseHTTPRequestHandler) -> bool:
        request.wfile.write(start)
        for _ in range(3000):
            request.wfile.write(b"x")
            time.sleep(0.1)
        return True

    file_server.script = drip
    with pytest.raises(SourceError, match=r"expected to be fetched in 0.5 s, gave up"):
        fetched(f"{file_server.url}/b.zip")


def test_does_not_read_the_page_that_redirects(file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE
    sent = []

    def endless(request: BaseHTTPRequestHandler) -> bool:
        if not request.path.startswith("/start"):
            return False
        request.send_response(302)
        request.send_header("Location", "/b.zip")
        request.end_headers()
        with contextlib.suppress(OSError):
            sent.extend(request.wfile.write(bytes(2**16)) for _ in range(4096))
        return True

    file_server.script = endless
    assert fetched(f"{file_server.url}/start.zip").provenance.sha256 == sha256(BUNDLE)
    assert sum(sent) < 2**27


@pytest.mark.parametrize("says_length", [True, False])
def test_stops_at_the_size_limit(
    says_length: bool, file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_MAX_SOURCE_SIZE", "100K")

    def answer(request: BaseHTTPRequestHandler) -> bool:
        if says_length:
            reply(request, 200, BUNDLE)
            return True
        request.send_response(200)
        request.end_headers()
        request.wfile.write(BUNDLE)
        return True

    file_server.script = answer
    with pytest.raises(SourceError, match="expected at most 102400 bytes, got"):
        fetched(f"{file_server.url}/b.zip")


@pytest.mark.parametrize("path", ["b.zip", "b.tar.gz", "b.py"])
def test_says_so_when_it_gets_a_web_page(path: str, file_server: FileServer) -> None:
    file_server.files[f"/{path}"] = b"\n<!DOCTYPE html><html>log in</html>"
    with pytest.raises(SourceError, match="got a web page"):
        fetched(f"{file_server.url}/{path}")


def test_keeps_the_bytes_of_an_archive_that_is_called_compressed(file_server: FileServer) -> None:
    content = _tar_gz()
    file_server.script = lambda request: (
        not reply(request, 200, content, {"Content-Encoding": "gzip"})
    )
    assert fetched(f"{file_server.url}/b.tar.gz").provenance.sha256 == sha256(content)


def _tar_gz() -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("model.py")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"x = 1"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("https://example.com/archive", "expected a .py file, a model file or a .zip or .tar.gz"),
        ("https:///b.zip", "has no host"),
        ("https://example.com/not-a-name.py", "expected a file that can be imported"),
        ("ftp://example.com/b.zip", 'unknown scheme "ftp"'),
        ("zip+file:///b.zip", 'unknown scheme "zip+file"'),
    ],
)
def test_rejects_uris_that_name_nothing(uri: str, cause: str) -> None:
    with pytest.raises(SourceError) as caught:
        fetched(uri)
    assert cause in str(caught.value)


def test_logs_in_with_the_user_of_the_url(file_server: FileServer) -> None:
    file_server.files["/b.zip"] = BUNDLE
    tree = fetched(f"http://ann:p%40ss@{file_server.host}/b.zip")
    assert file_server.requests[0][2]["authorization"] == "Basic YW5uOnBAc3M="
    assert tree.provenance.source == f"http://***@{file_server.host}/b.zip"


def test_logs_in_with_netrc(file_server: FileServer, tmp_path: Path) -> None:
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ann password p@ss\n")
    netrc.chmod(0o600)
    file_server.files["/b.zip"] = BUNDLE
    fetched(f"{file_server.url}/b.zip")
    assert file_server.requests[0][2]["authorization"] == "Basic YW5uOnBAc3M="


def test_logs_in_to_each_host_by_the_netrc_that_a_variable_names(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logins").write_text("machine two.invalid login ann password p@ss\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "logins"))
    monkeypatch.setenv("http_proxy", file_server.url)

    def script(request: BaseHTTPRequestHandler) -> bool:
        if "one.invalid" in request.path:
            reply(request, 302, b"", {"Location": "http://two.invalid/b.zip"})
        else:
            reply(request, 200, BUNDLE)
        return True

    file_server.script = script
    fetched("http://one.invalid/b.zip")
    given = [headers.get("authorization") for _, _, headers in file_server.requests]
    assert given == [None, "Basic YW5uOnBAc3M="]


@pytest.mark.parametrize("text", ["machine 127.0.0.1 login ann passwort s3cret", "s3cret"])
def test_a_netrc_that_is_broken_is_ignored(
    text: str, file_server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home" / ".netrc").write_text(text)
    file_server.files["/b.zip"] = BUNDLE
    fetched(f"{file_server.url}/b.zip")
    assert "authorization" not in file_server.requests[0][2]
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("login", ["", "ann:pass@"])
def test_goes_through_a_proxy(
    login: str, file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.script = lambda request: not reply(request, 200, BUNDLE)
    monkeypatch.setenv("http_proxy", file_server.url)
    assert fetched(f"http://{login}far.invalid/b.zip").provenance.sha256 == sha256(BUNDLE)
    assert file_server.requests[0][:2] == ("GET", "http://far.invalid/b.zip")
    monkeypatch.setenv("no_proxy", "far.invalid")
    with pytest.raises(SourceError, match=r'unknown host "far\.invalid"'):
        fetched(f"http://{login}far.invalid/c.zip")


@pytest.mark.parametrize(("status", "attempts"), [(407, 1), (503, 4)])
def test_a_proxy_may_refuse(
    status: int, attempts: int, file_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.script = lambda request: not reply(request, status, b"")
    monkeypatch.setenv("https_proxy", file_server.url)
    with pytest.raises(SourceError, match=rf"\({status}\)"):
        fetched("https://far.invalid/b.zip")
    assert len(file_server.requests) == attempts


def test_a_proxy_of_another_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "gopher://127.0.0.1:1")
    with pytest.raises(SourceError, match="a proxy of another kind"):
        fetched("https://far.invalid/b.zip")


def test_does_not_give_a_login_to_another_host(
    file_server: FileServer, secure_file_server: FileServer
) -> None:
    file_server.files["/b.zip"] = BUNDLE
    other = FileServer()
    other.script = redirecting(f"{file_server.url}/b.zip")
    fetched(f"http://ann:pass@{other.host}/start.zip")
    assert "authorization" in other.requests[0][2]
    assert "authorization" not in file_server.requests[0][2]
    other.close()


def test_says_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "mlserver_pyfunc.sources.http_client", raising=False)
    with pytest.raises(SourceError, match=r"pip install 'mlserver-pyfunc\[remote\]'"):
        fetched("https://example.com/b.zip")
