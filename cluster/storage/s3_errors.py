"""What went wrong in S3, in words that say what to do about it."""

from typing import NoReturn

from cluster.storage.errors import MissingFileError, StorageError, UnreachableError


def status_of(error: Exception) -> tuple[int, str]:
    """(HTTP status, S3 error code) of a botocore ClientError, (0, "") of anything else."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def is_final(error: Exception) -> bool:
    """Whether trying again is pointless: a 4xx other than 429, or credentials or certificates that are not right."""
    from botocore import exceptions

    status, _ = status_of(error)
    hopeless = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.SSLError, StorageError)
    return isinstance(error, hopeless) or (400 <= status < 500 and status != 429)


def explain(url: str, error: Exception) -> NoReturn:
    """Raise the StorageError that says what a user can do about a botocore `error`."""
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions

    if isinstance(error, StorageError):
        raise error
    if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, Exception):
        error = error.__context__  # which it hides
    bucket = url.removeprefix("s3://").partition("/")[0]
    status, code = status_of(error)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        message = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"):
        message = f"the AWS credentials have expired ({code}); renew them and start again"
    elif code in ("RequestTimeTooSkewed", "RequestExpired"):
        message = f"the clock of this machine is wrong ({code}); set it, by NTP for instance"
    elif code == "NoSuchBucket" or (status == 404 and not _bucket_exists(bucket)):
        message = f"there is no bucket {bucket}; create it or check the name and AWS_ENDPOINT_URL"
    elif status == 404:
        raise MissingFileError(f"{url}: there is no such object") from None
    elif status in (401, 403):
        reason = code if code and not code.isdigit() else "access denied"
        message = f"S3 refused the credentials or they lack the permission ({reason}); check the key and its policy"
    elif status == 412:
        message = "the object was replaced while it was read; start again"
    elif isinstance(error, exceptions.SSLError):
        message = (
            "the server's TLS certificate is not trusted; set AWS_CA_BUNDLE to the file of your own authority, and "
            "check that AWS_ENDPOINT_URL names a server that speaks TLS"
        )
    elif isinstance(error, _broken()):
        raise UnreachableError(
            f"{url}: the S3 server does not answer; check AWS_ENDPOINT_URL and the network"
        ) from None
    elif status == 429 or status >= 500:
        raise UnreachableError(
            f"{url}: S3 is overloaded or out of order ({code}, status {status}); try again"
        ) from None
    elif isinstance(error, exceptions.ProfileNotFound):
        message = str(error)
    else:
        message = f"S3 failed ({code or type(error).__name__}{f', status {status}' if status else ''})"
    raise StorageError(f"{url}: {message}") from None


def _broken() -> tuple[type[Exception], ...]:
    """Errors of connections that cannot be made, or that end within an answer."""
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
