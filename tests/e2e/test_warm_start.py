"""`vdsm train --training.start-from`: two workers start from the weights of another run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.train import main
from tests.e2e.training_runs import events, lines, stage_state

pytestmark = pytest.mark.slow

SHORT = ["--training.stage1.steps=4", "--training.stage2.steps=4", "--training.picture-interval=0"]
HARDLY = [f"--training.stage{stage}.learning-rate=1e-30" for stage in (1, 2)]


def test_a_run_starts_from_another_and_is_resumed_without_it(
    local_ray: None, undisturbed: Path, train_args: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(undisturbed, model)
    started = [*train_args(tmp_path, "run"), *SHORT, *HARDLY, f"--training.start-from={model}"]
    given = stage_state(model, 2, tmp_path).weights
    with caplog.at_level("INFO"):
        main([*started, "--training.stages", "1"])
    assert any(f"weights of {model}" in line for line in caplog.messages)
    shutil.rmtree(model)
    main(started)  # stage 2: the model is not needed any more
    assert events(run) == ["start", "stage finished", "finished", "resume", "stage finished", "finished"]
    for stage in (1, 2):
        state = stage_state(run, stage, tmp_path)
        for name, weight in state.weights.items():
            torch.testing.assert_close(weight, given[name], rtol=0, atol=1e-25)
        assert state.provenance.recipe["training"]["start_from"] == str(model)
        assert state.provenance.start["stage"] == 2
        assert Path(state.provenance.start["checkpoint"]).is_relative_to(model)
    assert lines(run / "events.jsonl")[0]["start_from"] == state.provenance.start["checkpoint"]


def test_a_model_that_does_not_fit_is_one_line_before_a_run_is_made(
    undisturbed: Path, train_args: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*train_args(tmp_path, "run"), f"--training.start-from={undisturbed}", "--model.pose-size=9"])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: training.start_from is {undisturbed}: model.pose_size is 9 and there 4; use the")
    assert not (tmp_path / "run").exists()
