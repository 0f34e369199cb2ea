"""Videos examined in parallel, one Ray task each; what was found in each is stored as soon as it is examined."""

import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.errors import one_line
from cluster.ray_tasks import MAX_RETRIES, run_tasks
from cluster.storage import api as storage
from preprocessing.clip import Clip, Item
from preprocessing.decoding.sandbox import DecodeProcess
from preprocessing.decoding.transform import Crop
from preprocessing.preparing.config import PrepareRecipe
from preprocessing.preparing.scan import ScanSource, open_scan
from preprocessing.recipe import ShardsConfig
from preprocessing.sharding.reading import read_item
from preprocessing.sharding.tasks import concurrency, make_decoder
from preprocessing.sources.labels import InputPart
from preprocessing.sources.names import as_text

log = logging.getLogger(__name__)

VERSION = 1
"""Changes when the same video and settings give another record."""
PARTS = "parts"
"""Folder of the records, below the output."""

Segments = list[tuple[float, float | None, Crop | None]]
"""Start and end in seconds, and the crop box, of the segments that the labels select."""


def segments_of(parts: Sequence[InputPart]) -> Segments:
    """Return the segments of an input."""
    return [(part.start_s, part.end_s, part.crop) for part in parts]


def record_path(item: Item, segments: Segments, settings: str) -> str:
    """Return the path of a video's record below the output, which names its content and the settings."""
    key = json.dumps([VERSION, item.path, item.version, segments, settings])
    return f"{PARTS}/{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def settings_of(recipe: PrepareRecipe) -> str:
    """Return as JSON the settings that a record depends on."""
    unused = {"hash_distance"}
    return json.dumps(
        {
            "prepare": recipe.prepare.model_dump(mode="json", exclude=unused),
            "min_length_s": recipe.min_length_s,
            "min_frames": recipe.source.videos.clip_frames,
            "max_pixels": recipe.source.videos.max_pixels,
            "decode": [recipe.shards.decode_seconds, recipe.shards.decode_mb],
        },
        sort_keys=True,
    )


def examine_videos(
    out: str, waiting: Sequence[tuple[Item, Segments, str]], recipe: PrepareRecipe, source: ScanSource
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Examine videos, and yield each with its record when that is stored. Ray must be connected.

    Args:
        out: the output, a folder or s3://bucket/prefix.
        waiting: the videos, the segments of each, and the path of its record.
        recipe: the settings.
        source: the source of the videos.

    Raises:
        UserError: the source, a model or the storage is at fault; or Ray itself failed.
    """
    import ray

    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_examine)
    serialized, settings = ray.put(source.serialized()), recipe.model_dump_json(include={"source", "prepare", "shards"})
    tasks = run_tasks(
        lambda one: task.remote(storage.join(out, one[2]), one[0], one[1], serialized, settings),
        waiting,
        concurrency(recipe),
    )
    for (item, _, _), record in tasks:
        yield item, record


def _examine(url: str, item: Item, segments: Segments, serialized: str, settings: str) -> dict[str, Any]:
    recipe = _recipe(settings)
    record = examine_item(item, segments, recipe, _decoder(serialized, recipe.shards.model_dump_json()).clips)
    data = json.dumps(record, separators=(",", ":")).encode()
    storage.retry_while_unreachable(lambda: storage.write_bytes(url, data), recipe.shards.patience_seconds)
    stored: dict[str, Any] = json.loads(data)  # as a rerun reads it
    return stored


def examine_item(item: Item, segments: Segments, recipe: PrepareRecipe, clips: Any) -> dict[str, Any]:
    """Return the record of a video: what `Examination.record` describes, and `damage`, what is wrong with the file.

    Args:
        clips: returns the chunks of frames of an item; see `ScanSource.clips`.
    """
    import cv2

    from preprocessing.preparing.examine import Examination

    cv2.setNumThreads(1)  # a task has one core
    examination = Examination(
        recipe.prepare,
        min_length_s=recipe.min_length_s,
        min_frames=recipe.source.videos.clip_frames,
        segments=segments,
        faces=_faces(recipe.prepare.face_model),
    )
    reading = read_item(clips, item, recipe.shards.patience_seconds)
    damage = None
    while True:
        try:
            chunk: Clip = next(reading)
        except StopIteration as end:
            if end.value is not None:
                damage = {"reason": end.value.reason, "where": end.value.where}
            break
        try:
            examination.add(chunk)
        except (cv2.error, ValueError, ArithmeticError, LookupError) as error:
            reading.close()
            return _failed(item, error)
    try:
        return examination.record() | {"damage": damage}
    except (cv2.error, ValueError, ArithmeticError, LookupError) as error:
        return _failed(item, error)


def _failed(item: Item, error: Exception) -> dict[str, Any]:
    """Return the record of a video whose frames cannot be examined, which must not stop the others."""
    log.warning("%s: unexpected %s: %s", as_text(item.path), type(error).__name__, error, exc_info=True)
    reason = f"examination failed with {type(error).__name__}"
    return {"seconds": 0.0, "damage": {"reason": reason, "where": one_line(str(error))[:300]}}


@functools.lru_cache(maxsize=1)
def _recipe(settings: str) -> PrepareRecipe:
    return PrepareRecipe.model_validate_json(settings)


@functools.lru_cache(maxsize=1)
def _faces(model: str | None) -> Any:
    from preprocessing.preparing.detectors import FaceFinder

    return FaceFinder(model)


@functools.lru_cache(maxsize=1)
def _decoder(serialized: str, shards: str) -> DecodeProcess:
    """Return the decoding process, started once per worker process."""
    return make_decoder(open_scan(serialized), serialized, ShardsConfig.model_validate_json(shards), open_scan)
