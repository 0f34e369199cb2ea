"""The animations and latent maps of a report, drawn from the model and the test clips.

A section that cannot be drawn is left empty, with the reason in `Gallery.absent`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from pipeline.report import generative, grids
from pipeline.report.animation import Animation, animate_grid, display_fps, make_animation, median_fps
from pipeline.report.grids import Indices
from pipeline.report.images import Frames, mosaic
from pipeline.report.latent_map import Colouring, LatentMap, code_maps
from pipeline.report.paired_clips import PairedClips
from pipeline.report.rollouts import rollout_length, rollout_rows
from pipeline.report.transfer_matrix import TransferMatrix, transfer_matrix
from pipeline.report.wrong_swaps import MAX_WRONG_SWAPS, WrongSwap, wrong_swaps
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.measurement import Measurement, Swapped
from vdsm.evaluation.progress import Progress

T = TypeVar("T")

PHASES = 2
"""Number of phases of progress that `draw_gallery` starts."""
COLUMNS = 10
"""Clips side by side."""
MAX_ROWS = 6
INTERPOLATION_STEPS = 8
"""Static codes between two identities."""
NO_SEQUENCE_STAGE = "This needs a dynamics code, but the sequence stage is not trained yet."
PRIOR_CAPTIONS = {
    "static": "New identities: the real clip on the left of each row gives the action; the static code of each column "
    "is sampled from the prior.",
    "dynamics": "New motions: the real clip on the left of each row gives the identity; the dynamics code of each "
    "column is sampled from the prior.",
    "both": "New identities and motions: both codes are sampled from the prior.",
}
"""Captions of the samples of the prior, by the code that is sampled."""
SAMPLES_ONLY = "Only samples of this system are available, not the model itself, so nothing new can be drawn from it."


@dataclass(frozen=True)
class Gallery:
    """What a report shows besides its metrics."""

    transfer: TransferMatrix | None = None
    examples: Animation | None = None
    """The first pairs in columns: A, B and the sample of another system."""
    prior: list[tuple[str, Animation]] = field(default_factory=list)
    """(caption, samples)."""
    interpolation: Animation | None = None
    rollouts: Animation | None = None
    trained_frames: int = 0
    reconstructions: Animation | None = None
    maps: list[LatentMap] = field(default_factory=list)
    colourings: list[Colouring] = field(default_factory=list)
    wrong: list[WrongSwap] = field(default_factory=list)
    paired: PairedClips | None = None
    """Pairs that were trained on because they look alike."""
    absent: dict[str, str] = field(default_factory=dict)
    """Section name -> reason why it is empty."""


def draw_gallery(
    clips: LabelledClips, measured: Measurement, sequence_stage: bool, max_cells: int, seed: int, progress: Progress
) -> Gallery:
    """Draw the gallery of a model.

    Args:
        clips: the test split.
        measured: the model, its codes and its swaps.
        sequence_stage: whether the model has a dynamics code; otherwise poses are swapped.
        max_cells: maximum number of clips decoded for the action-transfer matrix.
        seed: seed of the samples of the prior.
        progress: receives PHASES phases.
    """
    return _GalleryBuilder(clips, measured, sequence_stage, seed, progress).gallery(max_cells)


class _GalleryBuilder:
    def __init__(
        self, clips: LabelledClips, measured: Measurement, sequence_stage: bool, seed: int, progress: Progress
    ) -> None:
        self.clips, self.measured, self.decoder = clips, measured, measured.decoder
        self.sequence_stage, self.seed, self.progress = sequence_stage, seed, progress
        self.cell = clips.frames(0).shape[2]
        self.fps = display_fps(median_fps(clips))
        self.action_clips = grids.action_donors(clips)
        self.identity_clips = grids.identity_donors(clips, len(clips))
        self.absent: dict[str, str] = {}

    def gallery(self, max_cells: int) -> Gallery:
        colourings, maps = code_maps(self.measured.latents, self.sequence_stage)
        transfer = self.transfer(max_cells)
        self.progress.start("rendering the other animations", 5, unit="sections")
        return Gallery(
            transfer=transfer,
            prior=self.finished(self.prior()),
            interpolation=self.finished(self.interpolation()),
            rollouts=self.finished(self.rollouts()),
            trained_frames=self.decoder.length,
            reconstructions=self.finished(self.reconstructions()),
            maps=maps,
            colourings=colourings,
            wrong=self.finished(self.wrong()),
            absent=self.absent,
        )

    def finished(self, section: T) -> T:
        self.progress.advance()
        return section

    def animate(self, rows: grids.Cells, alt: str, header_column: bool = False) -> Animation:
        return animate_grid(rows, self.fps, alt, self.cell, header_column=header_column)

    def transfer(self, max_cells: int) -> TransferMatrix:
        return transfer_matrix(
            self.decoder,
            self.clips,
            self.action_clips,
            self.identity_clips,
            self.sequence_stage,
            max_cells,
            self.progress,
        )

    def prior(self) -> list[tuple[str, Animation]]:
        generator = torch.Generator().manual_seed(self.seed)
        static = generative.prior_static_rows(
            self.decoder, self.clips, self.action_clips, COLUMNS - 1, self.sequence_stage, generator
        )
        found = [(PRIOR_CAPTIONS["static"], self.animate(static, "new identities", header_column=True))]
        if self.sequence_stage:
            identity_clips = self.identity_clips[: min(len(self.action_clips), MAX_ROWS)]
            dynamics = generative.prior_dynamics_rows(self.decoder, self.clips, identity_clips, COLUMNS - 1, generator)
            found.append((PRIOR_CAPTIONS["dynamics"], self.animate(dynamics, "new motions", header_column=True)))
        if self.sequence_stage and isinstance(self.decoder.model, generative.GenerativeModel):
            both = generative.sample_clips(self.decoder.model, 2 * COLUMNS, self.decoder.length, self.seed)
            rows = grids.in_rows(both, COLUMNS)
            found.append((PRIOR_CAPTIONS["both"], self.animate(rows, "new identities and motions")))
        return found

    def interpolation(self) -> Animation | None:
        if not isinstance(self.decoder.model, generative.GenerativeModel):
            self.absent["interpolation"] = SAMPLES_ONLY
            return None
        if len(self.identity_clips) < 2:
            self.absent["interpolation"] = "The test split has a single identity."
            return None
        # From each action's donor to the first clip of another identity.
        first = self.action_clips[:MAX_ROWS]
        second = np.array([self._other_identity(int(a), number) for number, a in enumerate(first)], dtype=np.int64)
        rows = generative.interpolation_rows(
            self.decoder, self.clips, first, second, INTERPOLATION_STEPS, self.sequence_stage
        )
        return self.animate(rows, "from the identity on the left to the one on the right, step by step")

    def _other_identity(self, clip: int, number: int) -> int:
        names = self.clips.identities
        others = [int(index) for index in self.identity_clips if names[int(index)] != names[clip]]
        return others[number % len(others)]

    def rollouts(self) -> Animation | None:
        if not isinstance(self.decoder.model, generative.GenerativeModel):
            self.absent["rollouts"] = SAMPLES_ONLY
            return None
        if not self.sequence_stage:
            self.absent["rollouts"] = NO_SEQUENCE_STAGE
            return None
        # The donors of the actions, so that the continuation of every action is shown.
        rows = rollout_rows(self.decoder, self.clips, self.action_clips[:COLUMNS], rollout_length(self.decoder.length))
        return self.animate(rows, "above, real clips; below, the model's continuation beyond their end")

    def reconstructions(self) -> Animation:
        rows = grids.reconstruction_rows(self.decoder, self.clips, self.identity_clips[:COLUMNS], self.sequence_stage)
        return self.animate(rows, "real clips and their reconstructions")

    def wrong(self) -> list[WrongSwap]:
        swapped = self.measured.swapped
        chosen = swapped.wrong[:MAX_WRONG_SWAPS]
        dynamics_of, static_of = swapped.pairs.dynamics_of[chosen], swapped.pairs.static_of[chosen]
        outputs = grids.decode_swaps(self.decoder, dynamics_of, static_of, self.sequence_stage)
        found = wrong_swaps(self.clips, swapped, outputs, self.decoder.length)
        if not found:
            self.absent["wrong"] = (
                f"The judge saw no wrong factor in any of the {len(swapped.pairs):,} swaps."
                if swapped.judged
                else "Without labels, wrong swaps cannot be identified."
            )
        return found


def draw_samples_gallery(
    clips: LabelledClips, swapped: Swapped, samples_of: Callable[[Indices], Sequence[Frames]], length: int
) -> Gallery:
    """Draw the gallery of another system, of which only samples of the pairs are available.

    Args:
        clips: the test split.
        swapped: the pairs and the judge's verdicts.
        samples_of: returns the samples of the pairs at some positions: uint8 [T, H, W, C] each.
        length: number of frames shown.
    """
    first = np.arange(min(COLUMNS, len(swapped.pairs)))
    rows: grids.Cells = [
        list(grids.real_clips(clips, swapped.pairs.dynamics_of[first], length)),
        list(grids.real_clips(clips, swapped.pairs.static_of[first], length)),
        list(samples_of(first)),
    ]
    cell = clips.frames(0).shape[2]
    alt = "top, clips that give the action; middle, clips that give the identity; bottom, the samples"
    wrong = wrong_swaps(clips, swapped, samples_of(swapped.wrong[:MAX_WRONG_SWAPS]), length)
    sections = ("transfer", "prior", "interpolation", "rollouts", "reconstructions", "maps")
    absent = dict.fromkeys(sections, SAMPLES_ONLY)
    absent["wrong"] = f"The judge saw no wrong factor in any of the {len(swapped.pairs):,} samples."
    return Gallery(
        examples=make_animation(mosaic(rows), display_fps(median_fps(clips)), alt, cell), wrong=wrong, absent=absent
    )
