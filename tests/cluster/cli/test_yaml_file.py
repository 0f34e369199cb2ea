"""A YAML file from elsewhere takes little memory and time, and what is wrong with it is said in one line."""

from pathlib import Path

import pytest

from cluster.cli import yaml_file
from cluster.cli.yaml_file import parse_mapping, read_mapping
from cluster.errors import UserError


def test_anchors_and_merged_sections_are_read() -> None:
    text = b"base: &base {a: 1, b: [2]}\nother: {<<: *base, a: 3}\nlist: [*base, *base]\n"
    found = parse_mapping(text, "a.yaml")
    assert found["other"] == {"a": 3, "b": [2]}
    assert found["list"] == [{"a": 1, "b": [2]}] * 2


def test_a_byte_order_mark_and_an_empty_file_are_accepted() -> None:
    assert parse_mapping(b"\xef\xbb\xbfseed: 1\r\n", "a.yaml") == {"seed": 1}
    assert parse_mapping("seed: 1\r\n".encode("utf-16"), "a.yaml") == {"seed": 1}
    assert parse_mapping(b"# nothing\n", "a.yaml") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (one + 1, one + 1, b", ".join([b"*%c" % one] * 10)) for one in range(97, 105)
            ),
            "a.yaml is not valid YAML: it has more than 10,000 values, aliases included",
        ),
        (b"a: &a {x: 1}\nb: {<<: [" + b", ".join([b"*a"] * 5000) + b"]}\n", "it has more than 10,000 values"),
        (b"a: &a [*a]\n", "it has more than 10,000 values"),
        (b"a: " + b"[" * 21 + b"]" * 21, "a.yaml is nested too deeply; at most 20 levels are accepted"),
        (b"a: " + b"[" * 50_000, "a.yaml is nested too deeply"),
        (b"a: 2001-99-99", "a.yaml has an invalid value: month must be in 1..12"),
        (b"a: !!int ''", "a.yaml has an invalid value: "),
        (b"a: !!timestamp x", "a.yaml has an invalid value: "),
        (b"a: " + b"9" * 5000, "a.yaml has an invalid value: "),
        (b"a: \xff", "cannot read the recipe a.yaml: it is not UTF-8 text"),
        (b"a: \x1b[2J", "a.yaml is not valid YAML: unacceptable character #x001b"),
    ],
)
def test_a_hostile_file_is_one_clear_line(text: bytes, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_mapping(text, "a.yaml")
    assert message in str(raised.value)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


def test_a_file_without_end_is_read_up_to_the_limit() -> None:
    with pytest.raises(
        UserError, match=r"/dev/zero has more than 1,048,576 bytes; it must be a YAML file of a few set"
    ):
        read_mapping(Path("/dev/zero"))


def test_the_limit_is_the_largest_accepted_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_file, "MAX_BYTES", 4)
    assert parse_mapping(b"a: 1", "a.yaml") == {"a": 1}
    with pytest.raises(UserError, match="more than 4 bytes"):
        parse_mapping(b"a: 12", "a.yaml")
