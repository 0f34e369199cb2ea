"""List the input files that `source.path` selects, without opening any of them.

A path is a folder, one file, a pattern, or a `.txt` file with one path per line; each of them local or in S3.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError

_WILDCARD = re.compile(r"[*?\[]")


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
    if _WILDCARD.search(path) and not (not storage.is_s3(path) and Path(path).exists()):
        return _match_pattern(path)
    if storage.is_s3(path):
        if path.endswith(".txt"):
            return _read_list(path)
        entry = _s3_file(path)
        if entry is None:
            return InputListing(path, lambda: _list_s3(path), explicit=False)
        return InputListing(path.rpartition("/")[0], lambda: iter([entry]), explicit=True)
    local = Path(path)
    if local.is_dir():
        return InputListing(path, lambda: list_folder(path), explicit=False)
    if not local.exists():
        raise UserError(f"{path}: no such file or folder; check --source.path")
    if local.suffix == ".txt":
        return _read_list(path)
    return InputListing(str(local.parent), lambda: iter([_local_file(str(local), local.name)]), explicit=True)


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


def _list_s3(url: str) -> Iterator[Entry]:
    from cluster.storage import s3

    for name, size, etag in s3.list_objects(url):
        if not any(part.startswith(".") for part in name.split("/")):
            yield Entry(name, size, f"{size}-{etag}")


def _local_file(path: str, name: str) -> Entry:
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not S_ISREG(stat.st_mode):
        raise UserError(f"{path}: not a regular file; an input is a file, no folder, pipe or device")
    return Entry(name, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")


def _s3_file(url: str) -> Entry | None:
    from cluster.storage import s3

    if not s3.split_url(url)[1] or url.endswith("/"):
        return None
    try:
        size, etag = s3.head(url)
    except MissingFileError:
        return None
    return Entry(url.rpartition("/")[2], size, f"{size}-{etag.strip(chr(34))}")


def _match_pattern(pattern: str) -> InputListing:
    """Return the files whose path matches: `*` and `?` match anything but `/`, `**/` matches any folders."""
    wildcard = _WILDCARD.search(pattern)
    assert wildcard is not None
    base, _, rest = pattern[: wildcard.start()].rpartition("/")
    base = base or ("/" if pattern.startswith("/") else ".")
    rest = pattern[len(base) + 1 :] if pattern.startswith(f"{base}/") else pattern.lstrip("/")
    expression = _to_regex(rest)
    if not storage.is_s3(base) and not Path(base).is_dir():
        raise UserError(f"{pattern}: no such folder: {base}; check --source.path")

    def entries() -> Iterator[Entry]:
        candidates = _list_s3(base) if storage.is_s3(base) else list_folder(base)
        return (entry for entry in candidates if expression.fullmatch(entry.name))

    return InputListing(base, entries, explicit=True)


def _to_regex(pattern: str) -> re.Pattern[str]:
    tokens = re.findall(r"\*\*/|\[!?[^\]]+\]|.", pattern, re.DOTALL)
    special = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = []
    for token in tokens:
        if len(token) > 2 and token[0] == "[":
            parts.append(f"[^{token[2:-1]}]" if token[1] == "!" else token)
        else:
            parts.append(special.get(token) or re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


def _read_list(path: str) -> InputListing:
    """Return the files in a list of paths or URLs, one per line, relative to the list's folder; # starts a comment."""
    base = path.rpartition("/")[0] or "."

    def entries() -> Iterator[Entry]:
        try:
            lines = storage.read_bytes(path).decode().splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8 text; a .txt file in source.path holds one path per line") from None
        for name in sorted({line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")}):
            url = resolve(base, name)
            entry = _s3_file(url) if storage.is_s3(url) else _local_file(url, name)
            if entry is None:
                raise UserError(f"{path} lists {name}, which does not exist")
            yield Entry(name, entry.size, entry.version)

    return InputListing(base, entries, explicit=True)
