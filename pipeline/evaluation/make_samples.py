"""Make the clips that `vdsm evaluate --samples` measures, with any system. Needs Python and numpy, nothing else.

    python make_samples.py PAIRS DATA

PAIRS is a folder written by `vdsm pairs`, DATA a local copy of the dataset. Put your system into `generate`.
"""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("swap", "reconstruction")  # also "prior_static" and "prior_dynamics", if your system has a prior
CLIPS_PER_FILE = 100


def generate(dynamics: Any, static: Any) -> Any:
    """Return a clip with the motion of one clip and the appearance of the other; this one copies the motion's clip.

    Clips are uint8 [T, H, W, C]; the same clip twice asks for its reconstruction, None for a sample of the prior.
    """
    return dynamics


def find_clips(data: Path) -> dict[str, tuple[Path, int]]:
    """Return the file and the offset of each test clip, by its key."""
    found = {}
    for shard in sorted((data / "test").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".frames.npy"):
                    found[member.name.removesuffix(".frames.npy")] = (shard, member.offset_data)
    return found


def main(folder: Path, data: Path) -> None:
    """Write the clips that pairs.json lists into its folder. If interrupted, rerun it to resume."""
    pairs, clips = json.loads((folder / "pairs.json").read_text()), find_clips(data)

    def read(key: str) -> Any:
        if not key:
            return None
        shard, offset = clips[key]
        with shard.open("rb") as file:
            file.seek(offset)
            return np.load(file)[: pairs["clip_frames"]]

    for kind in KINDS:
        wanted = pairs["wanted"][kind]
        for start in range(0, len(wanted), CLIPS_PER_FILE):
            rows = wanted[start : start + CLIPS_PER_FILE]
            path = folder / f"{kind}-{start:06d}.npz"
            if not path.exists():
                first, second = [row["dynamics_of"] for row in rows], [row["static_of"] for row in rows]
                frames = [generate(read(a), read(b)) for a, b in zip(first, second)]
                with path.with_suffix(".partial").open("wb") as file:
                    np.savez_compressed(file, frames=frames, dynamics_of=first, static_of=second)
                path.with_suffix(".partial").rename(path)
            print(f"{kind}: {start + len(rows)} of {len(wanted)} clips")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
