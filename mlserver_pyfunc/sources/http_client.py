"""Downloads over HTTP: resumed after failures, limited in size and time, never downgraded.

docs/design/cache-and-lock.md says what httpx does not do as it must be.
"""

from __future__ import annotations

import logging
import netrc
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
from anyio import fail_after
from anyio.from_thread import start_blocking_portal

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .progress import Progress, TransientError, late, logger, retrying
from .uri import for_http, parts_of, redacted

_TIMEOUT = httpx.Timeout(30, connect=15)
_MAX_REDIRECTS = 10
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_MEANINGS = {
    401: "authentication needed or failed: put the login into .netrc or the URL",
    403: "access forbidden",
    404: "not found",
    410: "gone",
}


def download(url: str, path: Path) -> None:
    """Downloads a file."""
    plain, login = for_http(url)
    if not parts_of(plain).hostname:
        raise SourceError("has no host")
    auth = httpx.BasicAuth(login.username, login.password) if login else None
    with (
        path.open("wb") as file,
        Progress(f"fetching {redacted(url)}") as progress,
        start_blocking_portal() as portal,
    ):
        transfer = _Transfer(plain, auth, file, progress)
        retrying(progress.deadline)(portal.call, transfer.attempt)


@dataclass
class _Transfer:
    """The transfer of one file, which keeps what was received when the connection breaks."""

    url: str
    login: httpx.Auth | None  # None looks each host up in .netrc
    file: IO[bytes]
    progress: Progress
    validator: str = ""  # ETag or date of the version that was received
    began: bool = False

    async def attempt(self) -> None:
        """Receives the file, or what is missing of it."""
        self.began = False
        try:
            with fail_after(self.progress.deadline - time.monotonic()), _unlogged():
                async with _client() as client:
                    await self._receive(client)
        except TimeoutError:
            raise late() from None
        except (httpx.InvalidURL, httpx.TransportError) as error:
            raise self._failure(error) from None

    async def _receive(self, client: httpx.AsyncClient) -> None:
        headers = {}
        # Without a validator, the rest might be of another version.
        if self.file.tell() and self.validator:
            headers = {"Range": f"bytes={self.file.tell()}-", "If-Range": self.validator}
        response = await self._answer(
            client, client.build_request("GET", self.url, headers=headers)
        )
        async with aclosing(response):
            self._begin(response)
            # The bytes as they were sent: some servers call a .tar.gz a compressed tar, and the
            # digest is of the .tar.gz.
            async for chunk in response.aiter_raw():
                self.file.write(chunk)
                self.progress.reach(self.file.tell())

    async def _answer(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """Sends a request and follows redirects, with the logins of .netrc for other hosts."""
        of_host = None if self.login else _netrc_login()
        auth = self.login or of_host
        for _ in range(_MAX_REDIRECTS + 1):
            response = await client.send(request, stream=True, auth=auth)
            if response.next_request is None:
                return response
            await response.aclose()
            # httpx accepts more than this: ports above 65535, for example, which wrap around.
            parts_of(response.headers["Location"])
            scheme, target = request.url.scheme, response.next_request.url.scheme
            if target not in ("https", scheme):
                raise SourceError(f"redirects from {scheme} to {target}: not followed")
            request, auth = response.next_request, of_host
        raise SourceError("too many redirects")

    def _begin(self, response: httpx.Response) -> None:
        if not response.is_success:
            raise self._refusal(response.status_code)
        at, headers = self.file.tell(), response.headers
        if response.status_code != 206:
            at = 0
        elif not headers.get("Content-Range", "").startswith(f"bytes {at}-"):
            raise TransientError("the server sent another part of the file")
        self.began = True
        self.file.seek(at)
        self.file.truncate()
        self.progress.reach(at)
        tag = headers.get("ETag", "")
        strong = "" if tag.startswith("W/") else tag
        self.validator = strong or headers.get("Last-Modified", "")
        if "Content-Length" in headers:
            self.progress.expect(at + int(headers["Content-Length"]))

    def _refusal(self, status: int) -> SourceError:
        if status == 416:
            self.validator = ""
            return TransientError("the server refused to resume (416)")
        if status in _TRANSIENT_STATUSES:
            return TransientError(f"the server failed ({status})")
        return SourceError(f"{_MEANINGS.get(status, 'the server refused')} ({status})")

    def _failure(self, error: Exception) -> SourceError:
        """Says what an error of httpx means. Its own words may hold the URL with its query."""
        chain: list[BaseException] = [error]
        while deeper := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(deeper)
        # Of several addresses that were tried, the last one.
        cause = getattr(chain[-1], "exceptions", chain)[-1]
        if any(isinstance(each, httpx.InvalidURL) for each in chain):
            return SourceError("not an address, or a redirect to none")
        if isinstance(error, httpx.ProxyError) and str(error)[:3].isdigit():
            return self._refusal(int(str(error)[:3]))
        if isinstance(error, httpx.TimeoutException):
            return TransientError("the connection timed out")
        if self.began:
            return TransientError("truncated: the connection broke before the end")
        if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return TransientError("the connection broke while TLS began")
        if isinstance(cause, ssl.SSLError):
            reason = "; ".join(filter(None, (_text(cause), settings.trust_hint(_text(cause)))))
            return SourceError(f"the TLS connection failed: {reason}")
        if isinstance(error, httpx.ConnectError) and isinstance(cause, socket.gaierror):
            return TransientError(f'unknown host "{error.request.url.host}"')
        if isinstance(error, httpx.ConnectError):
            number = getattr(cause, "errno", None)
            reason = os.strerror(number).lower() if number else _text(cause)
            return TransientError(f"cannot connect: {reason}")
        return TransientError(f"the connection broke: {type(error).__name__}")


def _client() -> httpx.AsyncClient:
    try:
        return httpx.AsyncClient(
            # httpx's own context trusts certifi's authorities, not the system's.
            verify=ssl.create_default_context(cafile=settings.ca_file()),
            headers={"Accept-Encoding": "identity"},
            timeout=_TIMEOUT,
        )
    except ValueError:
        raise SourceError(
            "expected http, https or socks5 proxies, got a proxy of another kind"
        ) from None


def _netrc_login() -> httpx.Auth | None:
    """Returns the logins of .netrc, each of which httpx gives to its host only."""
    try:
        return httpx.NetRCAuth(os.environ.get("NETRC"))
    except OSError:
        return None
    except netrc.NetrcParseError:
        # The error's own words may hold a part of a login.
        logger.warning("ignored .netrc: it cannot be parsed, or other users may read it")
        return None


@contextmanager
def _unlogged() -> Iterator[None]:
    """Drops what httpx and httpcore log in this thread: URLs with their queries, and headers."""
    thread = threading.get_ident()

    def is_of_another(record: logging.LogRecord) -> bool:
        return record.thread != thread

    with ExitStack() as stack:
        for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
            logging.getLogger(name).addFilter(is_of_another)
            stack.callback(logging.getLogger(name).removeFilter, is_of_another)
        yield


def _text(error: BaseException) -> str:
    reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None)
    return str(reason or type(error).__name__).lower()
