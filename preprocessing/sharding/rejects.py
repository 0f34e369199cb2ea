"""Rejected inputs: one record each, the same in every run, and a limit on their share."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from cluster.errors import UserError
from cluster.storage import api as storage
from preprocessing.dataset.format import REJECTS, RejectRecord, encode_json
from preprocessing.dataset.index import ShardSummary
from preprocessing.sources.labels import DROPPED_BY_USER

MIN_TRIED = 20
"""Inputs that must have been tried before a job stops because too many of them are rejected."""


@dataclasses.dataclass(frozen=True)
class Reject:
    """An input that is unusable, or usable only up to some point."""

    path: str
    """The input, as the source lists it."""
    reason: str
    """The cause, worded the same for every input with this fault."""
    where: str
    """Where in the input."""
    clips: int
    """Clips read before that point, which are in the dataset."""
    split: str
    """The split of the input."""

    def record(self) -> RejectRecord:
        """Return the line of `rejects.jsonl`."""
        return {
            "path": self.path,
            "reason": self.reason,
            "where": self.where,
            "clips": self.clips,
            "split": self.split,
        }


def write_rejects(url: str, records: Iterable[RejectRecord]) -> bytes:
    """Store `rejects.jsonl`, in the order of the plan, and return its bytes. Every dataset has it, even if empty."""
    data = b"".join(map(encode_json, records))
    storage.write_bytes(storage.join(url, REJECTS), data)
    return data


def is_failed(record: RejectRecord) -> bool:
    """Return whether an input gave no clip although its user wants it: it is not dropped by the sidecar."""
    return not record["clips"] and not record["reason"].startswith(DROPPED_BY_USER)


def check_share(url: str, *, empty: int, tried: int, inputs: int, limit: float) -> None:
    """Check the share of inputs without clips. Inputs come in a random order, so those tried are a sample of all.

    Before all inputs are tried, the share must exceed the limit by four standard errors, so that chance cannot be the
    cause.

    Args:
        url: the dataset.
        empty: inputs that gave no clip.
        tried: inputs read so far.
        inputs: inputs in total.
        limit: the largest share allowed.

    Raises:
        UserError: the share is above the limit.
    """
    if tried < min(MIN_TRIED, inputs):
        return
    slack = 0.0 if tried == inputs else 4 * math.sqrt(0.25 / tried)
    # The share of a handful of inputs means nothing.
    if inputs >= MIN_TRIED and empty > (limit + slack) * tried:
        raise UserError(
            f"{empty:,} of the first {tried:,} inputs gave no clip, more than shards.max_rejected_share = {limit} "
            f"allows; see {storage.join(url, REJECTS)} for the reasons; fix the input, or raise the limit and choose "
            "another --out"
        )


def check_any(url: str, summaries: Iterable[ShardSummary], inputs: Mapping[str, int]) -> None:
    """Check that every split has a clip.

    Args:
        url: the dataset.
        summaries: the summaries of its shards.
        inputs: split -> number of its inputs.

    Raises:
        UserError: the dataset or a split has none.
    """
    clips = Counter[str]()
    for one in summaries:
        clips[one.index["split"]] += one.index["clips"]
    reasons = f"gave a clip; see {storage.join(url, REJECTS)} for the reasons, and fix the input"
    if not clips.total():
        raise UserError(f"none of the {sum(inputs.values()):,} inputs {reasons}")
    for split, count in inputs.items():
        if not clips[split]:
            raise UserError(
                f"none of the {count:,} inputs in the {split} split {reasons}, or remove it; then choose another --out"
            )
