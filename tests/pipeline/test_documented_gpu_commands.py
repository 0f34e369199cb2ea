"""The trainings on GPUs that the documentation names can be started, with any number of workers."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import torch

from pipeline.train import main

FILES = ("README.md", "docs/operations.md", "cluster/aws/README.md", "cluster/kuberay/rayjob.yaml")


def documented(root: Path) -> list[tuple[str, list[str]]]:
    """Return file and arguments of every documented `vdsm train` or `pipeline/train.py` with GPUs."""
    found = []
    for name in FILES:
        text = re.sub(r"\\\n\s*", " ", (root / name).read_text())
        text = re.sub(r"\n\s+(?=--)", " ", text)
        for line in text.splitlines():
            if command := re.search(r"(?:pipeline/train\.py|vdsm train) (.*--training\.use-gpu[^`]*)", line):
                found.append((name, shlex.split(command[1])))
    return found


def test_the_commands_are_found(root: Path) -> None:
    assert {name for name, _ in documented(root)} >= {"README.md", "docs/operations.md", "cluster/kuberay/rayjob.yaml"}


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16])
def test_a_documented_training_on_gpus_passes_its_dry_run(
    root: Path, figures_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(root)
    monkeypatch.setenv("RAY_ADDRESS", "a cluster, which has the GPUs")
    for name, args in documented(root):
        given = dict(itertools.pairwise(args))
        replaced = {
            "--config": Path(given["--config"]).stem, "--data": str(figures_dataset),
            "--out": str(tmp_path), "--training.num-workers": str(workers),
        }  # fmt: skip
        assert replaced.keys() <= given.keys(), name
        changed = [replaced.get(before, arg) for before, arg in zip(["", *args], args, strict=False)]
        with torch.device("meta"):  # models of this size need not be filled with numbers
            main([*changed, "--dry-run"])
        lines = capsys.readouterr().out
        assert f"{workers} workers x 1 threads, one GPU each" in lines, name
        assert "missing" not in lines, name
