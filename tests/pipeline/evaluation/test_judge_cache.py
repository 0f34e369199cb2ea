"""The judge cache: a judge is trained once per data and settings, and found again by evaluations and sweeps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import UserError
from pipeline.evaluation.judge_cache import StoredJudge, load_or_train
from vdsm.evaluation import judge as judge_module
from vdsm.evaluation.judge import Judge, JudgeConfig
from vdsm.evaluation.progress import NO_PROGRESS

CONFIG = JudgeConfig(steps=1)


class Trainer:
    """Stands in for the training of a judge, and counts it."""

    def __init__(self) -> None:
        self.trained = 0

    def __call__(self, *arguments: object) -> Judge:
        self.trained += 1
        return Judge(3, 32, {"action": 2}, width=4)

    def judge(self, folder: Path, data_id: str = "data", config: JudgeConfig = CONFIG) -> tuple[Judge, StoredJudge]:
        clips: Any = None
        return load_or_train(str(folder), clips, data_id, config, NO_PROGRESS)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(judge_module, "train_judge", trainer)
    return trainer


def weights(judge: Judge) -> torch.Tensor:
    return torch.cat([value.flatten() for value in judge.state_dict().values()])


def test_a_judge_is_trained_once_for_the_same_data_and_settings(trainer: Trainer, tmp_path: Path) -> None:
    judge, stored = trainer.judge(tmp_path)
    again, found = trainer.judge(tmp_path)
    assert trainer.trained == 1
    assert found == stored
    assert Path(stored.url) == tmp_path / f"judge-{stored.key[:16]}.pt"
    for other in (again, stored.load()):
        assert torch.equal(weights(other), weights(judge))
    others = [trainer.judge(tmp_path, "other")[1], trainer.judge(tmp_path, config=JudgeConfig(steps=2))[1]]
    assert trainer.trained == 3
    assert len({stored.url, *(one.url for one in others)}) == 3


def test_the_judge_of_an_earlier_sweep_is_found_under_its_long_name(trainer: Trainer, tmp_path: Path) -> None:
    judge, stored = trainer.judge(tmp_path)
    former = Path(stored.url).rename(tmp_path / f"judge-{stored.key}.pt")
    again, found = trainer.judge(tmp_path)
    assert trainer.trained == 1
    assert Path(found.url) == former
    assert torch.equal(weights(again), weights(judge))


def test_a_damaged_judge_is_trained_again_but_refused_where_it_cannot_be(
    trainer: Trainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, stored = trainer.judge(tmp_path)
    Path(stored.url).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"judge-.*cannot be used.*delete the file"):
        stored.load()
    trainer.judge(tmp_path)
    assert trainer.trained == 2
    assert "training it again" in caplog.text
    stored.load()
