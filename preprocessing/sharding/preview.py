"""The preview of a dataset: one HTML file that needs no network, for wide and narrow screens, light and dark.

It shows animated clips of each split, the frequency of labels, the lengths of clips, and the rejected inputs with their
reasons. It depends on the dataset alone, so the same dataset gives the same page.
"""

import base64
import collections
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.storage import api as storage
from cluster.storage.scratch import scratch_folder
from preprocessing.dataset.format import PREVIEW, Manifest, RejectRecord, Sample, ShardEntry, SplitTotals
from preprocessing.dataset.index import read_index
from preprocessing.dataset.inputs import describe_identities
from preprocessing.sharding.preview_pairs import find_alike
from preprocessing.spread import evenly_spread

CLIPS = 24
"""Clips shown of each split."""
SHARDS = 3
"""Shards of each split that the clips come from; inputs are in a random order, so a few shards are a fair sample."""
FRAMES = 32
"""Maximum number of frames shown of a clip."""
SIDE = 128
"""Maximum length of a clip's longer side, in pixels."""
BARS = 24
"""Maximum number of values listed of a label; the others are added up."""


def write_preview(url: str, manifest: Manifest, rejected: bytes) -> None:
    """Store the page of a dataset.

    Args:
        url: the dataset; its shards and its list of inputs must exist, its manifest need not.
        manifest: its manifest.
        rejected: content of `rejects.jsonl`.
    """
    import jinja2

    template = Path(__file__).with_name("preview.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    splits = [_split(url, manifest, split, totals) for split, totals in manifest["splits"].items()]
    text = page.render(
        manifest=manifest,
        splits=splits,
        alike=_alike(url, manifest),
        rejects=_reasons(rejected),
        shape=_shape(manifest),
        identities=describe_identities(url, manifest),
    )
    storage.write_bytes(storage.join(url, PREVIEW), text.encode())


def has_preview(url: str) -> bool:
    """Return whether the page of a dataset is stored, to its end."""
    page = storage.join(url, PREVIEW)
    return storage.exists(page) and storage.read_range(page, max(0, storage.size(page) - 64), 64).rstrip().endswith(
        b"</html>"
    )


def _split(url: str, manifest: Manifest, split: str, totals: SplitTotals) -> dict[str, Any]:
    shards = [shard for shard in manifest["shards"] if shard["split"] == split]
    return {
        "name": split,
        "totals": totals,
        "clips": [_render_clip(manifest, sample, frames) for sample, frames in _choose_clips(url, shards)],
        "labels": [
            (name, _bars(manifest["vocabulary"][name], counts)) for name, counts in totals["label_counts"].items()
        ],
        "lengths": _bars(
            [f"{length} frames" for length in totals["clip_lengths"]], list(totals["clip_lengths"].values()), sort=False
        ),
    }


def _alike(url: str, manifest: Manifest) -> dict[str, Any] | None:
    """Return pairs of training clips that look alike, from the first shard; None if the training split is empty."""
    shard = next((one for one in manifest["shards"] if one["split"] == "train"), None)
    found = find_alike(url, shard, manifest) if shard is not None else None
    if shard is None or found is None:
        return None
    samples = read_index(url, shard)["samples"]
    shown = _read_clips(url, shard, [samples[clip] for pair in found.pairs for clip in pair])
    rendered = [_render_clip(manifest, sample, frames) for sample, frames in shown]
    pairs = list(zip(rendered[::2], rendered[1::2], strict=True))
    return {"descriptor": found.descriptor, "lines": found.lines, "pairs": pairs, "clips": shard["clips"]}


def _shape(manifest: Manifest) -> str:
    length, height, width, channels = manifest["clip_shape"]
    return f"{length or 'varying'} frames of {width}×{height} pixels, {channels} channels"


def _choose_clips(url: str, shards: list[ShardEntry]) -> Iterator[tuple[Sample, NDArray[np.uint8]]]:
    """Yield clips from the first, the middle and the last shard, evenly spread over each."""
    positions = evenly_spread(len(shards), SHARDS).tolist()
    for number, position in enumerate(positions):
        shard = shards[position]
        samples = read_index(url, shard)["samples"]
        wanted = CLIPS * (number + 1) // len(positions) - CLIPS * number // len(positions)
        yield from _read_clips(url, shard, [samples[index] for index in evenly_spread(len(samples), wanted)])


def _read_clips(url: str, shard: ShardEntry, samples: list[Sample]) -> Iterator[tuple[Sample, NDArray[np.uint8]]]:
    """Yield clips of a shard with their frames."""
    with scratch_folder() as cache:
        path = Path(storage.join(url, shard["path"]))
        if storage.is_remote(url):
            path = cache / "shard"
            storage.download(storage.join(url, shard["path"]), path)
        with storage.open_file(path) as file:
            for sample in samples:
                file.seek(sample["frames_offset"])
                member = io.BytesIO(file.read(sample["frames_length"]))
                yield sample, np.load(member, allow_pickle=False)


def _render_clip(manifest: Manifest, sample: Sample, frames: NDArray[np.uint8]) -> dict[str, str]:
    """Return what the page needs of a clip: the animation and its first frame as data URLs, and captions."""
    from PIL import Image

    shown = frames[:FRAMES]
    if shown.shape[-1] not in (1, 3, 4):
        shown = shown[..., :1]
    images = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("RGB") for frame in shown]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    animation, still = io.BytesIO(), io.BytesIO()
    duration = max(20, round(1000 / sample["fps"]))
    settings: dict[str, Any] = {"format": "WEBP", "quality": 75, "method": 2}
    images[0].save(animation, save_all=True, append_images=images[1:], duration=duration, loop=0, **settings)
    images[0].save(still, **settings)
    labels = sample["labels"]
    described = [f"{name}: {_format_label(manifest, name, value)}" for name, value in labels.items()]
    return {
        "animation": _data_url(animation),
        "still": _data_url(still),
        "caption": _format_label(manifest, "action", labels["action"]) if "action" in labels else "",
        "title": "\n".join([sample["key"], f"{sample['source']}, from {sample['start_s']:.2f} s", *described]),
        "identity": sample["identity"],
    }


def _format_label(manifest: Manifest, name: str, value: Any) -> str:
    if name in manifest["vocabulary"]:
        return str(manifest["vocabulary"][name][value])
    if isinstance(value, list):
        return f"{min(value):.3g} to {max(value):.3g}"
    return f"{value:.3g}"


def _data_url(image: io.BytesIO) -> str:
    return "data:image/webp;base64," + base64.b64encode(image.getvalue()).decode()


def _bars(names: list[str], counts: list[int], *, sort: bool = True) -> list[dict[str, Any]]:
    """Return the rows of a histogram, bar lengths in percent. Beyond `BARS` values, the rarest are added up."""
    rows = [(str(name), count) for name, count in zip(names, counts, strict=True)]
    if len(rows) > BARS:
        if sort:
            rows.sort(key=lambda row: -row[1])
        rest = rows[BARS:]
        rows = [*rows[:BARS], (f"{len(rest):,} others", sum(count for _, count in rest))]
    most = max([count for _, count in rows], default=0) or 1
    return [{"name": name, "count": count, "percent": round(100 * count / most, 1)} for name, count in rows]


def _reasons(rejected: bytes) -> list[dict[str, Any]]:
    """Return the rejected inputs by reason, the most frequent first, with a few examples of each."""
    found: dict[str, list[RejectRecord]] = collections.defaultdict(list)
    for line in rejected.splitlines():
        record: RejectRecord = json.loads(line)
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
