"""The program that drew a dataset, as a control."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from pipeline.evaluation.renderer import load_renderer
from preprocessing.sources.config import SourceConfig
from preprocessing.sources.registry import make_source


def dataset(sha256: str, name: str = "lpc") -> Any:
    """Return as much of a dataset as the renderer reads: its source and what it was drawn from."""
    return SimpleNamespace(source={"name": name}, source_sha256=sha256)


@pytest.mark.parametrize(("sheets", "characters"), [("sprites", 1296), ("universal_sprites", 840)])
def test_it_draws_what_the_dataset_holds(sheets: str, characters: int, request: pytest.FixtureRequest) -> None:
    folder = str(request.getfixturevalue(sheets))
    source = make_source(SourceConfig(name="lpc", path=folder), seed=0)
    renderer = load_renderer(dataset(source.fingerprint()), "data", folder)
    assert len(renderer.identities) == characters
    for item in (source.items()[0], source.items()[777]):
        for clip in source.clips(item):
            assert isinstance(clip.labels["action"], int)
            np.testing.assert_array_equal(renderer.draw(clip.identity, clip.labels["action"]), clip.frames)


def test_other_sheets_and_other_data_are_refused(sprites: Path) -> None:
    with pytest.raises(UserError, match="data was drawn from other sheets"):
        load_renderer(dataset("0" * 64), "data", str(sprites))
    with pytest.raises(UserError, match="was not drawn from Sprites sheets"):
        load_renderer(dataset("0" * 64, "figures"), "data", str(sprites))
