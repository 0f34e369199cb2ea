"""Time and memory of finding clips that look alike, among synthetic descriptors of groups of similar clips.

    python benchmarks/mining.py --clips 1000000 --json

Each group has a random direction and eight clips near it, as far from it as those of a Sprites character are. `exact`
compares every clip with all others; `lists` searches the nearest clusters only, which is what many clips get.
"""

import resource
import time

import numpy as np
from arguments import machine, parser, show
from numpy.typing import NDArray

from preprocessing.appearance import mining
from preprocessing.appearance.descriptors import SCALE, SIZE
from preprocessing.appearance.pairs import Video

GROUP = 8
SPREAD = 0.15
"""Length of the random offset of a clip from its group's direction, which has length 1."""
COMMON = 0.7
"""Share of all directions that every group has in common, as clips with one background do."""
SETTINGS = mining.MiningSettings(threads=2)


def synthetic(clips: int) -> NDArray[np.int16]:
    """Return descriptors, [N, SIZE]; clips with the same quotient of their number by GROUP look alike."""
    generator = np.random.default_rng(0)
    common = generator.standard_normal(SIZE, dtype=np.float32)
    descriptors = np.empty((clips, SIZE), dtype=np.int16)
    for first in range(0, clips, 80_000):
        count = min(80_000, clips - first)
        own = generator.standard_normal((-(-count // GROUP), SIZE), dtype=np.float32)
        group = COMMON * common + (1 - COMMON) * own
        points = _unit(np.repeat(group, GROUP, axis=0)[:count])
        offsets = SPREAD * _unit(generator.standard_normal((count, SIZE), dtype=np.float32))
        descriptors[first : first + count] = np.rint(_unit(points + offsets) * SCALE)
    return descriptors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measure(descriptors: NDArray[np.int16], exact_clips: int) -> dict[str, float]:
    """Return the seconds of a search, and how good its pairs are."""
    mining.EXACT_CLIPS = exact_clips
    count = len(descriptors)
    alone = Video(np.arange(count), np.zeros(count))
    began = time.perf_counter()
    pairs = mining.mine(descriptors, alone, SETTINGS)
    seconds = time.perf_counter() - began
    right = pairs.firsts // GROUP == pairs.partners // GROUP
    return {
        "seconds": round(seconds, 1),
        "pairs_of_one_group_percent": round(100 * float(right.mean()), 3),
        "pairs_found_percent": round(100 * float(right.sum()) / (count * (GROUP - 1)), 3),
    }


def main() -> None:
    """Measure and print."""
    command = parser(__doc__)
    command.add_argument("--clips", type=int, default=100_000, help="number of clips")
    command.add_argument("--exact", action="store_true", help="also compare every clip with all others: slow")
    options = command.parse_args()
    descriptors = synthetic(options.clips)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, object] = {"clips": options.clips, "lists": measure(descriptors, 0)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found |= {"descriptors_gb": round(descriptors.nbytes / 1e9, 2), "peak_added_gb": round((peak - before) / 1e6, 2)}
    if options.exact:
        found["exact"] = measure(descriptors, options.clips)
    show(found | {"machine": machine()}, as_json=options.json)


if __name__ == "__main__":
    main()
