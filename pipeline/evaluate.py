"""`vdsm evaluate`: what a run has learned, measured on test clips: metrics.json and report.html.

The same command gives the same metrics.json, but for the time in its provenance.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.evaluation.inputs import EvaluationRecipe, load, use_all_cpus, with_recipe_of_run

if TYPE_CHECKING:
    from pipeline.evaluation.renderer import SpritesRenderer
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.inception import Inception
    from vdsm.evaluation.judge import Judge, JudgeConfig
    from vdsm.evaluation.progress import Progress

log = logging.getLogger(__name__)


class EvaluateCommand(EvaluationRecipe, Controls):
    """Measure a run on the test clips of its data: swaps, leakage, prior samples, probes, with controls beside them.

    With --samples instead of --run: the clips that any other system made of the pairs of `vdsm pairs`.
    """

    data: str
    """Dataset it was trained on; its test split is measured."""
    out: str
    """Folder for metrics.json, report.html and the trained judge; may be s3://bucket/prefix."""
    run: str | None = None
    """Folder of the run: <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    samples: str | None = None
    """Folder that `vdsm pairs` wrote, with the clips of another system in it, instead of a run."""
    judges: str | None = None
    """Folder where trained judges are kept for other evaluations on the same data; none means `out`."""
    other_data: bool = False
    """Measure on other data than the run was trained on."""
    sheets: str | None = None
    """Folder of the Sprites sheets that the data was drawn from: adds the renderer itself as a control."""
    inception: Path | None = None
    """Weights of the FID's Inception network, a local file: adds a Frechet distance on its features."""


def _with_recipe_of_run(words: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="vdsm-") as scratch:
        return with_recipe_of_run(words, Path(scratch))


def evaluate(command: EvaluateCommand) -> dict[str, Any]:
    """Measure, write metrics.json and report.html, print the table; returns what metrics.json holds.

    Raises:
        UserError: the run or the data is missing, damaged, or they do not belong together.
    """
    if (command.run is None) == (command.samples is None):
        raise UserError("give --run, a folder of `vdsm train`, or --samples, clips that another system made; not both")
    if command.samples is not None:
        from pipeline.evaluation.samples import evaluate_samples

        return evaluate_samples(command, command.samples)
    # Torch takes seconds to import, which --help and mistakes on the command line should not wait for.
    from pipeline.evaluation.metrics import metrics_of, provenance_of
    from pipeline.report.page import write_report
    from vdsm.evaluation.clips import is_labelled
    from vdsm.evaluation.judge import JudgeConfig
    from vdsm.evaluation.protocol import ProtocolConfig, measure

    inputs = load(str(command.run), command.data, command.other_data, command.evaluation.refinement_steps)
    settings = command.evaluation
    train = checked_splits(command.data, inputs.test, inputs.clip_frames)
    renderer = sprites_renderer(command, inputs.test)
    inception = inception_network(command)
    judge_config = JudgeConfig(
        steps=settings.judge_steps,
        batch_clips=settings.judge_batch_clips,
        clip_frames=inputs.clip_frames,
        seed=command.seed,
    )
    protocol = ProtocolConfig(
        clip_frames=inputs.clip_frames,
        pairs=settings.pairs,
        probe_clips=settings.probe_clips,
        seed=command.seed,
        sequence_stage=inputs.sequence_stage,
    )
    storage.check_writable(command.out)
    if command.dry_run:
        info = inputs.info
        sys.stdout.write(
            f"would measure {info['run']} (stage {info['stage']}, step {info['step']}) by {settings.pairs} pairs of "
            f"{len(inputs.test):,} test clips, with a judge of {settings.judge_steps} steps, into {command.out}\n"
        )
        return {}
    use_all_cpus()
    began = time.monotonic()
    with ProgressDisplay() as progress:
        judge, key = None, None
        if is_labelled(inputs.test):
            judge, key = the_judge(command.judges or command.out, train, inputs.data_sha256, judge_config, progress)
        measured = measure(
            inputs.model, inputs.test, judge, protocol, progress, train=train, renderer=renderer, inception=inception
        )
        common = provenance_of(
            inputs.test, data=command.data, data_sha256=inputs.data_sha256, clip_frames=inputs.clip_frames,
            judge=(key, judge_config) if key else None, seed=command.seed,
            evaluation=settings.model_dump(mode="json"), seconds=time.monotonic() - began,
        )  # fmt: skip
        metrics = metrics_of(
            inputs.test, measured.scores, measured.controls, measured.swapped,
            swap_by="dynamics code" if inputs.sequence_stage else "poses",
            provenance=common | inputs.provenance(), expert_use=measured.expert_use,
        )  # fmt: skip
        place = write_metrics(command.out, metrics)
        write_report(command, inputs, measured, metrics, progress)
    sys.stdout.write(f"figures: {place}\nreport:  {storage.join(command.out, 'report.html')}\n")
    return metrics


def write_metrics(out: str, metrics: dict[str, Any]) -> str:
    """Write metrics.json, print the table, and say where the file is."""
    from pipeline.report.table import text_table

    place = storage.join(out, "metrics.json")
    storage.write_bytes(place, (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode())
    sys.stdout.write(text_table(metrics))
    return place


def checked_splits(data: str, test: "ClipDataset", length: int) -> "ClipDataset":
    """The training split, from which judge and probes learn; UserError if the data cannot be measured honestly."""
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.clips import check_splits

    train = ClipDataset(data, "train")
    try:
        check_splits(train, test, length)
    except ValueError as error:
        raise UserError(f"{data}: {error}") from error
    return train


def sprites_renderer(command: EvaluateCommand, test: "ClipDataset") -> "SpritesRenderer | None":
    """The renderer, where its sheets are given."""
    from pipeline.evaluation.renderer import renderer_of

    return renderer_of(test, command.data, command.sheets) if command.sheets else None


def inception_network(command: EvaluateCommand) -> "Inception | None":
    """The Inception network, where its weights are given."""
    if command.inception is None:
        return None
    from vdsm.evaluation.inception import load_inception

    try:
        return load_inception(command.inception)
    except ValueError as error:
        raise UserError(str(error)) from error


def the_judge(
    folder: str, train: "ClipDataset", data_sha256: str, config: "JudgeConfig", progress: "Progress"
) -> tuple["Judge", str]:
    """The judge for these settings and the key it is kept under: `folder` has it from an earlier evaluation, or it is
    trained now and kept there."""
    from vdsm.evaluation.judge import dump_judge, judge_key, parse_judge, train_judge

    key = judge_key(data_sha256, config)
    place = storage.join(folder, f"judge-{key[:16]}.pt")
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


main = entry(EvaluateCommand, evaluate, prog="vdsm evaluate", prepare=_with_recipe_of_run)


if __name__ == "__main__":
    main()
