"""Reading JSON that may come from anywhere: keys, types and ranges are checked before a value is used."""

import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from vdsm.config import LARGEST, MAX_LAYERS
from vdsm.foreign_file import open_regular

MAX_BYTES = 1 << 20
"""Largest accepted file."""

D = TypeVar("D")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: it is missing, too long, or no JSON object.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give a folder that `vdsm export` wrote") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: has more than {MAX_BYTES:,} bytes, which is the limit; get it again")
    try:
        content = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({str(error).splitlines()[0]:.80}); get it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object; get it again")
    return content


class Fields:
    """The fields of a JSON object, each read by its type. Errors (ValueError) name file, field and value."""

    def __init__(self, content: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self._content, self._path, self._prefix = content, path, prefix

    def text(self, name: str) -> str:
        """Return a text of at most 256 characters."""
        value = self._get(name)
        self._require(name, isinstance(value, str) and len(value) <= 256, "a short text")
        return str(value)

    def sha256(self, name: str) -> str:
        """Return a SHA-256 in hexadecimal digits."""
        value = self.text(name)
        self._require(name, re.fullmatch(r"[0-9a-f]{64}", value) is not None, "a SHA-256")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of several texts."""
        value = self._get(name)
        self._require(name, value in choices, f"one of {', '.join(choices)}")
        return str(value)

    def number(self, name: str, *, at_least: int = 0) -> int:
        """Return an integer from `at_least` to LARGEST."""
        value = self._get(name)
        self._require(name, type(value) is int and at_least <= value <= LARGEST, f"from {at_least} to {LARGEST:,}")
        return int(value)

    @typing.overload
    def positive(self, name: str) -> float: ...

    @typing.overload
    def positive(self, name: str, *, optional: Literal[True]) -> float | None: ...

    def positive(self, name: str, *, optional: bool = False) -> float | None:
        """Return a number above 0, or None if it is `optional` and null."""
        value = self._get(name)
        if optional and value is None:
            return None
        self._require(name, type(value) in (int, float) and 0 < value < 1e9, "a number above 0")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._get(name)
        self._require(name, isinstance(value, bool), "true or false")
        return bool(value)

    def section(self, name: str) -> dict[str, Any]:
        """Return a nested object."""
        value = self._get(name)
        self._require(name, isinstance(value, dict), "an object")
        return dict(value)

    def origin(self, name: str) -> dict[str, str | int]:
        """Return an object of a few short texts and integers."""
        found = self.section(name)
        plain = all(type(v) is int or (isinstance(v, str) and len(v) <= 256) for v in found.values())
        self._require(name, plain and len(found) <= 16 and all(len(key) <= 64 for key in found), "a few short values")
        return found

    def dataclass(self, name: str, kind: type[D]) -> D:
        """Return an object as a dataclass with default values; unknown fields and other types are refused."""
        found, hints = self.section(name), typing.get_type_hints(kind)
        hints = {field: hint for field, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}
        for field, value in found.items():
            if field not in hints:
                raise ValueError(f"{self._path}: {name}.{field:.80} is not a setting of this version; update vdsm")
            limit = MAX_LAYERS if "layers" in field else LARGEST
            if not _fits(value, hints[field], limit):
                raise ValueError(f"{self._path}: {name}.{field} is {_shown(value)}, which is not allowed; get it again")
        values = {field: tuple(value) if isinstance(value, list) else value for field, value in found.items()}
        try:
            return kind(**values)
        except ValueError as error:
            raise ValueError(f"{self._path}: {name}.{error}") from None

    def _get(self, name: str) -> Any:
        if name not in self._content:
            raise ValueError(f"{self._path}: has no {self._prefix}{name}; give a folder that `vdsm export` wrote")
        return self._content[name]

    def _require(self, name: str, fulfilled: bool, wanted: str) -> None:
        if not fulfilled:
            shown = _shown(self._content[name])
            raise ValueError(f"{self._path}: {self._prefix}{name} is {shown}; it must be {wanted}")


def _fits(value: object, hint: Any, limit: int) -> bool:
    """Return whether a value parsed from JSON is of the type of a setting, and not too large."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one, limit) for one in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return (
            isinstance(value, list) and len(value) <= MAX_LAYERS and all(_fits(v, arguments[0], limit) for v in value)
        )
    if hint is int:
        return type(value) is int and abs(value) <= limit
    if hint is float:
        return type(value) in (int, float) and abs(typing.cast(float, value)) <= sys.float_info.max  # not NaN
    if hint is str:
        return isinstance(value, str) and len(value) <= 256
    return value is None and hint is type(None)


def _shown(value: object) -> str:
    return json.dumps(value)[:60] if isinstance(value, str | int | float | bool | None) else "a list or an object"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
