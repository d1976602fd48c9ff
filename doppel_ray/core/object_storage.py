"""Object storage: a place in an S3 bucket, and what can be done there. Only this module knows `pyarrow.fs`.

A place is a URL as pyarrow writes it: `s3://BUCKET/PREFIX`, and for a server other than Amazon's
`?endpoint_override=HOST:PORT&scheme=http` (or AWS_ENDPOINT_URL_S3). Credentials come from AWS's own environment
variables and files, and never from a URL, which is written down. An object is written whole or not at all.
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
CONNECT, ANSWER = 5.0, 10.0
"""Seconds after which a server that cannot be reached, or has sent nothing, is tried again; three times in all."""
LIMIT = 60.0
"""Seconds within which a place must have shown that it can be used."""
CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
NO_BUCKET = "there is no such bucket: make it, or mend run.storage"
REMEDIES = {
    "NO_SUCH_BUCKET": NO_BUCKET,
    "not found": NO_BUCKET,
    "ACCESS_DENIED": f"access is denied: {CREDENTIALS}, and allow ListBucket, GetObject, PutObject and DeleteObject",
    "INVALID_ACCESS_KEY_ID": f"the access key is not known there: {CREDENTIALS}",
    "SIGNATURE_DOES_NOT_MATCH": f"the secret key is wrong: {CREDENTIALS}",
    "ExpiredToken": "the credentials have expired: get new ones",
    "PermanentRedirect": "the bucket is in another region: add ?region=REGION to run.storage",
    "NETWORK_CONNECTION": "the server does not answer: mend endpoint_override or AWS_ENDPOINT_URL_S3, or the network",
}
"""Part of an error of pyarrow's -> what it means, and how to mend it."""


def is_s3(text: object) -> bool:
    """Whether this names a place in object storage, and not a folder."""
    return str(text).startswith(SCHEME)


@dataclass(frozen=True)
class Entry:
    """An object.

    Attributes:
        size: in bytes.
        written: seconds since 1970, by the server's clock.
    """

    size: int
    written: float


@dataclass(frozen=True)
class S3Path:
    """A bucket, or what lies below a prefix in it.

    Attributes:
        bucket: its name.
        path: the prefix, without slashes at its ends.
        options: of the URL, which say how to reach the server.
    """

    bucket: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> "S3Path":
        """From a URL.

        Raises:
            ConfigError: it names no bucket, has an option that is not known, or holds credentials.
        """
        parts = urlsplit(url)
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        if not is_s3(url) or not parts.netloc:
            raise ConfigError(f"expected s3://BUCKET/PREFIX, found {url!r}")
        if "@" in parts.netloc or {name for name, _ in options} & {"access_key", "secret_key", "session_token"}:
            raise ConfigError(f"credentials do not belong into a URL, which is written down: {CREDENTIALS}")
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
        return fs.S3FileSystem(connect_timeout=CONNECT, request_timeout=ANSWER, allow_delayed_open=True, **given)

    def _key(self, name: str) -> str:
        """A path as pyarrow writes it; of no name, that of this place."""
        return "/".join(filter(None, (self.bucket, self.path, name)))

    # Each raises OSError where the server cannot be reached, or refuses: see `explained`.

    def entries(self) -> dict[str, Entry]:
        """Every object below, by its name relative to this place."""
        from pyarrow import fs

        top = self._key("")
        found = self._files.get_file_info(fs.FileSelector(top, recursive=True, allow_not_found=True))
        entries = {
            posixpath.relpath(info.path, top): Entry(info.size, info.mtime.timestamp())
            for info in found
            if info.type == fs.FileType.File
        }
        # A key may hold `..`, and would name a file elsewhere.
        return {name: entry for name, entry in entries.items() if not name.startswith("../")}

    def read(self, name: str) -> bytes | None:
        """An object; None: there is none."""
        try:
            with self._files.open_input_stream(self._key(name)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, in place of one of this name."""
        # In one piece: where writing breaks off, a stream that is closed would leave a shorter object.
        with self._files.open_output_stream(self._key(name)) as file:
            file.write(content)

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self._key(name))

    def check(self, limit: float = LIMIT) -> None:
        """Write an object here, read it, list it and delete it.

        Args:
            limit: seconds that this may take.

        Raises:
            ConfigError: it cannot be done; says why, and how to mend it.
        """
        failed: list[OSError] = []
        name, content = f"check-{os.getpid()}", os.urandom(16)

        def tried() -> None:
            try:
                self.write(name, content)
                if self.read(name) != content or name not in self.entries():
                    raise OSError("what was written there is not what is read")
                self.delete(name)
            except OSError as error:
                failed.append(error)

        attempt = threading.Thread(target=tried, daemon=True, name="check of storage")
        attempt.start()
        attempt.join(limit)
        if attempt.is_alive():
            raise ConfigError(f"{self} cannot be used: no answer within {limit:.0f} s; mend the URL, or the network")
        if failed:
            raise ConfigError(f"{self} cannot be used: {explained(failed[0])}")


def _environment(names: tuple[str, ...]) -> str | None:
    """The first of these variables that is set."""
    return next(filter(None, map(os.environ.get, names)), None)


def explained(error: OSError) -> str:
    """What an error of a place means and how to mend it, in one sentence."""
    known = (meaning for part, meaning in REMEDIES.items() if part in str(error))
    return next(known, str(error).partition(" (Request ID")[0])
