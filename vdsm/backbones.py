"""Image encoders from torchvision (the extra `torchvision`), with weights from a local file.

Nothing is ever downloaded. Batch statistics would depend on the number of workers, so they are never used: with given
weights, batch norms use the stored statistics; without weights, group norms replace them.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdsm.config import BACKBONES, ModelConfig

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per-channel mean and standard deviation of ImageNet, with which all published weights expect normalised input."""


class Backbone(nn.Module):
    """A classification network without its classifier. It maps each frame to a vector."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ModelConfig) -> None:
        """Build the network without reading any file.

        Raises:
            ValueError: torchvision is missing or incompatible with torch.
        """
        super().__init__()
        self.name = config.image_encoder
        network = _network(self.name)
        if config.encoder_weights is None:
            _group_norms_for_batch_norms(network)
        self.features: int = network.fc.in_features
        network.fc = nn.Identity()
        if self.name == "inception_v3":
            # The auxiliary classifier would otherwise run in training mode.
            network.aux_logits, network.AuxLogits = False, None
        self.network = network
        for name, values in (("mean", _MEAN), ("deviation", _DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the training mode as for any module, but keep batch norms on their stored statistics."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load(self, path: Path) -> None:
        """Load the weights from a file with a state dict of torchvision's network, without running code from it.

        Raises:
            ValueError: the file is missing, holds something else, or does not fit; the message names file and remedy.
        """
        function = BACKBONES[self.name].function
        remedy = f"give the file of a state dict of torchvision's {function}, as written by torch.save"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"encoder_weights is {path}: no such file; {remedy}") from None
        except (OSError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
            raise ValueError(f"encoder_weights is {path}: cannot be read as tensors; {remedy}") from error
        if not isinstance(state, dict):
            raise ValueError(f"encoder_weights is {path}: holds a {type(state).__name__}; {remedy}")
        classifiers = ("fc.", "AuxLogits.")
        kept = {name: value for name, value in state.items() if not str(name).startswith(classifiers)}
        try:
            self.network.load_state_dict(kept)
        except (RuntimeError, AttributeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"encoder_weights is {path}: does not fit {self.name} ({reason}); {remedy}") from error

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames [N, 1 or 3, H, W] in [0, 1] to vectors [N, features]."""
        normalised: Tensor = (frames.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        features: Tensor = self.network(normalised)
        return features


def _network(name: str) -> Any:
    """Build the network with random weights and a classifier of 1,000 classes."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: operators incompatible with this torch
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"image_encoder {name} needs torchvision, which cannot be imported ({reason}); install "
            f"the build that matches torch {torch.__version__} (pip install 'vdsm-pipeline[torchvision]'), or use "
            "image_encoder conv"
        ) from error
    build = getattr(models, BACKBONES[name].function)
    options = {"init_weights": True} if name == "inception_v3" else {}
    return build(weights=None, **options)


def _group_norms_for_batch_norms(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(math.gcd(32, child.num_features), child.num_features))
