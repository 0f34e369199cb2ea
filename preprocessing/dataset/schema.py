"""The check of foreign JSON against the typed dicts of `preprocessing.dataset.format`, before any value is used.

A dataset may come from anywhere. What `parse` returns has the keys and types of its typed dict, paths that stay inside
the dataset, hashes that are hashes, and numbers within bounds. Without a configuration library, because a reader needs
numpy alone.
"""

import functools
import json
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cluster.storage import api as storage
from cluster.storage.errors import StorageError
from preprocessing.dataset.constraints import SHA256, Addition, Constraint, Range

MAX_BYTES = 2**28
"""Largest accepted file; the index of a shard has a few hundred bytes per clip."""
MAX_DEPTH = 32
"""Deepest accepted nesting where the content is free, such as in the settings of a source."""
MAX_TEXT = 100_000
"""Longest accepted string, in characters."""
MAX_INT = 2**63 - 1
MAX_FLOAT = sys.float_info.max

T = TypeVar("T")
Check = Callable[[Any], None]


class SchemaError(ValueError):
    """The content is not as declared; the message names the field and its value, in one line."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem, self.field = problem, ""

    def __str__(self) -> str:
        return f"{self.field.removeprefix('.')} {self.problem}".strip()


def read(url: str) -> bytes:
    """Return the content of a JSON file up to just above MAX_BYTES, which `parse` then refuses.

    Raises:
        StorageError: it is a folder, a device or a pipe, from which reading might never end.
    """
    if not storage.is_remote(url) and Path(url).exists() and not Path(url).is_file():
        raise StorageError(f"{url}: not a regular file")
    return storage.read_range(url, 0, MAX_BYTES + 1)


def parse(data: bytes, kind: type[T], *, complete: bool = False) -> T:
    """Return JSON as `kind`, a typed dict whose fields are annotated with the bounds above, or a plain type.

    Args:
        data: UTF-8 text.
        kind: the declaration.
        complete: whether keys that are `NotRequired` must be there too.

    Raises:
        SchemaError: too long, not JSON, nested too deeply, or another content than declared.
    """
    value = load(data)
    check(value, kind, complete=complete)
    return typing.cast(T, value)


def load(data: bytes) -> Any:
    """Return JSON that is still to be checked.

    Raises:
        SchemaError: too long, not UTF-8, not JSON, or nested too deeply to be parsed.
    """
    if len(data) > MAX_BYTES:
        raise SchemaError(f"has more than {MAX_BYTES:,} bytes, which is the limit")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise SchemaError("is not UTF-8 text") from None
    except RecursionError:
        raise SchemaError("is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"is not JSON ({error})") from None


def check(value: object, kind: Any, *, complete: bool = False) -> None:
    """Raise SchemaError unless a value parsed from JSON is as declared; see `parse`."""
    _check_of(kind, complete)(value)


def is_sha256(value: object) -> bool:
    """Return whether a value is a SHA-256 in hexadecimal digits, which can be part of a file name."""
    return isinstance(value, str) and SHA256.accepts(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)[:60]


def _fail(value: object, wanted: str) -> typing.NoReturn:
    raise SchemaError(f"is {_shown(value)}; it must be {wanted}")


@functools.cache
def _check_of(kind: Any, complete: bool) -> Check:
    """Return the function that checks a value against a declaration."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.NotRequired, typing.Required):
        return _check_of(arguments[0], complete)
    if origin is Annotated:
        return _constrained(_check_of(arguments[0], complete), arguments[1:])
    if origin is typing.Literal:
        return _one_of(arguments)
    if origin in (typing.Union, types.UnionType):
        return _union({_json_type(option): _check_of(option, complete) for option in arguments})
    if kind in (list, dict):
        return _elements(_free) if kind is list else _entries(_text, _free)
    if origin is list:
        return _elements(_check_of(arguments[0], complete))
    if origin is dict:
        return _entries(_check_of(arguments[0], complete), _check_of(arguments[1], complete))
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        later = {name for name, hint in hints.items() if any(isinstance(one, Addition) for one in _metadata(hint))}
        required = frozenset(hints) - later if complete else kind.__required_keys__
        return _fields({name: _check_of(hint, complete) for name, hint in hints.items()}, required)
    return {str: _text, int: _integer, float: _number, type(None): _none, Any: _free}[kind]


