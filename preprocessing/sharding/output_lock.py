"""The lock of an output folder: its plan, which is stored there before any shard.

`plan.json` holds what the dataset depends on, and `inputs.jsonl` lists the inputs. A later run with other settings or
changed inputs is refused, with a message that names the differences. Jobs that start at the same time all find no plan;
only the one that creates the claim, a copy of its plan under another name, stores both files.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError, StorageError
from cluster.storage.scratch import scratch_folder
from preprocessing.clip import Item
from preprocessing.dataset import schema
from preprocessing.dataset.format import INPUTS, MANIFEST, PLAN, WRITABLE_VERSIONS, InputLine, StoredPlan, encode_json
from preprocessing.dataset.inputs import read_inputs
from preprocessing.sharding.plan import Plan, input_line

CLAIM = ".plan.json.claim"
"""Name of the file that exists while a plan and its list of inputs are being stored."""


def acquire_output(url: str, plan: Plan, *, store: bool = True) -> None:
    """Store the plan at `url`, or check that the plan stored there is the same.

    Args:
        url: folder or s3:// prefix of the dataset.
        plan: the plan of this run.
        store: whether to store the plan where there is none.

    Raises:
        UserError: the output holds a dataset of other settings or inputs; the message names the differences.
    """
    if _is_stored(url, plan) or not store:
        return
    with _claimed(url, plan):
        if not _is_stored(url, plan):  # by a job whose claim is gone by now
            _store(url, plan)


def stored_version(url: str) -> int | None:
    """Return the format of the dataset that was started at `url`, if there is one that this version can write."""
    try:
        version = schema.parse(storage.read_bytes(storage.join(url, PLAN)), dict).get("schema_version")
    except (MissingFileError, schema.SchemaError):
        return None
    return version if version in WRITABLE_VERSIONS else None


def _is_stored(url: str, plan: Plan) -> bool:
    """Return whether the plan is stored at `url`. Raise UserError if another plan is."""
    try:
        stored = schema.parse(storage.read_bytes(storage.join(url, PLAN)), dict)
    except MissingFileError:
        if storage.exists(storage.join(url, MANIFEST)):
            raise UserError(f"{url} holds a dataset without its {PLAN}; choose another --out") from None
        return False
    except schema.SchemaError:
        raise UserError(f"{url}/{PLAN} is not JSON; choose another --out, or delete that folder") from None
    differences = _differences(url, plan, stored)
    if differences:
        raise UserError(
            f"{url} was created with other settings or inputs: {'; '.join(differences)}; choose another --out, or "
            "restore the original settings and inputs"
        )
    return True


@contextlib.contextmanager
def _claimed(url: str, plan: Plan) -> Iterator[None]:
    """Create the claim of a plan for the duration of the block. Raise UserError if another plan's exists.

    A claim of the same plan is of a job that was killed, or that is storing the same bytes.
    """
    claim, content = storage.join(url, CLAIM), encode_json(plan.content())
    is_own = storage.create(claim, content)
    if not is_own and not _is_claim_of(claim, content):
        raise UserError(
            f"{url}: another job with other settings or inputs is creating a dataset here; choose another --out, or if "
            f"no other job is running, delete {claim}"
        )
    try:
        yield
    except BaseException:
        if is_own:
            _drop(claim)
        raise
    _drop(claim)


def _drop(claim: str) -> None:
    # A key may lack the permission. A claim that stays beside the plan has no effect.
    with contextlib.suppress(StorageError):
        storage.delete(claim)


def _is_claim_of(claim: str, content: bytes) -> bool:
    try:
        return storage.read_bytes(claim) == content
    except MissingFileError:
        return True  # gone since, so that the plan is stored, or its job has failed


def _store(url: str, plan: Plan) -> None:
    with scratch_folder() as folder:
        path = folder / INPUTS
        with path.open("wb") as file:
            file.writelines(_lines(plan))
        storage.upload(path, storage.join(url, INPUTS))
    storage.write_bytes(storage.join(url, PLAN), encode_json(plan.content()))  # last: it marks both as complete


def _differences(url: str, plan: Plan, stored: dict[str, Any]) -> list[str]:
    """Return the differences between the stored plan and that of this run; the most specific kind only."""
    current: StoredPlan = json.loads(encode_json(plan.content()))
    settings = [
        *_compare("format", stored.get("schema_version"), current["schema_version"]),
        *_compare("", stored.get("configuration"), current["configuration"]),
    ]
    if settings:
        return settings
    inputs = [*_changed_inputs(url, plan)]
    if inputs:
        return inputs
    if stored.get("source_sha256") != current["source_sha256"]:
        return ["the contents of the source's files changed"]
    if stored != current:
        return ["the list of inputs does not belong to the plan"]
    return []


def _lines(plan: Plan) -> Iterator[bytes]:
    return (encode_json(input_line(item, version=True)) for item in _items(plan))


def _items(plan: Plan) -> Iterator[Item]:
    return (item for shard in plan.shards for item in shard.items)


def _changed_inputs(url: str, plan: Plan) -> Iterator[str]:
    """Yield the differences between the stored list of inputs and that of the plan."""
    with scratch_folder() as folder:
        path = folder / INPUTS
        try:
            storage.download(storage.join(url, INPUTS), path)
        except MissingFileError:
            yield f"its {INPUTS} is missing"
            return
        with path.open("rb") as stored:
            if all(ours == theirs for ours, theirs in itertools.zip_longest(_lines(plan), stored)):
                return
            stored.seek(0)
            try:
                before = {line[0]: line for line in read_inputs(stored)}
            except schema.SchemaError as error:
                yield f"its {INPUTS} is damaged ({error})"
                return
            yield from _named(before, {item.key: input_line(item, version=True) for item in _items(plan)})


def _named(stored: dict[str, InputLine], current: dict[str, InputLine]) -> Iterator[str]:
    """Describe the inputs that were changed, removed and added, the first few by name."""
    both = stored.keys() & current.keys()
    changes = {
        "changed": [key for key in both if stored[key] != current[key]],
        "removed": stored.keys() - both,
        "added": current.keys() - both,
    }
    for change, keys in changes.items():
        if keys:
            names = sorted((current.get(key) or stored[key])[1] or key for key in keys)
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            yield f"inputs {change}: {', '.join(names[:3])}{more}"


def _compare(path: str, stored: Any, current: Any) -> list[str]:
    if isinstance(stored, dict) and isinstance(current, dict):
        names = sorted(stored.keys() | current.keys())
        return [line for name in names for line in _compare(f"{path}.{name}", stored.get(name), current.get(name))]
    return [] if stored == current else [f"{path.removeprefix('.')} was {stored}, is now {current}"]
