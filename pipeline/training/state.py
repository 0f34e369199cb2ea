"""The state of a run at one position: everything that its checkpoint holds.

This file and `vdsm.checkpoint`, which reads the model out of a checkpoint, are the only ones that know its keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from pipeline.training.position import TrainPosition
from vdsm import checkpoint

FORMAT = 3
"""Version of the keys of a checkpoint. Versions 1 and 2 are read as well."""
FORMER_KEYS = {"slowdown": "lr_scale", "bests": "best_validation", "average": "ema"}
"""Keys of versions 1 and 2, and what they are called since version 3."""


class BestValidation(NamedTuple):
    """The best validation of a stage."""

    step: int
    elbo: float
    """Un-annealed, in nats per pixel value."""


@dataclass(frozen=True)
class Provenance:
    """What a model was trained from."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The complete recipe, as plain values."""
    manifest_sha256: str = ""
    """SHA-256 of the manifest of the dataset."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint whose weights the training started from; empty without a warm start."""


@dataclass(kw_only=True)
class TrainState:
    """The state of a run at `position`."""

    position: TrainPosition
    model_config: Mapping[str, Any]
    """`vdsm.config.ModelConfig` as plain values."""
    weights: Mapping[str, Tensor]
    """`state_dict` of the Disentangler."""
    temperature: float
    """Temperature of the static code's softmax at `position`."""
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    """`state_dict` of the optimiser of the stage."""
    ema: Mapping[str, Tensor] | None = None
    """`state_dict` of the Disentangler with averaged weights; None if no average is kept."""
    uses_ema: bool = False
    """Whether users of the model get the averaged weights."""
    loss_scale: Mapping[str, Any] | None = None
    """State of the loss scale; None except with fp16."""
    priors: Mapping[str, Any] | None = None
    """`vdsm.code_density.FittedPriors.to_dict` at the end of a stage."""
    lr_scale: float = 1.0
    """Factor of the learning rate that the rollbacks so far have led to."""
    rollbacks: int = 0
    """Number of rollbacks so far."""
    best_validation: Mapping[int, BestValidation] = field(default_factory=dict)
    """Best validation of each stage so far."""
    epoch: int = 0
    seed: int = 0
    provenance: Provenance = field(default_factory=Provenance)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint: tensors and plain values only."""
        content: dict[str, Any] = {
            "format": FORMAT,
            checkpoint.MODEL_CONFIG: dict(self.model_config),
            checkpoint.WEIGHTS: dict(self.weights),
            checkpoint.TEMPERATURE: self.temperature,
            "optimiser": dict(self.optimiser),
            "stage": self.position.stage,
            "step": self.position.step,
            "epoch": self.epoch,
            "seed": self.seed,
            "lr_scale": self.lr_scale,
            "rollbacks": self.rollbacks,
            "best_validation": {stage: list(best) for stage, best in self.best_validation.items()},
            "recipe": dict(self.provenance.recipe),
            "manifest_sha256": self.provenance.manifest_sha256,
        }
        if self.provenance.start:
            content["start"] = dict(self.provenance.start)
        if self.ema is not None:
            content |= {"ema": dict(self.ema), checkpoint.USED: "ema" if self.uses_ema else checkpoint.WEIGHTS}
        if self.priors is not None:
            content[checkpoint.PRIORS] = dict(self.priors)
        if self.loss_scale is not None:
            content["loss_scale"] = dict(self.loss_scale)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "TrainState":
        """Return the state that a checkpoint of this or an earlier version holds.

        Raises:
            ValueError: the checkpoint was written by a later version, or lacks a required key.
        """
        version = content.get("format", 1)
        if version > FORMAT:
            raise ValueError(f"the checkpoint has format {version}, this version reads up to {FORMAT}; update vdsm")
        content = {FORMER_KEYS.get(key, key): value for key, value in content.items()}
        missing = {"stage", "step", checkpoint.MODEL_CONFIG, checkpoint.WEIGHTS} - content.keys()
        if missing:
            raise ValueError(f"the checkpoint has no {' and no '.join(sorted(missing))}; use one of `vdsm train`")
        lr_scale = float(content.get("lr_scale", 1.0))
        recipe = content.get("recipe", {})
        best = content.get("best_validation", {})
        return cls(
            position=TrainPosition(int(content["stage"]), int(content["step"])),
            model_config=content[checkpoint.MODEL_CONFIG],
            weights=content[checkpoint.WEIGHTS],
            temperature=float(content.get(checkpoint.TEMPERATURE, 1.0)),
            optimiser=content.get("optimiser", {}),
            ema=content.get("ema"),
            uses_ema=content.get(checkpoint.USED, checkpoint.WEIGHTS) != checkpoint.WEIGHTS,
            loss_scale=content.get("loss_scale"),
            priors=content.get(checkpoint.PRIORS),
            lr_scale=lr_scale,
            rollbacks=content["rollbacks"] if "rollbacks" in content else _rollbacks_that_led_to(lr_scale, recipe),
            best_validation={int(stage): BestValidation(step, elbo) for stage, (step, elbo) in best.items()},
            epoch=int(content.get("epoch", 0)),
            seed=int(content.get("seed", 0)),
            provenance=Provenance(recipe, content.get("manifest_sha256", ""), content.get("start", {})),
        )


def _rollbacks_that_led_to(lr_scale: float, recipe: Mapping[str, Any]) -> int:
    """Return the number of rollbacks of a checkpoint before version 3, which holds only the factor they led to."""
    rate = float(recipe.get("training", {}).get("rollback_rate", 0.5))
    count, factor = 0, 1.0
    while 0 < rate < 1 and factor > lr_scale * (1 + 1e-9):
        factor, count = factor * rate, count + 1
    return count
