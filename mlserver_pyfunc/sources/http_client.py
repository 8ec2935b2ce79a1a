"""Downloads over HTTP, through fsspec: resumed after failures, bounded, never downgraded."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from urllib.parse import urlsplit

import aiohttp
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.http import HTTPFileSystem

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .credentials import Credentials, for_http
from .progress import Progress
from .retry import TransientError, retrying
from .uri import parts_of, redacted

_CHUNK = 2**18
_CONNECT_SECONDS = 15
_READ_SECONDS = 30
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_MEANINGS = {
    401: "authentication needed or failed: put the login into .netrc or the URL",
    403: "access forbidden",
    404: "not found",
    410: "gone",
}


def download(url: str, path: Path, deadline: float) -> None:
    """Downloads a file.

    Args:
        url: May hold a login.
        path: Written to; need not exist.
        deadline: Of the monotonic clock.

    Raises:
        SourceError: The server refuses, fails for good, or sends too much.
    """
    plain, login = for_http(url)
    if not parts_of(plain).hostname:
        raise SourceError("has no host")
    with path.open("wb") as file, Progress(f"fetching {redacted(url)}") as progress:
        transfer = _Transfer(plain, login, file, progress, deadline)
        retrying(deadline)(transfer.attempt)


class _Transfer:
    """One file on its way: what has come stays when the connection breaks."""

    def __init__(
        self,
        url: str,
        login: Credentials | None,
        file: IO[bytes],
        progress: Progress,
        deadline: float,
    ) -> None:
        self._url = url
        self._file = file
        self._progress = progress
        self._deadline = deadline
        self._limit = settings.max_source_size()
        self._validator = ""
        self._headers = {"Accept-Encoding": "identity"}
        self._options: dict[str, Any] = {"ssl": _tls()}
        client: dict[str, Any] = {
            # Some servers call a .tar.gz a compressed tar: the digest is of the bytes sent.
            "auto_decompress": False,
            "trace_configs": [_redirect_rule()],
            # Reads .netrc and the proxy variables.
            "trust_env": login is None,
        }
        if login:
            text = f"{login.username}:{login.password}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(text).decode()
            self._options["proxy"] = _proxy(url)
        self._files = HTTPFileSystem(
            client_kwargs=client, encoded="%" in url, skip_instance_cache=True
        )

    def attempt(self) -> None:
        try:
            self._receive()
        except FileNotFoundError:
            raise SourceError("not found (404)") from None
        except aiohttp.ClientResponseError as error:
            raise self._refusal(error) from None
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise SourceError(f"the TLS connection failed: {_explained(_text(error))}") from None
        except (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL) as error:
            raise SourceError(f"not an address, or a redirect to none: {_name(error)}") from None
        except aiohttp.ClientPayloadError:
            raise TransientError("truncated: the connection broke before the end") from None
        except aiohttp.ClientConnectorDNSError:
            raise TransientError(f'unknown host "{urlsplit(self._url).hostname}"') from None
        except (TimeoutError, asyncio.TimeoutError, FSTimeoutError):
            self._check_time()
            raise TransientError("the connection timed out") from None
        except aiohttp.ClientConnectorError as error:
            raise TransientError(f"cannot connect: {_text(error.os_error)}") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TransientError(f"the connection broke: {_name(error)}") from None

    def _receive(self) -> None:
        headers = dict(self._headers)
        # Without a validator, the rest might be of another version.
        if self._file.tell() and self._validator:
            headers["Range"] = f"bytes={self._file.tell()}-"
            headers["If-Range"] = self._validator
        timeout = aiohttp.ClientTimeout(
            total=max(0.01, self._deadline - time.monotonic()),
            sock_connect=_CONNECT_SECONDS,
            sock_read=_READ_SECONDS,
        )
        # A size keeps fsspec from asking for it first.
        stream = self._files.open(
            self._url, block_size=0, size=1, headers=headers, timeout=timeout, **self._options
        )
        try:
            self._begin(stream.r)
            while chunk := stream.read(_CHUNK):
                self._file.write(chunk)
                self._progress.add(len(chunk))
                if self._file.tell() > self._limit:
                    raise SourceError(f"expected at most {self._limit} bytes, got more")
                self._check_time()
        finally:
            stream.close()
        self._file.flush()

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            raise SourceError(f"expected to be fetched in {settings.fetch_timeout():g} s, gave up")

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        resumed = response.headers.get("Content-Range", "").startswith(
            f"bytes {self._file.tell()}-"
        )
        if response.status != 206 or not resumed:
            if response.status == 206:
                raise TransientError("the server sent another part of the file")
            self._file.seek(0)
            self._file.truncate()
            self._progress.reach(0)
        tag = response.headers.get("ETag", "")
        strong = "" if tag.startswith("W/") else tag
        self._validator = strong or response.headers.get("Last-Modified", "")
        if response.content_length is not None:
            self._progress.total = self._file.tell() + response.content_length
            if self._progress.total > self._limit:
                raise SourceError(
                    f"expected at most {self._limit} bytes, got {self._progress.total}"
                )

    def _refusal(self, error: aiohttp.ClientResponseError) -> SourceError:
        if isinstance(error, aiohttp.TooManyRedirects):
            return SourceError("too many redirects")
        if error.status == 416:
            self._validator = ""
            return TransientError("the server refused to resume (416)")
        if error.status in _TRANSIENT_STATUSES:
            return TransientError(f"the server failed ({error.status})")
        meaning = _MEANINGS.get(error.status, "the server refused")
        return SourceError(f"{meaning} ({error.status})")


def _redirect_rule() -> aiohttp.TraceConfig:
    async def check(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        parameters: aiohttp.TraceRequestRedirectParams,
    ) -> None:
        target = parameters.response.headers.get("Location", "")
        scheme = urlsplit(target).scheme.lower()
        if scheme and scheme not in ("https", parameters.response.url.scheme):
            raise SourceError(
                f"redirects from {parameters.response.url.scheme} to {scheme}: not followed"
            )

    rule = aiohttp.TraceConfig()
    rule.on_request_redirect.append(check)
    return rule


def _tls() -> ssl.SSLContext:
    # aiohttp's own context ignores changes to SSL_CERT_FILE after its import.
    return ssl.create_default_context(cafile=settings.authorities())


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _text(error: BaseException) -> str:
    cause = getattr(error, "certificate_error", error)
    reason = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return str(reason or _name(error)).lower()


def _explained(text: str) -> str:
    return "; ".join(filter(None, (text, settings.trust_hint(text))))


def _name(error: BaseException) -> str:
    # Messages of the library may hold the URL with its query.
    return type(error).__name__
