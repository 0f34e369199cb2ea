"""`vdsm generate`: moving pictures from a run: action transfer, also onto clips of your own, samples, rollouts."""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls, Section
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.evaluation.inputs import load, ready, use_all_cpus

if TYPE_CHECKING:
    from pipeline.generation.drawings import Drawing, Easel
    from pipeline.generation.user_clips import ClipList
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.disentangler import Disentangler
    from vdsm.evaluation.progress import Progress

log = logging.getLogger(__name__)

KINDS = ("transfer", "prior", "samples", "interpolation", "rollout", "reconstruction")
Format = Literal["gif", "mp4", "png", "npz"]
FORMATS: tuple[Format, ...] = ("gif", "mp4", "png", "npz")


class GenerateCommand(Section, Controls):
    """Draw moving pictures from a run, of the test clips of its data or of clips of your own. The same command draws
    the same picture."""

    run: str
    """Folder of the run: <out>/<name> of `vdsm train`; may be s3://bucket/prefix."""
    out: str
    """Folder for the pictures, or one file that ends with .gif, .mp4, .png or .npz; may be in S3."""
    data: str | None = None
    """Dataset it was trained on; its test clips give what is not given by clips of your own."""
    dynamics_of: tuple[str, ...] = ()
    """Clips that give the action: videos, folders of pictures, .npy or .npz files, or keys of clips of the data. Videos
    keep their middle and are resized."""
    static_of: tuple[str, ...] = ()
    """Clips that give the identity, as for `dynamics-of`."""
    what: Literal["all", "transfer", "prior", "samples", "interpolation", "rollout", "reconstruction"] | None = None
    """`transfer`: donors of the action in the first column, of the identity in the first row. `prior`: static codes
    drawn from the prior, one per column. `samples`: everything drawn from the prior. `interpolation`: from each
    identity to the next. `rollout`: clips above, below how the model goes on. `reconstruction`: clips above, decoded
    ones below. None means `transfer` with clips of your own, else `all`."""
    format: Format | None = None
    """`gif` and `mp4` move; `png` holds all frames side by side; `npz` holds the clips that were made, as `frames`
    uint8 [N, T, H, W, C], with the keys of their donors. None means that of `out`, or gif."""
    rows: int | None = Field(default=None, ge=1)
    """Most actions, or rows of samples; none means all actions, 4 rows of samples."""
    columns: int = Field(default=8, ge=1)
    """Most identities, samples, steps or clips side by side."""
    length: int | None = Field(default=None, ge=1)
    """Frames of a clip; none means as many as in the training, for rollouts four times as many. The dynamics code can
    go on for longer than a clip."""
    scale: int = Field(default=2, ge=1, le=16)
    """Screen pixels per pixel."""
    fps: float | None = Field(default=None, gt=0, le=60)
    """Frames per second of the picture; none means those of the clips."""
    clip_fps: float | None = Field(default=None, gt=0)
    """Frames per second at which videos of your own are read; none means those of the data, or all frames."""
    seed: int = Field(default=0, ge=0)
    """Draws the identities and the samples."""
    refinement_steps: int = Field(default=0, ge=0)
    """Gradient steps by which the static code of each clip is fitted to its own frames; 30 bring out handwriting and
    other fine detail."""
    other_data: bool = False
    """Use other data than the run was trained on."""


@dataclass(frozen=True)
class Loaded:
    """The model, and the data if there is any."""

    model: "Disentangler"
    clip_frames: int
    """Frames of a clip in the training of the sequence stage."""
    sequence_stage: bool
    test: "ClipDataset | None"


@dataclass(frozen=True)
class Donors:
    """Clips to draw from, in memory."""

    clips: "ClipList"
    actions: list[int]
    people: list[int]


