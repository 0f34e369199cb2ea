"""Clips are compared with the training data by the density that was fitted to the training codes."""

import numpy as np
import torch

from tests.vdsm.tiny_models import tiny_model
from vdsm.code_density import Block, CodeDensity, FittedPriors
from vdsm.disentangler import Disentangler
from vdsm.familiarity import RARE, familiarity


def model_trained_on(frames: torch.Tensor, spread: float) -> Disentangler:
    """Return a model whose fitted static density is an isotropic Gaussian around the mean code of some clips."""
    model = tiny_model().eval()
    latents = model.frame_model.encoder(frames)
    centre = model.frame_model.pool_static(latents)[0].mean(0).detach()
    size = len(centre)
    scale = spread * torch.eye(size).to(centre)
    block = Block(torch.arange(size), torch.ones(1).to(centre), torch.zeros(1, size).to(centre), scale[None])
    model.fitted_priors = FittedPriors(CodeDensity(centre, torch.eye(size).to(centre), (block,)))
    return model


def drawn_frames(clips: int) -> torch.Tensor:
    """Return clips of three frames of noise."""
    config, generator = tiny_model().config, torch.Generator().manual_seed(2)
    return torch.rand(clips, 3, config.channels, config.frame_size, config.frame_size, generator=generator).double()


def test_the_share_is_that_of_less_likely_codes_and_rare_clips_are_unlike() -> None:
    frames = drawn_frames(2)
    found = familiarity(model_trained_on(frames, 10.0), frames)
    assert found is not None
    assert (found.share > 0.99).all()  # next to the mode
    assert not found.unlike.any()
    model = model_trained_on(frames, 1e-9)
    far = familiarity(model, 1 - frames)
    assert far is not None
    assert (far.share < RARE).all()
    assert far.unlike.all()


def test_the_share_agrees_with_the_distance_from_the_mode_of_a_gaussian() -> None:
    frames = drawn_frames(6)
    encoder = tiny_model().eval().frame_model
    codes = encoder.pool_static(encoder.encoder(frames))[0].detach().numpy()
    distances = np.linalg.norm(codes - codes.mean(0), axis=1)
    spread = distances.mean() / codes.shape[1] ** 0.5
    found = familiarity(model_trained_on(frames, spread), frames)
    assert found is not None
    drawn = spread * np.linalg.norm(np.random.default_rng(1).standard_normal((200_000, codes.shape[1])), axis=1)
    expected = [(drawn > distance).mean() for distance in distances]  # farther from the mode is less likely
    assert 0.01 < min(expected) < max(expected) < 0.99  # or nothing would be compared
    np.testing.assert_allclose(found.share, expected, atol=0.03)


def test_the_psnr_is_that_of_the_reconstruction() -> None:
    frames = drawn_frames(2)
    model = model_trained_on(frames, 1.0)
    found = familiarity(model, frames)
    assert found is not None
    errors = [np.mean((model.reconstruct(frames)[i] - frames[i]).numpy() ** 2) for i in range(2)]
    np.testing.assert_allclose(found.psnr_db, [10 * np.log10(1 / error) for error in errors])


def test_a_model_without_fitted_priors_says_nothing() -> None:
    size = tiny_model().config.frame_size
    assert familiarity(tiny_model().eval(), torch.rand(1, 3, 3, size, size).double()) is None
