"""torchvision's networks as image encoders. Tests that need torchvision are skipped where it cannot be imported."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vdsm.tiny_models import CLIPS, LENGTH, tiny_config
from vdsm import checkpoint
from vdsm.annealing import un_annealed
from vdsm.config import BACKBONES, ModelConfig
from vdsm.disentangler import Disentangler


@pytest.fixture
def models() -> Any:
    return pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))


def config(name: str, size: int = 32, **changes: Any) -> ModelConfig:
    depth = {32: 3, 64: 4, 128: 5}[size]
    return tiny_config(image_encoder=name, frame_size=size, decoder_channels=(4,) * depth, **changes)


def test_without_torchvision_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'vdsm-pipeline[torchvision]'")):
        Disentangler(config("resnet18"))


def test_the_published_encoder_needs_no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    Disentangler(tiny_config())


def size_of(name: str) -> int:
    return 128 if name == "inception_v3" else 32


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_step_trains_the_image_encoder_in_stage_1_only(models: Any, name: str) -> None:
    torch.manual_seed(0)
    model = Disentangler(config(name, size_of(name), channels=1))
    frames = torch.rand(2, 2, 1, size_of(name), size_of(name))
    for number in (1, 2):
        stage: Any = model.prepare_stage(1 if number == 1 else 2).train()
        stage.zero_grad(set_to_none=True)
        noise = stage.draw_noise(2, 2, torch.Generator().manual_seed(0))
        stage(frames, noise, un_annealed(3.0)).loss.backward()
        gradients = [parameter.grad is not None for parameter in model.frame_model.encoder.parameters()]
        assert all(gradients) if number == 1 else not any(gradients)


@pytest.mark.parametrize("name", ["resnet18", "inception_v3"])
def test_frames_of_a_batch_do_not_influence_each_other(models: Any, name: str) -> None:
    torch.manual_seed(0)
    encoder = Disentangler(config(name, size_of(name))).frame_model.encoder.double().train()
    torch.manual_seed(0)
    frames = torch.rand(CLIPS, LENGTH, 3, size_of(name), size_of(name), dtype=torch.float64)
    encoder.eval()
    together, alone = encoder(frames), encoder(frames[1:2, :1])
    torch.testing.assert_close(alone.pose_loc[0, 0], together.pose_loc[1, 0], rtol=1e-9, atol=1e-12)


def test_given_weights_are_those_of_the_network_and_survive_a_checkpoint(models: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = models.resnet18(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    path = tmp_path / "resnet18.pth"
    torch.save(theirs.state_dict(), path)
    model = Disentangler(config("resnet18", encoder_weights=str(path)))
    model.load_given_weights()
    model.train()
    theirs.fc = torch.nn.Identity()
    frames = torch.rand(4, 3, 32, 32)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
    backbone = model.frame_model.encoder.blocks
    expected = theirs.eval()((frames - mean) / deviation)
    # Also in training mode: stored statistics, not those of the batch, and they do not change.
    torch.testing.assert_close(backbone(frames), expected)
    torch.testing.assert_close(backbone(frames), expected)

    path.unlink()
    saved = tmp_path / "model.ckpt"
    checkpoint.save({"model_config": asdict(model.config), "model": model.state_dict()}, saved)
    loaded = checkpoint.load_disentangler(saved)
    torch.testing.assert_close(loaded.frame_model.encoder.blocks(frames), expected)


def test_files_that_are_not_the_weights_are_refused(models: Any, tmp_path: Path) -> None:
    other, code, missing = tmp_path / "resnet50.pth", tmp_path / "code.pth", tmp_path / "none.pth"
    torch.save(models.resnet50(weights=None).state_dict(), other)
    torch.save({"fc": print}, code)
    for path, reason in ((other, "does not fit resnet18"), (code, "cannot be read as tensors"), (missing, "no such")):
        model = Disentangler(config("resnet18", encoder_weights=str(path)))
        with pytest.raises(ValueError, match=f"encoder_weights is {re.escape(str(path))}: {reason}"):
            model.load_given_weights()


@pytest.mark.parametrize("name", list(BACKBONES))
def test_the_smallest_frame_is_stated_correctly(models: Any, name: str) -> None:
    facts = BACKBONES[name]
    network = getattr(models, facts.function)(weights=None, **({"init_weights": False} if "inception" in name else {}))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, facts.smallest_frame, facts.smallest_frame))
        if name == "inception_v3":
            with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
                network(torch.zeros(1, 3, facts.smallest_frame - 1, facts.smallest_frame - 1))
