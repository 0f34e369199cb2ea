"""Fixtures of the storage tests."""

import contextlib
import ssl
from collections.abc import Callable, Iterator

import pytest

from cluster.development.s3_server import S3Server
from tests.cluster.storage.fault_proxy import Fault, fault_proxy

Faults = dict[tuple[str, int], Fault]


@pytest.fixture
def through(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Inject faults: `through({("GET", 0): Fault(...)})` makes the first GET fail, and returns the bucket."""
    with contextlib.ExitStack() as stack:

        def use(faults: Faults | Callable[[str, str, int], Fault | None], tls: ssl.SSLContext | None = None) -> str:
            choose = faults if callable(faults) else lambda method, path, n: faults.get((method, n))
            proxy = stack.enter_context(fault_proxy(s3_server.endpoint, choose, tls))
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            return s3_bucket

        yield use
