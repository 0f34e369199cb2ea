"""`vdsm generate`: moving pictures from a run: action transfer, samples of the prior, reconstructions."""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster import storage
from cluster.command_line import UserError, parse, run
from cluster.settings import Controls
from pipeline.evaluation_inputs import Inputs, load, use_all_cpus
from pipeline.progress import ProgressReport
from preprocessing.config import Section

if TYPE_CHECKING:
    from pipeline.report.pictures import Frames
    from vdsm.evaluation.judge import Progress

KINDS = ("transfer", "prior", "reconstruction")


class GenerateCommand(Section, Controls):
    """Draw moving pictures from a run, on the test clips of its data. The same command draws the same picture."""

    run: str
    """Folder of the run: <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    data: str
    """Dataset it was trained on; its test clips give actions and identities."""
    out: str
    """Folder for the pictures; may be s3://bucket/prefix."""
    what: Literal["all", "transfer", "prior", "reconstruction"] = "all"
    """`transfer`: donors of the action in the first column, of the identity in the first row. `prior`: static codes
    drawn from the prior, one per column. `reconstruction`: real clips above, decoded ones below."""
    format: Literal["gif", "mp4", "png"] = "gif"
    """`gif` and `mp4` move; `png` holds all frames side by side."""
    rows: int | None = Field(default=None, ge=1)
    """Most actions in the transfer and prior grids; none means all."""
    columns: int = Field(default=8, ge=1)
    """Most identities, samples or clips side by side."""
    length: int | None = Field(default=None, ge=1)
    """Frames of a clip; none means as many as in the training. The dynamics code can go on for longer than a clip."""
    scale: int = Field(default=2, ge=1, le=16)
    """Screen pixels per pixel."""
    fps: float = Field(default=8.0, gt=0, le=60)
    """Frames per second of the picture."""
    seed: int = Field(default=0, ge=0)
    """Draws the identities and the samples."""
    other_data: bool = False
    """Use other data than the run was trained on."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: its words; those of the process if absent.
    """
    run(_main, argv)


def _main(words: list[str]) -> None:
    generate(parse(GenerateCommand, words, prog="vdsm generate"))


def generate(command: GenerateCommand) -> list[str]:
    """Draw and write the pictures; returns where they are.

    Raises:
        UserError: the run or the data is missing, damaged, or they do not belong together.
    """
    inputs = load(command.run, command.data, command.other_data)
    check_length(command, inputs)
    storage.check_writable(command.out)
    kinds = KINDS if command.what == "all" else (command.what,)
    places = {kind: storage.join(command.out, f"{kind}.{command.format}") for kind in kinds}
    if command.dry_run:
        sys.stdout.write("".join(f"would draw {place}\n" for place in places.values()))
        return []
    # Torch and the encoders take seconds to import.
    from pipeline.report.picture_files import encode
    from pipeline.report.pictures import enlarge

    use_all_cpus()
    with ProgressReport() as progress:
        for kind, place in places.items():
            clip = enlarge(draw(kind, command, inputs, progress), command.scale)
            storage.write_bytes(place, encode(clip, command.format, command.fps))
            sys.stdout.write(f"{place}\n")
    return list(places.values())


def check_length(command: GenerateCommand, inputs: Inputs) -> None:
    """Refuse a length that only a sequence stage could give, or that the clips do not have."""
    length = command.length or inputs.clip_frames
    shortest = min(inputs.test.clip_frames)
    if inputs.clip_frames > shortest or (length > shortest and not inputs.sequence_stage):
        raise UserError(
            f"{command.data} has test clips of {shortest} frames, but {max(length, inputs.clip_frames)} are needed; "
            "give a smaller --length, or train the sequence stage"
        )


def draw(kind: str, command: GenerateCommand, inputs: Inputs, progress: "Progress") -> "Frames":
    """The picture of one kind: uint8 [T, H, W, 4]."""
    import numpy as np

    from pipeline.report import grids
    from pipeline.report.pictures import mosaic
    from vdsm.evaluation.model import encode_clips
    from vdsm.evaluation.outputs import Decoder

    test, sequence = inputs.test, inputs.sequence_stage
    generator = np.random.default_rng(command.seed)
    actions = grids.action_donors(test)[: command.rows]
    everybody = grids.identity_donors(test, len(test))
    people = np.sort(generator.permutation(everybody)[: command.columns])
    shown = np.unique(np.concatenate((actions, people)))
    place = {int(clip): position for position, clip in enumerate(shown)}
    clips = grids.Selection(test, shown)
    codes = encode_clips(inputs.model, clips, inputs.clip_frames, progress=progress)
    decoder = Decoder(inputs.model, codes, command.length or inputs.clip_frames)
    actions, people = (np.array([place[int(clip)] for clip in chosen], dtype=np.int64) for chosen in (actions, people))
    if kind == "transfer":
        cells = grids.transfer_grid(decoder, clips, actions, people, sequence, progress)
        return mosaic(cells, header_row=True, header_column=True)
    if kind == "prior":
        rows = grids.prior_rows(decoder, clips, actions, people, command.columns, sequence, command.seed)["static"]
        return mosaic(rows, header_column=True)
    return mosaic(grids.reconstruction_rows(decoder, clips, people, sequence))


if __name__ == "__main__":
    main()
