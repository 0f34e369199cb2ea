"""Text files that users write, on any system and with any editor."""

import codecs


def decode_text(data: bytes) -> str:
    """Return the content of a text file: UTF-8, or UTF-16 as Windows writes it; without its byte-order mark.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf_16 else "utf-8-sig")
