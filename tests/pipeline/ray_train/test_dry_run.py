"""What a dry run says of GPUs, and of settings that work but not as one may expect."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cluster.errors import UserError
from pipeline.ray_train.dry_run import preview
from pipeline.ray_train.run import train_recipe
from pipeline.recipe import Recipe


@pytest.mark.parametrize(("memory_gb", "is_enough"), [(80.0, True), (0.001, False)])
def test_gpus_that_are_too_few_or_too_small_are_missing(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, memory_gb: float, is_enough: bool
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = SimpleNamespace(total_memory=round(memory_gb * 1e9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    for workers in (2, 3):
        recipe = tiny_recipe.model_copy(
            update={"training": replace(tiny_recipe.training, use_gpu=True, num_workers=workers)}
        )
        _, missing = preview(recipe, "nowhere", None)
        assert any(line == "GPUs: 3 are needed and this machine has 2" for line in missing) == (workers == 3)
        assert any("the smallest GPU has 0.0 GB; raise accumulation" in line for line in missing) == (not is_enough)


def test_notes_are_printed(tiny_recipe: Recipe) -> None:
    training = replace(tiny_recipe.training, num_workers=3)
    lines, _ = preview(tiny_recipe.model_copy(update={"training": training}), "nowhere", None)
    assert sum("batch_clips is 4: of 3 workers, 1 take 2 clips and the others 1" in line for line in lines) == 2


@pytest.mark.parametrize(
    "change",
    [{"model": {"num_experts": 65_536}}, {"model": {"rnn_width": 65_536}}, {"stage2": {"batch_clips": 10**9}}],
)
def test_a_training_beyond_all_memory_of_this_machine_ends_before_it_writes(
    tiny_recipe: Recipe, change: dict[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    training = tiny_recipe.training
    training = replace(training, stage2=replace(training.stage2, **change.get("stage2", {})))
    model = replace(tiny_recipe.model, **change.get("model", {}))
    recipe = tiny_recipe.model_copy(update={"training": training, "model": model})
    with pytest.raises(UserError, match=r"^(2 workers need about|the model has at least).*this machine has .*; lower"):
        train_recipe(recipe, "nowhere", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a cluster may grow
    with pytest.raises(UserError, match="nowhere"):
        train_recipe(recipe, "nowhere", str(tmp_path / "run"))


def test_a_model_larger_than_memory_is_not_made(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdsm.disentangler.Disentangler", lambda _: pytest.fail("it is made"))
    model = replace(tiny_recipe.model, rnn_width=65_536, rnn_layers=64)
    with pytest.raises(UserError, match=r"^the model has at least [\d,]+ parameters, [\d,.]+ GB, and this"):
        preview(tiny_recipe.model_copy(update={"model": model}), "nowhere", None)
