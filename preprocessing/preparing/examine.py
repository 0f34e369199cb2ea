"""Examine one video while its frames arrive: shots, what is in them, crops, scores, hashes, and stills for the page."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.clip import Clip
from preprocessing.decoding.transform import Crop
from preprocessing.preparing.block import Block
from preprocessing.preparing.boxes import BELOW, Box, square_around
from preprocessing.preparing.candidates import Candidate, Findings, find_candidates
from preprocessing.preparing.config import PrepareConfig
from preprocessing.preparing.cuts import CutFinder
from preprocessing.preparing.detectors import FaceFinder
from preprocessing.preparing.hashes import hash_frame
from preprocessing.preparing.quality import sharpness
from preprocessing.preparing.stills import make_still
from preprocessing.preparing.tracks import moves_of

Rgb = NDArray[np.uint8]

FPS = 10.0
"""Largest number of frames per second that are examined; cuts are looked for in all."""
HASH_S, HASHES = 0.5, 24
"""Seconds between the frames of which hashes are made, at first, and their largest number."""
STILLS = 6
"""Largest number of stills of a video."""


class Examination:
    """Examines a video.

    Args:
        config: what is looked for.
        min_length_s: shortest part in seconds, or None if it is `min_frames`.
        min_frames: shortest part, in frames of the video.
        segments: start and end in seconds of the parts that the labels select, and their crop boxes.
        faces: finds faces.
    """

    def __init__(
        self,
        config: PrepareConfig,
        *,
        min_length_s: float | None,
        min_frames: int,
        segments: Sequence[tuple[float, float | None, Crop | None]],
        faces: FaceFinder,
    ) -> None:
        self._config, self._min_length_s, self._min_frames = config, min_length_s, min_frames
        self._segments, self._faces = segments, faces
        self._cuts = self._new_cuts()
        self._base = 0
        self._held: list[tuple[float, Rgb]] = []
        self._block = Block()
        self._run = -1.0
        self._count = 0
        self._size = (0, 0)
        self._shape: tuple[int, ...] = ()
        self._bytes = 0.0
        self._last = self._step = 0.0
        self._hashes: list[tuple[float, list[str]]] = []
        self._hash_s, self._next_hash = HASH_S, 0.0
        self.cuts: list[float] = []
        self.parts: list[dict[str, Any]] = []
        self.stills: list[dict[str, Any]] = []

    def _new_cuts(self) -> CutFinder:
        return CutFinder(self._config.cut_threshold, self._config.cut_change)

    def add(self, chunk: Clip) -> None:
        """Add the next frames of the video."""
        size = (int(float(chunk.labels["width"])), int(float(chunk.labels["height"])))  # type: ignore[arg-type]
        self._bytes = float(chunk.labels["bytes"])  # type: ignore[arg-type]
        times, runs = chunk.labels["time"], chunk.labels["run"]
        assert isinstance(times, list)
        assert isinstance(runs, list)
        for frame, time, run in zip(chunk.frames, times, runs):
            if self._count and (run != self._run or size != self._size or frame.shape != self._shape):
                self._release(0)
                self._end_block(None)
                self._base = self._count
                self._cuts = self._new_cuts()
            self._run, self._size, self._shape = run, size, frame.shape
            self._hash(frame, time)
            self._held.append((time, frame))
            found = list(self._cuts.add(frame))
            self._count += 1
            for index in found:
                self._release(self._count - self._base - index)
                if self._block.times:
                    self.cuts.append(self._boundary(self._held[0][0]))
                    self._end_block(self.cuts[-1])
            self._release(CutFinder.DELAY)

    def record(self) -> dict[str, Any]:
        """Return everything that was found, once all frames were added."""
        self._release(0)
        self._end_block(None)
        width, height = self._size
        pixels = max(1, width * height * self._count)
        return {
            "frames": self._count,
            "seconds": _rounded(self._last + self._step if self._count else 0.0),
            "width": width,
            "height": height,
            "bits_per_pixel": _rounded(8 * self._bytes / pixels),
            "cuts": self.cuts,
            "hashes": [hashes for _, hashes in self._hashes],
            "parts": self.parts,
            "stills": self.stills,
        }

    def _release(self, keep: int) -> None:
        """Move all but the last `keep` frames into the block; end the block where it is long enough."""
        while len(self._held) > keep:
            time, frame = self._held.pop(0)
            block = self._block
            boundary = self._segment_boundary(time)
            if block.times and boundary is not None:
                self._end_block(boundary)
            elif block.times and time - block.times[0] >= self._config.max_length_s + self._needed_s():
                self._split_block()
            block = self._block
            if not block.times:
                block.number = self._count - len(self._held) - 1
            if not block.shown or time - block.shown[-1] >= 0.95 / FPS:
                block.frames.append(frame)
                block.shown.append(time)
            self._step = time - self._last if block.times else self._step
            block.times.append(time)
            self._last = time

    def _split_block(self) -> None:
        """End the block at its longest length, and leave the rest, which is long enough, in the next one."""
        self._block, rest, boundary = self._block.split(self._config.max_length_s)
        self._end_block(_rounded(boundary))
        self._block = rest

    def _segment_boundary(self, time: float) -> float | None:
        """Return where a segment of the labels starts or ends between the last frame and the one at `time`, if any."""
        ends = (end for start, stop, _ in self._segments for end in (start, stop) if end is not None)
        return next((end for end in ends if self._last < end <= time), None)

    def _needed_s(self) -> float:
        return self._min_length_s if self._min_length_s is not None else self._min_frames * (self._step or 0.04)

    def _boundary(self, time: float) -> float:
        """Return the time between the last frame and the next one, at `time`."""
        return _rounded((self._last + time) / 2)

    def _hash(self, frame: Rgb, time: float) -> None:
        if time < self._next_hash:
            return
        found = hash_frame(frame)
        if found:
            self._hashes.append((time, found))
        if len(self._hashes) > HASHES:
            self._hash_s *= 2
            self._hashes = self._hashes[::2]
        self._next_hash = time + self._hash_s

    def _end_block(self, end_s: float | None) -> None:
        """Examine the frames of the block, and begin another one."""
        block, self._block = self._block, Block()
        if not block.times:
            return
        start = 0.0 if block.number == 0 else _rounded(block.times[0] - min(self._step, 1.0) / 2)
        previous = self.parts[-1]["end_s"] if self.parts else None
        start = previous if previous is not None and abs(previous - start) < self._step else start
        end = end_s if end_s is not None else _rounded(block.times[-1] + (self._step or 0.04) / 2)
        middle = (start + end) / 2
        inside = [
            number for number, (low, high, _) in enumerate(self._segments)
            if low <= middle and (high is None or middle < high)
        ]  # fmt: skip
        if not inside:
            return
        low, high, given = self._segments[inside[0]]
        start, end = max(start, low), end if high is None else min(end, high)
        part = {"start_s": start, "end_s": end, "frames": len(block.times), "kept": False}
        if not self._is_long_enough(block.times):
            seconds = block.times[-1] - block.times[0] + (self._step or 0.04)
            self.parts.append(part | {"reason": "too short", "where": f"{len(block.times)} frames, {seconds:.2f} s"})
            self._add_still(block, self.parts[-1:])
            return
        made = sorted(self._examine(block, part, given), key=lambda one: float(one["start_s"]))
        self.parts += made
        self._add_still(block, made)

    def _is_long_enough(self, times: Sequence[float]) -> bool:
        if self._min_length_s is None:
            return len(times) >= self._min_frames
        return times[-1] - times[0] + (self._step or 0.04) >= self._min_length_s - 1e-6

    def _examine(self, block: Block, part: dict[str, Any], given: Crop | None) -> list[dict[str, Any]]:
        """Return the parts that a block becomes: one for each thing to crop to, or for the box that is given.

        A part of a block that shows nothing is kept out, and says why.
        """
        (height, width), margin = block.frames[0].shape[:2], self._config.margin
        scale = self._size[0] / width, self._size[1] / height
        count, span = len(block.frames), block.shown[-1] - block.shown[0]
        fps = (count - 1) / span if span > 0 else FPS
        needed = max(2, int(np.ceil(self._needed_s() * fps)))
        found = find_candidates(block.frames, fps, self._config, self._faces, min_frames=needed)
        candidates = found.candidates
        if given is not None:
            box = (given[0] / scale[0], given[1] / scale[1], given[2] / scale[0], given[3] / scale[1])
            motion = max((one.motion for one in candidates), default=0.0)
            candidates = [Candidate("motion", box, 0, count - 1, motion)]
        if not candidates:
            return [part | _nothing(found, self._config.detector)]
        made: list[dict[str, Any]] = []
        for one in candidates:
            below = 0.5 if one.kind == "face" else BELOW
            squares = [
                box if given is not None else square_around(box, margin, width, height, below=below)
                for box in map(one.at, range(one.first, one.last + 1))
            ]
            scores = {
                "motion": _rounded(one.motion),
                "sharpness": _rounded(sharpness(block.frames[(one.first + one.last) // 2], squares[len(squares) // 2])),
                "side": _rounded(squares[0][2] * scale[0]),
            }
            start = part["start_s"] if one.first == 0 else _rounded(block.shown[one.first])
            end = part["end_s"] if one.last == count - 1 else _rounded(block.shown[one.last])
            times = [time for time in block.times if start <= time < end]
            rivals = sum(other["kept"] and start < other["end_s"] and other["start_s"] < end for other in made)
            reason, where = self._fault(scores, times, end - start, rivals)
            made.append(
                part
                | {
                    "start_s": start,
                    "end_s": end,
                    "frames": len(times),
                    "kept": not reason,
                    "reason": reason,
                    "where": where,
                    "kind": "given" if given is not None else one.kind,
                    "camera": found.camera,
                    "box": [round(value * factor) for value, factor in zip(squares[0], scale * 2)],
                    **self._moves(one, squares, block.shown[one.first : one.last + 1], scale, given),
                    "scores": scores,
                }
            )
        return made

    def _moves(
        self, one: Candidate, squares: list[Box], times: list[float], scale: tuple[float, float], given: Crop | None
    ) -> dict[str, Any]:
        """Return `moves` of a part whose crop moves, as the labels say or as its candidate does, else nothing."""
        if given is not None:
            return {"moves": [list(point) for point in given.moves]} if given.moves else {}
        return {"moves": moves_of(squares, times, scale)} if one.way is not None else {}

    def _fault(self, scores: dict[str, float], times: Sequence[float], length_s: float, rivals: int) -> tuple[str, str]:
        """Return why a crop is dropped and the value that decides it, or two empty strings.

        Args:
            scores: its motion in grey levels, its sharpness, and its side in pixels of the video.
            times: times of its frames in seconds.
            length_s: its length in seconds.
            rivals: number of kept crops that are more active at the same time.
        """
        config = self._config
        if scores["motion"] < config.still:
            return "still", f"it changes by {scores['motion']:g} grey levels"
        if scores["side"] < config.min_size:
            return "too small", f"{scores['side']:g} pixels"
        if scores["sharpness"] < config.min_sharpness:
            return "blurred", f"sharpness {scores['sharpness']:g}"
        if not self._is_long_enough(times):
            return "too short", f"{len(times)} frames, {length_s:.2f} s"
        if rivals >= config.max_tracks:
            return "too many at once", f"{rivals} are more active"
        return "", ""

    def _add_still(self, block: Block, parts: Sequence[dict[str, Any]]) -> None:
        """Add the middle frame of a block, and name it in its parts."""
        if len(self.stills) < STILLS:
            for part in parts:
                part["still"] = len(self.stills)
            middle = len(block.frames) // 2
            self.stills.append(make_still(block.frames[middle], block.shown[middle]))


def _nothing(found: Findings, detector: str) -> dict[str, Any]:
    wanted = {"faces": "no face", "people": "no person"}.get(detector)
    if wanted:
        return {"reason": wanted, "where": "", "camera": found.camera}
    if found.camera == "moving":
        return {"reason": "nothing stands out", "where": "the camera moves", "camera": found.camera}
    return {"reason": "still", "where": "nothing moves", "camera": found.camera}


def _rounded(value: float) -> float:
    return round(float(value), 6)
