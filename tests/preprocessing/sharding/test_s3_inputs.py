"""Inputs in S3 are decoded without credentials: as the same clips as from a folder, and nothing is left behind."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster.storage import api as storage
from preprocessing.clip import Clip
from preprocessing.recipe import ShardsConfig
from preprocessing.sharding.tasks import make_decoder
from preprocessing.sources.config import SourceConfig
from preprocessing.sources.registry import make_source, serialize_source
from tests.preprocessing.video_files import ramp, write_video


def write_inputs(folder: Path) -> None:
    """Write two inputs of each kind of source."""
    for kind in ("videos", "frames", "arrays"):
        (folder / kind).mkdir(parents=True)
    for name in ("a", "b"):
        write_video(folder / "videos" / f"{name}.mp4", ramp(8))
        np.save(folder / "arrays" / f"{name}.npy", np.stack(ramp(8)))
        (folder / "frames" / name).mkdir()
        for number, image in enumerate(ramp(8)):
            Image.fromarray(image).save(folder / "frames" / name / f"{number}.png")
    np.savez_compressed(folder / "arrays" / "many.npz", images=np.stack([ramp(8), ramp(8)]))


def clips_of(kind: Any, path: str) -> list[Clip]:
    """Return all clips of a source, decoded as a sharding task does."""
    settings = {kind: {"size": 32, "clip_frames": 4}}
    config = SourceConfig.model_validate({"name": kind, "path": path, **settings})
    source = make_source(config, 0)
    items = source.items()
    decoder = make_decoder(source, serialize_source(config, 0, source), ShardsConfig())
    try:
        return [clip for item in items for clip in decoder.clips(item)]
    finally:
        decoder.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["videos", "frames", "arrays"])
def test_inputs_in_s3_give_the_clips_of_a_folder(
    tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write_inputs(tmp_path / "inputs")
    for path in (tmp_path / "inputs").rglob("*.*"):
        storage.upload(path, storage.join(s3_bucket, path.relative_to(tmp_path / "inputs").as_posix()))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    here = clips_of(kind, str(tmp_path / "inputs" / kind))
    there = clips_of(kind, f"{s3_bucket}/{kind}")
    assert len(here) == len(there) == (8 if kind == "arrays" else 4)
    for one, other in zip(here, there, strict=True):
        assert (one.key, one.source, one.identity, one.labels) == (
            other.key,
            other.source,
            other.identity,
            other.labels,
        )
        np.testing.assert_array_equal(one.frames, other.frames)
    assert [path.name for path in (tmp_path / "temporary").iterdir() if path.name.startswith("vdsm-input")] == []
