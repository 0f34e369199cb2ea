"""Frechet distance on Inception features: the network itself, with random weights instead of the published ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vdsm.evaluation.squares import PerfectModel, Squares
from vdsm.evaluation.frechet import frechet_score
from vdsm.evaluation.inception import InceptionFeatures, inception_features, load_inception
from vdsm.evaluation.judge import Judge
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.protocol import ProtocolConfig, measure


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a state dict of random weights."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **options: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        torch.save(module.FeatureExtractorInceptionV3("random", ["2048"]).state_dict(), path)
    return path


@pytest.mark.slow
def test_distance_is_that_of_the_middle_frames(
    weights: Path, renderer: PerfectModel, test_clips: Squares, judge: Judge
) -> None:
    network = load_inception(weights)
    measured = measure(renderer, test_clips, judge, ProtocolConfig(clip_frames=4, pairs=12), inception=network)
    found = measured.scores["frechet.inception.swap"]
    pairs = measured.swapped.pairs
    real = inception_features(network, test_clips, pairs.static_of, 4, 32, NO_PROGRESS)
    assert real.shape == (12, 2048)
    observer = InceptionFeatures(network)
    shown = zip(test_clips.identities, test_clips.labels["action"], strict=True)
    index_of = {(who, int(action)): index for index, (who, action) in enumerate(shown)}
    for a, b in zip(pairs.dynamics_of, pairs.static_of, strict=True):
        clip = test_clips.all_frames[index_of[test_clips.identities[b], int(test_clips.labels["action"][a])]]
        observer(torch.from_numpy(clip[None]).permute(0, 1, 4, 2, 3).float() / 255)
    again = frechet_score(observer.features, real, np.arange(12), 0)
    assert found.value == pytest.approx(again.value, rel=1e-3)
    assert found.n == 12


def test_weights_of_another_network_are_refused(weights: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit the FID's Inception network"):
        load_inception(tmp_path / "other.pth")


def test_without_the_library_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image import fid

    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pth")
    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"vdsm-pipeline\[inception\]"):
        load_inception(tmp_path / "weights.pth")
