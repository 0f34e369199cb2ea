"""`vdsm evaluate`: measure a run on test clips; writes metrics.json and report.html.

The same command gives the same metrics.json, except for the time in its provenance.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.cli.paths import LocalPath, Location
from cluster.cli.run import parse, run
from cluster.cli.settings import Controls
from cluster.storage.scratch import scratch_folder
from pipeline.evaluation.execute import execute, prepare, result_text
from pipeline.evaluation.inputs import EvaluationRecipe, with_recipe_of_run
from pipeline.evaluation.request import EvaluationRequest


class EvaluateCommand(EvaluationRecipe, Controls):
    """Measure a run, or with --samples another system, on test clips: swaps, leakage, prior samples and probes."""

    data: Location
    """Dataset that the run was trained on; its test split is measured."""
    out: Location
    """Folder for metrics.json, report.html and the trained judge; may be s3://bucket/prefix."""
    run: Location | None = None
    """Folder of the run, <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    samples: Location | None = None
    """Instead of a run: folder written by `vdsm pairs`, with the clips of another system in it."""
    system: str | None = None
    """Name of the system that made the samples, for titles and tables; by default the name of their folder."""
    judges: Location | None = None
    """Folder of trained judges, shared by evaluations on the same data; by default `out`."""
    other_data: bool = False
    """Allow data other than the data that the run was trained on."""
    sheets: Location | None = None
    """Folder of the Sprites sheets that the data was drawn from; adds the renderer itself as a control."""
    device: str = "auto"
    """Where the model and the judge compute: cpu, cuda, cuda:1, mps or xpu. `auto` is a CUDA or XPU device if there is
    one, else the CPU."""
    inception: LocalPath | None = None
    """Local file with weights of the FID's Inception network; adds a Frechet distance on its features."""


def evaluate(command: EvaluateCommand) -> None:
    """Measure, write metrics.json and report.html, and print the table.

    Raises:
        UserError: the run, the samples or the data are missing or damaged, or do not belong together.
    """
    fields = EvaluationRequest.__dataclass_fields__
    evaluation = prepare(EvaluationRequest(**{name: getattr(command, name) for name in fields}))
    if command.dry_run:
        sys.stdout.write(f"{evaluation.describe()}\n")
        return
    sys.stdout.write(result_text(execute(evaluation), command.out))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with the arguments `argv`, by default those of the process."""
    run(_main, argv)


def _main(args: list[str]) -> None:
    with scratch_folder() as scratch:  # `parse` reads the recipe of a run in S3 from there
        command = parse(EvaluateCommand, with_recipe_of_run(args, scratch), prog="vdsm evaluate")
    evaluate(command)


if __name__ == "__main__":
    main()
