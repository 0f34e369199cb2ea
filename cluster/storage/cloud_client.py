"""Clients for Google Cloud Storage and Azure Blob Storage, and their errors as one line with a remedy."""

import functools
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, NoReturn

from cluster.errors import first_line, without_credentials
from cluster.extras import install
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError, StorageError, UnreachableError

SCHEMES = {"gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
"""URL scheme -> its service."""
ENVIRONMENT = ("GOOGLE_", "AZURE_")
"""Prefixes of the variables that decide address and credentials."""
CONNECT_TIMEOUT, READ_TIMEOUT, TIMEOUT = timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=30)
ATTEMPTS = 4
Kind = Literal["missing", "changed", "refused", "invalid", "unreachable"]
_REMEDIES = {
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run on a machine whose service account may access the bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or a SAS token, or a managed identity)",
}


def split_url(url: str) -> tuple[str, str, str]:
    """Return (scheme, bucket or container, key) of `gs://bucket/key`."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise StorageError(f"{url}: the bucket is missing; give {scheme}://bucket/prefix")
    return scheme, bucket, key


def store_of(url: str) -> tuple[Any, str]:
    """Return the client for the bucket of a URL, and the key in it.

    A forked child gets a client of its own, since it must not share its parent's sockets.

    Raises:
        StorageError: obstore is not installed, or the settings of the environment are invalid.
    """
    scheme, bucket, key = split_url(url)
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(ENVIRONMENT)))
    try:
        return _store(os.getpid(), scheme, bucket, environment), key.strip("/")
    except ImportError:
        raise StorageError(f"{scheme}:// needs obstore; {install('cloud')}") from None
    except Exception as error:
        explain(url, error)


@functools.lru_cache(maxsize=8)
def _store(_pid: int, scheme: str, bucket: str, _environment: tuple[tuple[str, str], ...]) -> Any:
    return MAKERS[scheme](bucket)


def client_options() -> dict[str, Any]:
    """Return the options that every client has."""
    local = any(os.environ.get(name) for name in ("AZURE_STORAGE_USE_EMULATOR", "AZURE_ALLOW_HTTP"))
    return {
        "client_options": {
            "connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT, "timeout": TIMEOUT, "allow_http": local,
        },
        "retry_config": {"max_retries": ATTEMPTS - 1, "retry_timeout": TIMEOUT},
    }  # fmt: skip


def _google(bucket: str) -> Any:
    from obstore.store import GCSStore

    return GCSStore(bucket, **client_options())


def _azure(container: str) -> Any:
    from obstore.store import AzureStore

    return AzureStore(container, **client_options())


MAKERS: dict[str, Callable[[str], Any]] = {"gs": _google, "az": _azure}
"""URL scheme -> makes the client of a bucket."""


def kind_of(error: Exception) -> Kind:
    """Return what an error of obstore means."""
    from obstore import exceptions

    if isinstance(error, FileNotFoundError | exceptions.NotFoundError) or _lacks_bucket(str(error)):
        return "missing"
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError | exceptions.NotModifiedError):
        return "changed"
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError | PermissionError):
        return "refused"
    invalid = (
        exceptions.InvalidPathError, exceptions.UnknownConfigurationKeyError, exceptions.NotSupportedError, ValueError,
        TypeError, StorageError,
    )  # fmt: skip
    return "invalid" if isinstance(error, invalid) or _is_final(error) else "unreachable"


def _lacks_bucket(text: str) -> bool:
    """Return whether a request failed because there is no such bucket or container: what a listing reports."""
    return "404 Not Found" in text and any(code in text for code in ("NoSuchBucket", "ContainerNotFound"))


def _is_final(error: Exception) -> bool:
    """Return whether a retry is pointless: no network and no server is to blame."""
    text = str(error)
    return _lacks_credentials(text) or re.search(r"\b4(?!08|29)\d\d (Bad|[A-Z])", text) is not None


def _lacks_credentials(text: str) -> bool:
    return "169.254.169.254" in text or "metadata.google" in text or "Account must be specified" in text


def explain(url: str, error: Exception) -> NoReturn:
    """Raise the StorageError that corresponds to an error of obstore, with a remedy."""
    if isinstance(error, StorageError):
        raise error
    fault = os_errors.fault_in(error)
    if fault is not None:
        os_errors.explain(fault.filename or url, fault)
    scheme, bucket, _ = split_url(url)
    service, kind, words = SCHEMES[scheme], kind_of(error), _words(error)
    if kind == "missing":
        if _lacks_bucket(str(error)) or not _bucket_exists(scheme, bucket):
            raise StorageError(f"{url}: there is no bucket {bucket}; create it or check the name") from None
        raise MissingFileError(f"{url}: there is no such object") from None
    if kind == "changed":
        raise StorageError(f"{url}: the object was replaced meanwhile; rerun") from None
    if kind == "refused" or _lacks_credentials(str(error)):
        raise StorageError(
            f"{url}: {service} refused the credentials, or there are none; {_REMEDIES[scheme]}"
        ) from None
    if kind == "invalid":
        raise StorageError(f"{url}: {words}; check the URL and the settings in the environment") from None
    raise UnreachableError(f"{url}: {service} does not respond or fails ({words}); check the network") from None


def _words(error: Exception) -> str:
    """Return the first line of a message, without what can hold a key: the user and the query of an address."""
    return without_credentials(re.sub(r"\?\w+=[^\s\"')]+", "?***", first_line(error)))[:300].rstrip(".: ")


def _bucket_exists(scheme: str, bucket: str) -> bool:
    try:
        store_of(f"{scheme}://{bucket}")[0].list_with_delimiter("vdsm-there-is-no-such-prefix")
    except Exception as error:
        return kind_of(error) != "missing"
    return True
