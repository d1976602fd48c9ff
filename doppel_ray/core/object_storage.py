"""Object storage: read, write, list and delete objects below a path in an S3 bucket, by `pyarrow.fs`.

A path is a URL as pyarrow writes it: `s3://BUCKET/PREFIX`, and for a server other than Amazon's
`?endpoint_override=HOST:PORT&scheme=http` (or AWS_ENDPOINT_URL_S3). Credentials come from AWS's environment variables
and files, never from the URL, which run folders record. Writes are atomic.
"""

import contextlib
import os
import posixpath
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from doppel_ray.core.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow import fs

SCHEME = "s3://"
OPTIONS = ("endpoint_override", "region", "scheme")
ENDPOINTS, REGIONS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), ("AWS_REGION", "AWS_DEFAULT_REGION")
CONNECT_SECONDS, REQUEST_SECONDS = 5.0, 10.0
"""Timeouts of a connection and a request; pyarrow tries three times."""
CHECK_SECONDS = 60.0
"""Timeout of `S3Path.check`."""
CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
NO_BUCKET = "the bucket does not exist: create it, or change run.storage"
REMEDIES = {
    "NO_SUCH_BUCKET": NO_BUCKET,
    "not found": NO_BUCKET,
    "ACCESS_DENIED": f"access is denied: {CREDENTIALS}, and allow ListBucket, GetObject, PutObject and DeleteObject",
    "INVALID_ACCESS_KEY_ID": f"the server does not know the access key: {CREDENTIALS}",
    "SIGNATURE_DOES_NOT_MATCH": f"the secret key is wrong: {CREDENTIALS}",
    "ExpiredToken": "the credentials have expired: get new ones",
    "PermanentRedirect": "the bucket is in another region: add ?region=REGION to run.storage",
    "NETWORK_CONNECTION": "the server does not answer: check endpoint_override or AWS_ENDPOINT_URL_S3, and the network",
}
"""Part of a pyarrow error -> its meaning and a remedy."""


def is_s3(text: object) -> bool:
    """Return whether this is an `s3://` URL, not a folder."""
    return str(text).startswith(SCHEME)


@dataclass(frozen=True)
class Entry:
    """An object.

    Attributes:
        size: in bytes.
        written: time of the last write in seconds since 1970, by the server's clock.
    """

    size: int
    written: float


@dataclass(frozen=True)
class S3Path:
    """A bucket, or a prefix in it.

    Attributes:
        bucket: name of the bucket.
        path: the prefix, without leading or trailing slashes.
        options: options of the URL that say how to reach the server.
    """

    bucket: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> "S3Path":
        """Parse a URL.

        Raises:
            ConfigError: it names no bucket, has an unknown option, or contains credentials.
        """
        parts = urlsplit(url)
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        if not is_s3(url) or not parts.netloc:
            raise ConfigError(f"expected s3://BUCKET/PREFIX, found {url!r}")
        if "@" in parts.netloc or {name for name, _ in options} & {"access_key", "secret_key", "session_token"}:
            raise ConfigError(f"credentials do not belong in a URL, which run folders record: {CREDENTIALS}")
        for name, _ in options:
            if name not in OPTIONS:
                raise ConfigError(f"the URL has an unknown option {name}; expected {', '.join(OPTIONS)}")
        return cls(parts.netloc, parts.path.strip("/"), options)

    def __truediv__(self, name: str) -> "S3Path":
        return replace(self, path=posixpath.join(self.path, name))

    @property
    def parent(self) -> "S3Path":
        return replace(self, path=posixpath.dirname(self.path))

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    def __str__(self) -> str:
        options = f"?{urlencode(self.options, safe=':/')}" if self.options else ""
        return SCHEME + self._key("") + options

    @cached_property
    def _files(self) -> "fs.S3FileSystem":
        from pyarrow import fs

        given: dict[str, Any] = {"endpoint_override": _environment(ENDPOINTS), **dict(self.options)}
        endpoint, region = given["endpoint_override"], given.get("region") or _environment(REGIONS)
        if endpoint is None:
            given["region"] = region or fs.resolve_s3_region(self.bucket)
        elif "://" in endpoint:
            given["scheme"], _, given["endpoint_override"] = endpoint.rstrip("/").partition("://")
        return fs.S3FileSystem(
            connect_timeout=CONNECT_SECONDS, request_timeout=REQUEST_SECONDS, allow_delayed_open=True, **given
        )

    def _key(self, name: str) -> str:
        """Return pyarrow's path of a name below this one; of this path itself for an empty name."""
        return "/".join(filter(None, (self.bucket, self.path, name)))

    # Each raises OSError if the server cannot be reached or refuses: see `explain_error`.

    def entries(self) -> dict[str, Entry]:
        """Return every object below this path, by its relative name."""
        from pyarrow import fs

        top = self._key("")
        found = self._files.get_file_info(fs.FileSelector(top, recursive=True, allow_not_found=True))
        entries = {
            posixpath.relpath(info.path, top): Entry(info.size, info.mtime.timestamp())
            for info in found
            if info.type == fs.FileType.File
        }
        # A key may contain `..` and would name a file outside the run's folder.
        return {name: entry for name, entry in entries.items() if not name.startswith("../")}

    def read(self, name: str) -> bytes | None:
        """Return an object's content; None if it does not exist."""
        try:
            with self._files.open_input_stream(self._key(name)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, replacing one of the same name."""
        # One write: closing a stream after a failed later write would leave a truncated object.
        with self._files.open_output_stream(self._key(name)) as file:
            file.write(content)

    def delete(self, name: str) -> None:
        """Delete an object if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._key(name))

    def check(self, limit: float = CHECK_SECONDS) -> None:
        """Check that objects can be written, read, listed and deleted here.

        Args:
            limit: seconds that this may take.

        Raises:
            ConfigError: they cannot; gives the reason and a remedy.
        """
        failed: list[OSError] = []
        name, content = f"check-{os.getpid()}", os.urandom(16)

        def use() -> None:
            try:
                self.write(name, content)
                if self.read(name) != content or name not in self.entries():
                    raise OSError("an object that was written reads back differently")
                self.delete(name)
            except OSError as error:
                failed.append(error)

        attempt = threading.Thread(target=use, daemon=True, name="check of storage")
        attempt.start()
        attempt.join(limit)
        if attempt.is_alive():
            raise ConfigError(f"{self} cannot be used: no answer within {limit:.0f} s; check the URL and the network")
        if failed:
            raise ConfigError(f"{self} cannot be used: {explain_error(failed[0])}")


def _environment(names: tuple[str, ...]) -> str | None:
    """Return the first of these environment variables that is set."""
    return next(filter(None, map(os.environ.get, names)), None)


def explain_error(error: OSError) -> str:
    """Return the meaning of a storage error and a remedy, in one sentence."""
    known = (meaning for part, meaning in REMEDIES.items() if part in str(error))
    return next(known, str(error).partition(" (Request ID")[0])
