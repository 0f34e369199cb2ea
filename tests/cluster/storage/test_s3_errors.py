"""What botocore says about a wrong address or configuration is passed on in one line, with the remedy."""

import logging
import os
from pathlib import Path

import pytest

from cluster.cli.run import set_up_logging
from cluster.storage import api as storage
from cluster.storage.errors import StorageError, UnreachableError

SSO = """[profile dev]
sso_session = my
sso_account_id = 111122223333
sso_role_name = Dev
[sso-session my]
sso_start_url = https://example.awsapps.com/start
sso_region = us-east-1
"""
OLD_SSO = """[profile dev]
sso_start_url = https://example.awsapps.com/start
sso_region = us-east-1
sso_account_id = 111122223333
sso_role_name = Dev
"""
LOGIN = "run `aws sso login --profile dev`, or set AWS_PROFILE to another profile"
ENDPOINT = "set AWS_ENDPOINT_URL to a complete URL, such as http://127.0.0.1:9000"
PROFILE = "check AWS_PROFILE (now dev), the other AWS_ variables, and ~/.aws/config and ~/.aws/credentials"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Return a patch of the environment, which holds no AWS settings but two keys, and a home without any."""

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("VDSM_S3_ATTEMPTS", "1")
    return monkeypatch


CUSTOM = "Custom endpoint"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "endpoint", "words"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "Invalid endpoint: 127.0.0.1:9000"),
        ("AWS_ENDPOINT_URL_S3", "localhost:9000", "Invalid endpoint: localhost:9000"),
        ("AWS_ENDPOINT_URL", "http://", "Invalid endpoint: http://"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:99999", f"{CUSTOM} `http://127.0.0.1:99999` was not a valid URI"),
        ("AWS_ENDPOINT_URL", "ftp://127.0.0.1:9", f"{CUSTOM} `ftp://127.0.0.1:9` was not a valid URI"),
        (
            "AWS_ENDPOINT_URL",
            "http://me:secret@127.0.0.1:99999",
            f"{CUSTOM} `http://***@127.0.0.1:99999` was not a valid URI",
        ),
    ],
)
def test_an_address_that_is_no_url(aws: pytest.MonkeyPatch, variable: str, endpoint: str, words: str) -> None:
    aws.setenv(variable, endpoint)
    for action in (storage.read_bytes, storage.list_files, storage.check_writable):
        with pytest.raises(StorageError) as raised:
            action("s3://data/x")
        assert words in str(raised.value)
        assert str(raised.value).endswith(ENDPOINT)


@pytest.mark.parametrize(
    ("config", "words", "remedy"),
    [
        (SSO, "Error loading SSO Token: Token for my does not exist", LOGIN),
        (OLD_SSO, "Error loading SSO Token: Token for https://example.awsapps.com/start does not exist", LOGIN),
        ("[profile other]\n", "The config profile (dev) could not be found", PROFILE),
        ("[profile dev\nregion\n", "Unable to parse config file: ", PROFILE),
        ("[profile dev]\ncredential_process = /bin/false\n", "Error when retrieving credentials from custom", PROFILE),
        ("[profile dev]\ncredential_process = /no/such\n", "No such file or directory: '/no/such'", PROFILE),
        ("[profile dev]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = gone\n",
         'The source_profile "gone" referenced in the profile "dev" does not exist', PROFILE),
    ],
)  # fmt: skip
def test_a_profile_that_gives_no_keys(
    aws: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    config: str,
    words: str,
    remedy: str,
) -> None:
    (tmp_path / "config").write_text(config)
    aws.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    aws.setenv("AWS_PROFILE", "dev")
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    set_up_logging()
    logging.getLogger("botocore").setLevel(logging.WARNING)
    with pytest.raises(StorageError) as raised:
        storage.read_bytes("s3://data/x")
    assert words in str(raised.value)
    assert str(raised.value).endswith(remedy)
    assert "Traceback" not in capfd.readouterr().err


def test_other_settings_that_botocore_refuses(aws: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r'Invalid bucket name "Bad Bucket".*check the bucket and the key in s3://b'):
        storage.read_bytes("s3://Bad Bucket/x")
    aws.setenv("AWS_DEFAULT_REGION", "no region")
    with pytest.raises(
        StorageError, match=r"'no region' doesn't match a supported format; set AWS_DEFAULT_REGION to a"
    ):
        storage.read_bytes("s3://data/x")


def test_a_server_that_is_not_there_is_named(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"the network \(Could not connect to the endpoint URL: .*127.0.0.1:9/"):
        storage.read_bytes("s3://data/x")
