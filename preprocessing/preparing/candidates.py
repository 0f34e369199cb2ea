"""What a part of a shot is cropped to: faces, people and what moves, and which of these wins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocessing.preparing.activity import Activity, active_regions, blobs, measure_activity
from preprocessing.preparing.boxes import Box, centre, inside, overlap, scaled, union
from preprocessing.preparing.camera import CameraMotion, estimate_motion, warped
from preprocessing.preparing.config import PrepareConfig
from preprocessing.preparing.detectors import FaceFinder, find_people
from preprocessing.preparing.tracks import ROOM, WALKS, Track, Way, link, pieces

Grey = NDArray[np.uint8]
Rgb = NDArray[np.uint8]

FACE_ROOM = 1.2
"""Side of the head with hair and chin, as a multiple of that of the face."""
BODY = 2.8
"""What moves is a body, not a head, if it is this many times as long as the face in it."""
FACES_PER_S, PEOPLE_PER_S = 4.0, 1.0
"""Frames per second in which faces and people are looked for."""
SEEN = 0.4
"""Share of these frames in which something must be found, from the first to the last time."""
TRAVELS, SMALL = 0.6, 0.5
"""What moves in a region passes through it if it travels this far, and is no larger than this, as shares of its
side; otherwise it moves in place."""
CROWD = 0.7
"""A region larger than this share of the frame's shorter side, in which only small things move, holds several."""
STAYS = 0.4
"""A face that is seen for this share of a part, and never far from where it was, was there throughout."""
ALL = 0.9
"""What covers this share of the picture is not a body in it."""
WEAK = 0.25
"""What moves with less energy than this share of the strongest is left out."""


@dataclass(frozen=True)
class Candidate:
    """Something to crop to."""

    kind: Literal["face", "person", "motion"]
    box: Box
    """What must be visible, in pixels of the examined frames."""
    first: int
    """Index of its first examined frame."""
    last: int
    """Index of its last examined frame."""
    motion: float
    """How much it changes over time, in grey levels (root mean square)."""
    way: Way | None = None
    """Where it is in each frame, for a crop that moves."""

    def at(self, index: int) -> Box:
        """Return what must be visible in one frame."""
        return self.box if self.way is None else self.way.box(index)


@dataclass(frozen=True)
class Findings:
    """Everything found in a part."""

    camera: str
    """`still`, `shaky` or `moving`."""
    candidates: list[Candidate]
    """The most active first."""


def find_candidates(
    frames: Sequence[Rgb], fps: float, config: PrepareConfig, faces: FaceFinder, *, min_frames: int
) -> Findings:
    """Return what a part can be cropped to.

    Args:
        frames: successive frames, uint8 [H, W, 3], all of one size.
        fps: their number per second.
        config: what is looked for.
        faces: finds faces.
        min_frames: shortest piece of what passes through the picture, in frames.
    """
    detector = config.detector
    greys: list[Grey] = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.uint8) for frame in frames]
    camera = estimate_motion(greys)
    activity = measure_activity(camera.stabilized(greys))
    height, width = greys[0].shape
    whole: Box = (0.0, 0.0, float(width), float(height))
    scene = _Scene(frames, greys, fps, camera, activity, min_frames, config.follow)
    found: list[Candidate] = []
    heads = _tracks(scene, FACES_PER_S, faces.find) if detector in ("auto", "faces") else []
    if detector in ("auto", "motion"):
        found += _moving(scene)
    if detector == "people" or (detector == "auto" and camera.kind == "moving"):
        people = [_candidate(scene, "person", track) for track in _tracks(scene, PEOPLE_PER_S, find_people)]
        found = people + [one for one in found if all(_shown(one, other) < 0.5 for other in people)]
    if found:  # beside what moves, faces that do not are pictures of faces
        heads = [head for head in heads if activity.motion(head.box) >= config.still]
    for head in heads:
        found = _with_face(found, head, _candidate(scene, "face", head), whole)
    if camera.kind == "moving" and any(one.kind != "motion" for one in found):
        # What moves differently from the picture may as well be the nearer part of it.
        found = [one for one in found if one.kind != "motion"]
    return Findings(camera.kind, _strongest(found))


