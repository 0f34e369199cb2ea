"""Settings of the model and of its annealing.

Plain frozen dataclasses, so that the model depends on no configuration library. `__pydantic_config__` makes unknown
keys an error when they are read as part of a recipe.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

_STRICT = {"extra": "forbid"}

MIN_PIXEL_SCALE = 1 / 255
"""Smallest scale of a pixel's density: one step of an 8-bit pixel, below which the data has no information."""


LARGEST = 1 << 16
"""Largest size in the settings of a model."""
MAX_LAYERS = 64
"""Largest number of layers."""


class BackboneFacts(NamedTuple):
    """Facts about a network of torchvision, available without building it."""

    function: str
    """Name of its builder in torchvision.models."""
    smallest_frame: int
    """Smallest frame in pixels: below it, the feature map is empty or the last stages see padding only."""


BACKBONES = {
    "resnet18": BackboneFacts("resnet18", 32),
    "resnet50": BackboneFacts("resnet50", 32),
    "resnext50": BackboneFacts("resnext50_32x4d", 32),
    "inception_v3": BackboneFacts("inception_v3", 75),
}
"""Image encoders of torchvision, by their names in `ModelConfig.image_encoder`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shapes of both stages. The defaults are the published ones for Sprites (133.2 M decoder parameters)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    num_experts: int = 40
    """K: number of expert decoders, and size of the static code (identity)."""
    static_groups: int = 1
    """Number of simplices that make up the static code, each over num_experts / static_groups experts. 1, as published,
    blends all experts together; more let attributes of an identity be chosen independently of each other."""
    pose_size: int = 30
    """Z: size of the pose latent of one frame."""
    dynamics_size: int = 50
    """D: size of the dynamics code (action) of one clip."""
    frame_size: int = 64
    """Height and width of a frame, in pixels: 32, 64 or 128."""
    channels: int = 3
    """Colour channels of a frame: 1 (grey) or 3 (RGB)."""
    image_encoder: Literal["conv", "resnet18", "resnet50", "resnext50", "inception_v3"] = "conv"
    """Network that maps a frame to a vector. `conv`: the published stack of convolution blocks. The others are from
    torchvision (extra `torchvision`); without `encoder_weights` they start from random weights, with group norms in
    place of batch norms."""
    encoder_weights: str | None = None
    """File with a state dict of torchvision's network, as published for its ImageNet weights; never downloaded. It is
    read once, at the start of a run; checkpoints hold the trained weights."""
    encoder_channels: tuple[int, ...] = (32, 32, 64, 64)
    """For `conv`: channels of the image encoder's convolution blocks. Each block halves the frame size."""
    encoder_downsampling: Literal["blur", "stride"] = "blur"
    """For `conv`: how a block halves the frame size. `blur`: full-size convolution, then an anti-aliased blur pool, as
    published. `stride`: a convolution of stride 2, at a quarter of the computation."""
    encoder_hidden: int = 256
    """Size of the image encoder's output, from which all latents of a frame are computed."""
    encoder_slope: float = 0.01
    """Negative slope of the encoder's LeakyReLU (the release code's 1.0 accidentally makes the stack linear)."""
    encoder_init: Literal["default", "he"] = "default"
    """Initialisation of the image encoder `conv` and of its static head. `default`: torch's, which shrinks differences
    between frames to less than a hundredth through the layers, below the size of the biases. `he`: preserves their size
    (He et al. 2015, for LeakyReLU), with biases of 0."""
    static_hidden: int = 128
    """Width of the hidden layer between the image encoder's output and the static code's parameters."""
    decoder_channels: tuple[int, ...] = (512, 256, 128, 64)
    """Output channels of each expert-blended transposed convolution but the last, which outputs the frame."""
    expert_init: Literal["independent", "shared"] = "independent"
    """Initialisation of the experts' kernels. `independent`: drawn per expert, with the fan-in of one expert. `shared`:
    half of their variance is common to all, so that the even blend of an untrained model passes a signal through all
    layers (independent kernels cancel: 1/sqrt(K) per layer)."""
    dynamics_decoder: Literal["lstm", "phase"] = "lstm"
    """What drives the poses of a sequence. `lstm`: an LSTM fed its own output, as published, which comes to rest or
    drifts into other actions after the lengths that it was trained on. `phase`: a function of one phase, whose start
    and speed the dynamics code gives, so that periodic actions last."""
    dynamics_init: Literal["default", "scaled"] = "default"
    """Initial weights of the dynamics code's loc. `default`: torch's, whatever the scale of the prior; with a prior
    scale of 1, an untrained code is nearly all noise. `scaled`: multiplied by the prior scale relative to the published
    1/D, so that codes of different clips stand out of their noise from the first step."""
    rnn_width: int = 512
    """R: width of the LSTMs of the sequence stage."""
    rnn_layers: int = 3
    """Number of layers of the LSTMs of the sequence stage."""
    rnn_dropout: float = 0.2
    """Dropout probability between LSTM layers."""
    decoder_normalisation: Literal["none", "layer"] = "none"
    """`layer`: normalise each frame's features to mean 0 and variance 1 between the decoder's layers, so that the size
    of a signal does not depend on how evenly the experts are blended. `none`: as published."""
    static_prior_scale: float | None = None
    """Scale of the Normal prior of the static latent, before the softmax; none means the published 1/K."""
    dynamics_prior_scale: float | None = None
    """Scale of the Normal prior of the dynamics code; none means the published 1/D."""
    likelihood: Literal["bernoulli", "gaussian", "laplace"] = "bernoulli"
    """p(x | z, s) per pixel and channel. `bernoulli`: cross-entropy on values in [0, 1], as published; it cannot reach
    0 on images with intermediate values. `gaussian` and `laplace` (robust to outliers, sharper edges) are densities."""
    likelihood_scale: float | None = None
    """Scale of the `gaussian` or `laplace` likelihood, for pixel values in [0, 1]; none means one learned number."""

    def __post_init__(self) -> None:
        positive = (
            "num_experts",
            "pose_size",
            "dynamics_size",
            "encoder_hidden",
            "static_hidden",
            "rnn_width",
            "rnn_layers",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
            largest = MAX_LAYERS if name == "rnn_layers" else LARGEST
            if getattr(self, name) > largest:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {largest:,}")
        for name in ("encoder_channels", "decoder_channels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; every entry must be at least 1")
            if max(getattr(self, name)) > LARGEST:
                raise ValueError(f"{name} is {getattr(self, name)}; every entry must be at most {LARGEST:,}")
        for name in ("static_prior_scale", "dynamics_prior_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0, or none for the published value")
        if self.likelihood == "bernoulli" and self.likelihood_scale is not None:
            raise ValueError(
                f"likelihood_scale is {self.likelihood_scale}, but a bernoulli likelihood has no scale; remove it, "
                "or set likelihood to gaussian or laplace"
            )
        if self.likelihood_scale is not None and not MIN_PIXEL_SCALE <= self.likelihood_scale < math.inf:
            raise ValueError(
                f"likelihood_scale is {self.likelihood_scale}; it must be at least {MIN_PIXEL_SCALE:.4f}, one step of "
                "an 8-bit pixel, or none to learn it"
            )
        if self.frame_size not in (32, 64, 128):
            raise ValueError(f"frame_size is {self.frame_size}; it must be 32, 64 or 128")
        if self.static_groups < 1 or self.num_experts % self.static_groups:
            raise ValueError(f"static_groups is {self.static_groups}; it must divide num_experts, {self.num_experts}")
        if self.static_groups == self.num_experts > 1:
            raise ValueError(
                f"static_groups is {self.static_groups}, one expert per group, which leaves nothing to learn; lower it"
            )
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}; it must be 1 (grey) or 3 (RGB)")
        if not 0 <= self.rnn_dropout < 1:
            raise ValueError(f"rnn_dropout is {self.rnn_dropout}; it must be in [0, 1)")
        self._check_image_encoder()
        depths = ["decoder_channels"] + (["encoder_channels"] if self.image_encoder == "conv" else [])
        for name in depths:
            depth = len(getattr(self, name))
            if 4 * 2**depth != self.frame_size:
                raise ValueError(
                    f"{name} has {depth} entries, which fits frames of {4 * 2**depth} pixels, "
                    f"but frame_size is {self.frame_size}"
                )

    def _check_image_encoder(self) -> None:
        if self.image_encoder == "conv":
            if self.encoder_weights is not None:
                raise ValueError(
                    f"encoder_weights is {self.encoder_weights}, but image_encoder conv takes none; set "
                    f"image_encoder to one of {', '.join(BACKBONES)}"
                )
            return
        smallest = BACKBONES[self.image_encoder].smallest_frame
        if self.frame_size < smallest:
            raise ValueError(
                f"frame_size is {self.frame_size}, but image_encoder {self.image_encoder} needs at least {smallest} "
                "pixels; use larger frames or another image_encoder"
            )


