"""Runs and reports of models with random weights, within seconds."""

import json
from pathlib import Path

import torch

from pipeline import evaluate
from pipeline.recipe import Recipe
from pipeline.runs.store import open_run
from preprocessing.dataset.reader import ClipDataset
from tests.resamples import fewer_resamples, rough_scores
from vdsm import checkpoint
from vdsm.disentangler import Disentangler


def untrained_run(run: Path, recipe: Recipe, data: Path, seed: int, stage: int = 2) -> None:
    """Write a run with random weights whose training is marked as finished."""
    open_run(str(run), recipe, str(data), ClipDataset(str(data), "train").manifest)
    torch.manual_seed(seed)
    state = {"model": Disentangler(recipe.model).state_dict(), "model_config": recipe.model_dump()["model"]}
    checkpoint.save({**state, "stage": stage, "step": 16}, run / f"stage{stage}.pt")
    lines = [
        {"kind": "train", "stage": 1, "step": step, "loss": 1 / step, "kl_pose": 0.01, "weight_pose": 30 / step}
        for step in range(1, 30)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def report_folder(folder: Path, name: str) -> Path:
    """Return where `untrained_report` writes a report."""
    return folder / name / "report"


def untrained_report(folder: Path, name: str, recipe: Recipe, data: Path, seed: int, *options: str) -> Path:
    """Evaluate the run `folder`/runs/`name`, with more `options` of the command, and return the report's folder."""
    run, out = folder / "runs" / name, report_folder(folder, name)
    untrained_run(run, recipe, data, seed)
    args = ["--run", str(run), "--data", str(data), "--out", str(out)]
    args += ["--evaluation.judge-steps", "2", "--evaluation.judge-batch-clips", "4", "--evaluation.pairs", "20"]
    args += ["--evaluation.probe-clips", "24", "--evaluation.grid-clips", "12"]
    with fewer_resamples(), rough_scores():
        evaluate.main([*args, *options])
    return out
