"""Sources of videos, their items and clips, for tests. `EVERY` lists the videos of the fixture `videos`."""

from pathlib import Path
from typing import Any

from preprocessing.clip import Clip, Item, Source
from preprocessing.sources.config import SourceConfig, VideosConfig
from preprocessing.sources.registry import make_source

EVERY = [
    f"{person}/{action}/{take}.mp4"
    for person in ("anna", "bert")
    for action in ("walk", "wave")
    for take in ("01", "02")
]


def source(path: Path | str, seed: int = 0, **settings: Any) -> Source:
    settings = {"clip_frames": 8, "size": 32} | settings
    return make_source(SourceConfig(name="videos", path=str(path), videos=VideosConfig(**settings)), seed)


def paths(listed: Source) -> list[str]:
    return [item.path for item in listed.items()]


def item(found: Source, path: str) -> Item:
    return next(one for one in found.items() if one.path == path)


def clips(found: Source, path: str) -> list[Clip]:
    return list(found.clips(item(found, path)))