@dataclass(frozen=True, kw_only=True)
class CosineRamp:
    """A weight that moves from `start` to `end` along half a cosine over the first `fraction` of a stage."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    start: float
    """Value at the first step."""
    end: float
    """Value after the ramp."""
    fraction: float
    """Length of the ramp as a fraction of the stage's steps."""

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.end > 0):
            raise ValueError(f"start is {self.start} and end {self.end}; both must be above 0")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}; it must be in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Spline:
    """A weight along a quadratic interpolating spline through `knots`, clipped to [`floor`, `ceiling`]."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    knots: tuple[tuple[float, float], ...]
    """Pairs of (fraction of the stage's steps, weight), the fractions rising from 0 to 1."""
    floor: float = 0.005
    """Smallest weight; the published spline would undershoot below zero."""
    ceiling: float = 80.0
    """Largest weight."""

    def __post_init__(self) -> None:
        fractions = [fraction for fraction, _ in self.knots]
        if len(fractions) < 3 or fractions != sorted(set(fractions)) or fractions[0] != 0 or fractions[-1] != 1:
            raise ValueError(f"knots have the fractions {fractions}; they must be at least three, rising from 0 to 1")
        if not 0 < self.floor <= self.ceiling:
            raise ValueError(
                f"floor is {self.floor} and ceiling {self.ceiling}; they must satisfy 0 < floor <= ceiling"
            )


REGULARISERS = ("static_consistency", "motion_consistency", "dynamics_consistency", "pose_distillation")
"""Terms of the loss that are not part of the ELBO, by their names in settings and metrics."""


@dataclass(frozen=True, kw_only=True)
class AnnealingConfig:
    """Weights of the loss terms and the softmax temperature over one stage, as published for stage 1.

    Weights refer to a frame of 64x64x3 values and are scaled by the number of values of the actual frame. A setting
    thus means the same balance of likelihood and KL at every frame size.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    pose: Spline = Spline(knots=((0, 30), (0.5, 0.2), (0.8, 0.4), (1, 1)))
    """Weight of the pose KL."""
    static: CosineRamp = CosineRamp(start=0.1, end=1.0, fraction=1 / 3)
    """Weight of the static KL."""
    dynamics: CosineRamp = CosineRamp(start=0.1, end=1.0, fraction=1.0)
    """Weight of the dynamics KL (stage 2 only)."""
    temperature: CosineRamp = CosineRamp(start=1.0, end=10.0, fraction=0.5)
    """Temperature that multiplies the static latent before the softmax."""
    static_consistency: float = 0.0
    """Weight of a regulariser of stage 1, which must have pairs; 0 as published: the symmetric KL between the static
    posteriors of the two clips of a pair. Without it, pairing lets the static code carry the action as well, as long as
    the decoder ignores it."""
    pair_tolerance: float | None = None
    """For pairs of which some are wrong: a pair whose static posteriors differ by d nats, as `static_consistency`
    measures, counts 1 / (1 + d / pair_tolerance) in the loss. None: every pair counts in full, as published."""
    motion_consistency: float = 0.0
    """Weight of a regulariser of stage 1; 0 as published: where a clip moves and where its poses move that are decoded
    with the static code of another clip should be the same (`vdsm.motion`). Without it, a pose may mean one thing for
    one person and another for the next, if each is seen doing few things; and without pairs, the static code carries
    the action. It compares two successive frames. Clips of a batch exchange their codes by twos. The weight grows from
    0 over the first fifth of the stage."""
    dynamics_consistency: float = 0.0
    """Weight of a regulariser of stage 2; 0 as published: the symmetric KL between the dynamics posteriors of a clip
    and of the same poses decoded with a static code from the prior. Without it, the dynamics code carries some of the
    identity."""
    pose_distillation: float = 0.0
    """Weight of a regulariser of stage 2; 0 as published: the KL of the poses driven by the dynamics code,
    q(z_t | z_{t-1}, d), from the pose posteriors of stage 1, q(z_t | x_t). Where a small object moves far, frames that
    do not overlap give no gradient towards the right pose; the poses themselves do."""

    def __post_init__(self) -> None:
        for name in REGULARISERS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number of at least 0")
        if self.pair_tolerance is not None and not 0 < self.pair_tolerance < math.inf:
            raise ValueError(f"pair_tolerance is {self.pair_tolerance}; it must be a number above 0, in nats, or none")


STAGE_2_ANNEALING = AnnealingConfig(
    pose=Spline(knots=((0, 0.1), (0.5, 0.4), (0.8, 0.4), (1, 1))),
    temperature=CosineRamp(start=10.0, end=10.0, fraction=1.0),
)
"""The published annealing of stage 2."""
