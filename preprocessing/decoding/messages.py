"""What a decoding process and the job say to each other: a JSON header, and behind it the frames of a clip.

Nothing of it is unpickled, so a decoder that a hostile file has taken over cannot reach into the job by its answers.
"""

import dataclasses
import json
import struct
from typing import Any, BinaryIO, Protocol

import numpy as np

from preprocessing.clip import Clip

_LENGTHS = struct.Struct("<II")
MAX_HEADER = 16_000_000
"""Bytes of the longest header that is believed; a clip's continuous factors of each frame are in it."""


class Reads(Protocol):
    """Gives exactly the bytes that are asked for."""

    def __call__(self, into: memoryview, /) -> None:
        """Fill `into`."""


def send(stream: BinaryIO, header: dict[str, Any], payload: memoryview | bytes = b"") -> None:
    """Write one message."""
    data = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(data), len(payload)) + data)
    stream.write(payload)
    stream.flush()


def send_clip(stream: BinaryIO, clip: Clip) -> None:
    """Write a clip as a message of the kind `clip`."""
    about = {field.name: getattr(clip, field.name) for field in dataclasses.fields(clip) if field.name != "frames"}
    frames = np.ascontiguousarray(clip.frames)
    if frames.dtype != np.uint8:
        raise TypeError(f"clip {clip.key}: frames are {frames.dtype}, not uint8")
    send(stream, {"kind": "clip", "shape": frames.shape, "about": about}, frames.reshape(-1).data)


def receive(read: Reads) -> tuple[dict[str, Any], bytearray]:
    """The header and the payload of the next message; ValueError if it is none."""
    lengths = bytearray(_LENGTHS.size)
    read(memoryview(lengths))
    header_length, payload_length = _LENGTHS.unpack(lengths)
    if header_length > MAX_HEADER:
        raise ValueError(f"a header of {header_length} bytes")
    header, payload = bytearray(header_length), bytearray(payload_length)
    read(memoryview(header))
    read(memoryview(payload))
    content = json.loads(header)
    if not isinstance(content, dict):
        raise ValueError("a header that is no mapping")
    return content, payload


def clip_of(header: dict[str, Any], payload: bytearray) -> Clip:
    """The clip of a message of the kind `clip`."""
    frames = np.frombuffer(payload, dtype=np.uint8).reshape(header["shape"])
    return Clip(frames=frames, **header["about"])
