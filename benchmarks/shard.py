"""Throughput of sharding videos, against a plain loop over the same files, and cost of planning a million inputs.

    python benchmarks/shard.py --json

The plain loop opens each file with PyAV, decodes it with one thread and makes 64x64 RGB frames of the centre, without
labels, checks, hashes, tar or limits. It runs twice: with Pillow's filter, as the job uses it, and with FFmpeg's own
scaler. The job's time is that of writing its shards on a running Ray, including the processes for decoding.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arguments import machine, parser, show

SIZE = 64
FRAMES = 16


def make_videos(folder: Path, count: int, frames: int) -> None:
    """Write `count` H.264 videos of 640x360 pixels that show a moving texture of noise."""
    import av
    import numpy as np

    for number in range(count):
        draw = np.random.default_rng(number)
        coarse = draw.integers(0, 256, (46, 81, 3), dtype=np.uint8)
        scene = coarse.repeat(16, axis=0).repeat(16, axis=1)
        speckle = draw.integers(-12, 13, scene.shape)
        scene = np.clip(scene + speckle, 0, 255).astype(np.uint8)
        with av.open(str(folder / f"video{number:02d}.mp4"), "w") as video:
            stream = video.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            for index in range(frames):
                x, y = (3 * index) % 640, (2 * index) % 360
                pixels = np.ascontiguousarray(np.roll(scene, (-y, -x), axis=(0, 1))[:360, :640])
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    video.mux(packet)
            for packet in stream.encode():
                video.mux(packet)


def bare_loop(paths: list[Path], *, by_pillow: bool) -> tuple[int, float]:
    """Return clips and seconds of a straightforward loop on one core."""
    import av
    import numpy as np
    from av.video.reformatter import VideoReformatter
    from PIL import Image

    scaler = VideoReformatter()
    clips = 0
    begin = time.perf_counter()
    for path in paths:
        window = []
        with av.open(str(path)) as video:
            stream = video.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in video.decode(stream):
                if by_pillow:
                    side = min(frame.width, frame.height)
                    left, top = (frame.width - side) / 2, (frame.height - side) / 2
                    image = frame.to_image().resize(
                        (SIZE, SIZE),
                        Image.Resampling.BICUBIC,
                        box=(left, top, left + side, top + side),
                        reducing_gap=2.0,
                    )
                    window.append(np.asarray(image))
                else:
                    width = SIZE * frame.width // min(frame.width, frame.height)
                    pixels = scaler.reformat(frame, width, SIZE, "rgb24", interpolation="BICUBIC").to_ndarray()
                    left = (width - SIZE) // 2
                    window.append(pixels[:, left : left + SIZE])
                if len(window) == FRAMES:
                    np.stack(window)
                    clips, window = clips + 1, []
    return clips, time.perf_counter() - begin


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Restrict this process, and those that it starts in the block, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def job(folder: Path, out: Path, tasks: int) -> tuple[int, float]:
    """Return clips and seconds of writing the job's shards with `tasks` parallel tasks."""
    from preprocessing.recipe import DataRecipe, ShardsConfig
    from preprocessing.sharding import plan
    from preprocessing.sharding.output_lock import acquire_output
    from preprocessing.sharding.tasks import write_shards
    from preprocessing.sources.config import SourceConfig, VideosConfig
    from preprocessing.sources.registry import make_source

    videos = VideosConfig(size=SIZE, clip_frames=FRAMES, test_fraction=0.1)
    config = SourceConfig(name="videos", path=str(folder), videos=videos)
    recipe = DataRecipe(source=config, shards=ShardsConfig(target_mb=8, concurrency=tasks))
    source = make_source(recipe.source, recipe.seed)
    planned = plan.make_plan(recipe, source)
    acquire_output(str(out), planned)
    begin = time.perf_counter()
    written = list(write_shards(str(out), planned, planned.shards, recipe, source))
    seconds = time.perf_counter() - begin
    assert not any(summary.index["rejects"] for _, summary in written)
    return sum(summary.index["clips"] for _, summary in written), seconds


