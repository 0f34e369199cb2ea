"""An output belongs to the plan that it was begun with, which is stored there before any shard.

`plan.json` says what the dataset depends on, `inputs.jsonl` lists the inputs, one a line, so that a later run with
other settings or changed inputs is refused and can be told what changed.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from preprocessing.sharding.plan import Plan, encode, list_item

FILE = "plan.json"
INPUTS = "inputs.jsonl"


def acquire_output(url: str, plan: Plan, *, store: bool = True) -> None:
    """Store `plan` at `url` before any shard is written, or check that what is there was begun with the same plan.

    Args:
        store: whether to store the plan where there is none.

    Raises:
        UserError: the folder holds a dataset of other settings or inputs (the difference is named).
    """
    try:
        stored = json.loads(storage.read_bytes(storage.join(url, FILE)))
    except MissingFileError:
        if storage.exists(storage.join(url, "manifest.json")):
            raise UserError(f"{url} holds a dataset without its {FILE}; choose another --out") from None
        if not store:
            return
        with tempfile.NamedTemporaryFile() as file:
            file.writelines(_lines(plan))
            file.flush()
            storage.upload(Path(file.name), storage.join(url, INPUTS))
        storage.write_bytes(storage.join(url, FILE), encode(plan.content()))
        return
    except ValueError:
        raise UserError(f"{url}/{FILE} is not JSON; choose another --out, or remove that folder") from None
    wanted = json.loads(encode(plan.content()))
    changed = [
        *_compare("format", stored.get("schema_version"), wanted["schema_version"]),
        *_compare("", stored.get("configuration"), wanted["configuration"]),
    ]
    if not changed:
        changed = [*_changed_inputs(url, plan)]
    if not changed and stored.get("source_sha256") != wanted["source_sha256"]:
        changed = ["the contents of the source's files changed"]
    if not changed and stored != wanted:
        changed = ["the list of inputs does not belong to the plan"]
    if changed:
        raise UserError(
            f"{url} was begun with other settings or inputs: {'; '.join(changed)}; choose another --out, or go back to "
            "what it was begun with"
        )


def _lines(plan: Plan) -> Iterator[bytes]:
    return (encode(list_item(item, version=True)) for shard in plan.shards for item in shard.items)


def _changed_inputs(url: str, plan: Plan) -> Iterator[str]:
    """What separates the stored list of inputs from that of the plan, in words; nothing if they are the same."""
    with tempfile.NamedTemporaryFile() as file:
        try:
            storage.download(storage.join(url, INPUTS), Path(file.name))
        except MissingFileError:
            yield f"its {INPUTS} is missing"
            return
        with Path(file.name).open("rb") as stored:
            if all(ours == theirs for ours, theirs in itertools.zip_longest(_lines(plan), stored)):
                return
            stored.seek(0)
            yield from _named(_by_key(stored), {item.key: list_item(item, version=True) for item in _items(plan)})


def _by_key(lines: BinaryIO) -> dict[str, list[Any]]:
    return {listed[0]: listed for listed in map(json.loads, lines)}


def _items(plan: Plan) -> Iterator[Any]:
    return (item for shard in plan.shards for item in shard.items)


def _named(stored: dict[str, list[Any]], wanted: dict[str, list[Any]]) -> Iterator[str]:
    """Inputs that changed, went and came, the first few by name."""
    both = stored.keys() & wanted.keys()
    changes = {
        "changed": [key for key in both if stored[key] != wanted[key]],
        "no longer there": stored.keys() - both,
        "new": wanted.keys() - both,
    }
    for what, keys in changes.items():
        if keys:
            names = sorted((wanted.get(key) or stored[key])[1] or key for key in keys)
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            yield f"inputs {what}: {', '.join(names[:3])}{more}"


def _compare(path: str, stored: Any, wanted: Any) -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        names = sorted(stored.keys() | wanted.keys())
        return [line for name in names for line in _compare(f"{path}.{name}", stored.get(name), wanted.get(name))]
    return [] if stored == wanted else [f"{path.removeprefix('.')} was {stored}, is now {wanted}"]