def _strongest(found: list[Candidate]) -> list[Candidate]:
    """Return the candidates that matter, the most active first, and none that shows much of another."""
    ranked = sorted(found, key=lambda one: (one.kind == "motion", -_energy(one), one.first, one.box))
    least = WEAK * max(map(_energy, ranked), default=0.0)
    kept: list[Candidate] = []
    for one in ranked:
        rivals = [other for other in kept if one.first <= other.last and other.first <= one.last]
        if one.kind == "motion" and (_energy(one) < least or any(_shown(one, other) > 0.5 for other in rivals)):
            continue
        kept.append(one)
    return kept


def _shown(one: Candidate, other: Candidate) -> float:
    """Return the share of a candidate that another one shows: of crops that move, in the frames that both have."""
    if one.way is None and other.way is None:
        return inside(one.box, other.box)
    shared = range(max(one.first, other.first), min(one.last, other.last) + 1)
    return float(np.mean([inside(one.at(index), other.at(index)) for index in shared])) if shared else 0.0


def _energy(one: Candidate) -> float:
    return one.motion * one.box[2] * one.box[3]


def _with_face(found: list[Candidate], head: Track, face: Candidate, whole: Box) -> list[Candidate]:
    """Return candidates with a face: as one of its own, unless a body that moves holds it."""
    box = face.box
    for one in found:
        is_body = inside(head.box, one.box) > 0.7 and max(one.box[2:]) >= BODY * head.side
        if one.kind != "face" and is_body and one.box[2] * one.box[3] < ALL * whole[2] * whole[3]:
            return found
    # Beside a face, what moves must be as large as that, and something else.
    others = [one for one in found if one.kind != "face" and max(one.box[2:]) >= head.side]
    others = [one for one in others if overlap(one.box, box) < 0.3 * min(one.box[2] * one.box[3], box[2] * box[3])]
    return [face, *(one for one in found if one.kind == "face"), *others]


@dataclass(frozen=True)
class _Scene:
    """Successive frames, and what is known of all of them."""

    frames: Sequence[Rgb]
    greys: Sequence[Grey]
    fps: float
    camera: CameraMotion
    activity: Activity
    min_frames: int
    follow: bool

    def divided(self, track: Track, min_frames: int) -> list[Track]:
        """Return the pieces of a track that one crop can hold; all of it if the crop may move."""
        return [track] if self.follow and track.length >= min_frames else pieces(track, min_frames)


