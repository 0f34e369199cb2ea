"""The readers of foreign bytes, each as a function of bytes that go through a real file into the real reader."""

import contextlib
import functools
import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.cli import settings
from cluster.cli.recipe_file import read_recipe
from cluster.errors import MAX_CHARACTERS, UserError
from cluster.text import decode_text
from pipeline.models.find import open_model
from pipeline.recipe import Recipe
from pipeline.report.curves import comparison_charts, read_records, training_charts
from pipeline.runs import store
from pipeline.runs.log import lines_until
from pipeline.training.position import TrainPosition
from pipeline.tuning.sweep import read_sweep
from preprocessing.clip import RejectedInputError
from preprocessing.dataset.format import INPUTS, MANIFEST, PLAN, TABLE, encode_json
from preprocessing.dataset.verify_dataset import verify_dataset
from preprocessing.dataset.verify_shard import VerificationError
from preprocessing.sharding.output_lock import acquire_output
from preprocessing.sources.config import ArraysConfig, LabelsConfig, SourceConfig, VideosConfig
from preprocessing.sources.names import as_text
from preprocessing.sources.registry import make_source
from tests.fuzz import datasets, mutations, seeds

CLEAR = (UserError, VerificationError, RejectedInputError)
"""Errors that name what is wrong with a file; any other exception is a fault of the reader."""
MAX_SECONDS = 5.0
"""CPU time that a reader may take for one small file."""
MAX_GROWTH_KB = 1_000_000
"""Memory that a reader may take for one small file, in kB."""


class FindingError(Exception):
    """A reader answered a file otherwise than by reading it or by a clear error."""


@dataclass(frozen=True)
class Target:
    """A reader, valid files for it, and a mutation that keeps them well-formed."""

    read: Callable[[Path, bytes], None]
    """Takes a private folder and the content of the file."""
    seeds: Callable[[Path], list[bytes]]
    mutate: mutations.Mutation


def check(name: str, data: bytes) -> None:
    """Read a file with a target.

    Raises:
        FindingError: an error that is not clear, a message that is not one printable line, too much time or memory.
    """
    seed_files(name)  # before the folder is changed
    folder, memory, begin = _folder(name), _peak_kb(), time.process_time()
    try:
        TARGETS[name].read(folder, data)
    except CLEAR as error:
        message = str(error)
        if not message or not message.isprintable():
            raise FindingError(f"message {message!r:.200}") from error
        if len(message) > MAX_CHARACTERS:
            raise FindingError(f"message of {len(message)} characters: {message:.200}") from error
    except Exception as error:
        raise FindingError(f"{type(error).__name__}: {error!s:.200}") from error
    if time.process_time() - begin > MAX_SECONDS:
        raise FindingError(f"{time.process_time() - begin:.1f} s")
    if _peak_kb() - memory > MAX_GROWTH_KB:
        raise FindingError(f"{(_peak_kb() - memory) / 1e3:.0f} MB")


@functools.cache
def seed_files(name: str) -> list[bytes]:
    """Return the valid files of a target."""
    return TARGETS[name].seeds(_folder(name))


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_OPEN: dict[str, tempfile.TemporaryDirectory[str]] = {}


def _folder(name: str) -> Path:
    """Return the private folder of a target, which holds a valid dataset; it is removed when this process ends."""
    if name not in _OPEN:
        _OPEN[name] = tempfile.TemporaryDirectory(prefix="vdsm-fuzz-")
        if name in datasets.VERSIONS:
            seeds.write_dataset(Path(_OPEN[name].name), datasets.VERSIONS[name])
    return Path(_OPEN[name].name)


def _read_plan(folder: Path, data: bytes) -> None:
    """Compare a plan and its inputs with those of a job, then verify them as part of the dataset."""
    plan, _, inputs = data.partition(b"\n")
    (folder / PLAN).write_bytes(plan + b"\n")
    (folder / INPUTS).write_bytes(inputs)
    manifest = {**datasets.manifest(folder), "plan_sha256": hashlib.sha256(plan + b"\n").hexdigest()}
    (folder / MANIFEST).write_bytes(encode_json(manifest))
    with contextlib.suppress(UserError):
        acquire_output(str(folder), seeds.dots_plan())
    acquire_output(str(folder), seeds.dots_plan()) if len(data) % 2 else verify_dataset(str(folder))


def _read_source(folder: Path, config: ArraysConfig) -> None:
    source = make_source(SourceConfig(name="arrays", path=str(folder), arrays=config), 0)
    items = source.items()
    for item in items[:3]:
        try:
            for clip in source.clips(item):
                assert clip.frames.shape == (config.clip_frames, config.size, config.size, config.channels)
        except RejectedInputError as error:
            if not str(error).isprintable():
                raise


