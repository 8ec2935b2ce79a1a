"""Source URIs: what may be shown, and that nothing but our own errors is raised."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import fetch, git
from mlserver_pyfunc.sources.uri import redacted, split_fragment, split_user

SECRETS = st.text("abcdefghijklmnopqrstuvwxyz/?@:#%&=+", min_size=4, max_size=20)
SCHEMES = st.sampled_from(["https", "git+https", "zip+https", "git+ssh", "s3", "zip+s3", "http"])


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("model.py", "model.py"),
        ("https://host/b.zip", "https://host/b.zip"),
        ("https://ann:secret@host/b.zip", "https://***@host/b.zip"),
        ("git+https://token@host/x#main", "git+https://***@host/x#main"),
        ("git+ssh://git@host/x", "git+ssh://git@host/x"),
        ("git+ssh://git:secret@host/x", "git+ssh://***@host/x"),
        ("https://host/b.zip?X-Sig=secret&id=5", "https://host/b.zip?X-Sig=***&id=***"),
        ("https://host/b.zip?secret", "https://host/b.zip?***"),
        ("https://host:8443/@scope/b.zip", "https://host:8443/@scope/b.zip"),
        ("https://ann:sec/ret@host/b.zip", "https://***@host/b.zip"),
        ("https://[::1]:8443/a@b", "https://[::1]:8443/a@b"),
    ],
)
def test_shows_a_uri_without_its_secrets(uri: str, shown: str) -> None:
    assert redacted(uri) == shown


@given(scheme=SCHEMES, secret=SECRETS, end=st.sampled_from(["", "/b.zip", "/x#main"]))
def test_never_shows_a_password(scheme: str, secret: str, end: str) -> None:
    # Unquoted, "@" and "/" together may as well end the host and begin the path.
    assume(not ("@" in secret and set("/?#") & set(secret)))
    uri = f"{scheme}://ann:Q{secret}Q@host.example{end}"
    assert f"Q{secret}Q" not in redacted(uri)
    plain, user = split_user(uri)
    assert (plain, user) == (f"{scheme}://host.example{end}", f"ann:Q{secret}Q")


@pytest.mark.parametrize("prefix", ["git+", "zip+", ""])
def test_a_password_with_a_number_sign_is_not_taken_for_a_fragment(
    prefix: str, tmp_path: Path
) -> None:
    # The host of ".invalid" does not exist (RFC 2606), and the port is none.
    message = refusal(f"{prefix}https://ann:hidden#more/@host.invalid:port/b.zip#main", tmp_path)
    assert "host.invalid" in message
    assert "hidden" not in message
    assert "more" not in message
    url, fragment = split_fragment("https://ann:hid#den@host.invalid/b#main")
    assert (url, fragment) == ("https://ann:hid#den@host.invalid/b", "main")


def refusal(uri: str, folder: Path) -> str:
    """The error, if there is one."""
    try:
        fetch(SourceDefinition(source=uri, handler="model:predict"), folder)
    except SourceError as error:
        return str(error)
    return ""


URIS = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(
            ["file://", "git+file://", "ext::", "zip+", "git+", "-", "git+ssh://-", ""]
        ),
        st.text(max_size=40),
        st.sampled_from(["", ".py", ".zip", ".tar.gz", "#", "#-x", "/"]),
    ),
)


@given(uri=URIS)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_uri_raises_our_errors_only(uri: str, tmp_path: Path) -> None:
    assume(uri and "https://" not in uri and "http://" not in uri and "s3://" not in uri)
    assert refusal(uri, tmp_path).isprintable()


@given(
    scheme=st.sampled_from(["https", "ssh", "file"]),
    rest=st.text(max_size=40),
    ref=st.text(max_size=20),
)
def test_no_url_or_ref_is_taken_for_an_option(scheme: str, rest: str, ref: str) -> None:
    try:
        remote = git.parsed(f"git+{scheme}://{rest}#{ref}")
    except SourceError:
        return
    assert remote.url.startswith(f"{scheme}://")
    assert not remote.ref.startswith("-")
    assert not any(character.isspace() or character == "\0" for character in remote.ref)
