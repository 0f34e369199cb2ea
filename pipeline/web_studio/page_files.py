"""The files of the page."""

from importlib import resources

import pipeline.report
import pipeline.web_studio.page

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""Ending -> content type."""


def page_files() -> dict[str, bytes]:
    """Return the files of the page by name."""
    found = {}
    for entry in resources.files(pipeline.web_studio.page).iterdir():
        if entry.is_file() and "." + entry.name.rpartition(".")[2] in TYPES:
            found[entry.name] = entry.read_bytes()
    found["report.css"] = resources.files(pipeline.report).joinpath("page.css").read_bytes()
    return found
