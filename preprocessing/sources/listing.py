"""List the input files that `source.path` selects, without opening any of them.

A path is a folder, one file, a pattern, or a `.txt` file with one path per line; each of them local or in S3.
"""

import errno
import io
import os
import string
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from cluster.cli.paths import expand_home
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage import os_errors
from cluster.storage.errors import MissingFileError
from cluster.text import decode_text
from preprocessing.sources.patterns import is_pattern, select, split_base

_MARK = "\ufeff"
"""A byte-order mark: one inside a list comes from a list that was appended."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One input file."""

    name: str
    """Path relative to the base, with `/`."""
    size: int
    """Length in bytes."""
    version: str
    """Changes when the content does: length and modification time, or length and ETag."""


@dataclass(frozen=True)
class InputListing:
    """The input files of a source."""

    base: str
    """Folder or s3:// prefix that the names are relative to."""
    entries: Callable[[], Iterator[Entry]]
    """List the files, sorted folder by folder."""
    explicit: bool
    """Whether the user selected the files (by name or by pattern) and not just a folder that holds them."""


def find_inputs(path: str) -> InputListing:
    """Return the input files that `path` selects.

    Raises:
        UserError: the path does not exist; or, while listing, a list is not text or names a missing file.
    """
    if storage.is_remote(path):
        return _find_in_s3(path)
    local = Path(path)
    if local.is_dir():
        return InputListing(path, lambda: list_folder(path), explicit=False)
    if local.is_file():
        if local.suffix == ".txt":
            return _read_list(path)
        return InputListing(str(local.parent), lambda: iter([_local_file(str(local), local.name)]), explicit=True)
    if is_pattern(path):
        return _match_pattern(path)
    if local.exists():
        raise UserError(f"{path}: not a regular file; an input is a file, no folder, pipe or device")
    raise UserError(f"{path}: no such file or folder; check --source.path")


def _find_in_s3(url: str) -> InputListing:
    entry = _s3_file(url)
    if entry is None and is_pattern(url) and not _holds_objects(url):
        return _match_pattern(url)
    if url.endswith(".txt"):
        return _read_list(url)
    if entry is None:
        return InputListing(url, lambda: _list_s3(url), explicit=False)
    return InputListing(url.rpartition("/")[0], lambda: iter([entry]), explicit=True)


def resolve(base: str, name: str) -> str:
    """Return the URL of the input `name`: below `base` (`.` is that itself), unless it is an absolute path or a URL."""
    if "://" in name or name.startswith("/"):
        return name
    return base if name == "." else storage.join(base, name)


def list_folder(folder: str, *, deep: bool = True) -> Iterator[Entry]:
    """List all files below a local folder (or only directly in it) that are not hidden, sorted within each folder.

    Symbolic links are followed, except those to a folder that contains them.
    """
    return _walk(folder, "", (os.path.realpath(folder),), deep)


def _walk(folder: str, prefix: str, parents: tuple[str, ...], deep: bool) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            entries = sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; every folder below source.path must be readable") from None
    for entry in entries:
        try:
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{parents[-1]}/{entry.name}"
                if deep and real not in parents:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*parents, real), deep)
            elif entry.is_file():
                stat = entry.stat()
                yield Entry(prefix + entry.name, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")
        except FileNotFoundError:
            continue  # deleted since the folder was scanned
        except OSError as error:
            if error.errno != errno.ELOOP:  # a symbolic link to itself is no file, as one to nothing
                os_errors.explain(entry.path, error)


def _list_s3(url: str) -> Iterator[Entry]:
    for name, size, etag in storage.objects(url).list_objects(url):
        if not any(part.startswith(".") for part in name.split("/")):
            yield Entry(name, size, f"{size}-{etag}")


def _local_file(path: str, name: str) -> Entry:
    try:
        stat = Path(path).stat()
    except FileNotFoundError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except OSError as error:
        os_errors.explain(path, error)
    if not S_ISREG(stat.st_mode):
        raise UserError(f"{path}: not a regular file; an input is a file, no folder, pipe or device")
    return Entry(name, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")


def _s3_file(url: str) -> Entry | None:
    if storage.objects(url).is_folder(url):
        return None
    try:
        size, etag = storage.objects(url).head(url)
    except MissingFileError:
        return None
    return Entry(url.rpartition("/")[2], size, f"{size}-{etag.strip(chr(34))}")


def _holds_objects(url: str) -> bool:
    return next(storage.objects(url).list_objects(url), None) is not None


def _match_pattern(pattern: str) -> InputListing:
    base, rest = split_base(pattern, _holds_objects if storage.is_remote(pattern) else os.path.isdir)
    if not storage.is_remote(base) and not Path(base).is_dir():
        raise UserError(f"{pattern}: no such folder: {base}; check --source.path")

    def entries() -> Iterator[Entry]:
        candidates = list(_list_s3(base) if storage.is_remote(base) else list_folder(base))
        selected = select((entry.name for entry in candidates), rest)
        return (entry for entry in candidates if entry.name in selected)

    return InputListing(base, entries, explicit=True)


def _listed_name(path: str, line: str) -> str:
    try:
        return _plain(expand_home(line))
    except UserError as error:
        raise UserError(f"{path} lists {error}") from None


def _read_list(path: str) -> InputListing:
    """Return the files in a list of paths or URLs, one per line, relative to the list's folder; # starts a comment."""
    base = path.rpartition("/")[0] or "."

    def entries() -> Iterator[Entry]:
        try:
            text = io.StringIO(decode_text(storage.read_bytes(path)), newline=None)
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8 text; a .txt file in source.path holds one path per line") from None
        lines = {line.strip(f"{_MARK}{string.whitespace}") for line in text}
        listed: set[str] = set()
        for name in sorted({_listed_name(path, line) for line in lines if line and not line.startswith("#")}):
            entry = _listed_file(base, name)
            if entry is None:
                raise UserError(f"{path} lists {name}, which does not exist or is not a file")
            url = resolve(base, entry.name)
            location = url if storage.is_remote(url) else os.path.abspath(url)  # noqa: PTH100 - Path.resolve() follows links
            if location not in listed:  # otherwise both would be inputs, perhaps one in each split
                listed.add(location)
                yield entry

    return InputListing(base, entries, explicit=True)


def _plain(name: str) -> str:
    """Return a path of a list without `./`: the name by which a sidecar may know it."""
    return name if "://" in name or name.startswith("/") else name.removeprefix("./").lstrip("/") or name


def _listed_file(base: str, name: str) -> Entry | None:
    """Return the file that a list names. Its accents may be composed in the list and decomposed on disk, or reverse."""
    for form in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
        url = resolve(base, form)
        if storage.is_remote(url):
            entry = _s3_file(url)
            if entry is not None:
                return Entry(form, entry.size, entry.version)
        elif os.path.isfile(url):  # noqa: PTH113 - Path.is_file() raises where a folder above it is not accessible
            return _local_file(url, form)
    return None
