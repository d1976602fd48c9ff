"""An S3 server for tests: moto's, on loopback."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

BUCKET = "bucket"


@dataclass(frozen=True)
class Server:
    """A server with one bucket.

    Attributes:
        address: host and port.
        secret: the secret key in the environment.
    """

    address: str
    secret: str

    def url(self, path: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{path}?endpoint_override={self.address}&scheme=http"

    def put(self, key: str, content: bytes) -> None:
        """Write an object under a name that pyarrow would not write."""
        client(self.address).put_object(Bucket=BUCKET, Key=key, Body=content)


def client(address: str) -> Any:
    """AWS's own client."""
    import boto3

    return boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1")


@contextmanager
def serving() -> Iterator[Server]:
    """A server, and credentials for it in the environment."""
    pytest.importorskip("boto3")
    pytest.importorskip("flask", reason="moto's server needs flask, which comes with the extra `test`")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-this-test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
        client(f"{host}:{port}").create_bucket(Bucket=BUCKET)
        yield Server(f"{host}:{port}", "a-secret-of-this-test")
    server.stop()
