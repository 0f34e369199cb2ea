"""The dry run of the sharding job: estimate size and duration by reading a few inputs and discarding their clips."""

import itertools
import os
import sys
import time
from dataclasses import dataclass

from cluster.cli.progress import format_duration
from preprocessing.clip import Clips, Item, Source
from preprocessing.recipe import DataRecipe
from preprocessing.sharding.plan import Plan, estimate
from preprocessing.sharding.reading import read_item
from preprocessing.sharding.tasks import make_decoder
from preprocessing.sources.registry import serialize_source

SAMPLE_S = 10.0
"""How long inputs are sampled, in seconds; the first one is always read to its end."""
SAMPLE_INPUTS = 16
"""Maximum number of inputs that are sampled."""


@dataclass
class Sample:
    """What was read from the sampled inputs."""

    inputs: int = 0
    rejects: int = 0
    clips: int = 0
    bytes: int = 0
    """Size of the frames."""
    estimated_bytes: int = 0
    """Size estimated from the listing."""
    seconds: float = 0.0


def take_sample(recipe: DataRecipe, plan: Plan, source: Source) -> Sample:
    """Read the first few inputs of the plan, whose order is random."""
    decoder = None
    if source.untrusted:
        decoder = make_decoder(source, serialize_source(recipe.source, recipe.seed, source), recipe.shards)
    sample = Sample()
    begin = time.monotonic()
    try:
        if decoder is not None:
            decoder.start()  # not part of the time per input
            begin = time.monotonic()
        items = (item for shard in plan.shards for item in shard.items)
        for item in itertools.islice(items, SAMPLE_INPUTS):
            _read(sample, decoder.clips if decoder else source.clips, item, recipe.shards.patience_seconds)
            sample.seconds = time.monotonic() - begin
            if sample.seconds > SAMPLE_S:
                break
    finally:
        if decoder is not None:
            decoder.close()
    return sample


def _read(sample: Sample, clips: Clips, item: Item, patience_s: float) -> None:
    reading = read_item(clips, item, patience_s)
    sample.inputs += 1
    sample.estimated_bytes += item.estimated_bytes
    while True:
        try:
            clip = next(reading)
        except StopIteration as end:
            sample.rejects += end.value is not None
            return
        sample.clips += 1
        sample.bytes += clip.frames.nbytes


def print_plan(recipe: DataRecipe, url: str, plan: Plan, sample: Sample, chosen: str) -> None:
    """Print what would be written to `url`, and how long that would take, extrapolated from a sample.

    Args:
        recipe: the source and the number of tasks.
        url: folder or s3:// prefix of the dataset.
        plan: the plan of the dataset.
        sample: what was read from the first few inputs.
        chosen: a line that says in which format, and why.
    """
    factor = sample.bytes / sample.estimated_bytes if sample.estimated_bytes else 1.0
    clips_per_byte = sample.clips / sample.estimated_bytes if sample.estimated_bytes else 0.0
    total_bytes = 0
    for split, expected in estimate(plan).items():
        total_bytes += expected.bytes
        if expected.clips is not None:
            clips, megabytes = f"{expected.clips:,} clips", expected.bytes / 1e6
        else:  # then the size is not known either
            count, megabytes = round(expected.bytes * clips_per_byte), expected.bytes * factor / 1e6
            clips = f"about {count:,} clips of {expected.inputs:,} inputs"
        sys.stdout.write(f"{split}: {clips}, shards: {expected.shards}, about {megabytes:,.1f} MB\n")
    tasks = min(recipe.shards.concurrency or len(os.sched_getaffinity(0)), len(plan.shards))
    if sample.estimated_bytes:
        seconds = sample.seconds * total_bytes / sample.estimated_bytes / tasks
        sys.stdout.write(
            f"time: about {format_duration(seconds)} with {tasks} concurrent tasks, extrapolated from {sample.inputs} "
            f"inputs read on this machine, which gave {sample.clips:,} clips and {sample.rejects} rejects\n"
        )
    sys.stdout.write(f"{chosen}\n")
    sys.stdout.write(f"dry run: nothing was written; without --dry-run, the dataset goes to {url}\n")
