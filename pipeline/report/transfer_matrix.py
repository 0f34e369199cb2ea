"""The action-transfer matrix of a report: every identity performing the action of every donor, in blocks of columns."""

from dataclasses import dataclass

from pipeline.report.animation import Animation, animate_grid, display_fps, median_fps
from pipeline.report.grids import Indices, transfer_grid
from pipeline.report.images import GAP, Frames, mosaic
from vdsm.evaluation.clips import ACTION, LabelledClips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.progress import Progress

BLOCK_COLUMNS = 10
"""Identities in one block."""
MAX_PIXELS = 24_000_000
"""Maximum number of pixels in all frames of the matrix together, so that a report is small enough for e-mail."""


@dataclass(frozen=True)
class TransferMatrix:
    """The action-transfer matrix, in blocks of identities."""

    donors: Animation
    """The column of clips that give the action, below an empty cell."""
    blocks: list[Animation]
    """Each block: the row of clips that give the identity, above the swaps."""
    header: float
    """Height of the row of identities, in percent of the whole matrix."""
    labels: list[str]
    """Name of the action of each row; empty without labels."""
    identities: int
    shareable: Frames
    """Donors and first block as one clip, for a file of its own: uint8 [T, H, W, 4]."""


def transfer_matrix(
    decoder: SwapDecoder,
    clips: LabelledClips,
    action_clips: Indices,
    identity_clips: Indices,
    sequence_stage: bool,
    max_cells: int,
    progress: Progress,
) -> TransferMatrix:
    """Decode the matrix of as many identities as the limits allow.

    Args:
        decoder: the model with the codes of the clips.
        clips: the test split.
        action_clips: donors of the action, one per row.
        identity_clips: donors of the identity, one per column.
        sequence_stage: whether to swap dynamics codes; otherwise poses are swapped.
        max_cells: maximum number of clips decoded.
        progress: receives one phase.
    """
    cell, fps = clips.frames(0).shape[2], display_fps(median_fps(clips))
    affordable = MAX_PIXELS // (decoder.length * cell**2)
    identity_clips = identity_clips[: max(1, min(max_cells, affordable) // len(action_clips))]
    progress.start("rendering the action-transfer matrix", len(action_clips) * len(identity_clips), unit="clips")
    rows = transfer_grid(decoder, clips, action_clips, identity_clips, sequence_stage, progress)
    donors = animate_grid([row[:1] for row in rows], fps, "real clips that give the action", cell, header_row=True)
    blocks = []
    for start in range(1, len(identity_clips) + 1, BLOCK_COLUMNS):
        block = [row[start : start + BLOCK_COLUMNS] for row in rows]
        alt = (
            f"above, real clips of identities {start} to {start + len(block[0]) - 1}; below, the same identities "
            "performing the action of the clip on the left of the row"
        )
        blocks.append(animate_grid(block, fps, alt, cell, header_row=True))
    names = clips.vocabulary.get(ACTION, [])
    return TransferMatrix(
        donors=donors,
        blocks=blocks,
        header=round(100 * (cell + 4 * GAP) / donors.height, 2),
        labels=[names[int(clips.labels[ACTION][index])] for index in action_clips] if names else [],
        identities=len(identity_clips),
        shareable=mosaic([row[: 1 + BLOCK_COLUMNS] for row in rows], header_row=True, header_column=True),
    )
