"""Small valid files of every kind that the fuzzers mutate, made by the project's own writers."""

import functools
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from pipeline.recipe import Recipe
from preprocessing.clip import Clip, Factors, Item
from preprocessing.dataset.format import INPUTS, MANIFEST, PLAN, encode_json
from preprocessing.dataset.manifest import write_manifest
from preprocessing.recipe import DataRecipe, ShardsConfig
from preprocessing.sharding.manifest import make_manifest
from preprocessing.sharding.output_lock import acquire_output
from preprocessing.sharding.plan import Plan, make_plan
from preprocessing.sharding.rejects import write_rejects
from preprocessing.sharding.write_shard import write_shard

INDEX, SHARD, COLUMNS = (f"train/shard-000000.{suffix}" for suffix in ("json", "tar", "arrow"))
LISTED = ("a.mp4", "b c.mp4", "folder/caf\u00e9 [1].mp4")
"""Input files that a list names."""


class Dots:
    """Three inputs with clips of a few pixels, and every kind of label."""

    untrusted = False

    def __init__(self) -> None:
        self.vocabulary = {"action": ["wave", "walk"], "hat": ["none", "red"]}
        self.factors: Factors = {"weight": "clip", "angle": "frame"}

    def items(self) -> list[Item]:
        splits = ("train", "train", "test")
        return [
            Item(f"i{number}", split, 100, group=f"g{number}", path=f"i{number}.mp4", version="1-2", detail="d")
            for number, split in enumerate(splits)
        ]

    def clips(self, item: Item) -> Iterator[Clip]:
        draw = np.random.default_rng(int(item.key[1:]))
        for part in range(2):
            labels: Any = {"action": part, "hat": 1, "weight": draw.normal(), "angle": draw.normal(size=2).tolist()}
            frames = draw.integers(0, 256, (2, 3, 4, 1), dtype=np.uint8)
            yield Clip(f"{item.key}-{part}", frames, labels, item.group, item.path, 0.5 * part, 25.0)

    def fingerprint(self) -> str:
        return hashlib.sha256(b"dots").hexdigest()


def dots_plan(version: Literal[2, 3] = 2) -> Plan:
    """Return the plan of the dataset that `write_dataset` writes."""
    return make_plan(DataRecipe(shards=ShardsConfig(target_mb=1.0, format=version)), Dots())


