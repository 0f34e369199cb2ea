"""Messages between the job and a decoding process: a JSON header, followed by the frames of a clip.

Nothing is unpickled, so a decoder that a hostile file has taken over cannot run code in the job through its replies.
"""

import dataclasses
import json
import struct
from typing import Any, BinaryIO, Protocol

import numpy as np

from preprocessing.clip import Clip

_LENGTHS = struct.Struct("<II")
MAX_HEADER = 16_000_000
"""Length of the longest accepted header, in bytes. It must hold the per-frame factors of a clip."""


class ReadInto(Protocol):
    """Read exactly as many bytes as a buffer holds."""

    def __call__(self, buffer: memoryview, /) -> None:
        """Fill `buffer`."""


def send(stream: BinaryIO, header: dict[str, Any], payload: memoryview | bytes = b"") -> None:
    """Write one message."""
    data = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(data), len(payload)) + data)
    stream.write(payload)
    stream.flush()


def send_clip(stream: BinaryIO, clip: Clip) -> None:
    """Write a clip as a message of kind `clip`."""
    fields = {field.name: getattr(clip, field.name) for field in dataclasses.fields(clip) if field.name != "frames"}
    frames = np.ascontiguousarray(clip.frames)
    if frames.dtype != np.uint8:
        raise TypeError(f"clip {clip.key}: frames are {frames.dtype}, not uint8")
    send(stream, {"kind": "clip", "shape": frames.shape, "fields": fields}, frames.reshape(-1).data)


def receive(read: ReadInto) -> tuple[dict[str, Any], bytearray]:
    """Return header and payload of the next message.

    Raises:
        ValueError: the bytes are not a message.
    """
    lengths = bytearray(_LENGTHS.size)
    read(memoryview(lengths))
    header_length, payload_length = _LENGTHS.unpack(lengths)
    if header_length > MAX_HEADER:
        raise ValueError(f"the header has {header_length} bytes; at most {MAX_HEADER} are accepted")
    header, payload = bytearray(header_length), bytearray(payload_length)
    read(memoryview(header))
    read(memoryview(payload))
    content = json.loads(header)
    if not isinstance(content, dict):
        raise ValueError("the header is not a JSON object")
    return content, payload


def clip_from_message(header: dict[str, Any], payload: bytearray) -> Clip:
    """Return the clip in a message of kind `clip`."""
    frames = np.frombuffer(payload, dtype=np.uint8).reshape(header["shape"])
    return Clip(frames=frames, **header["fields"])
