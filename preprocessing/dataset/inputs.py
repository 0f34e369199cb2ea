"""Reading `inputs.jsonl`, the list of a dataset's inputs, and what it says about identities."""

from collections.abc import Iterable, Iterator

from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.dataset import schema
from preprocessing.dataset.format import INPUTS, InputLine, Manifest

_FIELDS = (str, str, str, str, int, str, str)
"""Types of a line's elements: key, path, split, group, estimated bytes, detail, version."""


def read_inputs(lines: Iterable[bytes]) -> Iterator[InputLine]:
    """Yield the elements of each line.

    Raises:
        SchemaError: a line is not that of an input.
    """
    for number, line in enumerate(lines, start=1):
        elements = schema.parse(line, list)
        if tuple(map(type, elements)) != _FIELDS:
            raise schema.SchemaError(f"line {number} is not that of an input")
        yield elements


def describe_identities(url: str, manifest: Manifest) -> str:
    """Return what holds for the identities of a dataset whose splits were checked.

    Without an identity label, each input is its own identity, which separates files but not the people in them.
    """
    try:
        inputs = list(read_inputs(storage.read_bytes(storage.join(url, INPUTS)).splitlines()))
    except MissingFileError:  # of an older format
        inputs = []
    unlabelled = sum(bool(path) and not group for _key, path, _split, group, *_ in inputs)
    if not unlabelled:
        return "no identity is in two splits"
    source = manifest.get("configuration", {}).get("source", {}).get("name")
    unit = {"frames": "folder", "arrays": "video"}.get(source, "file")
    which = "no input has an" if unlabelled == len(inputs) else f"{unlabelled:,} of {len(inputs):,} inputs have no"
    return (
        f"{which} identity label: each {unit} is its own identity, so that {unit}s which show the same person or come "
        "from the same recording may be in both splits"
    )
