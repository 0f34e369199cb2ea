"""The hypothesis profile of the property tests, and text as users may give it.

The profile is fixed: no deadline, because a loaded machine is no fault; no database of former failures and no random
seed, so that every machine tries the same examples. A failure prints its example; add it with `@example`.
"""

import os
import tempfile
from pathlib import Path

# Before hypothesis reads it: its caches would go into a folder `.hypothesis` of the repository.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / f"hypothesis-{os.getuid()}"))

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

PROFILE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("vdsm", PROFILE)
settings.load_profile("vdsm")


def examples(count: int) -> settings:
    """Return the decorator of a property that is tried on `count` examples."""
    return settings(PROFILE, max_examples=count)


HOSTILE = (
    "", " ", ".", "..", "/", "a/b", "../../etc", "\\", "-", "--help", "'", '"', "a b", "a\tb", "a\nb", "\r\n", "\x00",
    "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "é", "e\u0301", "日本", "🙂", "\u202eabc", "<b>&amp;</b>", "{{ x }}",
    "%s", "$HOME", "#", "a: b", "null", "none", "None", "~", "true", "yes", "1", "1e3", ".inf", "nan", "0x10", "=", "*",
)  # fmt: skip
"""Strings that have a meaning in file names, YAML, JSON, HTML, templates or shells, or that look like others."""


def names(max_size: int = 12) -> st.SearchStrategy[str]:
    """Return any text that UTF-8 can encode, hostile strings included."""
    return st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec="utf-8"), max_size=max_size))
