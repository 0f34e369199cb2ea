"""What the model computes for the studio: codes of clips, and clips of codes. Free of Ray."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.report.images import Frames
from pipeline.web_studio.codes import Code
from pipeline.web_studio.rendering import Encoded, Reading
from pipeline.web_studio.settings import StudioSettings

if TYPE_CHECKING:
    from torch import Tensor

Decoded = tuple[NDArray[np.float32], NDArray[np.float32], int]
"""Static code [K], dynamics code [D] and number of frames of a clip to decode."""

ENCODED_AT_ONCE = 16
"""Clips of which only the codes are needed, encoded at once."""


class StudioModel:
    """The model that a studio shows.

    Args:
        settings: which one.
    """

    def __init__(self, settings: StudioSettings) -> None:
        from pipeline.evaluation.inputs import use_all_cpus
        from pipeline.web_studio.model_facts import load
        from vdsm.familiarity import TrainingDistribution

        use_all_cpus()
        self.trained = load(settings)
        fitted = self.trained.model.fitted_priors is not None
        self.training = TrainingDistribution(self.trained.model) if fitted else None

    def sample(self, seed: int) -> Code:
        """Return codes sampled from the prior."""
        import torch

        model, generator = self.trained.model, torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            static, dynamics = model.sample_static(1, generator), model.sample_dynamics(1, generator)
        return Code(static[0].cpu().numpy().astype(np.float32), dynamics[0].cpu().numpy().astype(np.float32))

    def encode(self, clips: Sequence[Frames]) -> list[Reading]:
        """Return what the model makes of clips uint8 [T, H, W, C]."""
        import torch

        from vdsm.device import device_of
        from vdsm.pixels import to_float, to_pixels

        model = self.trained.model
        with torch.inference_mode():
            frames = to_float(torch.from_numpy(np.stack(clips)).to(device_of(model)))
            codes = model.encode(frames)
            reconstructed = model.decode(codes.pose, codes.static)
            known = None if self.training is None else self.training.compare(frames, reconstructed)
            seen = to_pixels(reconstructed)
        static, dynamics = _numbers(codes.static), _numbers(codes.dynamics)
        readings = []
        for row in range(len(clips)):
            share, psnr, unlike = None, None, False
            if known is not None:
                share, psnr = float(known.share[row]), float(known.psnr_db[row])
                unlike = bool(known.unlike[row])
            readings.append(Reading(Code(static[row], dynamics[row]), seen[row], share, psnr, unlike))
        return readings

    def static_codes(self, clips: Sequence[Frames]) -> Encoded:
        """Return the static codes of clips uint8 [T, H, W, C], without more."""
        import torch

        from vdsm.device import device_of
        from vdsm.familiarity import RARE
        from vdsm.pixels import to_float

        model, found = self.trained.model, []
        with torch.inference_mode():
            for start in range(0, len(clips), ENCODED_AT_ONCE):
                frames = to_float(torch.from_numpy(np.stack(clips[start : start + ENCODED_AT_ONCE])))
                latent, _ = model.frame_model.pool_static(model.frame_model.encoder(frames.to(device_of(model))))
                share = (
                    np.ones(len(latent)) if self.training is None else self.training.share_below(latent).cpu().numpy()
                )
                found.append(Encoded(_numbers(model.frame_model.static_code(latent, model.temperature)), share < RARE))
        return Encoded(np.concatenate([one.static for one in found]), np.concatenate([one.unlike for one in found]))

    def sampled_codes(self, count: int) -> NDArray[np.float32]:
        """Return the static codes of the samples of the seeds 0, 1 and so on: [count, K]."""
        return np.stack([self.sample(seed).static for seed in range(count)])

    def decode(self, work: Sequence[Decoded]) -> list[Frames]:
        """Return the clips of codes: uint8 [T, H, W, C] each."""
        import torch

        from vdsm.device import device_of
        from vdsm.pixels import to_pixels

        model = self.trained.model
        clips: dict[int, Frames] = {}
        with torch.inference_mode():
            for length in {frames for _, _, frames in work}:
                rows = [row for row, (_, _, frames) in enumerate(work) if frames == length]
                static, dynamics = (
                    torch.from_numpy(np.stack([work[row][part] for row in rows])).to(device_of(model))
                    for part in (0, 1)
                )
                found = to_pixels(model.decode(model.poses(dynamics, length), static))
                clips.update(zip(rows, found))
        return [clips[row] for row in range(len(work))]


def _numbers(codes: "Tensor") -> NDArray[np.float32]:
    return cast(NDArray[np.float32], codes.float().cpu().numpy())