def generate(command: GenerateCommand) -> list[str]:
    """Draw and write the pictures; returns where they are.

    Raises:
        UserError: the run, the data or a clip is missing, damaged, or they do not belong together.
    """
    ending = command.out.rpartition(".")[2].lower()
    single: Format | None = next((name for name in FORMATS if name == ending), None)
    if single and command.format and command.format != single:
        raise UserError(f"--out {command.out} is a .{single}, but --format is {command.format}; leave one of them out")
    loaded = load_model(command)
    kinds = kinds_of(command, loaded)
    if single and len(kinds) > 1:
        raise UserError(f"--out {command.out} is one file for {len(kinds)} pictures; choose one of them with --what")
    kind_of_file: Format = single or command.format or "gif"
    places = {kind: command.out if single else storage.join(command.out, f"{kind}.{kind_of_file}") for kind in kinds}
    donors = donors_of(command, loaded)
    check(command, loaded, donors, kinds)
    storage.check_writable(command.out.rpartition("/")[0] or "." if single else command.out)
    if command.dry_run:
        sys.stdout.write("".join(f"would draw {place}\n" for place in places.values()))
        return []
    # Torch and the encoders take seconds to import.
    from pipeline.generation.picture_files import encode, npz
    from pipeline.report.films import shown_fps
    from pipeline.report.pictures import enlarge

    use_all_cpus()
    known = [float(value) for value in donors.clips.fps] if donors else []
    fps = command.fps or shown_fps(known[0] if known else None)
    with ProgressDisplay() as progress:
        for kind, place in places.items():
            drawing = draw(kind, command, loaded, donors, progress)
            if kind_of_file == "npz":
                data = npz(drawing.arrays())
            else:
                data = encode(enlarge(drawing.picture(), command.scale), kind_of_file, fps)
            storage.write_bytes(place, data)
            sys.stdout.write(f"{place}\n")
    return list(places.values())


def load_model(command: GenerateCommand) -> Loaded:
    """The run's model, with the test split of the data if that is given."""
    if command.data is not None:
        inputs = load(command.run, command.data, command.other_data, command.refinement_steps)
        return Loaded(inputs.model, inputs.clip_frames, inputs.sequence_stage, inputs.test)
    from pipeline.runs.store import load_run

    model, recipe, info = load_run(command.run)
    model = ready(model, info, command.refinement_steps)
    return Loaded(model, recipe.training.stage2.clip_frames, info["stage"] >= 2, None)


def kinds_of(command: GenerateCommand, loaded: Loaded) -> list[str]:
    """The pictures that are asked for and can be drawn.

    Raises:
        UserError: the one that is asked for needs a sequence stage, or nothing can be drawn.
    """
    own = bool(command.dynamics_of or command.static_of)
    what = command.what or ("transfer" if own else "all")
    needs_stage = ("samples", "rollout")
    if what == "all":
        chosen = [kind for kind in KINDS if loaded.sequence_stage or kind not in needs_stage]
        return chosen if own or loaded.test is not None else [kind for kind in chosen if kind == "samples"]
    if what in needs_stage and not loaded.sequence_stage:
        raise UserError(f"{command.run} has no sequence stage yet, which --what {what} needs; train it further")
    return [what]


def donors_of(command: GenerateCommand, loaded: Loaded) -> Donors | None:
    """The clips that give actions and identities: those that were named, else test clips; none where there are none.

    A side without any clips takes those of the other: then every clip gives both.
    """
    import numpy as np

    from pipeline.generation.user_clips import joined, of_dataset, read_clips

    test, splits = loaded.test, []
    fps = command.clip_fps
    if test is not None:
        from preprocessing.dataset.reader import ClipDataset

        splits = [test, ClipDataset(str(command.data), "train")] if command.dynamics_of or command.static_of else []
        rates = test.fps[np.isfinite(test.fps) & (test.fps > 0)]
        fps = fps or (float(np.median(rates)) if len(rates) else None)
    config = loaded.model.config
    named = [
        [
            read_clips(
                word,
                size=config.frame_size,
                channels=config.channels,
                frames=loaded.clip_frames,
                fps=fps,
                splits=splits,
            )
            for word in words
        ]
        for words in (command.dynamics_of, command.static_of)
    ]
    sides = [joined(lists) if lists else None for lists in named]
    if test is not None and None in sides:
        from pipeline.report import grids

        check_length(command, loaded, min(test.clip_frames))
        if sides[0] is None:
            sides[0] = of_dataset(test, [int(clip) for clip in grids.action_donors(test)[: command.rows]])
        if sides[1] is None:
            everybody = grids.identity_donors(test, len(test))
            people = np.sort(np.random.default_rng(command.seed).permutation(everybody)[: command.columns])
            sides[1] = of_dataset(test, [int(clip) for clip in people])
    first, second = (sides[0] or sides[1]), (sides[1] or sides[0])
    if first is None or second is None:
        return None
    if first is second:
        return Donors(first, list(range(len(first))), list(range(len(first))))
    split = len(first)
    return Donors(joined([first, second]), list(range(split)), list(range(split, split + len(second))))


