"""User errors, as opposed to bugs in the program."""

MAX_CHARACTERS = 2000
"""Longest message; what is in the middle of a longer one is left out."""


class UserError(Exception):
    """Invalid input that the user can fix. The message is one line that names the file, the value and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """Return a text as one line that is safe to print: with spaces for line breaks, and escapes for control characters.

    Messages quote names and values from foreign files, which can hold what a terminal obeys, and be of any length.
    """
    if not text.isprintable():
        joined = " ".join(line.strip() for line in text.splitlines())
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 3 :]}"
    return text


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none. Libraries add pages of advice to it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
