"""The ranks of torchrun: who they are, where they listen, and how rank 0 lets the others begin."""

import os
from typing import Any

import pytest
import torch.distributed as dist

from cluster import network_interface
from cluster.errors import UserError
from cluster.network_interface import interface_of
from pipeline import train
from pipeline.torchrun import group
from pipeline.torchrun.group import Group, Rank


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*group.VARIABLES, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)


def set_rank(patch: pytest.MonkeyPatch, rank: int, size: int, local_size: int, address: str = "127.0.0.1") -> Rank:
    values = (rank, size, rank % local_size, local_size, address, 29_500)
    for name, value in zip(group.VARIABLES, values, strict=True):
        patch.setenv(name, str(value))
    return Rank.of_environment()


def test_a_process_that_torchrun_did_not_start_is_told_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(["--launcher", "torchrun", "--data", "none", "--out", "runs", "--name", "x"])
    error = capsys.readouterr().err
    assert (
        "RANK is not set, so torchrun did not start this process; use torchrun --nproc-per-node N -m pipeline." in error
    )


def test_a_batch_that_the_processes_cannot_share_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_rank(monkeypatch, 0, 21, 21)
    with pytest.raises(SystemExit, match="2"):
        train.main(["--launcher", "torchrun", "--data", "none", "--out", "runs", "--name", "x"])
    assert (
        "torchrun started 21 processes: training.stage1.batch_clips is 20, but there are 21 workers"
        in capsys.readouterr().err
    )


def test_ranks_on_one_machine_listen_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = set_rank(monkeypatch, 1, 2, 2, address="192.0.2.1")
    assert (rank.is_first, rank.one_machine) == (False, True)
    group._set_interfaces(rank)
    assert os.environ["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1")
    assert os.environ["NCCL_SOCKET_IFNAME"] == f"={interface_of('127.0.0.1')}"


def test_ranks_on_several_machines_listen_where_rank_0_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(network_interface, "interface_of", lambda address: seen.append(address) or "eth7")
    group._set_interfaces(set_rank(monkeypatch, 3, 4, 2, address="127.0.0.1"))
    assert seen == ["127.0.0.1"]
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")  # chosen by the user
    group._set_interfaces(set_rank(monkeypatch, 3, 4, 2))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"


def test_more_ranks_than_gpus_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="this machine has 1 GPUs for local rank 1; lower --nproc-per-node"):
        Group(set_rank(monkeypatch, 1, 2, 2), use_gpu=True, timeout_s=10)


def test_rank_0_prepares_for_all_and_the_others_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    monkeypatch.setattr(group, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    prepared: list[int] = []

    def begin(rank: int, attempt: int, *, fails: bool) -> dict[str, Any]:
        def prepare() -> dict[str, Any]:
            prepared.append(rank)
            if fails:
                raise UserError("no such data")
            return {"attempt": attempt}

        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        return Group(set_rank(monkeypatch, rank, 2, 2), use_gpu=False, timeout_s=5).begin(prepare)

    with pytest.raises(UserError, match="no such data"):
        begin(0, 0, fails=True)
    with pytest.raises(SystemExit, match="2"):
        begin(1, 0, fails=True)
    # torchrun restarts all ranks, with the same store.
    assert begin(0, 1, fails=False) == begin(1, 1, fails=False) == {"attempt": 1}
    assert prepared == [0, 0]
