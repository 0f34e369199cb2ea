"""What a sharding job would make, how large and how long: told by making the clips of a few inputs, to drop them."""

import itertools
import os
import sys
import time
from dataclasses import dataclass

from cluster.cli.progress import format_duration
from preprocessing.clip import Clips, Item, Source
from preprocessing.decoding.sandbox import DecodeProcess
from preprocessing.recipe import DataRecipe
from preprocessing.sharding import plan
from preprocessing.sharding.reading import read_item
from preprocessing.sources.registry import open_serialized_source, serialize_source

SAMPLE_S = 10.0
"""How long inputs are tried, in seconds; the first one is always tried to its end."""
SAMPLE_INPUTS = 16


@dataclass
class Sample:
    """What some inputs came to."""

    inputs: int = 0
    rejects: int = 0
    clips: int = 0
    size: int = 0
    """Bytes of frames."""
    estimated: int = 0
    """Bytes that were expected of them."""
    seconds: float = 0.0


def report_plan(recipe: DataRecipe, url: str, planned: plan.Plan, source: Source) -> None:
    """Print what would be made at `url`."""
    sample = take_sample(recipe, planned, source)
    factor = sample.size / sample.estimated if sample.estimated else 1.0
    per_byte = sample.clips / sample.estimated if sample.estimated else 0.0
    total = 0.0
    for split, sizes in plan.estimate(planned).items():
        expected = (sizes["mb"] or 0.0) * 1e6
        total += expected
        clips, mb = sizes["clips"], expected / 1e6
        if clips is None:  # then neither the size is known
            clips, mb = round(expected * per_byte), expected * factor / 1e6
            made = f"about {clips:,} clips of {sizes['items']:,} inputs"
        else:
            made = f"{clips:,} clips"
        sys.stdout.write(f"{split}: {made}, shards: {sizes['shards']}, about {mb:,.1f} MB\n")
    at_once = recipe.shards.concurrency or len(os.sched_getaffinity(0))
    at_once = min(at_once, len(planned.shards))
    if sample.estimated:
        seconds = sample.seconds * total / sample.estimated / at_once
        sys.stdout.write(
            f"time: about {format_duration(seconds)} with {at_once} tasks at once, going by {sample.inputs} inputs tried here, "
            f"which gave {sample.clips:,} clips and {sample.rejects} rejects\n"
        )
    sys.stdout.write(f"nothing was written; without --dry-run this would go to {url}\n")


def take_sample(recipe: DataRecipe, planned: plan.Plan, source: Source) -> Sample:
    """Make the clips of the first few inputs of the plan, whose order is random."""
    decoder = None
    if source.untrusted:
        decoder = DecodeProcess(
            open_serialized_source,
            serialize_source(recipe.source, recipe.seed, source),
            cpu_seconds=recipe.shards.decode_seconds,
            memory_mb=recipe.shards.decode_mb,
        )
    sample = Sample()
    begin = time.monotonic()
    try:
        if decoder is not None:
            decoder.start()  # not what an input takes
            begin = time.monotonic()
        items = (item for shard in planned.shards for item in shard.items)
        for item in itertools.islice(items, SAMPLE_INPUTS):
            _try(sample, decoder.clips if decoder else source.clips, item, recipe.shards.patience_seconds)
            sample.seconds = time.monotonic() - begin
            if sample.seconds > SAMPLE_S:
                break
    finally:
        if decoder is not None:
            decoder.close()
    return sample


def _try(sample: Sample, clips: Clips, item: Item, patience_s: float) -> None:
    reading = read_item(clips, item, patience_s)
    sample.inputs += 1
    sample.estimated += item.estimated_bytes
    while True:
        try:
            clip = next(reading)
        except StopIteration as end:
            sample.rejects += end.value is not None
            return
        sample.clips += 1
        sample.size += clip.frames.nbytes