@functools.cache
def _model_files() -> dict[str, bytes]:
    from vdsm.code_density import FittedPriors, density_at
    from vdsm.config import ModelConfig
    from vdsm.disentangler import Disentangler
    from vdsm.model_folder import ModelFacts, write_model_folder

    config = ModelConfig(
        num_experts=2, pose_size=2, dynamics_size=2, frame_size=32, encoder_channels=(2, 2, 2), encoder_hidden=4,
        static_hidden=2, decoder_channels=(4, 2, 2), rnn_width=2, rnn_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Disentangler(config)
    model.fitted_priors = FittedPriors(density_at(torch.ones(2)), density_at(torch.ones(2)))
    with tempfile.TemporaryDirectory() as name:
        write_model_folder(Path(name), model, ModelFacts(4, True, 12.5, {"step": 3}))
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def write_model(folder: Path) -> None:
    """Write an exported model of a few hundred weights."""
    for name, data in _model_files().items():
        (folder / name).write_bytes(data)


def write_dataset(folder: Path, version: Literal[2, 3] = 2) -> None:
    """Write a complete dataset of six clips, of about 40 kB."""
    url, plan = str(folder), dots_plan(version)
    acquire_output(url, plan)
    summaries = [write_shard(url, plan.identity, shard, Dots()) for shard in plan.shards]
    write_manifest(url, make_manifest(url, plan, Dots(), summaries, write_rejects(url, [])))


def first_version(folder: Path) -> bytes:
    """Return the manifest of the dataset in `folder` as version 1 of the format had it."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name in ("factors", "disjoint", "rejects", "empty"):
        del manifest[name]
    manifest["factors"] = {}
    return encode_json({**manifest, "schema_version": 1})


def plan_and_inputs(folder: Path) -> bytes:
    """Return plan.json, one line, followed by the lines of inputs.jsonl."""
    return (folder / PLAN).read_bytes() + (folder / INPUTS).read_bytes()


def array_files() -> list[bytes]:
    """Return a .npy of one video and of many, of bytes and of floats, and .npz files, stored and compressed."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 8, 3), dtype=np.uint8)
    labels = np.array([[0, 1], [1, 1], [2, 0]])
    files = []
    for array in (pixels, pixels[0, ..., 0], (pixels[0] / np.float32(255)).astype(">f2")):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        files.append(buffer.getvalue())
    named: list[dict[str, Any]] = [
        {"images": pixels, "labels": labels},
        {"images": pixels.reshape(12, 8, 8, 3), "lengths": [4, 6, 2], "labels": labels.astype(str)},
    ]
    for arrays in named:
        for save in (np.savez, np.savez_compressed):
            buffer = io.BytesIO()
            save(buffer, **arrays)
            files.append(buffer.getvalue())
    return files


def sidecars() -> list[bytes]:
    """Return sidecars of `a.npy` and `b.npy`, as CSV and JSON, with and without a byte-order mark."""
    plain = "path,identity,action,age\na.npy,anna,wave,20\nb.npy,ben,walk,30.5\n"
    boxes = "path,identity,left,top,width,height,start_s,end_s\na.npy,anna,0,0,8,8,0,0.2\nb.npy,ben,1,1,6,6,0,\n"
    rows = [
        {"path": "a.npy", "identity": "anna", "action": "wave", "age": 20},
        {"path": "b.npy", "identity": "ben", "action": "walk", "age": 30.5},
    ]
    return [plain.encode(), b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode(), boxes.encode(), encode_json(rows)]


def lists() -> list[bytes]:
    """Return lists of the files in `LISTED`, by their relative paths: as UTF-8, and as Windows writes them."""
    lines = ["# videos", *LISTED, "", "./a.mp4"]
    return [
        "\n".join(lines).encode(),
        b"\xef\xbb\xbf" + "\r\n".join(lines).encode(),
        "\r\n".join(lines).encode("utf-16"),
    ]


def write_listed(folder: Path) -> None:
    """Write the empty files in `LISTED`, unless they exist."""
    for path in (folder / name for name in LISTED):
        path.parent.mkdir(exist_ok=True)
        path.touch()


def recipes() -> list[bytes]:
    """Return a large recipe, a short one, and one with an anchor."""
    settings = Recipe().model_dump(mode="json", include={"seed", "source", "model", "training"})
    settings["source"] = {name: settings["source"][name] for name in ("name", "path", "figures")}
    large = yaml.safe_dump(settings, sort_keys=False)
    short = "seed: 3\nsource: {name: figures}\ntraining: {stages: 1, stage1: {steps: 10, learning_rate: 1.0e-3}}\n"
    anchored = "model: &model {num_experts: 8}\nevaluation: {pairs: 10}\ntraining:\n  stage1: {steps: 5}\n"
    return [large.encode(), short.encode(), anchored.encode()]


def run_descriptions() -> list[bytes]:
    """Return run.json as `open_run` writes it."""
    return [json.dumps({"format": 1, "data": "/data", "data_sha256": "0" * 64}, indent=1).encode()]


def logs() -> list[bytes]:
    """Return metrics.jsonl of both stages, with validation and with former names."""
    records: list[dict[str, Any]] = [
        {"kind": "train", "stage": 1, "step": 1, "overall_step": 1, "loss": 2.5, "reconstruction": 2.0, "kl_pose": 0.1},
        {"kind": "train", "stage": 2, "step": 1, "overall_step": 11, "loss": 1.5, "mismatch": 0.5, "weight_pose": 1.0},
        {"kind": "validation", "stage": 2, "step": 1, "overall_step": 11, "elbo": -1.5, "temperature": 10.0},
    ]
    return [
        b"".join(map(encode_json, records)),
        encode_json({"stage": 1, "step": 3, "loss": 0.5}) + b'{"stage": 1, "st',
    ]
