"""The model that comes with the package: on figures that it has not seen, its swaps show what the generator draws."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import vdsm
from vdsm import loading

FIGURES = ((0, 1, 2, 3), (1, 4, 0, 2), (3, 0, 4, 1), (2, 2, 3, 0))
"""Skin, hat, shirt and trousers."""


def drawn(figure: tuple[int, int, int, int], action: str, phase: float) -> NDArray[np.uint8]:
    """Draw a clip of 8 frames, uint8 [T, H, W, C]."""
    from preprocessing.sources.figure_motion import joints_at
    from preprocessing.sources.figures import Figure, render

    return render(Figure(*figure), joints_at(action, 2 * np.pi * (phase + np.arange(8) / 8)))


def test_a_swap_is_nearest_to_the_clip_that_shows_this_figure_in_this_action() -> None:
    from preprocessing.sources.figure_motion import ACTIONS

    model = vdsm.load("figures")
    truth = np.stack([[drawn(figure, action, 0.3) for action in ACTIONS] for figure in FIGURES])
    donors = np.stack([drawn(FIGURES[0], action, 0.3) for action in ACTIONS])
    for number in range(1, len(FIGURES)):
        swapped = model.swap(static_of=drawn(FIGURES[number], "wave", 0.8), dynamics_of=donors)
        error = np.square(swapped[:, None, None] - truth[None].astype(np.float32)).mean((3, 4, 5, 6))
        nearest = error.reshape(len(ACTIONS), -1).argmin(axis=1)
        assert nearest.tolist() == [number * len(ACTIONS) + action for action in range(len(ACTIONS))]


def test_it_is_small_and_states_its_licence_and_its_metrics() -> None:
    assert loading.shipped() == ("figures",)
    folder = loading.SHIPPED / "figures"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    card = (folder / "README.md").read_text()
    assert "license: mit" in card
    assert "| swap.static.joint | 100.0% |" in card
    assert "| moving.swap.psnr | 24.12 |" in card


@pytest.mark.slow
def test_its_samples_are_generated_by_its_name(tmp_path: Path) -> None:
    import imageio.v3 as imageio

    from pipeline.generate import main

    main(["--model", "figures", "--out", str(tmp_path / "t.mp4")])
    film = imageio.imread(tmp_path / "t.mp4", plugin="pyav")
    assert len(film) >= 8
    assert film.std() > 20  # something is drawn
