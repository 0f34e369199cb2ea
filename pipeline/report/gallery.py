"""Every picture of a report, drawn from the model and the test clips; what cannot be drawn says why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.report import explore, grids
from pipeline.report.films import QUALITY, Film, film, shown_fps
from pipeline.report.grids import Indices
from pipeline.report.latent_map import Colouring, LatentMap, colourings, latent_map
from pipeline.report.pictures import GAP, Frames, mosaic
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.measurement import Latents, Measurement, Swapped
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import Progress

PER_BLOCK = 10
"""Identities side by side in one block of the action-transfer matrix."""
SHOWN = 10
"""Clips side by side in the other pictures."""
STEPS = 8
"""Identities between two others."""
WORST = 12
"""Wrong swaps shown."""
MOST_PIXELS = 24_000_000
"""Of all frames of the action-transfer matrix together, so that a report can be sent by mail."""
LARGE, LARGE_QUALITY = 40_000_000, 62
"""Values of a film from which on it is compressed more."""
NO_STAGE = "The sequence stage is not trained yet, and this needs a dynamics code."
NO_MODEL = "There are only samples of this model, not the model itself, so nothing new can be drawn from it."


@dataclass(frozen=True)
class Transfer:
    """The action-transfer matrix, in blocks of identities."""

    donors: Film
    """The column of clips that give the action, below an empty place."""
    blocks: list[Film]
    """The row of clips that give the identity, above the swaps."""
    header: float
    """Height of the row that gives the identity, in percent of the whole."""
    labels: list[str]
    """Name of the action of each row; empty without labels."""
    identities: int
    shareable: Frames
    """Donors and first block in one, for a file of its own: uint8 [T, H, W, 4]."""


@dataclass(frozen=True)
class WrongSwap:
    """A swap that the judge does not see as asked for."""

    picture: Film
    asked: list[tuple[str, str, str]]
    """(factor, value asked for, value judged) of the wrong factors."""


@dataclass(frozen=True)
class Shown:
    """What a report shows beside its figures."""

    transfer: Transfer | None = None
    examples: Film | None = None
    """Some pairs in columns: A, B and what another system made of them."""
    prior: list[tuple[str, Film]] = field(default_factory=list)
    """(what is seen, the picture)."""
    interpolation: Film | None = None
    rollouts: Film | None = None
    trained_frames: int = 0
    reconstructions: Film | None = None
    maps: list[LatentMap] = field(default_factory=list)
    colourings: list[Colouring] = field(default_factory=list)
    wrong: list[WrongSwap] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Why a section is empty, by its name."""


def draw(
    clips: LabelledClips, measured: Measurement, sequence_stage: bool, most_cells: int, seed: int, progress: Progress
) -> Shown:
    """All pictures of a report.

    Args:
        clips: the test split.
        measured: the model, its codes and its swaps.
        sequence_stage: whether it has a dynamics code; else poses are swapped.
        most_cells: most clips decoded for the action-transfer matrix.
        seed: draws the samples of the prior.
        progress: told how far the work is.
    """
    return _Painter(clips, measured.decoder, sequence_stage, seed, progress).everything(measured, most_cells)


