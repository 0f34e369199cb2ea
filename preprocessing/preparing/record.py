"""The record of an examined video, read back from the output of an earlier job: from a file that may hold anything."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preprocessing.preparing.hashes import VARIANTS

Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**12)]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Hashes = (
    Annotated[list[_Hash], Field(min_length=VARIANTS, max_length=VARIANTS)]
    | Annotated[list[_Hash], Field(max_length=0)]
)


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True)


class _Damage(_Stored):
    reason: str
    where: str


class _Scores(_Stored):
    motion: Number
    sharpness: Number
    side: Number


class _Part(_Stored):
    start_s: Number
    end_s: Number
    kept: bool
    reason: str
    where: str
    kind: str = ""
    camera: str = ""
    box: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    moves: list[Annotated[list[Number], Field(min_length=3, max_length=3)]] = []
    scores: _Scores | None = None
    still: Count | None = None


class _Still(_Stored):
    time: Number
    jpeg: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*=*$")]


class _Record(_Stored):
    seconds: Number
    damage: _Damage | None
    frames: Count = 0
    width: Count = 0
    height: Count = 0
    bits_per_pixel: Number = 0.0
    cuts: list[Number] = []
    hashes: list[_Hashes] = []
    parts: list[_Part] = []
    stills: list[_Still] = []


def parse_record(data: bytes) -> dict[str, Any] | None:
    """Return the record in a file, or None if it holds something else."""
    try:
        content = json.loads(data)
        _Record.model_validate(content)
    except (ValidationError, ValueError, RecursionError):
        return None
    found: dict[str, Any] = content
    return found
