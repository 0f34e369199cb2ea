"""A real evaluation of a model with random weights, in seconds."""

import json
from pathlib import Path

import torch

from pipeline import evaluate
from pipeline.recipe import Recipe
from pipeline.runs.store import open_run
from preprocessing.dataset.reader import ClipDataset
from vdsm import checkpoint
from vdsm.disentangler import Disentangler


def untrained_run(run: Path, recipe: Recipe, data: Path, seed: int, stage: int = 2) -> None:
    """A run whose training says that it is finished."""
    open_run(str(run), recipe, str(data), ClipDataset(str(data), "train").manifest)
    torch.manual_seed(seed)
    state = {"model": Disentangler(recipe.model).state_dict(), "model_config": recipe.model_dump()["model"]}
    checkpoint.save({**state, "stage": stage, "step": 16}, run / f"stage{stage}.pt")
    lines = [
        {"kind": "train", "stage": 1, "step": step, "loss": 1 / step, "kl_pose": 0.01, "weight_pose": 30 / step}
        for step in range(1, 30)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def untrained_report(folder: Path, name: str, recipe: Recipe, data: Path, seed: int, *words: str) -> Path:
    """The folder of the report of the run `folder`/runs/`name`. More words are added to the command."""
    run, out = folder / "runs" / name, folder / name / "report"
    untrained_run(run, recipe, data, seed)
    small = ["--evaluation.judge-steps", "2", "--evaluation.judge-batch-clips", "4", "--evaluation.pairs", "20"]
    small += [
        "--evaluation.probe-clips",
        "24",
        "--evaluation.grid-clips",
        "12",
        "--run",
        str(run),
        "--data",
        str(data),
        "--out",
        str(out),
    ]
    evaluate.main([*small, *words])
    return out
