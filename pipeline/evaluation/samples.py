"""Evaluation of another system's samples of the pairs of `vdsm pairs`, by the judge and the controls of a run's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.evaluation.inputs import chosen_device, test_split, training_split
from pipeline.evaluation.judge_cache import load_or_train
from pipeline.evaluation.metrics import Metrics, build_metrics, build_provenance, write_metrics
from pipeline.evaluation.pairs_file import PairsDescription, read_pairs
from pipeline.evaluation.renderer import SpritesRenderer, load_renderer, load_true_swap
from pipeline.evaluation.request import EvaluationRequest
from pipeline.evaluation.samples_files import SamplesFile, read_samples_file, samples_sha256
from pipeline.evaluation.unfinished import UnfinishedScoring
from pipeline.report.page import write_samples_report
from pipeline.runs.store import data_hash
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.clips import is_labelled
from vdsm.evaluation.judge import JudgeConfig
from vdsm.evaluation.moving_pixels import TrueSwap
from vdsm.evaluation.pairs import Pairs, draw_pairs
from vdsm.evaluation.progress import Progress
from vdsm.evaluation.samples import check_samples, sample_phases, score_samples, select_frames


@dataclass(frozen=True, kw_only=True)
class SamplesEvaluation:
    """A checked evaluation of samples, ready to execute. Seed and settings are those in the folder's pairs.json."""

    request: EvaluationRequest
    folder: str
    """URL of the samples."""
    files: list[SamplesFile]
    """Their .npz files, in the order of their names."""
    description: PairsDescription
    pairs: Pairs
    test: ClipDataset
    train: ClipDataset
    renderer: SpritesRenderer | None
    true_swap: TrueSwap | None
    """Gives the clips that swaps should be, where they are known."""
    device: torch.device
    """Where the judge computes."""

    @property
    def phases(self) -> int:
        """Number of phases of progress that `execute` starts: the judge, the scores, the report."""
        return 1 + len(self._phases) + 1

    @property
    def _phases(self) -> list[str]:
        return sample_phases(renderer=self.renderer is not None, true_swap=self.true_swap is not None)

    @property
    def _title(self) -> str:
        return self.request.system or self.folder.rstrip("/").rpartition("/")[2]

    def describe(self) -> str:
        """Return what would be measured, in one line."""
        return f"would measure the samples of {len(self.files)} files by {self.description.evaluation.pairs} pairs"

    def execute(self, progress: Progress) -> Metrics:
        """Measure the samples, write metrics.json and report.html, and return what metrics.json holds.

        Raises:
            UserError: a file was changed since it was checked.
        """
        request, wanted = self.request, self.description
        settings, seed, length = wanted.evaluation, wanted.seed, wanted.clip_frames
        start = time.monotonic()
        judge_config = JudgeConfig(
            steps=settings.judge_steps, batch_clips=settings.judge_batch_clips, clip_frames=length, seed=seed
        )
        judge, stored = load_or_train(
            request.judge_folder, self.train, wanted.data_sha256, judge_config, progress, self.device
        )
        provenance = build_provenance(
            self.test, data=request.data, data_sha256=wanted.data_sha256, clip_frames=length,
            judge=(stored.key, judge_config), seed=seed, evaluation=settings.model_dump(mode="json"),
        )  # fmt: skip
        provenance |= {"samples": self.folder, "samples_sha256": samples_sha256(self.files)}
        provenance |= {"system": request.system} if request.system else {}
        finished = UnfinishedScoring(request.out, provenance)
        parts = {file.name: file.samples for file in self.files}
        measured = score_samples(
            judge, self.test, self.pairs, parts, length, seed, progress, renderer=self.renderer,
            true_swap=self.true_swap, finished=finished,
        )  # fmt: skip
        metrics = build_metrics(
            self.test, measured.scores, measured.controls, measured.swapped, swap_by="samples",
            provenance=provenance, seconds=time.monotonic() - start, expert_use=[],
        )  # fmt: skip
        write_metrics(request.out, metrics)
        progress.start("drawing the report", 2 * len(self.files), unit="files")
        write_samples_report(
            request.out, title=self._title, clips=self.test, swapped=measured.swapped,
            samples_of=self._sample_reader(progress), metrics=metrics, command=request.command(),
        )  # fmt: skip
        finished.remove()
        return metrics

    def _sample_reader(self, progress: Progress) -> Callable[[NDArray[np.int64]], Sequence[NDArray[np.uint8]]]:
        """Return a function from positions of pairs to the samples of their swaps."""

        def read(positions: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
            keys = self.test.keys
            donors = [(keys[self.pairs.dynamics_of[n]], keys[self.pairs.static_of[n]]) for n in positions]
            return select_frames({file.name: file.samples for file in self.files}, donors, progress)

        return read


def prepare_samples(folder: str, request: EvaluationRequest, progress: Progress) -> SamplesEvaluation:
    """Return the evaluation of samples after checking everything that can be checked beforehand.

    Args:
        folder: URL of the samples.
        request: what is measured.
        progress: receives one phase.

    Raises:
        UserError: the folder has no pairs, its samples are not intact or not those of the pairs, or they were made for
            other data.
    """
    device = chosen_device(request.device)
    wanted = read_pairs(folder)
    test = test_split(request.data, wanted.evaluation.test_clips)
    if data_hash(test.manifest) != wanted.data_sha256:
        raise UserError(
            f"{folder}: its pairs were drawn from data other than {request.data} (hashes differ); give their dataset"
        )
    if not is_labelled(test):
        raise UserError(f"{request.data} has no action label, which the judge of samples needs; use labelled data")
    train = training_split(request.data, test, wanted.clip_frames)
    renderer = load_renderer(test, request.data, request.sheets) if request.sheets else None
    pairs = draw_pairs(test, wanted.evaluation.pairs, wanted.seed)
    if pairs.sha256(test) != wanted.pairs_sha256:
        raise UserError(f"{folder}: pairs.json was changed; rerun `vdsm pairs`")
    names = [name for name in storage.list_files(folder) if name.endswith(".npz")]
    if not names:
        raise UserError(f"{folder} holds no .npz file; its HOW.txt describes how to write them")
    storage.check_writable(request.out)
    progress.start("checking the samples", len(names), unit="files")
    files = []
    for name in names:
        files.append(read_samples_file(folder, name, (wanted.clip_frames, *test.frame_shape)))
        progress.advance()
    try:
        check_samples(test, pairs, {file.name: file.samples for file in files})
    except ValueError as error:
        raise UserError(f"{folder}: {error}; pairs.json lists the samples that are needed") from error
    return SamplesEvaluation(
        request=request, folder=folder, files=files, description=wanted, pairs=pairs, test=test, train=train,
        renderer=renderer, true_swap=load_true_swap(test), device=device,
    )  # fmt: skip
