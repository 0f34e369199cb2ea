"""DCI of codes whose disentanglement is known in advance."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cluster.errors import UserError
from pipeline import evaluate
from pipeline.evaluation.dci import completeness, dci_scores, disentanglement
from tests.pipeline.evaluation.commands import SMALL, refused
from vdsm.evaluation.measurement import Latents
from vdsm.evaluation.model import CodeTable
from vdsm.evaluation.progress import NO_PROGRESS
from vdsm.evaluation.scores import Score

Floats = NDArray[np.float64]


@pytest.mark.parametrize(
    ("importances", "disentangled", "complete"),
    [
        ([[1, 0], [0, 1]], 1, 1),
        ([[0.5, 0.5], [0.5, 0.5]], 0, 0),
        ([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]], 1, 0.5),  # each factor in two of four numbers: 1 - ln 2 / ln 4
        ([[1, 1], [0, 0]], 0, 1),
        ([[0, 0], [0, 0]], 0, 0),
        # Weights 3/4 and 1/4; the first number has shares 2/3 and 1/3.
        ([[1, 0.5], [0, 0.5]], 0.75 * (1 - 0.918296) + 0.25, (1 + 0) / 2),
    ],
)
def test_both_are_entropies_of_the_importances(
    importances: list[list[float]], disentangled: float, complete: float
) -> None:
    assert disentanglement(np.array(importances, float)) == pytest.approx(disentangled, abs=1e-5)
    assert completeness(np.array(importances, float)) == pytest.approx(complete, abs=1e-5)


def latents(mix: Floats, clips: int, seed: int, noise: float = 0.05) -> Latents:
    """Return clips of three factors with 2 to 4 values, whose code is `mix` [5, 3] times their values, and noise."""
    rng = np.random.default_rng(seed)
    sizes = {"action": 3, "hat": 2, "coat": 4}
    labels = {name: rng.integers(size, size=clips) for name, size in sizes.items()}
    values = np.stack([labels[name] / (size - 1) for name, size in sizes.items()], axis=1)
    code = torch.from_numpy(values @ mix.T + noise * rng.standard_normal((clips, len(mix))))
    vocabulary = {name: [str(value) for value in range(size)] for name, size in sizes.items()}
    vocabulary["only"] = ["one"]
    codes = CodeTable(code[:, :3], torch.zeros(clips, 4, 2), code[:, 3:])
    identities = [f"{seed}-{number // 2}" for number in range(clips)]
    return Latents(codes, labels | {"only": np.zeros(clips, int)}, vocabulary, {}, {}, identities)


def scores(mix: Floats) -> dict[str, Score]:
    return dci_scores(latents(mix, 400, 1), latents(mix, 200, 2), 20, 0, NO_PROGRESS)


ONE_EACH = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
ROTATED = np.array([[1.0, 1, 0], [1, -1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
"""Two factors turned by 45 degrees: both numbers are about both."""


def test_a_number_for_each_factor_scores_1_and_a_rotation_of_two_less_with_equal_information() -> None:
    separate, rotated = scores(ONE_EACH), scores(ROTATED)
    # Of three numbers that matter, two are about two of three factors; and two factors are in two of five numbers each.
    expected = {
        "dci.disentanglement": (2 * (1 - np.log(2) / np.log(3)) + 1) / 3,
        "dci.completeness": (2 * (1 - np.log(2) / np.log(5)) + 1) / 3,
    }
    for name, value in expected.items():
        assert separate[name].value == pytest.approx(1, abs=0.02)
        assert rotated[name].value == pytest.approx(value, abs=0.02)
        for score in (separate[name], rotated[name]):
            assert score.low <= score.value <= score.high
            assert score.chance is not None
            assert score.chance < 0.05
    for found in (separate, rotated):
        assert found["dci.informativeness"].value > 0.9
        assert found["dci.informativeness"].chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 4) / 3, abs=0.06)


def test_codes_without_information_are_at_chance() -> None:
    found = scores(np.zeros((5, 3)))
    for score in found.values():
        assert score.chance is not None
        assert score.value == pytest.approx(score.chance, abs=0.08)
    assert scores(np.zeros((5, 3))) == found  # the seed decides


def test_fewer_than_two_factors_are_refused() -> None:
    clips = latents(ONE_EACH, 20, 1)
    alone = Latents(clips.codes, {"hat": clips.labels["hat"]}, {"hat": ["0", "1"]}, {}, {}, clips.identities)
    with pytest.raises(UserError, match="have 1 labels with several values, and DCI needs 2; set it to 0"):
        dci_scores(alone, alone, 5, 0, NO_PROGRESS)


@pytest.mark.long
def test_the_command_adds_them_to_metrics_and_report(run: Path, small_figures: Path, tmp_path: Path) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out", str(tmp_path), *SMALL]
    evaluate.main([*args, "--evaluation.dci-trees", "3"])
    figures = json.loads((tmp_path / "metrics.json").read_text())["figures"]
    assert {name for name in figures if name.startswith("dci.")} == {
        "dci.disentanglement",
        "dci.completeness",
        "dci.informativeness",
    }
    assert "DCI: what each number of the codes is about" in (tmp_path / "report.html").read_text()


def test_a_machine_without_scikit_learn_is_told_before_the_work(
    run: Path, small_figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.extras.importlib.util.find_spec", lambda name: None if name == "sklearn" else object())
    args = ["--run", str(run), "--data", str(small_figures), "--out", str(tmp_path), "--evaluation.dci-trees", "3"]
    assert "this needs sklearn, which is not installed; pip install 'vdsm-pipeline[train]'" in refused(args, capsys)
