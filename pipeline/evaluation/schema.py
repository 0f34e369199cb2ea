"""The layout of metrics.json, version 2. `docs/metrics.schema.json` holds it as JSON Schema, for other programs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SCHEMA_VERSION = 2
"""Increased when a name or a meaning changes; new metrics alone do not increase it."""

_NAMES = (
    r"judge\.(.+\.accuracy|joint)",
    r"(pose_)?swap\.(action\.accuracy|static\.(.+\.accuracy|joint))",
    r"(pose_)?leakage\..+",
    r"prior\.static\.(action\.accuracy|leakage\..+|.+\.(h_y|h_y_given_x)|new_combinations)",
    r"prior\.dynamics\.(static\.(.+\.accuracy|joint)|leakage\.action|is|h_y_given_x|h_y)",
    r"probe\.(static|dynamics|pose)\..+\.(linear|mlp)",
    r"(reconstruction|still)\.(mse|psnr|ssim)",
    r"consistency\..+",
    r"frechet\.(judge\.(swap|prior_static|prior_dynamics|reconstruction)|inception\.swap)",
    r"cycle\.(static|dynamics)",
    r"dci\.(disentanglement|completeness|informativeness)",
    r"exploration\..+\.(accuracy|swapped|kept)",
    r"likeness\.(identity|action|leakage\.(identity|action)|real)",
    r"moving\.((swap|pose_swap|self_swap|poses|first_frame)\.(psnr|mse|ssim|gradient)|share)",
    r"moving\.(swap|pose_swap|self_swap|poses)\.gain",
    r"smoothness\.(change|acceleration)",
    r"elbo\.(frame|sequence)",
    r"experts\.in_use",
    r"is|h_y_given_x|h_y",
)

MetricName = Annotated[str, StringConstraints(pattern=f"^({'|'.join(_NAMES)})$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Metric(_Strict):
    """One metric."""

    value: float
    n: int = Field(ge=1)
    """Clips, pairs or frames that it is the mean of."""
    chance: float | None
    """Value for an output that has nothing to do with the input; null where there is no such level."""
    low: float
    """Lower end of the 95% bootstrap interval, which draws test identities with replacement."""
    high: float
    """Upper end of the interval."""


class Factors(_Strict):
    """The roles of the labels."""

    action: str
    static: list[str]


class ExploredCodes(_Strict):
    """Which part of the codes is about which factor, by importances of random forests."""

    units: list[str]
    """Parts of the code that are replaced as a whole: groups of the static code, numbers of the dynamics code."""
    importances: dict[str, list[float]]
    """Factor -> share of its importances in each unit; 1 in total."""
    chosen: dict[str, list[str]]
    """Factor -> units that belong to it."""


class JudgeProvenance(_Strict):
    """The judge's identity."""

    key: str
    """SHA-256 of all that the judge depends on: data, settings, version."""
    version: int
    steps: int


class Time(_Strict):
    """When it was measured: the only part of the file that differs when the same command is rerun."""

    finished: str
    """ISO 8601, UTC."""
    seconds: float
    """Duration from training or reading the judge to the last metric."""


class Provenance(BaseModel):
    """Origin of the metrics. Evaluations of a run and of samples each have further fields."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    data: str
    data_sha256: str
    test_clips: int
    test_identities: int
    pairs_sha256: str
    clip_frames: int
    judge: JudgeProvenance | None
    seed: int
    bootstrap: dict[str, Any]
    evaluation: dict[str, Any]
    threads: int
    versions: dict[str, str]
    time: Time
    checkpoint_sha256: str | None = None
    recipe: dict[str, Any] | None = None
    samples_sha256: str | None = None
    prior: Literal["fitted", "published"] | None = None
    """What the codes of `prior.*` were drawn from."""


class Metrics(_Strict):
    """Content of metrics.json."""

    schema_version: Literal[2]
    swap_by: Literal["dynamics code", "poses", "samples"]
    """What was swapped; `samples` means that another system made the clips."""
    factors: Factors
    vocabulary: dict[str, list[str]]
    figures: dict[MetricName, Metric]
    """All metrics, by name."""
    controls: dict[str, dict[MetricName, Metric]]
    """The same metrics of models whose scores are known beforehand."""
    control_descriptions: dict[str, str]
    warnings: list[str]
    confusion: dict[str, list[list[int]]]
    """Per factor, how often each correct value (row) was judged as each value (column)."""
    expert_use: list[float]
    exploration: ExploredCodes | None = None
    wrong_swaps: int
    provenance: Provenance
