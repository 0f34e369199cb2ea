"""`vdsm evaluate --samples`: clips that another system made of the pairs of `vdsm pairs`, by the same judge."""

import hashlib
import io
import sys
import time
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cluster.cli.progress import ProgressDisplay
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.evaluation.inputs import use_all_cpus
from pipeline.pairs import read_description
from pipeline.recipe import EvaluationConfig

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateCommand
    from vdsm.evaluation.samples import Samples


def evaluate_samples(command: "EvaluateCommand", folder: str) -> dict[str, Any]:
    """Measure samples, write metrics.json and report.html, print the table; returns what metrics.json holds.

    Seed, judge and number of pairs are those of the folder's pairs.json.

    Raises:
        UserError: the samples are not what pairs.json asks for, or not of this data.
    """
    from pipeline.evaluate import checked_splits, sprites_renderer, the_judge, write_metrics
    from pipeline.evaluation.metrics import metrics_of, provenance_of
    from pipeline.report.page import write_samples_report
    from pipeline.runs.store import data_hash
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.clips import is_labelled
    from vdsm.evaluation.judge import JudgeConfig
    from vdsm.evaluation.pairs import draw_pairs
    from vdsm.evaluation.samples import score_samples

    description = read_description(folder)
    settings = EvaluationConfig.model_validate(description["evaluation"])
    seed, length = int(description["seed"]), int(description["clip_frames"])
    test = ClipDataset(command.data, "test")
    found = data_hash(test.manifest)
    if found != description["data_sha256"]:
        raise UserError(
            f"{folder}: its pairs are of other data than {command.data} (their hashes differ); name that one"
        )
    if not is_labelled(test):
        raise UserError(f"{command.data} has no action label, so that a judge cannot learn what samples show")
    train = checked_splits(command.data, test, length)
    renderer = sprites_renderer(command, test)
    pairs = draw_pairs(test, settings.pairs, seed)
    if pairs.sha256(test) != description["pairs_sha256"]:
        raise UserError(f"{folder}: pairs.json was changed; write it again with `vdsm pairs`")
    files = [name for name in storage.list_files(folder) if name.endswith(".npz")]
    if not files:
        raise UserError(f"{folder} holds no .npz file; HOW.txt in it says how to write them")
    shape = (length, *test.manifest["clip_shape"][1:])
    digest = hashlib.sha256()
    storage.check_writable(command.out)
    if command.dry_run:
        sys.stdout.write(f"would measure the samples of {len(files)} files by {settings.pairs} pairs\n")
        return {}
    use_all_cpus()
    began = time.monotonic()
    judge_config = JudgeConfig(
        steps=settings.judge_steps, batch_clips=settings.judge_batch_clips, clip_frames=length, seed=seed
    )
    with ProgressDisplay() as progress:
        judge, key = the_judge(command.judges or command.out, train, found, judge_config, progress)
        parts = (read_samples(folder, name, shape, digest) for name in files)
        try:
            measured = score_samples(judge, test, pairs, parts, length, seed, progress, renderer=renderer)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{folder}: {error}; pairs.json lists what is wanted") from error
    provenance = provenance_of(
        test, data=command.data, data_sha256=found, clip_frames=length, judge=(key, judge_config), seed=seed,
        evaluation=settings.model_dump(mode="json"), seconds=time.monotonic() - began,
    )  # fmt: skip
    metrics = metrics_of(
        test, measured.scores, measured.controls, measured.swapped, swap_by="samples",
        provenance=provenance | {"samples": folder, "samples_sha256": digest.hexdigest()}, expert_use=[],
    )  # fmt: skip
    place = write_metrics(command.out, metrics)

    def made(places: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        donors = [(test.keys[pairs.dynamics_of[number]], test.keys[pairs.static_of[number]]) for number in places]
        kept: dict[tuple[str, str], NDArray[np.uint8]] = {}
        for name in files:
            part = read_samples(folder, name, shape, hashlib.sha256())
            kept |= {key: part.frames[row] for row, key in enumerate(part.donors) if key in donors}
        return [kept[key] for key in donors]

    write_samples_report(command.out, folder, test, measured.swapped, made, metrics)
    sys.stdout.write(f"figures: {place}\nreport:  {storage.join(command.out, 'report.html')}\n")
    return metrics


def read_samples(folder: str, name: str, shape: tuple[int, ...], digest: "hashlib._Hash") -> "Samples":
    """The samples of one file, whose bytes are added to the hash of all files.

    Args:
        folder: where the file is.
        name: of the file.
        shape: of a clip, (T, H, W, C).
        digest: of all files so far.

    Raises:
        UserError: the file is damaged, holds Python objects, or arrays of another kind.
    """
    from vdsm.evaluation.samples import Samples

    place = storage.join(folder, name)
    data = storage.read_bytes(place)
    digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = [arrays[key] for key in ("frames", "dynamics_of", "static_of")]
        if not all(isinstance(array, np.ndarray) for array in found):
            raise ValueError("a member is no array")  # numpy gives its bytes
        frames, first, second = found
    except KeyError as error:
        raise UserError(f"{place}: {error.args[0]!s}; it must have frames, dynamics_of and static_of") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{place}: is no .npz of plain arrays ({str(error).splitlines()[0]}); write it again") from None
    if frames.dtype != np.uint8 or frames.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise UserError(f"{place}: frames are {frames.dtype} {list(frames.shape)}, not uint8 [N, {wanted}]")
    return Samples(frames, list(zip(_keys(place, first, frames), _keys(place, second, frames), strict=True)))


def _keys(place: str, values: NDArray[Any], frames: NDArray[np.uint8]) -> list[str]:
    if values.dtype.kind != "U" or values.shape != (len(frames),):
        raise UserError(
            f"{place}: donor keys are {values.dtype} {list(values.shape)}, not one string (numpy dtype <U) for each of "
            f"the {len(frames)} clips"
        )
    return [str(value) for value in values]
