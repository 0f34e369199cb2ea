"""What rank 0 read from storage reaches the other ranks unchanged, and without a pickled object."""

import multiprocessing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from pipeline.training.broadcast import broadcast_state
from pipeline.training.distributed import DistributedContext


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "format": 3,
        "weights": {"a": torch.randn(3, 4, generator=generator), "empty": torch.zeros(0, 2)},
        "flag": torch.tensor(True),
        "optimiser": {
            "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(5, generator=generator).bfloat16()}},
            "param_groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "params": [0], "fused": None, "maximize": False}],
        },
        "best_validation": {1: [200, -0.25]},
        "name": "a text",
    }


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return type(two) is dict and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a collective sends or receives a pickled object")


def run_rank(rank: int, store: str, results: Any) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(minutes=2)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timeout)
    distributed_c10d._object_to_tensor = distributed_c10d._tensor_to_object = refuse
    world = DistributedContext(rank, 2)
    received = broadcast_state(state() if rank == 0 else None, world)
    nothing = broadcast_state(None, world)
    results.put((rank, same(received, state()), nothing, world.broadcast({"one": (1, 2)} if rank == 0 else "ignored")))
    dist.destroy_process_group()


def test_a_state_is_the_same_on_the_rank_that_did_not_read_it(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    ranks = [fork.Process(target=run_rank, args=(rank, str(tmp_path / "store"), results)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()  # a rank ends within the time limit of the group
    assert [process.exitcode for process in ranks] == [0, 0]
    found = sorted(results.get(timeout=10) for _ in ranks)
    assert found == [(0, True, None, {"one": [1, 2]}), (1, True, None, {"one": [1, 2]})]


def test_a_single_rank_keeps_its_state() -> None:
    assert same(broadcast_state(state(), DistributedContext()), state())
    assert broadcast_state(None, DistributedContext()) is None


def test_a_value_that_is_neither_plain_nor_a_tensor_is_refused() -> None:
    from pipeline.training.broadcast import _flatten

    with pytest.raises(TypeError, match="a state holds a PosixPath"):
        _flatten({"path": Path("file")}, [])
