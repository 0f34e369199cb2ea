"""The program that drew a dataset, as a control."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from pipeline.evaluation.renderer import load_renderer, load_true_swap
from preprocessing.sources.config import FiguresConfig, PendulumConfig, SourceConfig
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


def split(source: SourceConfig, items: slice) -> Any:
    """Return as much of a split as is read for true swaps: the clips of some inputs of a source with seed 3."""
    made = make_source(source, seed=3)
    clips = [clip for item in made.items()[items] for clip in made.clips(item)]
    configuration = {"seed": 3, "source": source.model_dump(mode="json", exclude={"path"})}

    class Split:
        source = configuration["source"]
        manifest = {"configuration": configuration}  # noqa: RUF012
        keys = [clip.key for clip in clips]  # noqa: RUF012
        identities = [clip.identity for clip in clips]  # noqa: RUF012
        labels = {name: np.array([clip.labels[name] for clip in clips]) for name in made.vocabulary}  # noqa: RUF012

        def __len__(self) -> int:
            return len(clips)

        def frames(self, index: int) -> Any:
            return clips[index].frames

    return Split()


@pytest.mark.parametrize(
    "source",
    [
        SourceConfig(name="figures", figures=FiguresConfig(identities=4)),
        SourceConfig(name="pendulum", pendulum=PendulumConfig(identities=4, clip_frames=5)),
    ],
)
def test_swaps_of_generated_clips_are_drawn(source: SourceConfig) -> None:
    test = split(source, slice(2))
    true_swap = load_true_swap(test)
    assert true_swap is not None
    last = len(test) - 1
    for clip in (1, last):
        np.testing.assert_array_equal(true_swap(clip, clip), test.frames(clip))
    # Another clip of the same identity gives the same look.
    np.testing.assert_array_equal(true_swap(1, last), true_swap(1, last - 1))
    assert (true_swap(1, last) != test.frames(1)).any()


def test_the_swap_of_sprites_is_the_clip_of_the_one_in_the_action_of_the_other(sprites: Path) -> None:
    test = split(SourceConfig(name="lpc", path=str(sprites)), slice(2))
    true_swap = load_true_swap(test)
    assert true_swap is not None
    np.testing.assert_array_equal(true_swap(4, 10), test.frames(13))
    np.testing.assert_array_equal(true_swap(12, 2), test.frames(3))
    test.labels["action"][3] = 0
    assert load_true_swap(test) is None, "one of them does not perform every action"


def test_what_was_drawn_otherwise_has_no_known_swap() -> None:
    source = SourceConfig(name="figures", figures=FiguresConfig(identities=4))
    for change in (
        {"manifest": {"configuration": {"seed": 4}}},
        {"manifest": {}},
        {"source": {"name": "figures", "figures": {"unknown": 1}}},
        {"source": {"name": "videos"}},
        {"keys": ["anna"] * 12},
        {"identities": ["anna"] * 12},
    ):
        test = split(source, slice(2))
        assert load_true_swap(test) is not None
        for name, value in change.items():
            setattr(test, name, value)
        assert load_true_swap(test) is None, change
