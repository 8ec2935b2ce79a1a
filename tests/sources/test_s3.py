"""S3 sources, from moto's server."""

from __future__ import annotations

import logging
import random
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import certifi
import pytest
from moto import server
from werkzeug.serving import make_server

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import SourceTree, fetch

from .servers import CutServer
from .test_credentials import SECRET, check_no_trace
from .test_http import BUNDLE, sha256, zipped


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def secure_endpoint(pem: Path) -> Iterator[str]:
    """The same behind TLS, with an authority that nobody knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    app = server.DomainDispatcherApplication(server.create_backend_app)
    running = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="models")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="models"):
        for item in page.get("Contents", []):
            client.delete_object(Bucket="models", Key=item["Key"])
    return client


def put(s3: Any, **files: bytes) -> None:
    for key, content in files.items():
        s3.put_object(Bucket="models", Key=key, Body=content)


def fetched(uri: str, **keys: str) -> SourceTree:
    return fetch(SourceDefinition(source=uri, handler="model:predict", **keys), Path("."))


def names(tree: SourceTree) -> set[str]:
    return {str(path.relative_to(tree.root)) for path in tree.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("uri", ["zip+s3://models/b.zip", "s3://models/b.zip"])
def test_gives_the_files_of_an_archive(uri: str, s3: Any) -> None:
    put(s3, **{"b.zip": BUNDLE})
    tree = fetched(uri, sha256=sha256(BUNDLE))
    assert names(tree) == {"model.py", "big.bin"}
    assert tree.provenance.sha256 == sha256(BUNDLE)


def test_gives_a_large_archive_in_parts(s3: Any) -> None:
    content = zipped({"model.py": b"x", "big.bin": bytes(60 * 2**20)})
    put(s3, **{"large.zip": content})
    assert fetched("zip+s3://models/large.zip").provenance.sha256 == sha256(content)


def test_gives_a_file_as_a_module(s3: Any) -> None:
    put(s3, **{"code/model.py": b"x = 1"})
    tree = fetched("s3://models/code/model.py")
    assert (tree.module, names(tree)) == ("model", {"model.py"})


@pytest.mark.parametrize("end", ["", "/"])
def test_gives_what_is_below_a_prefix(end: str, s3: Any) -> None:
    put(
        s3,
        **{"iris/": b"", "iris/model.py": b"x", "iris/lib/a.py": b"a", "iris-2/model.py": b"y"},
    )
    tree = fetched(f"s3://models/iris{end}")
    assert names(tree) == {"model.py", "lib/a.py"}
    assert tree.provenance.tree_sha256
    assert names(fetched(f"s3://models/iris{end}", subdirectory="lib")) == {"a.py"}


def test_gives_a_prefix_again_only_when_an_object_changed(s3: Any) -> None:
    put(s3, **{"iris/model.py": b"x = 1", "iris/a.py": b"a"})
    first = fetched("s3://models/iris/").root
    assert fetched("s3://models/iris/").root == first
    put(s3, **{"iris/model.py": b"x = 2"})
    again = fetched("s3://models/iris/").root
    assert (again / "model.py").read_text() == "x = 2"
    assert (first / "model.py").read_text() == "x = 1"


@pytest.mark.parametrize("key", ["iris/../../evil.py", "iris/C:/evil.py", "iris/a\\b.py"])
def test_rejects_keys_that_lead_outside(key: str, s3: Any) -> None:
    put(s3, **{"iris/model.py": b"x", key: b"y"})
    with pytest.raises(SourceError, match=r"outside|drive letter|backslash"):
        fetched("s3://models/iris/")


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("zip+s3://models/none.zip", r"not found \(404\)"),
        ("zip+s3://no-such-bucket/b.zip", r"not found \(404\)"),
        ("s3://models/none/", r"not found \(404\): no object below the prefix"),
        ("s3:///b.zip", "expected s3://bucket/key"),
        ("s3://models/../x/b.zip", "expected s3://bucket/key"),
    ],
)
def test_names_the_cause_of_a_failure(uri: str, cause: str, s3: Any) -> None:
    with pytest.raises(SourceError, match=cause):
        fetched(uri)


def test_rejects_a_digest_that_differs(s3: Any) -> None:
    put(s3, **{"b.zip": BUNDLE})
    with pytest.raises(SourceError, match=r"expected sha256 0+, got"):
        fetched("zip+s3://models/b.zip", sha256="0" * 64)


def test_says_that_credentials_are_missing(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SourceError, match="no credentials: set AWS_ACCESS_KEY_ID"):
        fetched("zip+s3://models/b.zip")


def test_says_that_the_endpoint_is_not_there(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="cannot connect to the S3 endpoint"):
        fetched("zip+s3://models/b.zip")


TRUST = ["MLSERVER_PYFUNC_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"]


@pytest.mark.parametrize("variable", TRUST)
@pytest.mark.parametrize(
    "uri", ["zip+s3://models/b.zip", "s3://models/code/model.py", "s3://models/code/"]
)
def test_trusts_the_authority_that_it_is_given(
    uri: str,
    variable: str,
    s3: Any,
    secure_endpoint: str,
    pem: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One server's objects are the other's: moto keeps them in the process.
    put(s3, **{"b.zip": BUNDLE, "code/model.py": b"x = 1"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure_endpoint)
    monkeypatch.setenv(variable, str(pem))
    assert "model.py" in names(fetched(uri))


def test_the_bundle_comes_before_other_authorities(
    s3: Any, secure_endpoint: str, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, **{"b.zip": BUNDLE})
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure_endpoint)
    monkeypatch.setenv("AWS_CA_BUNDLE", certifi.where())
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    monkeypatch.setenv("MLSERVER_PYFUNC_CA_BUNDLE", str(pem))
    assert "model.py" in names(fetched("s3://models/b.zip"))


@pytest.mark.parametrize("uri", ["zip+s3://models/b.zip", "s3://models/code/"])
def test_trusts_no_other_authority_and_says_how_to(
    uri: str, s3: Any, secure_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure_endpoint)
    with pytest.raises(SourceError) as caught:
        fetched(uri)
    assert "certificate verify failed" in str(caught.value)
    assert "give the PEM file of its authorities in MLSERVER_PYFUNC_CA_BUNDLE" in str(caught.value)


def test_a_bundle_that_is_not_there_is_named(
    s3: Any, secure_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure_endpoint)
    monkeypatch.setenv("MLSERVER_PYFUNC_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(SourceError, match=r"MLSERVER_PYFUNC_CA_BUNDLE.*/no/such/bundle\.pem"):
        fetched("s3://models/b.zip")


def test_stops_at_the_size_limit(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_MAX_SOURCE_SIZE", "100K")
    put(s3, **{"b.zip": BUNDLE, "iris/a": bytes(90_000), "iris/b": bytes(90_000)})
    with pytest.raises(SourceError, match=f"expected at most 102400 bytes, got {len(BUNDLE)}"):
        fetched("zip+s3://models/b.zip")
    with pytest.raises(SourceError, match="expected at most 102400 bytes in all, got more"):
        fetched("s3://models/iris/")


def test_no_trace_of_the_secret_key(
    s3: Any, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, **{"b.zip": BUNDLE})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    beside = tmp_path / "function"
    beside.mkdir()
    check_no_trace("zip+s3://models/b.zip", beside, cache_folder)
    check_no_trace("zip+s3://models/none.zip", beside, cache_folder, fails=True)


@pytest.mark.parametrize("uri", ["zip+s3://models/b/b.zip", "s3://models/b"])
@pytest.mark.parametrize("cuts", [1, float("inf")], ids=["once", "always"])
def test_a_download_that_breaks_off_is_whole_or_an_error(
    cuts: float,
    uri: str,
    s3: Any,
    endpoint: str,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise = random.Random(1).randbytes(400_000)
    content = zipped({"model.py": b"x = 1", "noise.bin": noise})
    files = {"b/b.zip": content} if uri.startswith("zip") else {"b/noise.bin": noise}
    put(s3, **files, **{"b/model.py": b"x = 1"})
    port = int(endpoint.rpartition(":")[2])
    with CutServer(port, cuts) as cut:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{cut.port}")
        if cuts == 1:
            assert (fetched(uri).root / "noise.bin").read_bytes() == noise
            assert cut.cuts == 0
        else:
            with pytest.raises(SourceError, match="S3 failed: "):
                fetched(uri)
            assert not [*cache_folder.glob("trees/*"), *cache_folder.glob("tmp/*")]
