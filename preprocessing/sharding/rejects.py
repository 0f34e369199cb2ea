"""Inputs that gave less than they should have: one record each, the same in every run, and a limit to their share."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.sharding.plan import encode

FILE = "rejects.jsonl"
CERTAIN_AFTER = 20
"""Inputs that must have been tried before a job is stopped because most of them are bad."""


@dataclasses.dataclass(frozen=True)
class Reject:
    """An input that is bad, wholly or from some place on."""

    path: str
    """The input, as the source lists it."""
    reason: str
    """Why, in words that are the same for every input with this fault."""
    where: str
    """Where in the input."""
    clips: int
    """Clips that it gave before and that are in the dataset."""
    split: str
    """The split that these are, or would have been, in."""

    def record(self) -> dict[str, Any]:
        """As a line of the file has it."""
        return dataclasses.asdict(self)


def write_rejects(url: str, records: Iterable[dict[str, Any]]) -> bytes:
    """Store `rejects.jsonl`, in the order of the plan; gives its bytes. It is there, if empty, for every dataset."""
    data = b"".join(map(encode, records))
    storage.write_bytes(storage.join(url, FILE), data)
    return data


def check_share(url: str, *, empty: int, tried: int, inputs: int, limit: float) -> None:
    """UserError if too many inputs gave no clip.

    Before all were `tried`, only if the share among those is so far above the limit that chance cannot be why: inputs
    come in a random order, so those tried are a sample of all.
    """
    if tried < min(CERTAIN_AFTER, inputs):
        return
    slack = 0.0 if tried == inputs else 4 * math.sqrt(0.25 / tried)
    # A handful of inputs tells nothing about a share.
    if inputs >= CERTAIN_AFTER and empty > (limit + slack) * tried:
        raise UserError(
            f"{empty:,} of the first {tried:,} inputs gave no clip, more than shards.max_rejected_share = {limit} "
            f"allows; {storage.join(url, FILE)} says why; mend the input, or raise the limit and choose another --out"
        )


def check_any(url: str, clips: int, inputs: int) -> None:
    """UserError if there is not one clip."""
    if not clips:
        raise UserError(f"none of the {inputs:,} inputs gave a clip; {storage.join(url, FILE)} says why")
