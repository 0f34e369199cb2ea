"""User errors, as opposed to bugs in the program."""

import re
from collections.abc import Mapping
from typing import Any

MAX_CHARACTERS = 2000
"""Longest message; what is in the middle of a longer one is left out."""

_USERS = (
    re.compile(r"(?<=://)[^\s/?#'\"]+@"),
    re.compile(r"(?<=://)[^\s/@:'\"]+:(?!\d*(?:[/?#\s'\"]|$))[^\s@'\"]+@"),  # a slash in the password
)
"""User and password in an address."""
_PARAMETERS = re.compile(
    r"(?<![a-z])((?:x-(?:amz|goog)-)?(?:signature|credential|security-token)|sig|(?:(?:access|auth|hf)_?)?token|secret"
    r"|password|passwd|pwd|api_?key|(?:aws|secret|google)?_?access_?(?:key|id)(?:_?id)?)(=|%3d)([\"']?)[^\s&'\")]+",
    re.IGNORECASE,
)
"""Parameters of an address that give access, and their values: those of signed ones, for example."""
_ADDRESS = re.compile(r"(?:s3|gs|az|hf|https?|ftp)://", re.IGNORECASE)


class UserError(Exception):
    """Invalid input that the user can fix. The message is one line that names the file, the value and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print: with spaces for line breaks, and escapes for control characters.

    Messages quote names and values from foreign files, which can hold what a terminal obeys, and be of any length; and
    addresses, which can hold credentials.
    """
    if not text.isprintable():
        joined = " ".join(line.strip() for line in text.splitlines())
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)
    text = without_credentials(text)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 3 :]}"
    return text


def without_credentials(text: str) -> str:
    """Return a text with `***` in the place of users, passwords and signatures of the addresses in it."""
    if "://" in text:
        for users in _USERS:
            text = users.sub("***@", text)
    return _PARAMETERS.sub(r"\1\2\3***", text) if "=" in text or "%3" in text else text


def masked(value: Any) -> Any:
    """Return a value of lists, dicts and plain values with all of its texts `without_credentials`."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, Mapping):
        return {key: masked(one) for key, one in value.items()}
    return [masked(one) for one in value] if isinstance(value, list | tuple) else value


def check_address(url: str) -> None:
    """Check that an address holds no credentials: it is stored with datasets, runs and reports, and logged.

    Raises:
        UserError: it does.
    """
    if _ADDRESS.match(url) and without_credentials(url) != url:
        raise UserError(
            f"{url}: holds credentials, which would be stored and logged; name s3://bucket/prefix alone, and give "
            "credentials in the environment"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none, without credentials.

    Libraries add pages of advice to it. What is cut from a masked text holds no part of a password.
    """
    return without_credentials((str(error).strip().splitlines() or [type(error).__name__])[0])
