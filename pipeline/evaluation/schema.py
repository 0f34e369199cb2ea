"""The layout of metrics.json, version 2. `docs/metrics.schema.json` is the same as JSON Schema, for other programs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SCHEMA_VERSION = 2
"""Raised when a name or a meaning changes; new figures alone do not raise it."""

_NAMES = (
    r"judge\.(.+\.accuracy|joint)",
    r"(pose_)?swap\.(action\.accuracy|static\.(.+\.accuracy|joint))",
    r"(pose_)?leakage\..+",
    r"prior\.static\.(action\.accuracy|leakage\..+|.+\.h_y)",
    r"prior\.dynamics\.(static\.(.+\.accuracy|joint)|leakage\.action|is|h_y_given_x|h_y)",
    r"probe\.(static|dynamics|pose)\..+\.(linear|mlp)",
    r"(reconstruction|still)\.(mse|psnr|ssim)",
    r"consistency\..+",
    r"frechet\.(judge\.(swap|prior_static|prior_dynamics|reconstruction)|inception\.swap)",
    r"cycle\.(static|dynamics)",
    r"elbo\.(frame|sequence)",
    r"experts\.in_use",
    r"is|h_y_given_x|h_y",
)

FigureName = Annotated[str, StringConstraints(pattern=f"^({'|'.join(_NAMES)})$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Metric(_Strict):
    """One number."""

    value: float
    n: int = Field(ge=1)
    """Clips, pairs or frames that it is the mean of."""
    chance: float | None
    """What an output that has nothing to do with the input gets; null where there is no such level."""
    low: float
    """Lower end of the 95% bootstrap interval, which draws test identities with replacement."""
    high: float
    """Upper end."""


class Factors(_Strict):
    """Which labels are which."""

    action: str
    static: list[str]


class JudgeProvenance(_Strict):
    """The judge's identity."""

    key: str
    """SHA-256 of all that it depends on: data, settings, version."""
    version: int
    steps: int


class Time(_Strict):
    """When; the only part of the file that another run of the same command changes."""

    finished: str
    """ISO 8601, UTC."""
    seconds: float
    """From the start of the judge's training, or of reading it, to the last figure."""


class Provenance(BaseModel):
    """Where the figures come from. A model's run, or somebody's samples, have their own fields beside these."""

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


class Metrics(_Strict):
    """What metrics.json holds."""

    schema_version: Literal[2]
    swap_by: Literal["dynamics code", "poses", "samples"]
    """What was swapped; `samples`: the clips came from elsewhere."""
    factors: Factors
    vocabulary: dict[str, list[str]]
    figures: dict[FigureName, Metric]
    controls: dict[str, dict[FigureName, Metric]]
    """The same figures of models whose answer is known."""
    control_descriptions: dict[str, str]
    warnings: list[str]
    confusion: dict[str, list[list[int]]]
    """Per factor, how often each value asked for (row) was judged as each (column)."""
    expert_use: list[float]
    wrong_swaps: int
    provenance: Provenance


def json_schema() -> dict[str, Any]:
    """Return the layout as JSON Schema."""
    return Metrics.model_json_schema()
