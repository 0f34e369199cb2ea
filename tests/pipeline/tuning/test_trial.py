"""What is checked before a trial trains, and what counts as its score."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.storage import api as storage
from pipeline.recipe import Recipe
from pipeline.tune import main
from pipeline.tuning.space import Parameter
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import SweepContext, _scores_in, run_trial

SWEEP = Sweep(space={"training.stage1.learning_rate": Parameter(low=1e-4, high=1e-2, log=True)}, trials=2)


@pytest.fixture
def args(root: Path, small_figures: Path, tmp_path: Path) -> list[str]:
    """Return the arguments of `vdsm tune` on 9 identities, one of which is held out."""
    sweep = SWEEP.model_dump(mode="json", include={"space", "trials"}, exclude_defaults=True)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    inputs = ["--config", str(root / "tests" / "tiny.yaml"), "--sweep", str(tmp_path / "sweep.yaml")]
    inputs += ["--data", str(small_figures), "--out", str(tmp_path / "runs"), "--name", "s"]
    return [*inputs, "--training.num-workers", "1"]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_too_few_identities_are_an_error_before_anything_is_started(
    args: list[str], more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("pipeline.tuning.sweep_run.run_sweep", None)
    with pytest.raises(SystemExit) as caught:
        main([*args, *more])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: training.validation_fraction 0.1 holds out 1 of the 9 identities")
    assert error.endswith("and a trial's score needs 2; raise it to 0.23 or more")
    assert not (tmp_path / "runs").exists()


def test_the_remedy_suffices(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main([*args, "--training.validation-fraction", "0.23", "--dry-run"])
    assert "nothing was started" in capsys.readouterr().out


def test_a_trial_that_cannot_be_scored_is_not_trained(
    tiny_recipe: Recipe, small_figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ray_train.run.train_recipe", None)
    context = SweepContext(sweep=SWEEP, data=str(small_figures), url=str(tmp_path), judge=None)
    config = {"run": "trial-1", "number": 0}
    assert "holds out 1 of the 9 identities" in run_trial(config, tiny_recipe, context)["error"]
    assert list(tmp_path.iterdir()) == []


def test_a_trial_with_a_score_is_not_trained_again(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ray_train.run.train_recipe", None)
    context = SweepContext(sweep=SWEEP, data="nowhere", url=str(tmp_path), judge=None)
    storage.write_bytes(f"{tmp_path}/runs/trial-1/score.json", b'{"disentanglement": 0.5, "elbo": 1}')
    found = run_trial({"run": "trial-1", "number": 0}, tiny_recipe, context)
    assert found == {"disentanglement": 0.5, "elbo": 1.0}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"elbo": 1}', b'{"disentanglement": NaN}', b"\xff"])
def test_an_incomplete_score_is_measured_again(content: bytes) -> None:
    assert _scores_in(content, SWEEP) is None
    assert _scores_in(b'{"disentanglement": 0.5, "elbo": 1}', SWEEP) == {"disentanglement": 0.5, "elbo": 1.0}
