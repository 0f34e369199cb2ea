"""`vdsm evaluate`: what a run has learned, measured on test clips: metrics.json and report.html.

The same command gives the same metrics.json: nothing in it depends on the clock.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import storage
from cluster.command_line import UserError, parse, run
from cluster.settings import Controls
from pipeline.evaluation_inputs import EvaluationRecipe, Inputs, load, use_all_cpus, with_recipe_of_run
from pipeline.progress import ProgressReport

if TYPE_CHECKING:
    from vdsm.evaluation.judge import Judge, JudgeConfig, Progress

log = logging.getLogger(__name__)


class EvaluateCommand(EvaluationRecipe, Controls):
    """Measure a run on the test clips of its data: swaps, leakage, prior samples, reconstruction, with controls."""

    run: str
    """Folder of the run: <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    data: str
    """Dataset it was trained on; its test split is measured."""
    out: str
    """Folder for metrics.json, report.html and the trained judge; may be s3://bucket/prefix."""
    judges: str | None = None
    """Folder where trained judges are kept for other evaluations on the same data; none means `out`."""
    other_data: bool = False
    """Measure on other data than the run was trained on."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its words; those of the process if absent.
    """
    run(_main, argv)


def _main(words: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="vdsm-") as scratch:
        command = parse(EvaluateCommand, with_recipe_of_run(words, Path(scratch)), prog="vdsm evaluate")
    evaluate(command)


def evaluate(command: EvaluateCommand) -> dict[str, Any]:
    """Measure, write metrics.json and report.html, print the table; returns what metrics.json holds.

    Raises:
        UserError: the run or the data is missing, damaged, or they do not belong together.
    """
    # Torch takes seconds to import, which --help and mistakes on the command line should not wait for.
    from pipeline.report.metrics import metrics_of
    from pipeline.report.page import write_report
    from pipeline.report.table import text_table
    from vdsm.evaluation.clips import check_labels
    from vdsm.evaluation.judge import JudgeConfig
    from vdsm.evaluation.protocol import ProtocolConfig, measure

    inputs = load(command.run, command.data, command.other_data)
    settings = command.evaluation
    judge_config = JudgeConfig(
        steps=settings.judge_steps,
        batch_clips=settings.judge_batch_clips,
        clip_frames=inputs.clip_frames,
        seed=command.seed,
    )
    protocol = ProtocolConfig(
        clip_frames=inputs.clip_frames,
        pairs=settings.pairs,
        seed=command.seed,
        sequence_stage=inputs.sequence_stage,
    )
    train = training_clips(command.data)
    try:
        check_labels(train, inputs.test, inputs.clip_frames)
    except ValueError as error:
        raise UserError(f"{command.data}: {error}") from error
    storage.check_writable(command.out)
    if command.dry_run:
        info = inputs.info
        sys.stdout.write(
            f"would measure {info['run']} (stage {info['stage']}, step {info['step']}) by {settings.pairs} pairs of "
            f"{len(inputs.test):,} test clips, with a judge of {settings.judge_steps} steps, into {command.out}\n"
        )
        return {}
    use_all_cpus()
    with ProgressReport() as progress:
        judge, judge_sha256 = the_judge(command, train, inputs, judge_config, progress)
        measured = measure(inputs.model, inputs.test, judge, protocol, progress)
        metrics = metrics_of(measured, inputs, command, judge_config, judge_sha256)
        place = storage.join(command.out, "metrics.json")
        storage.write_bytes(place, (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode())
        write_report(command, inputs, measured, metrics, progress)
    sys.stdout.write(text_table(metrics))
    sys.stdout.write(f"figures: {place}\nreport:  {storage.join(command.out, 'report.html')}\n")
    return metrics


def training_clips(data: str) -> Any:
    """The training split, from which the judge learns."""
    from preprocessing.dataset import ClipDataset

    return ClipDataset(data, "train")


def the_judge(
    command: EvaluateCommand, train: Any, inputs: Inputs, config: "JudgeConfig", progress: "Progress"
) -> tuple["Judge", str]:
    """The judge for these settings and the key it is kept under: from an earlier evaluation, or trained now."""
    from vdsm.evaluation.judge import dump_judge, judge_key, parse_judge, train_judge

    key = judge_key(inputs.data_sha256, config)
    place = storage.join(command.judges or command.out, f"judge-{key[:16]}.pt")
    if storage.exists(place):
        try:
            judge = parse_judge(storage.read_bytes(place), key)
        except ValueError as error:
            log.warning("%s: %s; training it again", place, error)
        else:
            log.info("judge of an earlier evaluation: %s", place)
            return judge, key
    judge = train_judge(train, config, progress)
    storage.write_bytes(place, dump_judge(judge, key))
    return judge, key


if __name__ == "__main__":
    main()
