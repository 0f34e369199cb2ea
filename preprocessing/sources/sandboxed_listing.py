"""What a foreign file holds besides frames, read in the sandbox and sent as the bytes of one clip."""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import UserError
from preprocessing.clip import Clip, Factors, Item, RejectedInputError, TransientError
from preprocessing.decoding.sandbox import DecodeProcess, SandboxFailedError

CPU_SECONDS, MEMORY_MB = 60, 700
"""What reading the listing of a file may take."""


class Listed(BaseModel):
    """Base of listings: exactly the fields that are declared."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


L = TypeVar("L", bound=Listed)


class ListingSource:
    """A source whose only clip is a listing.

    Args:
        read: returns the listing as plain values, or raises UserError.
    """

    untrusted = True
    vocabulary: dict[str, list[str]]
    factors: Factors

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._read, self.vocabulary, self.factors = read, {}, {}

    def items(self) -> list[Item]:
        """Return nothing."""
        return []

    def fingerprint(self) -> str:
        """Return nothing."""
        return ""

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the listing."""
        data = np.frombuffer(json.dumps(self._read()).encode(), dtype=np.uint8)
        yield Clip(item.key, data.reshape(-1, 1, 1, 1), {}, "", "", 0.0, 1.0)


def read_listing(opener: Callable[[str], ListingSource], path: str, kind: type[L], format_name: str) -> L:
    """Return the listing of a local file, read in a process of its own. Its content is still to be checked.

    Args:
        opener: a function at the top level of a module; the process calls it with `path`.
        path: the file.
        kind: the fields of the listing.
        format_name: of the file, for messages.

    Raises:
        UserError: raised by `opener`'s reader; or reading crashed or exceeded the limits of that process.
    """
    process = DecodeProcess(opener, path, cpu_seconds=CPU_SECONDS, memory_mb=MEMORY_MB)
    try:
        parts = [clip.frames.tobytes() for clip in process.clips(Item(key="listing", split="", estimated_bytes=0))]
        return kind.model_validate_json(b"".join(parts))
    except (RejectedInputError, SandboxFailedError, TransientError) as error:
        raise UserError(f"{path}: cannot be read as {format_name} ({error})") from None
    except ValidationError:
        raise UserError(f"{path}: cannot be read as {format_name} (its reader wrote what it should not)") from None
    finally:
        process.close()
