"""From errors of boto3 and botocore to one-line storage errors with a remedy."""

import os
from typing import NoReturn

from cluster.errors import without_credentials
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError, StorageError, UnreachableError


def status_of(error: Exception) -> tuple[int, str]:
    """Return (HTTP status, S3 error code) of a botocore ClientError, and (0, "") for any other error."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def is_final(error: Exception) -> bool:
    """Return whether a retry is pointless: a 4xx other than 429, or invalid credentials or certificates."""
    from botocore import exceptions

    status, _ = status_of(error)
    final = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.SSLError, StorageError)
    return isinstance(error, final) or (400 <= status < 500 and status != 429) or _local_fault(error) is not None


def explain(url: str, error: Exception) -> NoReturn:
    """Raise the StorageError that corresponds to a botocore `error`, with a remedy."""
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions

    if isinstance(error, StorageError):
        raise error
    if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, Exception):
        error = error.__context__  # the cause, which boto3 reduces to text
    fault = _local_fault(error)
    if fault is not None:
        os_errors.explain(fault.filename or url, fault)
    bucket = url.removeprefix("s3://").partition("/")[0]
    status, code = status_of(error)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        message = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"):
        message = f"the AWS credentials have expired ({code}); renew them and rerun"
    elif code in ("RequestTimeTooSkewed", "RequestExpired"):
        message = f"the clock of this machine is wrong ({code}); set it, for example by NTP"
    elif code == "NoSuchBucket" or (status == 404 and not _bucket_exists(bucket)):
        message = f"there is no bucket {bucket}; create it or check the name and AWS_ENDPOINT_URL"
    elif status == 404:
        raise MissingFileError(f"{url}: there is no such object") from None
    elif status in (401, 403):
        reason = code if code and not code.isdigit() else "access denied"
        message = f"S3 refused the credentials or they lack the permission ({reason}); check the key and its policy"
    elif status == 412:
        message = "the object was replaced while it was read; rerun"
    elif isinstance(error, exceptions.SSLError):
        message = (
            "the server's TLS certificate is not trusted; set AWS_CA_BUNDLE to the file of your certificate authority, "
            "and check that AWS_ENDPOINT_URL names a server that supports TLS"
        )
    elif isinstance(error, _connection_errors()):
        raise UnreachableError(
            f"{url}: the S3 server does not respond; check AWS_ENDPOINT_URL and the network ({_words(error)})"
        ) from None
    elif status == 429 or status >= 500:
        raise UnreachableError(
            f"{url}: S3 is overloaded or failing ({code}, status {status}); try again later"
        ) from None
    else:
        message = f"{_words(error)}; {_remedy(error)}"
    raise StorageError(f"{url}: {message}") from None


def _words(error: Exception) -> str:
    """Return what boto3 says, without a password in a URL."""
    words = without_credentials(" ".join(str(error).split()))
    return f"{words:.300}".rstrip(".: ") or type(error).__name__


def _remedy(error: Exception) -> str:
    """Return what to do about an error that no retry and no server can solve."""
    from botocore import exceptions

    profile = os.environ.get("AWS_PROFILE", "default")
    if isinstance(error, exceptions.SSOError | exceptions.TokenRetrievalError):
        return f"run `aws sso login --profile {profile}`, or set AWS_PROFILE to another profile"
    if isinstance(error, exceptions.EndpointProviderError) or (
        isinstance(error, ValueError) and "endpoint" in str(error).lower()
    ):
        return "set AWS_ENDPOINT_URL to a complete URL, such as http://127.0.0.1:9000"
    if isinstance(error, exceptions.InvalidRegionError):
        return "set AWS_DEFAULT_REGION to a region such as us-east-1"
    if isinstance(error, exceptions.ParamValidationError):
        return "check the bucket and the key in s3://bucket/key"
    if status_of(error)[0]:
        return "check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and what the server supports"
    return f"check AWS_PROFILE (now {profile}), the other AWS_ variables, and ~/.aws/config and ~/.aws/credentials"


def _local_fault(error: Exception) -> OSError | None:
    """Return the fault of this machine behind an error, such as too many open files for another connection."""
    wrapped = getattr(error, "kwargs", {}).get("error")  # of botocore, which keeps the cause there
    return os_errors.fault_in(error) or (os_errors.fault_in(wrapped) if isinstance(wrapped, Exception) else None)


def _connection_errors() -> tuple[type[Exception], ...]:
    """Return the types of errors for connections that cannot be established, or that end within a response."""
    from botocore import exceptions, parsers

    return (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        parsers.ResponseParserError,
    )


def _bucket_exists(bucket: str) -> bool:
    from cluster.storage.s3_client import client

    try:
        client().head_bucket(Bucket=bucket)
    except Exception as error:
        return status_of(error)[0] != 404
    return True