class _Painter:
    def __init__(
        self, clips: LabelledClips, decoder: SwapDecoder, sequence_stage: bool, seed: int, progress: Progress
    ) -> None:
        self.clips, self.decoder, self.sequence, self.seed = clips, decoder, sequence_stage, seed
        self.progress = progress
        self.cell = clips.frames(0).shape[2]
        self.fps = fps_of(clips)
        self.actions = grids.action_donors(clips)
        self.people = grids.identity_donors(clips, len(clips))
        self.absent: dict[str, str] = {}

    def everything(self, measured: Measurement, most_cells: int) -> Shown:
        coloured_by, maps = code_maps(measured.latents, self.sequence)
        wrong = self.wrong(measured.swapped)
        if not wrong:
            self.absent["wrong"] = (
                f"The judge saw no wrong factor in any of {len(measured.swapped.pairs):,} swaps."
                if measured.swapped.judged
                else "Without labels nobody can say which swap is wrong."
            )
        return Shown(
            transfer=self.transfer(most_cells),
            prior=self.prior(),
            interpolation=self.interpolation(),
            rollouts=self.rollouts(),
            trained_frames=self.decoder.length,
            reconstructions=self.film(
                grids.reconstruction_rows(self.decoder, self.clips, self.people[:SHOWN], self.sequence),
                "real clips and their reconstructions",
            ),
            maps=maps,
            colourings=coloured_by,
            wrong=wrong,
            absent=self.absent,
        )

    def film(self, rows: grids.Cells, alt: str, header_row: bool = False, header_column: bool = False) -> Film:
        clip = mosaic(rows, header_row=header_row, header_column=header_column)
        quality = QUALITY if clip.size < LARGE else LARGE_QUALITY
        return film(clip, self.fps, alt, self.cell, quality)

    def transfer(self, most_cells: int) -> Transfer:
        affordable = MOST_PIXELS // (self.decoder.length * self.cell**2)
        most = max(1, min(most_cells, affordable) // len(self.actions))
        people = self.people[:most]
        rows = grids.transfer_grid(self.decoder, self.clips, self.actions, people, self.sequence, self.progress)
        starts = range(1, len(people) + 1, PER_BLOCK)
        blocks = [[row[start : start + PER_BLOCK] for row in rows] for start in starts]
        names = self.clips.vocabulary.get(ACTION, [])
        donors = self.film([row[:1] for row in rows], "real clips that give the action", header_row=True)
        first = [[row[0], *row[1 : 1 + PER_BLOCK]] for row in rows]
        return Transfer(
            donors=donors,
            header=round(100 * (self.cell + 4 * GAP) / donors.height, 2),
            blocks=[
                self.film(
                    block,
                    f"above, real clips of identities {start} to {start + len(block[0]) - 1}; below, the same "
                    "identities doing what the clip on the left of the row does",
                    header_row=True,
                )
                for start, block in zip(starts, blocks, strict=True)
            ],
            labels=[names[int(self.clips.labels[ACTION][index])] for index in self.actions] if names else [],
            identities=len(people),
            shareable=mosaic(first, header_row=True, header_column=True),
        )

    def prior(self) -> list[tuple[str, Film]]:
        people = self.people[: min(len(self.actions), 6)]
        rows = grids.prior_rows(self.decoder, self.clips, self.actions, people, SHOWN - 1, self.sequence, self.seed)
        captions = {
            "static": "New identities: in each row the real clip on the left gives the action, in each column the "
            "static code is drawn from the prior.",
            "dynamics": "New motions: in each row the real clip on the left gives the identity, in each column the "
            "dynamics code is drawn from the prior.",
        }
        found = [
            (captions[name], self.film(cells, f"samples of the prior: {name} code drawn", header_column=True))
            for name, cells in rows.items()
        ]
        if self.sequence and isinstance(self.decoder.model, explore.Explorable):
            both = explore.prior_clips(self.decoder, 2 * SHOWN, self.decoder.length, self.seed)
            caption = "Everything new: identity and motion both drawn from the prior."
            found.append((caption, self.film(explore.in_rows(both, SHOWN), "samples of the prior: both codes drawn")))
        return found

    def interpolation(self) -> Film | None:
        if not isinstance(self.decoder.model, explore.Explorable):
            self.absent["interpolation"] = NO_MODEL
            return None
        if len(self.people) < 2:
            self.absent["interpolation"] = "The test split has a single identity."
            return None
        # From each action's donor to the first clip of another identity.
        first = self.actions[:6]
        second = np.array([self._somebody_else(int(a), number) for number, a in enumerate(first)], dtype=np.int64)
        rows = explore.interpolation_rows(self.decoder, self.clips, first, second, STEPS, self.sequence)
        return self.film(rows, "from the identity on the left to the one on the right, step by step")

    def _somebody_else(self, clip: int, number: int) -> int:
        others = [int(p) for p in self.people if self.clips.identities[int(p)] != self.clips.identities[clip]]
        return others[number % len(others)]

    def rollouts(self) -> Film | None:
        if not isinstance(self.decoder.model, explore.Explorable):
            self.absent["rollouts"] = NO_MODEL
        elif not self.sequence:
            self.absent["rollouts"] = NO_STAGE
        else:
            # The clips that give the actions, so that every action is seen to go on.
            chosen = self.actions[:SHOWN]
            rows = explore.rollout_rows(self.decoder, self.clips, chosen, explore.rollout_length(self.decoder.length))
            return self.film(rows, "real clips above; below, the model goes on past their end")
        return None

    def wrong(self, swapped: Swapped) -> list[WrongSwap]:
        chosen = swapped.wrong[:WORST]
        sources, targets = swapped.pairs.dynamics_of[chosen], swapped.pairs.static_of[chosen]
        outputs = grids.decode_cells(self.decoder, sources, targets, self.sequence, "drawing wrong swaps")
        return wrong_swaps(self.clips, swapped, outputs, self.decoder.length)


def wrong_swaps(clips: LabelledClips, swapped: Swapped, outputs: Sequence[Frames], length: int) -> list[WrongSwap]:
    """The pairs with the most wrong factors: A, B and what became of them, with the judge's words.

    Args:
        clips: the test split.
        swapped: its pairs and what the judge said.
        outputs: what was made of the first pairs of `swapped.wrong`: uint8 [T, H, W, C] each.
        length: frames shown.
    """
    cell, fps = clips.frames(0).shape[2], fps_of(clips)
    found = []
    for place, output in zip(swapped.wrong, outputs):
        a, b = int(swapped.pairs.dynamics_of[place]), int(swapped.pairs.static_of[place])
        asked = []
        for name, judged in swapped.judged.items():
            wanted = int(clips.labels[name][a if name == ACTION else b])
            if int(judged[place]) != wanted:
                names = clips.vocabulary[name]
                asked.append((name, names[wanted], names[int(judged[place])]))
        said = ", ".join(f"{name} {judged} instead of {wanted}" for name, wanted, judged in asked)
        picture = mosaic([[*grids.real(clips, [a, b], length), output]])
        found.append(WrongSwap(film(picture, fps, f"A, B and their swap, judged {said}", cell), asked))
    return found


def draw_samples(
    clips: LabelledClips, swapped: Swapped, made: Callable[[Indices], Sequence[Frames]], length: int
) -> Shown:
    """The pictures of a report on another system, of which there are only its samples of the pairs.

    Args:
        clips: the test split.
        swapped: the pairs and what the judge said.
        made: gives the samples of the pairs at some positions: uint8 [T, H, W, C] each.
        length: frames shown.
    """
    first = np.arange(min(SHOWN, len(swapped.pairs)))
    rows: grids.Cells = [
        list(grids.real(clips, swapped.pairs.dynamics_of[first], length)),
        list(grids.real(clips, swapped.pairs.static_of[first], length)),
        list(made(first)),
    ]
    cell = clips.frames(0).shape[2]
    alt = "above, clips that give the action; in the middle, clips that give the identity; below, the samples"
    wrong = wrong_swaps(clips, swapped, made(swapped.wrong[:WORST]), length)
    absent = dict.fromkeys(("transfer", "prior", "interpolation", "rollouts", "reconstructions", "maps"), NO_MODEL)
    absent["wrong"] = f"The judge saw no wrong factor in any of {len(swapped.pairs):,} samples."
    return Shown(examples=film(mosaic(rows), fps_of(clips), alt, cell), wrong=wrong, absent=absent)


def fps_of(clips: LabelledClips) -> float:
    """Frames per second at which clips are shown: the median of their own, or a default where it is unknown."""
    known = np.asarray(getattr(clips, "fps", []), dtype=np.float64)
    known = known[np.isfinite(known) & (known > 0)]
    return shown_fps(float(np.median(known)) if len(known) else None)


def code_maps(latents: Latents, sequence_stage: bool) -> tuple[list[Colouring], list[LatentMap]]:
    """The maps of every code that there is, and what they can be coloured by. A pose is that of the middle frame."""
    middle = latents.codes.pose.shape[1] // 2
    factors = dict(latents.factors) | {
        f"{name} (middle frame)": values[:, min(middle, values.shape[1] - 1)] for name, values in latents.tracks.items()
    }
    coloured_by = colourings(latents.labels, latents.vocabulary, factors, latents.identities)
    maps = [latent_map("Static code", latents.codes.static.numpy(), coloured_by)]
    if sequence_stage:
        maps.append(latent_map("Dynamics code", latents.codes.dynamics.numpy(), coloured_by))
    maps.append(latent_map("Pose of the middle frame", latents.codes.pose[:, middle].numpy(), coloured_by))
    return coloured_by, maps
