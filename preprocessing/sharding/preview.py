"""`preview.html`: a look at a dataset in one file that needs no network, on a telephone and in the dark too.

It shows moving clips of each split, what is how frequent, how long clips are, and which inputs were bad and why. It is
made of the dataset alone, so the same dataset gives the same page.
"""

import base64
import collections
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.storage import api as storage
from preprocessing.dataset.reader import read_index

FILE = "preview.html"
CLIPS = 24
"""Clips shown of each split."""
SHARDS = 3
"""Shards of each split that they are taken from; inputs lie in shards in a random order."""
FRAMES = 32
"""Most frames shown of a clip."""
SIDE = 128
"""Most pixels of a clip's longer side."""
BARS = 24
"""Most values of a label that are listed; the others are added up."""


def write_preview(url: str, manifest: dict[str, Any], rejected: bytes) -> None:
    """Store the page of the dataset at `url`, whose shards are there, though perhaps not its manifest.

    Args:
        rejected: content of `rejects.jsonl`.
    """
    import jinja2

    template = Path(__file__).with_name("preview.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    splits = [_split(url, manifest, split, totals) for split, totals in manifest["splits"].items()]
    text = page.render(manifest=manifest, splits=splits, rejects=_reasons(rejected), shape=_shape(manifest))
    storage.write_bytes(storage.join(url, FILE), text.encode())


def _split(url: str, manifest: dict[str, Any], split: str, totals: dict[str, Any]) -> dict[str, Any]:
    shards = [shard for shard in manifest["shards"] if shard["split"] == split]
    return {
        "name": split,
        "totals": totals,
        "clips": [_shown(manifest, sample, frames) for sample, frames in _choose(url, shards)],
        "labels": [
            (name, _bars(manifest["vocabulary"][name], counts)) for name, counts in totals["label_counts"].items()
        ],
        "lengths": _bars(
            [f"{length} frames" for length in totals["clip_lengths"]], list(totals["clip_lengths"].values()), sort=False
        ),
    }


def _shape(manifest: dict[str, Any]) -> str:
    length, height, width, channels = manifest["clip_shape"]
    return f"{length or 'varying'} frames of {width}×{height} pixels, {channels} channels"


def _choose(url: str, shards: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """Clips from the first, the middle and the last shard, spread over each."""
    places = sorted({round(place) for place in np.linspace(0, len(shards) - 1, min(SHARDS, len(shards)))})
    for number, place in enumerate(places):
        shard = shards[place]
        samples = read_index(url, shard)
        wanted = CLIPS * (number + 1) // len(places) - CLIPS * number // len(places)
        with tempfile.TemporaryDirectory() as cache:
            path = Path(storage.join(url, shard["path"]))
            if storage.is_s3(url):
                path = Path(cache) / "shard.tar"
                storage.download(storage.join(url, shard["path"]), path)
            with path.open("rb") as file:
                for index in sorted({round(i) for i in np.linspace(0, len(samples) - 1, min(wanted, len(samples)))}):
                    file.seek(samples[index]["frames_offset"])
                    member = io.BytesIO(file.read(samples[index]["frames_length"]))
                    yield samples[index], np.load(member, allow_pickle=False)


def _shown(manifest: dict[str, Any], sample: dict[str, Any], frames: NDArray[np.uint8]) -> dict[str, str]:
    """A clip as the page has it: pictures as data URLs, and what is known of it."""
    from PIL import Image

    shown = frames[:FRAMES]
    if shown.shape[-1] not in (1, 3, 4):
        shown = shown[..., :1]
    pictures = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("RGB") for frame in shown]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE))
    moving, still = io.BytesIO(), io.BytesIO()
    duration = max(20, round(1000 / sample["fps"]))
    settings: dict[str, Any] = {"format": "WEBP", "quality": 75, "method": 2}
    pictures[0].save(moving, save_all=True, append_images=pictures[1:], duration=duration, loop=0, **settings)
    pictures[0].save(still, **settings)
    labels = [f"{name}: {_named(manifest, name, value)}" for name, value in sample["labels"].items()]
    return {
        "moving": _data_url(moving),
        "still": _data_url(still),
        "caption": _named(manifest, "action", sample["labels"]["action"]) if "action" in sample["labels"] else "",
        "title": "\n".join([sample["key"], f"{sample['source']}, from {sample['start_s']:.2f} s", *labels]),
        "identity": sample["identity"],
    }


def _named(manifest: dict[str, Any], name: str, value: Any) -> str:
    if name in manifest["vocabulary"]:
        return str(manifest["vocabulary"][name][value])
    if isinstance(value, list):
        return f"{min(value):.3g} to {max(value):.3g}"
    return f"{value:.3g}"


def _data_url(picture: io.BytesIO) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture.getvalue()).decode()


def _bars(names: list[str], counts: list[int], *, sort: bool = True) -> list[dict[str, Any]]:
    """Rows of a histogram with the length of each bar in percent; the rarest values are added up if they are many."""
    rows = [(str(name), count) for name, count in zip(names, counts, strict=True)]
    if len(rows) > BARS:
        if sort:
            rows.sort(key=lambda row: -row[1])
        rest = rows[BARS:]
        rows = [*rows[:BARS], (f"{len(rest):,} others", sum(count for _, count in rest))]
    most = max([count for _, count in rows], default=0) or 1
    return [{"name": name, "count": count, "percent": round(100 * count / most, 1)} for name, count in rows]


def _reasons(rejected: bytes) -> list[dict[str, Any]]:
    """The bad inputs by reason, the most frequent first, with a few examples of each."""
    found: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for line in rejected.splitlines():
        record = json.loads(line)
        found[record["reason"]].append(record)
    ordered = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return [
        {
            "reason": reason,
            "inputs": len(records),
            "clips": sum(record["clips"] for record in records),
            "examples": [f"{one['path']} ({one['where']})" if one["where"] else one["path"] for one in records[:3]],
        }
        for reason, records in ordered
    ]
