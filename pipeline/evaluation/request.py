"""What an evaluation measures, on which data and with which settings."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from cluster.cli.settings import option
from pipeline.recipe import EvaluationConfig, Recipe


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """The input of `pipeline.evaluation.execute.prepare`. Exactly one of `run` and `samples` is given."""

    data: str
    """URL of the dataset whose test split is measured."""
    out: str
    """URL of the folder for metrics.json and report.html."""
    run: str | None = None
    """URL of a run."""
    samples: str | None = None
    """URL of a folder with another system's samples of the pairs in its pairs.json."""
    system: str | None = None
    """Name of the system that made the samples."""
    seed: int = 0
    evaluation: EvaluationConfig = EvaluationConfig()
    """Seed and settings for a run; samples have their own in pairs.json."""
    judges: str | None = None
    """URL of the judge cache; None means `out`."""
    other_data: bool = False
    """Whether the data may differ from the data that the run was trained on."""
    sheets: str | None = None
    """Folder of the Sprites sheets that the data was drawn from; adds the renderer as a control."""
    device: str = "auto"
    """Where the model and the judge compute; see `vdsm.device.find_device`."""
    inception: Path | None = None
    """Weights of the FID's Inception network; adds a Frechet distance on its features."""

    @property
    def judge_folder(self) -> str:
        """URL of the judge cache."""
        return self.judges or self.out

    def command(self, recipe: Recipe | None = None) -> str:
        """Return a command line that repeats this evaluation.

        Args:
            recipe: the run's recipe, from which the command takes the settings that it does not name.
        """
        source = ("--run", self.run) if self.run is not None else ("--samples", self.samples)
        args = ["vdsm", "evaluate", source[0], str(source[1]), "--data", self.data, "--out", "FOLDER"]
        for name, value in (
            ("--system", self.system), ("--sheets", self.sheets), ("--inception", self.inception if recipe else None),
        ):  # fmt: skip
            args += [name, str(value)] if value else []
        if recipe is None:
            return shlex.join(args)
        args += ["--other-data"] if self.other_data else []
        if self.seed != recipe.seed:
            args += ["--seed", str(self.seed)]
        defaults = recipe.evaluation.model_dump()
        for name, value in self.evaluation.model_dump().items():
            if value != defaults[name]:
                args += [option(f"evaluation.{name}"), str(value)]
        return shlex.join(args)
