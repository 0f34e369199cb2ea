"""Which clips a grid shows, and where."""

from pathlib import Path

import numpy as np

from pipeline.report.grids import action_donors, identity_donors
from pipeline.report.images import mosaic
from preprocessing.dataset.reader import ClipDataset


def test_donors_cover_every_action_with_different_identities(small_figures: Path) -> None:
    test = ClipDataset(str(small_figures), "test")
    actions = action_donors(test)
    assert [int(test.labels["action"][index]) for index in actions] == list(range(len(test.vocabulary["action"])))
    donors = identity_donors(test, 100)
    assert sorted(test.identities[index] for index in donors) == sorted(set(test.identities))
    assert len({int(test.labels["action"][index]) for index in donors}) == len(donors)


def test_mosaic_puts_each_clip_in_its_cell() -> None:
    clips = [np.full((2, 4, 4, 3), value, dtype=np.uint8) for value in (50, 100, 150)]
    found = mosaic([[None, clips[0]], [clips[1], clips[2]]], gap=1, header_row=True)
    assert found.shape == (2, 4 + 1 + 3 + 4, 9, 4)
    assert (found[:, :4, :4, 3] == 0).all()
    assert (found[:, :4, 5:, :3] == 50).all()
    assert (found[:, 8:, :4, :3] == 100).all()
    assert (found[:, 8:, 5:] == [150, 150, 150, 255]).all()
