"""How many people `vdsm prepare` finds: recordings of 64x64 pixels, pasted into larger frames at random.

    python benchmarks/people_in_frames.py --people DATA/people --backgrounds DATA/videos --out FOLDER --json

Each recording is pasted `--variants` times: enlarged 1 to 4 times, into frames of 320x240 to 1280x720 pixels, before a
plain colour, a gradient, a texture or a frame of one of the background videos; half of them get noise.

Two boxes are compared with the best crop of each video, as intersection over union: the pasted square, and the square
that `vdsm prepare` would make around the extent of the person over the recording. These extents were read off the
recordings by eye.
"""

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import cv2
import numpy as np

from preprocessing.preparing.boxes import Box, iou, square_around
from preprocessing.preparing.config import PrepareConfig, PrepareRecipe
from preprocessing.preparing.job import DECISIONS, prepare_source
from preprocessing.sources.config import SourceConfig

EXTENTS = {
    "person0": {"bend": (13, 18, 44), "jack": (6, 5, 57), "wave1": (21, 10, 58), "wave2": (4, 7, 59)},
    "person1": {"bend": (13, 17, 43), "jack": (6, 7, 53), "wave1": (21, 13, 57), "wave2": (4, 9, 58)},
    "person2": {"bend": (19, 17, 49), "jack": (6, 2, 57), "wave1": (22, 10, 55), "wave2": (5, 9, 56)},
    "person3": {"bend": (19, 19, 44), "jack": (5, 2, 60), "wave1": (25, 10, 52), "wave2": (11, 14, 53)},
    "person4": {"bend": (21, 17, 48), "jack": (10, 9, 53), "wave1": (23, 14, 52), "wave2": (11, 12, 52)},
    "person5": {"bend": (13, 19, 43), "jack": (5, 9, 59), "wave1": (24, 9, 58), "wave2": (5, 8, 58)},
}
"""Left, top and right of a person over each recording, in pixels; all reach the lower edge, at 64."""
SIZES = ((320, 240), (640, 480), (854, 480), (1280, 720), (480, 640), (720, 1280))
FRAMES = 75
FOUND = 0.7
"""Least intersection over union of a person who is found."""


def read(path: Path, count: int) -> list[Any]:
    """Return the first frames of a video, uint8 [H, W, 3] each."""
    frames = []
    with av.open(str(path), metadata_errors="ignore") as video:
        for frame in video.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                break
    return frames


def make_background(kind: str, width: int, height: int, videos: list[Path], rng: np.random.Generator) -> Any:
    """Return a frame without the person, uint8 [height, width, 3]."""
    if kind == "plain":
        return np.full((height, width, 3), rng.integers(30, 226, 3), np.uint8)
    if kind == "gradient":
        one, other = rng.integers(0, 256, (2, 3))
        along = np.linspace(0, 0.5, width)[None, :, None] + np.linspace(0, 0.5, height)[:, None, None]
        return (one + (other - one) * along).astype(np.uint8)
    if kind == "texture":
        coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        return cv2.GaussianBlur(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 2)
    photograph = read(videos[rng.integers(len(videos))], 1)[0]
    return cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA)


def make_videos(people: Path, videos: list[Path], out: Path, variants: int, seed: int) -> dict[str, dict[str, Any]]:
    """Write the videos, and return the pasted square and the extent of the person in each."""
    rng = np.random.default_rng(seed)
    truth: dict[str, dict[str, Any]] = {}
    for path in sorted(people.glob("person*/*/*.mp4")):
        person, action = path.parts[-3:-1]
        frames = read(path, FRAMES)
        for variant in range(variants):
            width, height = SIZES[rng.integers(len(SIZES))]
            scale = rng.uniform(1, min(4, min(width, height) / 64))
            side = round(64 * scale)
            left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
            kind = ("plain", "gradient", "texture", "photograph")[rng.integers(4)]
            noise = (0, 0, 2, 5)[rng.integers(4)]
            still = make_background(kind, width, height, videos, rng)
            name = f"{person}/{action}/{variant}.mp4"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(out / name), "w") as file:
                stream: Any = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                for image in frames:
                    frame = still.copy()
                    enlarged = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
                    frame[top : top + side, left : left + side] = enlarged
                    if noise:
                        grain = rng.normal(0, noise, (height, width, 1))
                        frame = np.clip(frame + grain, 0, 255).astype(np.uint8)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                file.mux(stream.encode(None))
            low, high, right = EXTENTS[person][action]
            extent = (left + low * scale, top + high * scale, (right - low) * scale, (64 - high) * scale)
            truth[name] = {"square": (left, top, side, side), "person": extent, "size": (width, height), "kind": kind}
    return truth


def main() -> None:
    """Make the videos, prepare them, compare the crops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, required=True, help="folder of recordings, person/action/take.mp4")
    parser.add_argument("--backgrounds", type=Path, required=True, help="folder of videos, for photographs")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the videos and what is found in them")
    parser.add_argument("--variants", type=int, default=2, help="videos made of each recording")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    kinds = {".mp4", ".avi"}
    videos = sorted(path for path in args.backgrounds.rglob("*") if path.suffix in kinds and read_is_possible(path))
    truth = make_videos(args.people, videos, args.out / "videos", args.variants, args.seed)
    recipe = PrepareRecipe(source=SourceConfig(name="videos", path=str(args.out / "videos")))
    prepare_source(recipe, str(args.out / "prepared"))
    kept: dict[str, list[Box]] = {}
    for line in (args.out / "prepared" / DECISIONS).read_text().splitlines():
        part = json.loads(line)
        if part["kept"]:
            kept.setdefault(part["path"], []).append(tuple(part["box"]))
    margin = PrepareConfig().margin
    squares, people = [], []
    for name, one in truth.items():
        wanted = square_around(one["person"], margin, *one["size"])
        crops = kept.get(name, [])
        squares.append(max((iou(crop, one["square"]) for crop in crops), default=0.0))
        people.append(max((iou(crop, wanted) for crop in crops), default=0.0))
        if people[-1] < FOUND:
            sys.stderr.write(f"{name} ({one['kind']}): {people[-1]:.2f}, {len(crops)} crops\n")
    figures = {
        "videos": len(truth),
        "found_share_person": sum(value >= FOUND for value in people) / len(people),
        "found_share_pasted_square": sum(value >= FOUND for value in squares) / len(squares),
        "median_iou_person": statistics.median(people),
        "median_iou_pasted_square": statistics.median(squares),
        "crops_per_video": sum(map(len, kept.values())) / len(truth),
        "seed": args.seed,
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(figures) if args.json else "\n".join(f"{name}: {value}" for name, value in figures.items()))


def read_is_possible(path: Path) -> bool:
    """Return whether a video has a first frame."""
    try:
        return bool(read(path, 1))
    except av.FFmpegError:
        return False


if __name__ == "__main__":
    main()
