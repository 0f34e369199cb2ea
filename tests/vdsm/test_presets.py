"""The presets have the settings that they document, and the recipe that uses one agrees with it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from vdsm.config import ModelConfig
from vdsm.presets import PRESETS, improved, paper


def test_the_paper_is_the_default() -> None:
    assert paper() == ModelConfig()


def test_improved_keeps_the_published_sizes() -> None:
    changed = {f.name for f in fields(ModelConfig) if getattr(improved(), f.name) != getattr(paper(), f.name)}
    assert changed == {
        "static_groups", "expert_init", "static_prior_scale", "dynamics_prior_scale", "encoder_downsampling",
        "encoder_init", "encoder_slope",
    }  # fmt: skip


def test_settings_may_differ_from_a_preset() -> None:
    for preset in PRESETS.values():
        assert preset(num_experts=24).num_experts == 24
    with pytest.raises(ValueError, match="static_groups is 8; it must divide num_experts, 12"):
        improved(num_experts=12)


def test_the_recipe_for_sprites_has_the_improved_model() -> None:
    path = Path(__file__).parents[2] / "configs" / "sprites-improved.yaml"
    settings: dict[str, Any] = yaml.safe_load(path.read_text())["model"]
    assert ModelConfig(**settings) == improved()
