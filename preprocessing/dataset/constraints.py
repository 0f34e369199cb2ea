"""What a field of a foreign file must satisfy beyond its type; `preprocessing.dataset.format` uses it."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

MAX_PARTS = 32
"""Most parts of a path inside a dataset."""


class Constraint(Protocol):
    """What a value must satisfy beyond its type; `str` gives it in words."""

    def accepts(self, value: Any) -> bool:
        """Return whether a value of the right type satisfies it."""


@dataclass(frozen=True)
class Range:
    """A bound on a number, both ends included."""

    low: int
    high: int

    def accepts(self, value: Any) -> bool:
        """Return whether the number is within the bounds."""
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class Form:
    """A regular expression that a complete string must match, and what it stands for."""

    pattern: str
    meaning: str

    def accepts(self, value: Any) -> bool:
        """Return whether the string matches."""
        return self._matches(value) is not None

    @functools.cached_property
    def _matches(self) -> Callable[[str], re.Match[str] | None]:
        return re.compile(self.pattern).fullmatch

    def __str__(self) -> str:
        return self.meaning


@dataclass(frozen=True)
class Length:
    """The number of elements of a list."""

    elements: int

    def accepts(self, value: Any) -> bool:
        """Return whether the list has this length."""
        return len(value) == self.elements

    def __str__(self) -> str:
        return f"of length {self.elements}"


@dataclass(frozen=True)
class Addition:
    """A key that even a complete file may lack, because it was added without a new version of the format."""

    def accepts(self, value: Any) -> bool:
        """Return true: the key's presence is all that this is about."""
        return True

    def __str__(self) -> str:
        return "anything"


@dataclass(frozen=True)
class InsideDataset:
    """A path that leads to a file below the folder that it is appended to.

    It is relative, without empty parts, `.` and `..`, and without characters that some system treats as special.
    """

    def accepts(self, value: Any) -> bool:
        """Return whether the string is such a path."""
        parts = value.split("/")
        return (
            value.isprintable()
            and not set(value) & set('\\:*?"<>|')
            and all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
            and len(parts) <= MAX_PARTS
        )

    def __str__(self) -> str:
        return "a relative path inside the dataset"


@dataclass(frozen=True)
class Unicode:
    """Text that can be encoded, which JSON does not guarantee."""

    def accepts(self, value: Any) -> bool:
        """Return whether the string has no half of a surrogate pair."""
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)

    def __str__(self) -> str:
        return "valid Unicode text"


KEY = Form(r"[A-Za-z0-9_-]{1,1000}", "letters, digits, _ and - only")
SHA256 = Form(r"[0-9a-f]{64}", "64 hexadecimal digits")
Sha256 = Annotated[str, SHA256]
Count = Annotated[int, Range(0, 2**63 - 1)]
DecimalKey = Annotated[str, Form(r"0|[1-9][0-9]{0,17}", "a decimal number")]
Text = Annotated[str, Unicode()]
RelativePath = Annotated[str, InsideDataset()]
