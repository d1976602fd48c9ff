"""One local Ray for all tests here, with more logical CPUs than the machine may have cores."""

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of 4 CPUs on loopback, until the session ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=1024**3,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
        )
        yield
        ray.shutdown()
