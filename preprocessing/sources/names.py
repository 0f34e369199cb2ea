"""Names of inputs: keys, text that can be stored, the order of people, and spellings that look the same."""

import hashlib
import re
import unicodedata

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_]+")
_KEY_LETTERS = 40
_ESCAPED = re.compile(r"\\ud[89a-f][0-9a-f]{2}")


def make_key(name: str) -> str:
    """Return a key that is unique to a path: the end of the path in plain letters, and a hash."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{_NOT_IN_KEYS.sub('-', name)[-_KEY_LETTERS:].strip('-')}-{digest}"


def as_text(name: str) -> str:
    r"""Return a name as text that UTF-8 can encode; different names give different texts.

    Bytes of a path that are not UTF-8 become `\udcff` and so on. In a name with such bytes, and in one that looks as if
    it had been escaped, `\` becomes `\\`.
    """
    try:
        name.encode()
        if not _ESCAPED.search(name):
            return name
    except UnicodeEncodeError:
        pass
    return name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()


def composed(text: str) -> str:
    """Return a text with its accents in composed form (NFC): systems and editors differ, and a reader sees no
    difference."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts `2` before `10`, and numbers before words."""
    pieces = [piece for piece in re.split(r"(\d+)", text) if piece]
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]
