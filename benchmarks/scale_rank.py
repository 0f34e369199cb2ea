"""A rank of `scale_columns.py`: it opens a dataset of format 3, takes steps without pixels, and prints what that cost.

    python benchmarks/scale_rank.py DATA 0

It prints when a line arrives on its standard input, and stays until that ends, so that the memory of several can be
measured together.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.training.held_out import MAX_BYTES, HeldOut
from pipeline.training.order import GlobalOrder
from pipeline.training.sharded_clips import ShardedTable
from preprocessing.dataset import arrow_file
from preprocessing.dataset.reader import ClipDataset

CLIPS_PER_RANK = 20
RANKS_PER_NODE = 8
VALIDATION_CLIPS = 8192
STEPS = 200
HELD = "held-out.arrow"
"""Which clips are held out, beside the dataset."""


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Return the processor time of `action`, in seconds."""
    began = time.process_time()
    action()
    return time.process_time() - began


def private_mb() -> float:
    """Return the memory of this process that no other shares, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def open_order(url: str) -> GlobalOrder:
    """Open the dataset as a rank does, and return the order of stage 1 at the global batch of a node."""
    mapped = ClipDataset(url, "train").mapped
    assert mapped is not None
    held = HeldOut.read(arrow_file.map_file(Path(url) / HELD, MAX_BYTES), np.diff(mapped.starts))
    return GlobalOrder(
        ShardedTable(mapped, held), seed=0, stage=1, window=8, batch=CLIPS_PER_RANK * RANKS_PER_NODE,
        validation_fraction=0.1, validation_clips=VALIDATION_CLIPS, lanes=True,
    )  # fmt: skip


def main(url: str, number: int) -> None:
    """Print what it costs to open the dataset, and to take steps as a rank of a node."""
    arrow_file.pyarrow()  # imported like the others, before memory is measured
    before, opened = private_mb(), []
    opening = cpu_seconds(lambda: opened.append(open_order(url)))
    order, own = opened[0], slice(number * CLIPS_PER_RANK, (number + 1) * CLIPS_PER_RANK)
    first = cpu_seconds(lambda: order.at(0, own))
    steps = cpu_seconds(lambda: [order.at(step, own) for step in range(1, STEPS + 1)])
    validation = cpu_seconds(order.validated)
    print("ready", flush=True)  # pages that only one rank has mapped so far would count as its own
    sys.stdin.readline()
    costs = {
        "start cpu_s": opening + first, "first step cpu_s": first, "order ms per step": 1e3 * steps / STEPS,
        "validation: choice cpu_s": validation, "private MB": private_mb() - before,
    }  # fmt: skip
    print(json.dumps(costs), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
