"""Downloads from S3, and from servers with the same protocol, by s3fs."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import ClientError
from botocore import exceptions
from fsspec.callbacks import Callback
from s3fs import S3FileSystem

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .progress import Progress
from .safe_tree import Layout, inside, is_skipped
from .uri import for_http, redacted

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT_URL")
_PARALLEL = 8


def download(url: str, path: Path) -> None:
    """Downloads one object; s3fs tries again after failures."""
    files, key = _opened(url)
    with _reading(), Progress(f"fetching {redacted(url)}") as progress:
        before = files.info(key)
        if before["type"] != "file":
            raise SourceError("expected an object, got a prefix: end it with /")
        progress.expect(before["size"])
        files.get_file(key, str(path), callback=_shown(progress))
        after = files.info(key, refresh=True)
    if (before.get("ETag"), before["size"]) != (after.get("ETag"), path.stat().st_size):
        raise SourceError("the object changed while it was fetched")


def listed(url: str, subdirectory: str) -> tuple[str, Callable[[Path], None]]:
    """Lists the objects below a prefix; returns a digest of the list, and what downloads them."""
    files, prefix = _opened(url.rstrip("/"))
    layout, digest = Layout(), hashlib.sha256()
    objects: dict[str, dict[str, Any]] = {}
    with _reading():
        found = files.find(prefix, detail=True)
    for key, info in sorted(found.items()):
        below = inside(key, prefix)
        # Some tools create an empty object with a name that ends in a slash for each folder.
        if not below or key.endswith("/"):
            continue
        layout.add(below, size=info["size"])
        name = inside(below, subdirectory)
        if name and not is_skipped(name):
            objects[name] = info
            digest.update(f"{name}\0{info['size']}\0{info.get('ETag')}\0".encode())
    if not objects:
        where = f' in subdirectory "{subdirectory}"' if subdirectory else ""
        raise SourceError(f"not found (404): no object below the prefix{where}")
    return digest.hexdigest(), partial(_download_all, files, url, objects)


def _download_all(files: Any, url: str, objects: dict[str, dict[str, Any]], root: Path) -> None:
    with _reading(), Progress(f"fetching {redacted(url)}", unit="files") as progress:
        files.get(
            [info["name"] for info in objects.values()],
            [str(root / name) for name in objects],
            batch_size=_PARALLEL,
            callback=_shown(progress),
        )
    for name, info in objects.items():
        path = root / name
        if not path.is_file() or path.stat().st_size != info["size"]:
            raise SourceError(f'object "{name}" changed while it was fetched')
        path.chmod(0o444)


def _shown(progress: Progress) -> Callback:
    """Reports progress. s3fs has limits for single reads only, but it calls this for each part."""
    return Callback(hooks={"reach": lambda _, done: progress.reach(done)})


def _opened(url: str) -> tuple[Any, str]:
    plain, login = for_http(url)
    key = unquote(plain.partition("://")[2].split("?", 1)[0])
    bucket, _, name = key.partition("/")
    if not bucket or "//" in name or ".." in name.split("/"):
        raise SourceError("expected s3://bucket/key")
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    options: dict[str, Any] = {
        "connect_timeout": 15,
        "read_timeout": 30,
        "retries": {"max_attempts": 3, "mode": "standard"},
    }
    if endpoint:
        # Bucket names as host names need DNS entries, which servers such as MinIO seldom have.
        options["s3"] = {"addressing_style": "path"}
    bundle = settings.ca_file("AWS_CA_BUNDLE")
    files = S3FileSystem(
        key=login.username if login else None,
        secret=login.password if login else None,
        endpoint_url=endpoint,
        config_kwargs=options,
        client_kwargs={"verify": bundle} if bundle else None,
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    return files, key


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SourceError("not found (404): no such bucket or key") from None
    except PermissionError:
        raise SourceError("access forbidden (403): check the AWS credentials") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise SourceError(
            "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        ) from None
    except exceptions.SSLError as error:
        # The library's message holds the URL.
        found = re.search(r"certificate verify failed[\w\s:-]*", str(error))
        reason = found[0].strip() if found else type(error).__name__
        message = "; ".join(filter(None, (reason, settings.trust_hint(reason))))
        raise SourceError(f"the TLS connection failed: {message}") from None
    except exceptions.EndpointConnectionError:
        raise SourceError("cannot connect to the S3 endpoint") from None
    except (exceptions.BotoCoreError, ClientError, TimeoutError) as error:
        raise SourceError(f"S3 failed: {type(error).__name__}") from None
    except OSError as error:
        if error.errno:
            raise
        raise SourceError(f"S3 failed: {' '.join(str(error).split())[:200]}") from None
