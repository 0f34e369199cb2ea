"""Messages are one line that is safe to print, whatever names and values they quote."""

import pickle

import pytest

from cluster.errors import MAX_CHARACTERS, UserError, first_line, masked, one_line, without_credentials
from preprocessing.clip import RejectedInputError
from preprocessing.dataset.errors import DamagedDatasetError
from preprocessing.dataset.verify_shard import VerificationError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.mp4: bad", "a.mp4: bad"),
        ("日本 é 🙂", "日本 é 🙂"),
        ("two\n   lines\r\nand more", "two lines and more"),
        ("\x1b[2Jcleared", r"\x1b[2Jcleared"),
        ("bell\x07, null\0, delete\x7f", r"bell\x07, null\x00, delete\x7f"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_control_characters_are_escaped_and_line_breaks_are_spaces(text: str, line: str) -> None:
    assert one_line(text) == line
    assert one_line(line) == line
    assert line.isprintable()


@pytest.mark.parametrize("kind", [UserError, DamagedDatasetError, VerificationError, RejectedInputError])
def test_every_error_that_quotes_foreign_text_is_one_printable_line(kind: type[Exception]) -> None:
    error = kind("the name \x1b[2J\nis odd")
    assert str(error) == r"the name \x1b[2J is odd"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", [UserError, DamagedDatasetError, VerificationError, RejectedInputError])
def test_a_message_that_quotes_too_much_keeps_its_beginning_and_its_end(kind: type[Exception]) -> None:
    message = str(kind(f"a.yaml: {'x' * 100_000} is no key; remove it"))
    assert message.startswith("a.yaml: x")
    assert message.endswith("x is no key; remove it")
    assert len(message) <= MAX_CHARACTERS


SIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Credential=CREDENTIAL1&X-Amz-Expires=60&X-Amz-Signature=SIGNATURE1"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("s3://AKIA1:SECRET1@bucket/x: no bucket", "s3://***@bucket/x: no bucket"),
        ("http://me:SECRET1@127.0.0.1:9000/x failed", "http://***@127.0.0.1:9000/x failed"),
        ("http://me:SEC/RET1@127.0.0.1:9000/x failed", "http://***@127.0.0.1:9000/x failed"),
        ("http://me:SEC@RET1@127.0.0.1:9000/x failed", "http://***@127.0.0.1:9000/x failed"),
        ("clone https://SECRET1@host/x", "clone https://***@host/x"),
        (SIGNED, "https://b.s3.amazonaws.com/k?X-Amz-Credential=***&X-Amz-Expires=60&X-Amz-Signature=***"),
        ("'az://c/x?sv=2&sig=SECRET1' (400)", "'az://c/x?sv=2&sig=***' (400)"),
        ("gs://b/x?X-Goog-Signature=SECRET1", "gs://b/x?X-Goog-Signature=***"),
        ("http://h/b/x%3FX-Amz-Signature%3DSECRET1/manifest.json", "http://h/b/x%3FX-Amz-Signature%3D***"),
        ("AWS_SECRET_ACCESS_KEY=SECRET1 and HF_TOKEN=SECRET1", "AWS_SECRET_ACCESS_KEY=*** and HF_TOKEN=***"),
        ("host=h password=SECRET1 dbname=d", "host=h password=*** dbname=d"),
        ("Client(password='SECRET1', token=\"SECRET1\")", "Client(password='***', token=\"***\")"),
        ("sig='SECRET1&x=1'", "sig='***&x=1'"),
    ],
)
def test_credentials_in_addresses_are_left_out(text: str, line: str) -> None:
    assert without_credentials(text) == line
    assert str(UserError(text)) == line


def test_the_first_line_of_an_error_holds_no_credentials_wherever_it_is_cut() -> None:
    error = ValueError(f"{'x' * 150} http://me:{'SECRET1' * 10}@host/x failed\nsee http://me:SECRET1@host")
    assert "SECRET1" not in f"{first_line(error):.200}"
    assert first_line(error) == f"{'x' * 150} http://***@host/x failed"


def test_values_of_any_nesting_are_masked() -> None:
    value = {"a": ["s3://K:SECRET1@b/x", 1, None], "b": {"c": ("token=SECRET1",)}, "d": 0.5}
    assert masked(value) == {"a": ["s3://***@b/x", 1, None], "b": {"c": ["token=***"]}, "d": 0.5}


@pytest.mark.parametrize(
    "text",
    [
        "hf://ORG/NAME@main", "s3://bucket/a@b/c?versionId=3", "http://127.0.0.1:9000/bucket/me@home.mp4",
        "set AWS_ENDPOINT_URL to a complete URL, such as http://127.0.0.1:9000", "~/a@b/secret/token.mp4", "tokens=",
        "training.stage1.steps=4", "postgresql://host/optuna", "[::1]:80 http://[::1]:80/x", "monkey=1", "design=2",
    ],
)  # fmt: skip
def test_other_addresses_and_settings_are_shown(text: str) -> None:
    assert without_credentials(text) == text