def _read_arrays(folder: Path, data: bytes) -> None:
    """Read a .npy or a .npz as clips with labels."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for path in files.iterdir():
        path.unlink()
    (files / ("a.npy" if data.startswith(b"\x93") else "a.npz")).write_bytes(data)
    _read_source(files, ArraysConfig(size=8, clip_frames=2))


def _read_sidecar(folder: Path, data: bytes) -> None:
    """Read the labels of two videos from a CSV or a JSON file."""
    files, sidecar = folder / "files", folder / ("a.json" if data.lstrip(b"\xef\xbb\xbf \n")[:1] in b"[{" else "a.csv")
    if not files.exists():
        files.mkdir()
        for name in ("a.npy", "b.npy"):
            (files / name).write_bytes(seeds.array_files()[1])
    sidecar.write_bytes(data)
    for numbers in ((), ("age",)):
        labels = LabelsConfig(sidecar=str(sidecar), numbers=numbers)
        _read_source(files, ArraysConfig(size=8, clip_frames=2, channels=1, labels=labels))


def _read_list(folder: Path, data: bytes) -> None:
    """Read a list of paths as inputs, relative to its folder, and describe them as a job does."""
    seeds.write_listed(folder)
    with contextlib.suppress(UnicodeDecodeError):
        if "s3://" in decode_text(data):  # no server in a fuzzer
            return
    (folder / "list.txt").write_bytes(data)
    source = make_source(SourceConfig(name="videos", path=str(folder / "list.txt"), videos=VideosConfig()), 0)
    for item in source.items():
        encode_json([item.key, as_text(item.path), item.split, item.group, item.version])


def _read_recipe(folder: Path, data: bytes) -> None:
    """Read a YAML file as a recipe, as a sweep, and as the stored recipe of a run."""
    path = folder / "config.yaml"
    path.write_bytes(data)
    errors = []
    for read in (
        lambda: settings.validated(Recipe, read_recipe(path, Recipe), lambda _: ""),
        lambda: read_sweep(path),
        lambda: store.read_recipe(str(folder)),
    ):
        try:
            read()
        except UserError as error:
            errors.append(error)
    for error in errors:
        raise max(errors, key=lambda one: (not str(one).isprintable(), len(str(one)))) from error


def _read_run(folder: Path, data: bytes) -> None:
    """Read what a run records of its data."""
    (folder / "run.json").write_bytes(data)
    found = store.read_description(str(folder))
    assert found.data
    assert len(found.data_sha256) == 64


def _read_log(folder: Path, data: bytes) -> None:
    """Draw the curves of a log, and resume it in the middle."""
    records = read_records(data.decode(errors="replace"))
    training_charts(records)
    comparison_charts({"one": records, "two": records[1:]})
    (folder / "metrics.jsonl").write_bytes(data)
    lines_until(folder / "metrics.jsonl", TrainPosition(2, 1))


def _read_config(folder: Path, data: bytes) -> None:
    """Open an exported model with a foreign config.json."""
    seeds.write_model(folder)
    (folder / "config.json").write_bytes(data)
    open_model(str(folder))


def _read_weights(folder: Path, data: bytes) -> None:
    """Open an exported model with foreign weights, whose hash config.json names."""
    seeds.write_model(folder)
    (folder / "model.safetensors").write_bytes(data)
    content = json.loads((folder / "config.json").read_bytes())
    content["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(content))
    open_model(str(folder))


def _model_seed(name: str) -> Callable[[Path], list[bytes]]:
    def read(folder: Path) -> list[bytes]:
        seeds.write_model(folder)
        return [(folder / name).read_bytes()]

    return read


def _dataset_seed(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [(folder / name).read_bytes()]


def _fixed(files: Callable[[], list[bytes]]) -> Callable[[Path], list[bytes]]:
    return lambda _: files()


TARGETS = {
    "index": Target(datasets.read_index, _dataset_seed(seeds.INDEX), mutations.mutate_json),
    "manifest": Target(
        datasets.read_manifest,
        lambda folder: [encode_json(datasets.manifest(folder)), seeds.first_version(folder)],
        mutations.mutate_json,
    ),
    "arrays": Target(_read_arrays, _fixed(seeds.array_files), mutations.mutate_arrays),
    "sidecar": Target(_read_sidecar, _fixed(seeds.sidecars), mutations.mutate_csv),
    "list": Target(_read_list, _fixed(seeds.lists), mutations.mutate_lines),
    "recipe": Target(_read_recipe, _fixed(seeds.recipes), mutations.mutate_yaml),
    "run": Target(_read_run, _fixed(seeds.run_descriptions), mutations.mutate_json),
    "plan": Target(_read_plan, lambda folder: [seeds.plan_and_inputs(folder)], mutations.mutate_json),
    "log": Target(_read_log, _fixed(seeds.logs), mutations.mutate_json),
    "config": Target(_read_config, _model_seed("config.json"), mutations.mutate_json),
    "weights": Target(_read_weights, _model_seed("model.safetensors"), mutations.mutate_bytes),
    "columns": Target(datasets.read_columns, _dataset_seed(seeds.COLUMNS), mutations.mutate_arrow),
    "table": Target(datasets.read_table, _dataset_seed(TABLE), mutations.mutate_arrow),
    "shard": Target(datasets.read_shard, _dataset_seed(seeds.SHARD), mutations.mutate_bytes),
}
"""Name -> reader."""
