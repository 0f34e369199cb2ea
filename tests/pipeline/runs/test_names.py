"""Names of runs and of checkpoints."""

import pytest

from cluster.errors import UserError
from pipeline.runs.checkpoints import file_name, position_of
from pipeline.runs.store import run_url
from pipeline.training.position import TrainPosition


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x"])
def test_a_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        run_url("runs", name)


def test_names_of_checkpoints_contain_their_position() -> None:
    assert file_name(TrainPosition(1, 200)) == "stage1-step00000200.pt"
    assert position_of(file_name(TrainPosition(2, 123456789))) == TrainPosition(2, 123456789)
    assert position_of("anything-else.pt") is None
    assert max(TrainPosition(1, 900), TrainPosition(2, 5)) == TrainPosition(2, 5)