def _tracks(scene: _Scene, per_s: float, find: Callable[[Rgb], list[Box]]) -> list[Track]:
    """Return the tracks of what a detector finds in some of the frames."""
    frames, min_frames = scene.frames, scene.min_frames
    step = max(1, round(scene.fps / per_s))
    looked = range(0, len(frames), step)
    linked = link(((index, find(frames[index])) for index in looked), max_gap=3 * step)
    steady = [track for track in linked if len(track.boxes) >= max(2, SEEN * (1 + (track.last - track.first) // step))]
    found = []
    for track in steady:
        parts = scene.divided(track, max(1, min_frames - 2 * step))
        for piece in parts:
            first, last = piece.first, min(len(frames) - 1, piece.last)
            if len(parts) == len(steady) == 1 and last - first >= STAYS * len(frames):
                first, last = 0, len(frames) - 1
            # Seen at the first and last frames that were looked at, it was there up to the ends of the part.
            first = 0 if first <= step else first
            last = len(frames) - 1 if last >= looked[-1] - step else last
            if last - first + 1 >= min_frames:
                found.append(Track([(first, piece.boxes[0][1]), *piece.boxes, (last, piece.boxes[-1][1])]))
    return found


def _candidate(scene: _Scene, kind: Literal["face", "person", "motion"], track: Track) -> Candidate:
    room, far = (FACE_ROOM, ROOM) if kind == "face" else (1.0, WALKS)
    box, way = scaled(track.box, room), None
    if scene.follow and track.reach > far:
        way = track.way(scene.fps, room)
    elif scene.follow and scene.camera.kind == "shaky":
        shaken = _shaken(scene.camera, box)
        # The box is that of all frames, not of the first one.
        way = replace(shaken, centres=shaken.centres - shaken.centres.mean(axis=0) + centre(box))
    return Candidate(kind, box, track.first, track.last, scene.activity.motion(box), way)


def _moving(scene: _Scene) -> list[Candidate]:
    """Return what moves, in place or through the picture."""
    greys, camera, activity = scene.greys, scene.camera, scene.activity
    if camera.kind == "moving":
        changes = [(index, blobs(*_residual(greys, camera, index))) for index in range(1, len(greys) - 1)]
        return [_candidate(scene, "motion", piece) for piece in _passing(scene, changes)]
    found: list[Candidate] = []
    passing: list[Box] = []
    frames = camera.stabilized(greys)
    each = [blobs(np.abs(frame - activity.background), activity.noise) for frame in frames]
    for region in active_regions(activity):
        parts = [[box for box in boxes if inside(box, region) > 0.5] for boxes in each]
        if _passes(region, [boxes for boxes in parts if boxes], min(greys[0].shape)):
            passing.append(region)
        else:
            way = _shaken(camera, region) if scene.follow and camera.kind == "shaky" else None
            found.append(Candidate("motion", region, 0, len(greys) - 1, activity.motion(region), way))
    if passing:
        changes = [
            (index, [box for box in boxes if any(inside(box, region) > 0.5 for region in passing)])
            for index, boxes in enumerate(each)
        ]
        found += [_candidate(scene, "motion", piece) for piece in _passing(scene, changes)]
    return found


def _shaken(camera: CameraMotion, region: Box) -> Way:
    """Return where a region of the first frame is in each of them: what stands still moves as the camera shakes."""
    point = np.array([*centre(region), 1.0])
    from_first = [cv2.invertAffineTransform(matrix).astype(np.float64) for matrix in camera.to_first]
    return Way(0, np.array([matrix @ point for matrix in from_first]), region[2:])


def _passes(region: Box, found: Sequence[list[Box]], short_side: int) -> bool:
    """Return whether what moves in a region passes through it.

    Args:
        found: the boxes of what moves, in each frame in which something does.
        short_side: shorter side of the frame, in pixels.
    """
    if len(found) < 3:
        return False
    side = max(region[2:])
    if (
        side > CROWD * short_side
        and float(np.median([max(box[2:]) for boxes in found for box in boxes])) < SMALL / 2 * side
    ):
        return True  # several that cross the picture, such as people on a square
    together = [union(boxes) for boxes in found]
    centres = np.array(list(map(centre, together)))
    low, high = np.percentile(centres, (5, 95), axis=0)
    small = float(np.median([max(box[2:]) for box in together])) < SMALL * side
    return small and bool((high - low).max() > TRAVELS * side)


def _passing(scene: _Scene, changes: Sequence[tuple[int, list[Box]]]) -> list[Track]:
    tracks = (track for track in link(changes, max_gap=3) if len(track.boxes) >= scene.min_frames // 2)
    return [piece for track in tracks for piece in scene.divided(track, scene.min_frames)]


def _residual(greys: Sequence[Grey], camera: CameraMotion, index: int) -> tuple[NDArray[np.float32], float]:
    """Return how a frame differs from both its neighbours, seen from where its camera was, and the noise of that."""
    height, width = greys[index].shape
    before = warped(greys[index - 1], camera.steps[index - 1])
    after = warped(greys[index + 1], cv2.invertAffineTransform(camera.steps[index]).astype(np.float64))
    smaller = cv2.min(cv2.absdiff(greys[index], before), cv2.absdiff(greys[index], after))
    change: NDArray[np.float32] = np.asarray(cv2.GaussianBlur(smaller, (5, 5), 0), np.float32)
    border = max(2, round(0.03 * max(height, width)))
    change[:border] = change[-border:] = change[:, :border] = change[:, -border:] = 0.0
    return change, float(np.percentile(change, 80))
