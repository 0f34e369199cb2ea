"""Settings of the samples: which clips are paired because they look alike, and how samples are changed at random."""

from dataclasses import dataclass
from typing import ClassVar

from preprocessing.appearance.descriptors import NAMES as DESCRIPTORS
from preprocessing.appearance.mining import MiningSettings

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class AppearanceConfig:
    """How clips that look alike are found, without labels, for `pairing: appearance`."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    descriptor: str = "colour"
    """What is compared. `colour`: how often each colour occurs; the most frequent one, the background, counts as
    much as the second. `texture`: how often each pattern of 5x5 pixels occurs, for grey frames. Or an .npz file of your
    own embeddings: `keys` [N], the keys of the clips, and `descriptors` [N, D]."""
    neighbours: int = MiningSettings.neighbours
    """Maximum number of neighbours of a clip. They end earlier where the gap to the next clip is widest."""
    mutual: bool = MiningSettings.mutual
    """Pair two clips only if each is a neighbour of the other. A clip without a partner is paired with other windows
    of its video, or with another window of itself."""
    max_distance: float | None = MiningSettings.max_distance
    """Cosine distance above which clips are never paired; none means that the widest gap alone decides."""

    join: float = 0.6
    """Part of stage 1 after which clips join whose look is seen doing a single thing, such as somebody who changed
    clothes for one action: pairs of them would teach the static code the action. 0 means from the start. Only where
    clips are windows of videos, at most 20,000 of them."""

    def __post_init__(self) -> None:
        if not 0 <= self.join <= 1:
            raise ValueError(f"join is {self.join}; it must be in [0, 1]")
        if not 1 <= self.neighbours <= 10_000:
            raise ValueError(f"neighbours is {self.neighbours}; it must be from 1 to 10,000")
        if self.descriptor not in DESCRIPTORS and not self.descriptor.endswith(".npz"):
            raise ValueError(f"descriptor is {self.descriptor}; it must be {', '.join(DESCRIPTORS)} or an .npz file")
        if self.max_distance is not None and not 0 < self.max_distance <= 2:
            raise ValueError(f"max_distance is {self.max_distance}; it must be above 0 and at most 2")


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes of each training sample, the same in all its frames; 0 changes nothing."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    colour: float = 0.0
    """Size of changes of contrast, saturation, hue and brightness, such as 0.2; for data with few different looks."""
    crop: float = 0.0
    """Size of changes of the zoom, and of shifts, as a fraction of the frame, such as 0.1."""
    flip: float = 0.0
    """Probability of mirroring left and right. Only for data whose actions mean the same when mirrored."""

    def __post_init__(self) -> None:
        for name, limit in (("colour", 1), ("crop", 0.5), ("flip", 1)):
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"augmentation.{name} is {getattr(self, name)}; it must be in [0, {limit}]")

    @property
    def is_active(self) -> bool:
        """Return whether anything is changed."""
        return bool(self.colour or self.crop or self.flip)
