"""Damaged videos among good ones through the whole job: it finishes, and no good clip is lost or changed."""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocessing import shard, verify
from preprocessing.dataset.reader import ClipDataset
from preprocessing.sources.config import SourceConfig, VideosConfig
from preprocessing.sources.registry import make_source
from tests.preprocessing.video_files import ramp, write_video

MEMORY_LIMIT = 1_000_000_000
"""Memory limit of every process of the job, in bytes."""

KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {}, "b.mp4": {"container": {"movflags": "faststart"}}, "c.mkv": {}, "d.ts": {},
    "e.h264": {"format": "h264"}, "f.avi": {"codec": "mpeg4"}, "g.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h.webm": {"codec": "libvpx-vp9"},
    "i.ivf": {"codec": "libvpx"}, "j.mpg": {"codec": "mpeg2video"}, "k.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "l.mov": {"codec": "libx265"}, "m.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"}, "n.flv": {},
    "o.mov": {"codec": "qtrle", "pix_fmt": "rgb24"}, "p.wmv": {"codec": "msmpeg4", "format": "asf"},
}  # fmt: skip
REAL_BYTES = 60_000
"""Real videos up to this size are damaged too, where available; in bytes."""


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of many ways."""
    broken = bytearray(data)
    kind = rng.integers(0, 9)
    offset = int(rng.integers(0, len(broken)))
    if kind == 0:
        return bytes(broken[:offset])
    if kind in (1, 2):  # flipped bits, few or many
        for _ in range(int(rng.integers(1, 4 if kind == 1 else 200))):
            broken[int(rng.integers(0, len(broken)))] ^= 1 << int(rng.integers(0, 8))
    elif kind == 3:  # a wrong header
        for _ in range(int(rng.integers(1, 12))):
            broken[int(rng.integers(0, min(len(broken), 800)))] = int(rng.integers(0, 256))
    elif kind == 4:  # a hole
        length = int(rng.integers(1, 4096))
        broken[offset : offset + length] = bytes(min(length, len(broken) - offset))
    elif kind == 5:  # a missing part
        del broken[offset : offset + int(rng.integers(1, 2000))]
    elif kind == 6:  # a repeated part
        broken[offset:offset] = broken[offset : offset + int(rng.integers(1, 2000))]
    elif kind == 7:  # a number, perhaps a size, becomes huge or zero
        broken[offset : offset + 4] = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)][int(rng.integers(0, 3))]
    else:  # noise
        length = min(int(rng.integers(1, 512)), len(broken) - offset)
        broken[offset : offset + length] = rng.bytes(length)
    return bytes(broken)


class Memory:
    """Tracks the largest resident memory of any descendant process, inside a `with` block."""

    peak = 0
    process = ""

    def __enter__(self) -> "Memory":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for pid in descendants():
                with contextlib.suppress(OSError, IndexError):  # the process has ended
                    args = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    status = Path(f"/proc/{pid}/status").read_text()
                    used = int(status.partition("VmHWM:")[2].split()[0]) * 1024
                    if used > self.peak and ("decoding.sandbox_main" in args or "ray::" in args):
                        self.peak, self.process = used, args.strip()


def descendants() -> Iterator[int]:
    """Yield the ids of all descendant processes."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    waiting = [os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        yield from children
        waiting += children


def run(folder: Path, out: Path, *args: str) -> None:
    shard.main(
        ["--source.name", "videos", "--source.path", str(folder), "--source.videos.clip-frames", "4",
         "--source.videos.size", "32", "--shards.max-rejected-share", "1", "--out", str(out), *args]
    )  # fmt: skip