def plan_alone(count: int) -> dict[str, float]:
    """List `count` files, plan, and store the plan, in this process alone, so that its peak memory is the plan's."""
    from preprocessing.recipe import DataRecipe
    from preprocessing.sharding import plan
    from preprocessing.sharding.output_lock import acquire_output
    from preprocessing.sources.config import SourceConfig
    from preprocessing.sources.registry import make_source

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "videos"
        for number in range(count):
            path = folder / f"{number // 1000:04d}"
            if number % 1000 == 0:
                path.mkdir(parents=True)
            descriptor = os.open(path / f"{number:07d}.mp4", os.O_CREAT | os.O_WRONLY)
            os.ftruncate(descriptor, 300_000 + number)
            os.close(descriptor)
        recipe = DataRecipe(source=SourceConfig(name="videos", path=str(folder)))
        begin = time.perf_counter()
        planned = plan.make_plan(recipe, make_source(recipe.source, recipe.seed))
        acquire_output(str(Path(scratch) / "out"), planned)
        seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"plan_inputs": count, "plan_shards": len(planned.shards), "plan_s": seconds, "plan_peak_gb": memory}


def measure(videos: Path | None, count: int, frames: int, plan_inputs: int, repeats: int) -> dict[str, Any]:
    """Measure everything."""
    from cluster import ray_runtime

    rates: dict[str, list[float]] = {"pillow": [], "ffmpeg": [], "1": [], "2": [], "1 on one core": []}
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        folder = videos or Path(scratch) / "videos"
        if videos is None:
            folder.mkdir()
            make_videos(folder, count, frames)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        # A task decodes in a second process, so on two cores a single task uses more than one of them.
        with one_core(), ray_runtime.connect(num_cpus=1):
            job(folder, Path(scratch) / "warm1", 1)
            for repeat in range(repeats):
                written, seconds = job(folder, Path(scratch) / f"out{repeat}-one-core", 1)
                rates["1 on one core"].append(written / seconds)
        stack.enter_context(ray_runtime.connect(num_cpus=2))
        job(folder, Path(scratch) / "warm", 2)  # starts Ray's workers and their decoding processes
        clips = 0
        for repeat in range(repeats):
            for name in ("pillow", "ffmpeg"):
                with one_core():
                    clips, seconds = bare_loop(paths, by_pillow=name == "pillow")
                rates[name].append(clips / seconds)
            for tasks in (1, 2):
                written, seconds = job(folder, Path(scratch) / f"out{repeat}-{tasks}", tasks)
                assert written == clips, (written, clips)
                rates[str(tasks)].append(written / seconds)
    best = {name: max(values) for name, values in rates.items()}
    args = [sys.executable, __file__, "--plan-only", "--plan-inputs", str(plan_inputs)]
    planned = json.loads(subprocess.run(args, capture_output=True, text=True, check=True).stdout) if plan_inputs else {}
    return {
        "clips": clips,
        "bare_loop_clips_per_s": best["pillow"],
        "bare_loop_ffmpeg_scaler_clips_per_s": best["ffmpeg"],
        "one_task_clips_per_s": best["1"],
        "two_tasks_clips_per_s": best["2"],
        "per_core_ratio": best["2"] / 2 / best["pillow"],
        "per_core_ratio_ffmpeg_scaler": best["2"] / 2 / best["ffmpeg"],
        "two_tasks_ratio": best["2"] / best["1"],
        "one_task_on_one_core_clips_per_s": best["1 on one core"],
        "two_tasks_on_two_cores_ratio": best["2"] / best["1 on one core"],
        "clips_per_s_of_each_repeat": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        **planned,
        "machine": machine(),
    }


def main() -> None:
    """Measure and print."""
    command = parser(__doc__)
    command.add_argument("--videos", type=Path, help="folder of intact videos; default: generate them")
    command.add_argument("--num-videos", type=int, default=24, help="videos to generate")
    command.add_argument("--frames", type=int, default=400, help="frames of each generated video")
    command.add_argument("--repeats", type=int, default=3, help="measurements, of which the best counts")
    command.add_argument("--plan-inputs", type=int, default=1_000_000, help="inputs of the plan; 0 skips it")
    command.add_argument("--plan-only", action="store_true", help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.plan_only:
        print(json.dumps(plan_alone(options.plan_inputs)))
        return
    results = measure(options.videos, options.num_videos, options.frames, options.plan_inputs, options.repeats)
    show(results, as_json=options.json)


if __name__ == "__main__":
    main()
