"""Turn what was found in all videos into decisions: one per part, with its group and labels; and into the sidecar."""

import csv
import io
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from preprocessing.dataset.format import encode_json
from preprocessing.preparing.duplicates import group_videos
from preprocessing.sources.labels import CROP_MOVES, IDENTITY, SPLIT, InputPart
from preprocessing.sources.names import as_text, make_key

BOX = ("left", "top", "width", "height")
COLUMNS = ("path", *BOX, "start_s", "end_s", "dropped", IDENTITY)
"""First columns of the sidecar; `crop_moves`, if a crop moves, and those of other labels follow."""


@dataclass(frozen=True)
class Video:
    """A video and what was found in it."""

    name: str
    """Its path, relative to `source.path`."""
    record: dict[str, Any]
    """What `examine` returned, with `damage`; a video without labels has only `damage`."""
    segments: Sequence[InputPart]
    """The segments that its labels select."""

    @property
    def damage(self) -> dict[str, str] | None:
        """What is wrong with the file, if anything."""
        found: dict[str, str] | None = self.record.get("damage")
        return found

    @property
    def fault(self) -> dict[str, str]:
        """Why it has no part, if it has none."""
        return self.damage or {"reason": "no frames in its segments", "where": ""}

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Its parts, in order."""
        found: list[dict[str, Any]] = self.record.get("parts", [])
        return found

    @property
    def kept(self) -> int:
        """Number of parts that are kept."""
        return sum(part["kept"] for part in self.parts)

    def labels(self, part: dict[str, Any]) -> dict[str, str]:
        """Return the labels of the segment that a part is in."""
        middle = (part["start_s"] + part["end_s"]) / 2
        inside = (one for one in self.segments if one.start_s <= middle and (one.end_s is None or middle < one.end_s))
        return next(inside, self.segments[0]).labels


class Totals(NamedTuple):
    """Numbers over all videos."""

    number: int
    """Videos."""
    used: int
    """Videos of which a part is kept."""
    parts: int
    kept: int
    """Parts that are kept."""
    cuts: int


@dataclass(frozen=True)
class Decisions:
    """Everything that was decided."""

    videos: list[Video]
    """In the order of their paths."""
    groups: list[int]
    """Of each video, the index of the first one of its group."""

    def group(self, index: int) -> str:
        """Return the name of the group of a video."""
        return make_key(self.videos[self.groups[index]].name)

    def identity(self, index: int, part: dict[str, Any]) -> str:
        """Return the identity in the sidecar: the label, or else the group of near-duplicates."""
        return self.videos[index].labels(part).get(IDENTITY) or self.group(index)

    def several(self) -> list[list[int]]:
        """Return the groups of several videos, as indices."""
        members: dict[int, list[int]] = {}
        for index, first in enumerate(self.groups):
            members.setdefault(first, []).append(index)
        return [group for group in members.values() if len(group) > 1]

    def divided(self) -> list[list[int]]:
        """Return the groups whose videos have different identities by their labels, and may be in both splits."""
        return [
            group
            for group in self.several()
            if len({labels.get(IDENTITY) for index in group for labels in [self._first_labels(index)]}) > 1
        ]

    def totals(self) -> Totals:
        """Return how many videos there are, and what was found in them."""
        return Totals(
            number=len(self.videos),
            used=sum(bool(video.kept) for video in self.videos),
            parts=sum(len(video.parts) for video in self.videos),
            kept=sum(video.kept for video in self.videos),
            cuts=sum(len(video.record.get("cuts", [])) for video in self.videos),
        )

    def reasons(self) -> list[tuple[str, int]]:
        """Return how many parts, and files without any, were dropped for each reason, the most frequent first."""
        found: Counter[str] = Counter()
        for video in self.videos:
            found.update(part["reason"] for part in video.parts if not part["kept"])
            if not video.parts and video.damage:
                found[video.damage["reason"]] += 1
        return sorted(found.items(), key=lambda one: (-one[1], one[0]))

    def _first_labels(self, index: int) -> dict[str, str]:
        segments = self.videos[index].segments
        return segments[0].labels if segments else {}

    def lines(self) -> bytes:
        """Return `decisions.jsonl`: a line per part, and one per file without any."""
        lines = []
        for index, video in enumerate(self.videos):
            known = {"path": as_text(video.name), "group": self.group(index)}
            about = {name: video.record.get(name) for name in ("seconds", "width", "height", "bits_per_pixel", "cuts")}
            if not video.parts:
                lines.append(encode_json({**known, "kept": False, **video.fault, "video": about}))
            for part in video.parts:
                labels = {"labels": video.labels(part), "video": about}
                shown = {name: value for name, value in part.items() if name != "still"}
                lines.append(encode_json({**known, **shown, **labels}))
        return b"".join(lines)

    def rejects(self) -> bytes:
        """Return `rejects.jsonl`: a line per file that is damaged or no video."""
        return b"".join(
            encode_json({"path": as_text(video.name), **video.damage, "parts": video.kept})
            for video in self.videos
            if video.damage
        )

    def sidecar(self) -> bytes:
        """Return `sidecar.csv`: a row per part, and one per file without any. Rows with a reason in `dropped` are not
        used; delete the reason to use a part."""
        names = _label_names(self.videos)
        moves = [CROP_MOVES] if any(part.get("moves") for video in self.videos for part in video.parts) else []
        columns = [*COLUMNS, *moves, *sorted(names & {SPLIT}), *sorted(names - {IDENTITY, SPLIT})]
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for index, video in enumerate(self.videos):
            path = {"path": as_text(video.name)}
            for part in video.parts:
                why = ": ".join(filter(None, [part["reason"], part["where"]])) if not part["kept"] else ""
                box = dict(zip(BOX, part.get("box") or ()))
                decided: dict[str, Any] = {"start_s": part["start_s"], "end_s": part["end_s"], "dropped": why}
                decided |= {IDENTITY: self.identity(index, part), CROP_MOVES: _moves_as_text(part)}
                table.writerow(video.labels(part) | path | box | decided)
            if not video.parts:
                table.writerow(path | {"dropped": video.fault["reason"], IDENTITY: self.group(index)})
        return text.getvalue().encode()


def _moves_as_text(part: dict[str, Any]) -> str:
    """Return the moves of a part's crop as the sidecar has them."""
    return " ".join(f"{time}:{left}:{top}" for time, left, top in part.get("moves", []))


def _label_names(videos: Sequence[Video]) -> set[str]:
    """Return the names of all labels that a video has."""
    return {name for video in videos for segment in video.segments for name in segment.labels}


def decide(videos: Sequence[Video], hash_distance: int) -> Decisions:
    """Return the decisions on all videos, in the order of their paths."""
    hashes = [video.record.get("hashes", []) for video in videos]
    names = _label_names(videos) - {IDENTITY}
    return Decisions([_labelled(video, names) for video in videos], group_videos(hashes, hash_distance))


def _labelled(video: Video, names: Set[str]) -> Video:
    """Return a video without the parts that lack a label which others have: `vdsm shard` could not use them."""
    parts = []
    for part in video.parts:
        missing = min(names - video.labels(part).keys(), default="")
        is_lacking = part["kept"] and missing
        parts.append(part | {"kept": False, "reason": "no label", "where": missing} if is_lacking else part)
    return replace(video, record=video.record | {"parts": parts}) if video.parts else video
