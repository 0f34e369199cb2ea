"""The page of all decisions: one HTML file that needs no network, for wide and narrow screens, light and dark.

It depends on the decisions alone, so the same videos give the same page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preprocessing.decoding.transform import Crop
from preprocessing.preparing.decisions import Decisions, Video
from preprocessing.sources.names import as_text

VIDEOS = 300
"""Largest number of videos that are shown one by one: half of them with something dropped."""
GROUPS, MEMBERS = 60, 12
"""Largest number of groups of near-duplicates that are shown, and of videos of one."""


def make_page(decisions: Decisions) -> bytes:
    """Return the page."""
    import jinja2

    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    shown = _choose(decisions)
    groups = decisions.several()
    divided = {group[0] for group in decisions.divided()}
    text = page.render(
        videos=[_video(decisions, index) for index in shown],
        **decisions.totals()._asdict(),
        reasons=decisions.reasons(),
        groups=[
            {
                "name": decisions.group(group[0]),
                "size": len(group),
                "divided": group[0] in divided,
                "videos": [_cover(decisions.videos[index]) for index in group[:MEMBERS]],
            }
            for group in groups[:GROUPS]
        ],
        more_groups=max(0, len(groups) - GROUPS),
    )
    return text.encode()


def _choose(decisions: Decisions) -> list[int]:
    """Return the indices of the videos that are shown."""
    everything = range(len(decisions.videos))
    if len(everything) <= VIDEOS:
        return list(everything)
    faulty = [
        i for i in everything if decisions.videos[i].damage or decisions.videos[i].kept < len(decisions.videos[i].parts)
    ]
    chosen = set(faulty[: VIDEOS // 2])
    chosen.update([index for index in everything if index not in chosen][: VIDEOS - len(chosen)])
    return sorted(chosen)


def _cover(video: Video) -> dict[str, Any]:
    stills = video.record.get("stills", [])
    return {"name": as_text(video.name), "still": stills[0]["jpeg"] if stills else ""}


def _video(decisions: Decisions, index: int) -> dict[str, Any]:
    video = decisions.videos[index]
    record = video.record
    width, height = max(1, record.get("width", 1)), max(1, record.get("height", 1))
    seconds = max(1e-9, record.get("seconds", 0.0))
    stills = [
        {
            "jpeg": still["jpeg"],
            "time": still["time"],
            "boxes": [
                _percent(_box_at(part, still["time"]), width, height) | {"kept": part["kept"], "number": number + 1}
                for number, part in enumerate(video.parts)
                if part.get("still") == position and part.get("box")
            ],
        }
        for position, still in enumerate(record.get("stills", []))
    ]
    return {
        "name": as_text(video.name),
        "about": _about(video),
        "group": decisions.group(index) if decisions.groups.count(decisions.groups[index]) > 1 else "",
        "damage": video.damage,
        "kept": video.kept,
        "stills": stills,
        "cuts": [100 * time / seconds for time in record.get("cuts", [])],
        "parts": [
            {
                "number": number + 1,
                "kept": part["kept"],
                "start": f"{part['start_s']:.2f}",
                "end": f"{part['end_s']:.2f}",
                "left": 100 * part["start_s"] / seconds,
                "width": 100 * (part["end_s"] - part["start_s"]) / seconds,
                "kind": part.get("kind", "") + (", moves" if part.get("moves") else ""),
                "camera": part.get("camera", ""),
                "reason": part["reason"],
                "where": part["where"],
                "scores": part.get("scores"),
                "labels": ", ".join(f"{name}: {value}" for name, value in sorted(video.labels(part).items())),
            }
            for number, part in enumerate(video.parts)
        ],
    }


def _box_at(part: dict[str, Any], time_s: float) -> Sequence[float]:
    """Return the crop of a part at a time in seconds."""
    return Crop.of(part["box"], part.get("moves", [])).at(time_s)[:4]


def _percent(box: Sequence[float], width: int, height: int) -> dict[str, float]:
    """Return a box in percent of the frame."""
    return {
        "left": 100 * box[0] / width,
        "top": 100 * box[1] / height,
        "wide": 100 * box[2] / width,
        "high": 100 * box[3] / height,
    }


def _about(video: Video) -> str:
    record = video.record
    if not record.get("frames"):
        return ""
    return (
        f"{record['width']}x{record['height']} pixels, {record['frames']:,} frames, {record['seconds']:.1f} s, "
        f"{record['bits_per_pixel']:.2f} bits per pixel"
    )