def _json_type(option: Any) -> Any:
    """Return the type of a value that JSON gives for an option of a union."""
    return dict if typing.is_typeddict(option) else typing.get_origin(option) or option


def _metadata(hint: Any) -> tuple[Any, ...]:
    """Return the constraints in an annotation."""
    if typing.get_origin(hint) is typing.NotRequired:
        (hint,) = typing.get_args(hint)
    return typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()


def _text(value: Any) -> None:
    if type(value) is not str:
        _fail(value, "a string")
    if len(value) > MAX_TEXT:
        raise SchemaError(f"has {len(value):,} characters; it must have at most {MAX_TEXT:,}")


def _integer(value: Any) -> None:
    if type(value) is not int or not -MAX_INT <= value <= MAX_INT:
        _fail(value, "an integer of 64 bits")


def _number(value: Any) -> None:
    if type(value) not in (int, float) or not -MAX_FLOAT <= value <= MAX_FLOAT:
        _fail(value, "a finite number")


def _none(value: Any) -> None:
    if value is not None:
        _fail(value, "null")


def _free(value: Any, depth: int = MAX_DEPTH) -> None:
    """Check content that is not declared further: its depth alone."""
    if isinstance(value, list | dict):
        if not depth:
            raise SchemaError("is nested too deeply")
        for element in value.values() if isinstance(value, dict) else value:
            _free(element, depth - 1)


def _one_of(options: tuple[Any, ...]) -> Check:
    def check_option(value: Any) -> None:
        if isinstance(value, bool) or not any(type(value) is type(option) and value == option for option in options):
            _fail(value, " or ".join(map(str, options)))

    return check_option


def _union(checks: dict[Any, Check]) -> Check:
    def check_union(value: Any) -> None:
        found = checks.get(type(value))
        if found is None:
            _fail(value, " or ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in checks)))
        found(value)

    return check_union


def _elements(check_element: Check) -> Check:
    def check_list(value: Any) -> None:
        if not isinstance(value, list):
            _fail(value, "a list")
        for number, element in enumerate(value):
            try:
                check_element(element)
            except SchemaError as error:
                error.field = f"[{number}]{error.field}"
                raise

    return check_list


def _entries(check_key: Check, check_value: Check) -> Check:
    def check_dict(value: Any) -> None:
        if not isinstance(value, dict):
            _fail(value, "an object")
        for key, element in value.items():
            try:
                check_key(key)
                check_value(element)
            except SchemaError as error:
                error.field = f".{key:.60}{error.field}"
                raise

    return check_dict


def _fields(checks: dict[str, Check], required: frozenset[str]) -> Check:
    def check_fields(value: Any) -> None:
        if not isinstance(value, dict):
            _fail(value, "an object")
        for name, check_value in checks.items():
            if name in value:
                try:
                    check_value(value[name])
                except SchemaError as error:
                    error.field = f".{name}{error.field}"
                    raise
            elif name in required:
                raise SchemaError(f"has no `{name}`")

    return check_fields


def _constrained(check_base: Check, constraints: tuple[Constraint, ...]) -> Check:
    bounds = [one for one in constraints if not isinstance(one, Addition)]
    if not bounds:
        return check_base
    (constraint,) = bounds
    if isinstance(constraint, Range) and check_base is _integer:  # most fields of a clip: one call in place of three
        low, high, wanted = constraint.low, constraint.high, str(constraint)

        def check_range(value: Any) -> None:
            if type(value) is not int:
                _integer(value)
            if not low <= value <= high:
                _fail(value, wanted)

        return check_range
    accepts = constraint.accepts

    def check_constrained(value: Any) -> None:
        check_base(value)
        if not accepts(value):
            _fail(value, str(constraint))

    return check_constrained
