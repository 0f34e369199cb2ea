"""Frechet distance on the features of an Inception network, where a file with its weights is given.

The network is that of the original FID (2015), built by torch-fidelity, which torchmetrics wraps. It reads one frame of
each clip, the middle one: on a CPU this takes about a tenth of a second per clip.
"""

import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vdsm.device import device_of, upload
from vdsm.evaluation.clips import LabelledClips, stack
from vdsm.evaluation.progress import Progress, in_batches

FEATURES = 2048

Inception = nn.Module
"""uint8 [B, 3, H, W] -> features [B, FEATURES]."""


def load_inception(weights: Path) -> Inception:
    """Return the network with the weights of a file, a state dict of plain tensors.

    Raises:
        ValueError: the library is not installed, or the file is missing, contains code, or does not fit.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3

    remedy = "give the weights of the FID's Inception network"
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{weights}: there is no such file; {remedy}") from None
    except Exception as error:  # torch.load promises nothing narrower for files that are not its own
        raise ValueError(f"{weights}: does not consist of tensors alone and was not loaded; {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{weights}: holds no state dict; {remedy}")
    try:
        # The library unpickles whatever it is given, so it is given a file that was just written from tensors.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checked = Path(folder) / "weights.pth"
            buffer = io.BytesIO()  # torch.save reports a full disk as a RuntimeError
            torch.save(dict(state), buffer)
            checked.write_bytes(buffer.getvalue())
            network: Inception = NoTrainInceptionV3("inception-v3-compat", [str(FEATURES)], str(checked))
    except ModuleNotFoundError:
        raise ValueError(
            "the Frechet distance on Inception features needs torch-fidelity (pip install 'vdsm-pipeline[inception]'); "
            "install it, or leave out the weights file"
        ) from None
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{weights}: does not fit the FID's Inception network ({reason}); {remedy}") from error
    return network.eval()


class InceptionFeatures:
    """Observes clips as they are decoded, and keeps the features of their middle frames."""

    def __init__(self, network: Inception) -> None:
        self._network = network
        self._parts: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> None:
        """Compute the features of a batch f32 [B, T, C, H, W] in [0, 1]; grey frames become three equal channels."""
        middle = upload(frames[:, frames.shape[1] // 2], device_of(self._network))
        pixels = (middle.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        self._parts.append(self._network(pixels).reshape(len(frames), -1).float())

    @property
    def features(self) -> NDArray[np.float32]:
        """Features of all observed clips: [N, FEATURES]."""
        features: NDArray[np.float32] = torch.cat(self._parts).cpu().numpy()
        return features


def inception_features(
    network: Inception, clips: LabelledClips, indices: NDArray[np.int64], length: int, batch_clips: int,
    progress: Progress,
) -> NDArray[np.float32]:  # fmt: skip
    """Return the features of the middle frames of real clips: [N, FEATURES]."""
    observer = InceptionFeatures(network)
    progress.start("Inception features of real clips", len(indices), unit="clips")
    for batch in in_batches(len(indices), batch_clips, progress):
        observer(stack(clips, indices[batch], length))
    return observer.features
