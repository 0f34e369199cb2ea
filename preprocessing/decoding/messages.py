"""Messages between the job and a decoding process: a JSON header, followed by the frames of a clip.

Nothing is unpickled, so a decoder that a hostile file has taken over cannot run code in the job through its replies.
"""

import dataclasses
import json
import math
import struct
from typing import Any, BinaryIO, Protocol

import numpy as np

from preprocessing.clip import Clip

_LENGTHS = struct.Struct("<II")
_TEXTS: dict[str, tuple[str, ...]] = {
    "clip": (), "done": (), "memory": (), "rejected": ("reason", "where"), "transient": ("text",),
    "user error": ("text",), "fault": ("type", "where", "text"),
}  # fmt: skip
"""Kind of a reply about an input -> the texts that it has."""
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


def check_reply(header: dict[str, Any]) -> None:
    """Raise KeyError or TypeError unless a reply about an input is of a known kind with all of its texts."""
    for name in _TEXTS[header["kind"]]:
        if not isinstance(header[name], str):
            raise TypeError(f"{name} is no text")


def clip_from_message(header: dict[str, Any], payload: bytearray) -> Clip:
    """Return the clip in a message of kind `clip`.

    Raises:
        ValueError, KeyError or TypeError: the message is not of `send_clip`.
    """
    frames = np.frombuffer(payload, dtype=np.uint8).reshape(header["shape"])
    clip = Clip(frames=frames, **header["fields"])
    texts, numbers = (clip.key, clip.identity, clip.source), (clip.start_s, clip.fps)
    if frames.ndim != 4 or not isinstance(clip.labels, dict) or not all(isinstance(text, str) for text in texts):
        raise TypeError("no clip")
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("no time")
    return clip
