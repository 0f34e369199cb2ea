"""Evaluation of a run: its newest model, measured on the test clips of its data."""

import time
from dataclasses import dataclass

from cluster.errors import UserError
from cluster.extras import require
from cluster.storage import api as storage
from pipeline.evaluation.dci import dci_scores
from pipeline.evaluation.exploration import Exploration, explore
from pipeline.evaluation.exploration import phases as exploration_phases
from pipeline.evaluation.inputs import EvaluationInputs, chosen_device, load, training_split
from pipeline.evaluation.judge_cache import load_or_train
from pipeline.evaluation.metrics import Metrics, build_metrics, build_provenance, write_metrics
from pipeline.evaluation.renderer import SpritesRenderer, load_renderer, load_true_swap
from pipeline.evaluation.request import EvaluationRequest
from pipeline.report.gallery import PHASES as REPORT_PHASES
from pipeline.report.page import write_report
from pipeline.report.paired_clips import PairedClips, draw_paired_clips
from pipeline.trackers.report import add_report
from preprocessing.dataset.reader import ClipDataset
from vdsm.device import device_of
from vdsm.evaluation.clips import is_labelled
from vdsm.evaluation.inception import Inception, load_inception
from vdsm.evaluation.judge import Judge, JudgeConfig
from vdsm.evaluation.measurement import Measurement
from vdsm.evaluation.moving_pixels import TrueSwap
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.protocol import ProtocolConfig, measure, phases
from vdsm.evaluation.scores import Score


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """A checked evaluation of a run, ready to execute."""

    request: EvaluationRequest
    inputs: EvaluationInputs
    train: ClipDataset
    """The training split, from which judge and probes learn."""
    renderer: SpritesRenderer | None
    inception: Inception | None
    true_swap: TrueSwap | None
    """Gives the clips that swaps should be, where they are known."""

    @property
    def phases(self) -> int:
        """Number of phases of progress that `execute` starts."""
        measured = phases(
            self.inputs.model, self._protocol, judged=self._judged, train=True,
            renderer=self.renderer is not None, inception=self.inception is not None,
            true_swap=self.true_swap is not None,
        )  # fmt: skip
        found = self._judged + len(measured) + (self.request.evaluation.dci_trees > 0) + REPORT_PHASES
        return found + (
            exploration_phases(self._judged, self.train) if self.request.evaluation.exploration_trees else 0
        )

    @property
    def _judged(self) -> bool:
        return is_labelled(self.inputs.test)

    @property
    def _protocol(self) -> ProtocolConfig:
        settings = self.request.evaluation
        return ProtocolConfig(
            clip_frames=self.inputs.clip_frames, pairs=settings.pairs, probe_clips=settings.probe_clips,
            seed=self.request.seed, sequence_stage=self.inputs.sequence_stage,
        )  # fmt: skip

    def _dci(self, measured: Measurement, progress: Progress) -> dict[str, Score]:
        trees = self.request.evaluation.dci_trees
        if not trees or measured.learned_from is None:
            return {}
        return dci_scores(measured.learned_from, measured.latents, trees, self.request.seed, progress)

    def _explored(self, measured: Measurement, judge: Judge | None, progress: Progress) -> Exploration | None:
        trees = self.request.evaluation.exploration_trees
        if not trees or measured.learned_from is None:
            return None
        return explore(
            measured.learned_from, measured.latents, clips=self.inputs.test, pairs=measured.swapped.pairs,
            decoder=measured.decoder, judge=judge, groups=self.inputs.recipe.model.static_groups,
            sequence_stage=self.inputs.sequence_stage, trees=trees, seed=self.request.seed, progress=progress,
        )  # fmt: skip

    def _paired(self) -> PairedClips | None:
        """Return the pairs of the run, unless it is measured on other data than it was trained on."""
        if self.inputs.origin["data_sha256"] != self.inputs.data_sha256:
            return None
        return draw_paired_clips(self.inputs.origin["run"], self.inputs.recipe, self.train)

    def describe(self) -> str:
        """Return what would be measured, in one line."""
        origin, settings = self.inputs.origin, self.request.evaluation
        return (
            f"would measure {origin['run']} (stage {origin['stage']}, step {origin['step']}) by {settings.pairs} pairs "
            f"of {len(self.inputs.test):,} test clips, with a judge of {settings.judge_steps} steps, into "
            f"{self.request.out}"
        )

    def execute(self, progress: Progress) -> Metrics:
        """Measure the run, write metrics.json and the report, and return what metrics.json holds."""
        request, inputs, settings = self.request, self.inputs, self.request.evaluation
        start = time.monotonic()
        judge, judge_provenance = None, None
        if self._judged:
            judge_config = JudgeConfig(
                steps=settings.judge_steps, batch_clips=settings.judge_batch_clips,
                clip_frames=inputs.clip_frames, seed=request.seed,
            )  # fmt: skip
            judge, stored = load_or_train(
                request.judge_folder, self.train, inputs.data_sha256, judge_config, progress, device_of(inputs.model)
            )
            judge_provenance = (stored.key, judge_config)
        measured = measure(
            inputs.model, inputs.test, judge, self._protocol, progress,
            train=self.train, renderer=self.renderer, inception=self.inception, true_swap=self.true_swap,
        )  # fmt: skip
        explored = self._explored(measured, judge, progress)
        scores = measured.scores | self._dci(measured, progress) | (explored.scores if explored else {})
        provenance = build_provenance(
            inputs.test, data=request.data, data_sha256=inputs.data_sha256, clip_frames=inputs.clip_frames,
            judge=judge_provenance, seed=request.seed, evaluation=settings.model_dump(mode="json"),
        )  # fmt: skip
        metrics = build_metrics(
            inputs.test, scores, measured.controls, measured.swapped,
            swap_by="dynamics code" if inputs.sequence_stage else "poses",
            provenance=provenance | inputs.provenance(), seconds=time.monotonic() - start,
            expert_use=measured.expert_use, exploration=explored.plain() if explored else None,
        )  # fmt: skip
        write_metrics(request.out, metrics)
        write_report(
            request.out, run=inputs.origin["run"], clips=inputs.test, measured=measured, metrics=metrics,
            sequence_stage=inputs.sequence_stage, grid_clips=settings.grid_clips, seed=request.seed,
            command=request.command(inputs.recipe), progress=progress,
            paired=self._paired(),
        )  # fmt: skip
        origin = inputs.origin
        add_report(str(origin["run"]), inputs.recipe, request.out, is_finished=bool(origin["finished"]))
        return metrics


def prepare_run(run: str, request: EvaluationRequest) -> RunEvaluation:
    """Return the evaluation of a run after checking everything that can be checked beforehand.

    Raises:
        UserError: the run or the data is missing or damaged, or does not fit the request.
    """
    settings, device = request.evaluation, chosen_device(request.device)
    if settings.dci_trees or settings.exploration_trees:
        require("sklearn")
    inputs = load(
        run,
        request.data,
        request.other_data,
        settings.refinement_steps,
        settings.prior,
        device,
        test_clips=settings.test_clips,
    )
    train = training_split(request.data, inputs.test, inputs.clip_frames)
    renderer = load_renderer(inputs.test, request.data, request.sheets) if request.sheets else None
    try:
        inception = load_inception(request.inception).to(device) if request.inception else None
    except ValueError as error:
        raise UserError(str(error)) from error
    storage.check_writable(request.out)
    return RunEvaluation(
        request=request, inputs=inputs, train=train, renderer=renderer, inception=inception,
        true_swap=load_true_swap(inputs.test),
    )  # fmt: skip
