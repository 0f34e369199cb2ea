"""Which files a `source.path` means, listed without opening any of them.

A path is a folder, one file, a pattern, or a `.txt` file that lists paths; each of them local or in S3.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError, UnreachableError
from preprocessing.clip import TransientError

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file."""

    name: str
    """Its path below the base, with `/`."""
    size: int
    """Length in bytes."""
    version: str
    """Changes when its content does: length and time of change, or length and ETag."""


@dataclass(frozen=True)
class InputListing:
    """The files that a path means."""

    base: str
    """Folder or s3:// prefix that names are relative to."""
    entries: Callable[[], Iterator[Entry]]
    """Lists them, sorted folder by folder."""
    chosen: bool
    """Whether the user named the files (one by one, or by a pattern), rather than a folder with whatever it holds."""


def find_inputs(path: str) -> InputListing:
    """The files that `path` means.

    Raises:
        UserError: there is nothing, or a list is not text, or names what is not there.
    """
    if _WILD.search(path) and not (not storage.is_s3(path) and Path(path).exists()):
        return _matching(path)
    if storage.is_s3(path):
        if path.endswith(".txt"):
            return _listed(path)
        entry = _s3_file(path)
        if entry is None:
            return InputListing(path, lambda: _below_s3(path), chosen=False)
        return InputListing(path.rpartition("/")[0], lambda: iter([entry]), chosen=True)
    place = Path(path)
    if place.is_dir():
        return InputListing(path, lambda: below(path), chosen=False)
    if not place.is_file():
        raise UserError(f"{path}: there is no such file or folder; check --source.path")
    if place.suffix == ".txt":
        return _listed(path)
    return InputListing(str(place.parent), lambda: iter([_local(str(place), place.name)]), chosen=True)


def address(base: str, name: str) -> str:
    """Where the file `name` lies, below `base` unless it is a whole path itself."""
    if "://" in name or name.startswith("/"):
        return name
    return storage.join(base, name)


@contextlib.contextmanager
def open_input(url: str) -> Iterator[BinaryIO]:
    """A file, opened for reading; one in S3 is copied to a nameless local file first.

    Raises:
        TransientError: it cannot be read at present.
        UserError: it is not in the bucket any more, or may not be read.
    """
    try:
        if storage.is_s3(url):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "input"
                storage.download(url, copy)
                file = copy.open("rb")  # stays readable when the folder goes, and leaves nothing behind
        else:
            file = open(url, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise TransientError(f"{url}: {error.strerror or error}") from error
    except UnreachableError as error:
        raise TransientError(str(error)) from error
    with file:
        yield file


def below(folder: str, *, deep: bool = True) -> Iterator[Entry]:
    """All files below a local folder (or just in it) that are not hidden, sorted within each folder. Links are
    followed, except those to a folder that they lie in."""
    return _walk(folder, "", (os.path.realpath(folder),), deep)


def _walk(folder: str, prefix: str, above: tuple[str, ...], deep: bool) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            entries = sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; every folder below source.path must be readable") from None
    for entry in entries:
        try:
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
                if deep and real not in above:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, real), deep)
            elif entry.is_file():
                about = entry.stat()
                yield Entry(prefix + entry.name, about.st_size, f"{about.st_size}-{about.st_mtime_ns}")
        except FileNotFoundError:
            continue  # it went away meanwhile


def _below_s3(url: str) -> Iterator[Entry]:
    from cluster.storage import s3

    for name, size, etag in s3.list_objects(url):
        if not any(part.startswith(".") for part in name.split("/")):
            yield Entry(name, size, f"{size}-{etag}")


def _local(path: str, name: str) -> Entry:
    try:
        about = Path(path).stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return Entry(name, about.st_size, f"{about.st_size}-{about.st_mtime_ns}")


def _s3_file(url: str) -> Entry | None:
    from cluster.storage import s3

    if not s3.split_url(url)[1] or url.endswith("/"):
        return None
    try:
        size, etag = s3.head(url)
    except MissingFileError:
        return None
    return Entry(url.rpartition("/")[2], size, f"{size}-{etag.strip(chr(34))}")


def _matching(pattern: str) -> InputListing:
    """Files whose path matches: `*` and `?` stand for anything but `/`, `**/` for any folders."""
    wild = _WILD.search(pattern)
    assert wild is not None
    base, _, rest = pattern[: wild.start()].rpartition("/")
    base = base or ("/" if pattern.startswith("/") else ".")
    rest = pattern[len(base) + 1 :] if pattern.startswith(f"{base}/") else pattern.lstrip("/")
    expression = _expression(rest)
    if not storage.is_s3(base) and not Path(base).is_dir():
        raise UserError(f"{pattern}: there is no folder {base}; check --source.path")

    def entries() -> Iterator[Entry]:
        every = _below_s3(base) if storage.is_s3(base) else below(base)
        return (entry for entry in every if expression.fullmatch(entry.name))

    return InputListing(base, entries, chosen=True)


def _expression(pattern: str) -> re.Pattern[str]:
    tokens = re.findall(r"\*\*/|\[!?[^\]]+\]|.", pattern, re.DOTALL)
    special = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = []
    for token in tokens:
        if len(token) > 2 and token[0] == "[":
            parts.append(f"[^{token[2:-1]}]" if token[1] == "!" else token)
        else:
            parts.append(special.get(token) or re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


def _listed(path: str) -> InputListing:
    """One path or address a line, relative to the list's folder; lines that begin with # say nothing."""
    base = path.rpartition("/")[0] or "."

    def entries() -> Iterator[Entry]:
        try:
            lines = storage.read_bytes(path).decode().splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text; a .txt file as source.path lists one path a line") from None
        for name in sorted({line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")}):
            url = address(base, name)
            entry = _s3_file(url) if storage.is_s3(url) else _local(url, name)
            if entry is None:
                raise UserError(f"{path} names {name}, which is not there")
            yield Entry(name, entry.size, entry.version)

    return InputListing(base, entries, chosen=True)
