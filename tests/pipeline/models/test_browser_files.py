"""What the ONNX files of a browser are written from computes what the model does, also where a clip is continued."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from cluster.errors import UserError
from pipeline.exports import browser_files
from pipeline.recipe import Recipe
from vdsm.code_density import Block, CodeDensity
from vdsm.disentangler import Disentangler

FRAMES = 4


@pytest.mark.parametrize("decoder", ["lstm", "oscillators"])
def test_poses_are_continued_where_they_ended(decoder: Literal["lstm", "oscillators"], tiny_recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = Disentangler(replace(tiny_recipe.model, dynamics_decoder=decoder)).eval()
    poses = browser_files._Poses(model, FRAMES).eval()
    dynamics = torch.randn(1, model.config.dynamics_size)
    whole = model.poses(dynamics, 3 * FRAMES)
    state = torch.full((1, poses.state_size), 7.0)  # whatever it is, it is not read at the beginning
    for part in range(3):
        with torch.no_grad():
            found, state = poses(dynamics, state, torch.tensor([[float(part > 0)]]))
        expected = whole[:, part * FRAMES : (part + 1) * FRAMES]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(whole[:, :FRAMES], whole[:, FRAMES : 2 * FRAMES], atol=1e-5)


def test_the_density_is_that_of_the_prior() -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = tuple(
        Block(
            torch.tensor(coordinates), torch.tensor([0.3, 0.7]),
            torch.randn(2, size, generator=generator),
            torch.eye(size) + 0.1 * torch.randn(2, size, size, generator=generator).tril(),
        )
        for coordinates, size in (([0, 2], 2), ([1], 1))
    )  # fmt: skip
    density = CodeDensity(torch.randn(5, generator=generator), torch.randn(5, 3, generator=generator), blocks)
    for code in density.sample(10, generator):
        found = browser_files._Density(density)(code[None])
        torch.testing.assert_close(found, density.log_prob(code[None]), atol=1e-4, rtol=1e-5)


def test_a_model_that_refines_its_codes_is_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    model = Disentangler(tiny_recipe.model)
    model.refinement_steps = 3
    with pytest.raises(
        UserError, match="refines the static code of each clip by gradient steps, which a browser cannot"
    ):
        browser_files.write_browser_files(tmp_path, model, FRAMES)
    assert not list(tmp_path.iterdir())