def check(command: GenerateCommand, loaded: Loaded, donors: Donors | None, kinds: list[str]) -> None:
    """Refuse what cannot be drawn, before any work.

    Raises:
        UserError: there are no clips to draw from, too few of them, or they are too short.
    """
    if donors is None:
        if kinds != ["samples"]:
            raise UserError(
                f"there are no clips for --what {kinds[0]}; give --data, or clips of your own with --dynamics-of and "
                "--static-of"
            )
        return
    if kinds == ["transfer"] and loaded.test is None and not (command.dynamics_of and command.static_of):
        missing = "--static-of" if command.dynamics_of else "--dynamics-of"
        raise UserError(f"a transfer needs two sides: give {missing} too, or --data for its test clips")
    if kinds == ["interpolation"] and len(donors.people) < 2:
        raise UserError("an interpolation needs two identities; give two clips to --static-of")
    if "interpolation" in kinds and command.columns < 2:
        raise UserError(f"--columns is {command.columns}; an interpolation has at least 2 steps")
    check_length(command, loaded, min(donors.clips.clip_frames))


def check_length(command: GenerateCommand, loaded: Loaded, shortest: int) -> None:
    """Refuse a length that only a sequence stage could give, or that the clips do not have."""
    length = command.length or loaded.clip_frames
    if loaded.clip_frames > shortest or (length > shortest and not loaded.sequence_stage):
        raise UserError(
            f"{command.data or 'a clip'} has clips of {shortest} frames, but {max(length, loaded.clip_frames)} are "
            "needed; give a smaller --length, or train the sequence stage"
        )


def draw(kind: str, command: GenerateCommand, loaded: Loaded, donors: Donors | None, progress: "Progress") -> "Drawing":
    """The picture of one kind."""
    from pipeline.generation.drawings import samples
    from pipeline.report.explore import rollout_length

    length = command.length or loaded.clip_frames
    if kind == "samples":
        return samples(loaded.model, command.rows or 4, command.columns, length, command.seed)
    assert donors is not None
    easel = easel_of(command, loaded, donors, length, progress)
    if kind == "transfer":
        return easel.transfer()
    if kind == "prior":
        return easel.prior(command.columns)
    if kind == "interpolation":
        return easel.interpolation(command.rows or 6, command.columns)
    if kind == "rollout":
        return easel.rollout(command.length or rollout_length(loaded.clip_frames))
    return easel.reconstruction()


def easel_of(command: GenerateCommand, loaded: Loaded, donors: Donors, length: int, progress: "Progress") -> "Easel":
    """The model with the codes of the donors."""
    import numpy as np

    from pipeline.generation.drawings import Easel
    from vdsm.evaluation.model import encode_clips
    from vdsm.evaluation.outputs import SwapDecoder

    codes = encode_clips(loaded.model, donors.clips, loaded.clip_frames, progress=progress)
    return Easel(
        SwapDecoder(loaded.model, codes, length), donors.clips,
        np.array(donors.actions), np.array(donors.people), loaded.sequence_stage, command.seed, progress,
    )  # fmt: skip


main = entry(GenerateCommand, generate, prog="vdsm generate")


if __name__ == "__main__":
    main()
