"""Messages are one line that is safe to print, whatever names and values they quote."""

import pickle

import pytest

from cluster.errors import MAX_CHARACTERS, UserError, one_line
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