def digests_of(out: Path, prefix: str) -> dict[str, str]:
    """Map keys that start with `prefix` to the SHA-256 of their clip's frames."""
    found = {}
    for split in ("train", "test"):
        clips = ClipDataset(str(out), split)
        for index, key in enumerate(clips.keys):
            if key.startswith(prefix):
                found[key] = hashlib.sha256(clips.frames(index).tobytes()).hexdigest()
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_videos_harm_neither_the_job_nor_good_videos(
    tmp_path: Path, local_ray: None, trials: Callable[[int], int]
) -> None:
    folder = tmp_path / "videos"
    (folder / "bad").mkdir(parents=True)
    (folder / "good").mkdir()
    for name, settings in KINDS.items():
        write_video(folder / "good" / name, ramp(20), **settings)
    pool = [path.read_bytes() for path in sorted((folder / "good").iterdir())]
    real = Path(os.environ.get("VDSM_DATA", Path(__file__).parents[4] / "shared" / "data")) / "videos"
    if real.is_dir():
        pool += [path.read_bytes() for path in sorted(real.glob("*/*.*")) if path.stat().st_size <= REAL_BYTES]
    count = trials(80)
    for number in range(count):
        rng = np.random.default_rng(number)
        (folder / "bad" / f"{number:05d}").write_bytes(damage(pool[int(rng.integers(0, len(pool)))], rng))

    with Memory() as memory:
        run(folder, tmp_path / "out", "--shards.target-mb", "1")

    assert 0 < memory.peak < MEMORY_LIMIT, memory.process
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert not [one for one in rejects if one["path"].startswith("good/")]
    assert len({one["path"] for one in rejects}) == len(rejects)
    # decoded here one by one, the good videos give the same clips
    config = VideosConfig(clip_frames=4, size=32)
    source = make_source(SourceConfig(name="videos", path=str(folder), videos=config), 0)
    wanted = {
        clip.key: hashlib.sha256(clip.frames.tobytes()).hexdigest()
        for item in source.items() if item.path.startswith("good/")
        for clip in source.clips(item)
    }  # fmt: skip
    assert len(wanted) == 5 * len(KINDS)
    made = digests_of(tmp_path / "out", "good-")
    assert made == wanted
    # every damaged video gave clips, or a reason why not
    gave_clips = {key.rpartition("-")[0] for key in digests_of(tmp_path / "out", "bad-")}
    rejected = {one["path"] for one in rejects}
    bad = [item for item in source.items() if item.path.startswith("bad/")]
    silent = [item.path for item in bad if item.key not in gave_clips and item.path not in rejected]
    assert len(bad) == count
    assert silent == []
    verify.main([str(tmp_path / "out")])
    reasons = dict(Counter(one["reason"] for one in rejects).most_common())
    peak = f"peak {memory.peak / 1e6:.0f} MB"
    print(f"{count} damaged videos: {len(gave_clips)} gave clips, {len(rejects)} rejected, {peak}")
    print(reasons)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_long_video_in_high_definition_takes_little_memory(
    tmp_path: Path, local_ray: None, trials: Callable[[int], int]
) -> None:
    (tmp_path / "videos").mkdir()
    seconds = 10 * trials(2)
    write_long_video(tmp_path / "videos" / "long.mp4", seconds)
    write_video(tmp_path / "videos" / "short.mp4", ramp(20))  # the other split
    start = time.monotonic()
    with Memory() as memory:
        run(tmp_path / "videos", tmp_path / "out")
    peak = f"peak {memory.peak / 1e6:.0f} MB: {memory.process}"
    print(f"{seconds} s of 1080p in {time.monotonic() - start:.0f} s, {peak}")
    assert 0 < memory.peak < MEMORY_LIMIT, memory.process
    assert len(digests_of(tmp_path / "out", "long-")) == seconds * 25 // 4


def write_long_video(path: Path, seconds: int) -> None:
    """Write a video of 1920x1080 at 25 frames per second that repeats ten encoded seconds."""
    import av

    scene = np.random.default_rng(0).integers(0, 256, (1080 // 40, 1920 // 40 + 60, 3), dtype=np.uint8)
    images = [np.kron(scene[:, n // 5 : n // 5 + 48], np.ones((40, 40, 1), np.uint8)) for n in range(250)]
    first = write_video(path.with_name("first.mp4"), images, options={"preset": "ultrafast", "g": "250"})
    with av.open(str(first)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(video=0) if packet.dts is not None]
        ticks = int(10 / Fraction(packets[0].time_base))  # type: ignore[arg-type]
        for repetition in range(seconds // 10):
            for packet in packets:
                packet.pts, packet.dts = packet.pts + ticks * bool(repetition), packet.dts + ticks * bool(repetition)
                packet.stream = stream
                out.mux(packet)
    first.unlink()
