"""What a test leaves behind in its process for those that come after it, in whatever order that is."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def same_environment() -> Iterator[None]:
    """Give the environment back as it was: a command sets defaults in it for the libraries that its process loads.

    `monkeypatch` does not do that: `delenv` of a variable that is not set records nothing to undo. Ray reads its
    variables once in a process, so they stay as they were at first.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name not in before and not name.startswith("RAY_")]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
