"""Reading `inputs.jsonl`, the list of a dataset's inputs."""

from collections.abc import Iterable, Iterator

from preprocessing.dataset import schema
from preprocessing.dataset.format import InputLine

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
