"""The pictures of `vdsm generate`: rows of cells to be shown, and the clips that the model made for them."""

from dataclasses import dataclass, field

import numpy as np
import torch

from pipeline.report import explore, grids
from pipeline.report.grids import Cells, Indices
from pipeline.report.pictures import Frames, mosaic
from vdsm.evaluation.clips import LabelledClips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import Progress


@dataclass(frozen=True)
class Drawing:
    """One picture."""

    cells: Cells
    header_row: bool = False
    header_column: bool = False
    made: list[Frames] = field(default_factory=list)
    """The clips that the model made, row after row: uint8 [T, H, W, C] each."""
    dynamics_of: list[str] = field(default_factory=list)
    """Per made clip the key of the clip that gave the action; empty where it was drawn from the prior."""
    static_of: list[str] = field(default_factory=list)
    """The same of the identity."""

    def picture(self) -> Frames:
        """All cells, moving together: uint8 [T, H, W, 4]."""
        return mosaic(self.cells, header_row=self.header_row, header_column=self.header_column)

    def arrays(self) -> dict[str, np.ndarray]:
        """The made clips, `frames` uint8 [N, T, H, W, C], with the keys of their donors."""
        return {
            "frames": np.stack(self.made),
            "dynamics_of": np.array(self.dynamics_of),
            "static_of": np.array(self.static_of),
        }


@dataclass(frozen=True)
class Easel:
    """A model with the donors that it is to draw from."""

    decoder: SwapDecoder
    clips: LabelledClips
    actions: Indices
    """Clips that give actions."""
    people: Indices
    """Clips that give identities."""
    sequence_stage: bool
    seed: int
    progress: Progress

    def transfer(self) -> Drawing:
        """Each identity (columns) does what each action's donor (rows) does."""
        cells = grids.transfer_grid(
            self.decoder, self.clips, self.actions, self.people, self.sequence_stage, self.progress
        )
        return self._drawing(
            cells, [row[1:] for row in cells[1:]], self.actions.repeat(len(self.people)),
            np.tile(self.people, len(self.actions)), header_row=True, header_column=True,
        )  # fmt: skip

    def prior(self, columns: int) -> Drawing:
        """New identities, one per column, do what each action's donor (rows) does."""
        cells = grids.prior_rows(
            self.decoder, self.clips, self.actions, self.people, columns, self.sequence_stage, self.seed
        )["static"]
        made = [row[1:] for row in cells]
        return self._drawing(cells, made, self.actions.repeat(columns), None, header_column=True)

    def reconstruction(self) -> Drawing:
        """Clips, and what the model makes of them by their poses and, with a sequence stage, by their dynamics code."""
        cells = grids.reconstruction_rows(self.decoder, self.clips, self.people, self.sequence_stage)
        donors = np.tile(self.people, len(cells) - 1)
        return self._drawing(cells, cells[1:], donors, donors)

    def interpolation(self, rows: int, steps: int) -> Drawing:
        """From each identity to the next, doing what one action's donor does after the other."""
        first, second = self.people[:-1][:rows], self.people[1:][:rows]
        doing = np.resize(self.actions, len(first))
        cells = explore.interpolation_rows(
            self.decoder, self.clips, first, second, steps, self.sequence_stage, dynamics_of=doing
        )
        return self._drawing(cells, [row[1:-1] for row in cells], doing.repeat(steps), None)

    def rollout(self, length: int) -> Drawing:
        """Clips, and how the model goes on with them."""
        cells = explore.rollout_rows(self.decoder, self.clips, self.actions, length)
        drawing = self._drawing(cells, [], self.actions, self.actions)
        size = self.clips.frames(0).shape[1]
        drawing.made.extend(cell[:, :size, :, :3] for cell in cells[1] if cell is not None)
        return drawing

    def _drawing(
        self,
        cells: Cells,
        made: Cells,
        dynamics_of: Indices,
        static_of: Indices | None,
        header_row: bool = False,
        header_column: bool = False,
    ) -> Drawing:
        keys = self.clips.keys
        return Drawing(
            cells, header_row, header_column,
            [cell for row in made for cell in row if cell is not None],
            [keys[int(index)] for index in dynamics_of],
            [""] * len(dynamics_of) if static_of is None else [keys[int(index)] for index in static_of],
        )  # fmt: skip


@torch.inference_mode()
def samples(model: explore.Explorable, rows: int, columns: int, length: int, seed: int) -> Drawing:
    """Clips of which everything is drawn from the prior."""
    drawn = model.sample_prior(rows * columns, length, torch.Generator().manual_seed(seed))
    made = grids.to_uint8(drawn)
    nobody = [""] * len(made)
    return Drawing(explore.in_rows(made, columns), made=made, dynamics_of=nobody, static_of=nobody)
