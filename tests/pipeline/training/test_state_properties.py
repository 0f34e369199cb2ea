"""Properties of the state of a training: any state survives its checkpoint, and no damaged checkpoint is read."""

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runs.checkpoints import copy_to_cpu, file_name, position_of
from pipeline.training.config import TrainingConfig
from pipeline.training.position import START, TrainPosition
from pipeline.training.stage_config import StageConfig
from pipeline.training.state import FORMER_KEYS, BestValidation, Provenance, TrainState
from tests.property_settings import examples, names
from vdsm import checkpoint

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = torch.randint(-200, 200, shape, generator=generator) / 8
    # A view into a larger tensor, or transposed: a checkpoint holds its values all the same.
    view = draw(st.sampled_from(["plain", "transposed", "part"]))
    if view == "part" and shape:
        values = torch.cat([values, values])[: shape[0]]
    return (values.mT if view == "transposed" and len(shape) > 1 else values).to(draw(st.sampled_from(DTYPES)))


def plain(key: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return nested plain values, as a recipe or an optimiser has them."""
    leaf = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | names()
    return st.recursive(
        leaf | tensors(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(key, inner, max_size=3),
        max_leaves=8,
    )


def states() -> st.SearchStrategy[TrainState]:
    weights = st.dictionaries(names(), tensors(), max_size=4)
    mapping = st.dictionaries(names(), plain(names()), max_size=3)
    best = st.builds(BestValidation, st.integers(0, 10**7), st.floats(allow_nan=False))
    return st.builds(
        TrainState,
        position=st.builds(TrainPosition, st.integers(1, 2), st.integers(0, 10**9)),
        model_config=mapping,
        weights=weights,
        temperature=st.floats(0.1, 100),
        optimiser=st.dictionaries(names(), plain(st.integers(0, 9)), max_size=3),
        ema=st.none() | weights,
        uses_ema=st.booleans(),
        loss_scale=st.none() | mapping,
        lr_scale=st.floats(1e-9, 1),
        rollbacks=st.integers(0, 99),
        best_validation=st.dictionaries(st.integers(1, 2), best, max_size=2),
        epoch=st.integers(0, 10**6),
        seed=st.integers(0, 2**63 - 1),
        provenance=st.builds(Provenance, mapping, st.text("0123456789abcdef", min_size=64, max_size=64)),
    )


def same(one: Any, other: Any) -> bool:
    """Return whether two nested values have the same types, keys in the same order, and bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def differences(one: TrainState, other: TrainState) -> list[str]:
    """Return the names of the fields in which two states differ."""
    return [
        field.name
        for field in fields(TrainState)
        if not same(getattr(one, field.name), getattr(other, field.name))
        # Without averaged weights, nobody can be asked to use them.
        and not (field.name == "uses_ema" and one.ema is None and not other.uses_ema)
    ]


@pytest.mark.slow
@examples(30)
@given(states())
def test_any_state_is_unchanged_by_its_checkpoint(state: TrainState) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_name(state.position)
        digest = checkpoint.save(copy_to_cpu(state.to_dict()), path)
        assert checkpoint.verify(path) == digest
        assert [found.name for found in Path(folder).iterdir()] == [path.name]
        assert differences(state, TrainState.from_dict(checkpoint.load(path))) == []


@examples(30)
@given(states())
def test_a_state_under_the_former_keys_is_read_as_the_same(state: TrainState) -> None:
    former = {current: name for name, current in FORMER_KEYS.items()}
    content = {former.get(key, key): value for key, value in state.to_dict().items()}
    assert differences(state, TrainState.from_dict({**content, "format": 2})) == []


@examples(30)
@given(states(), st.data())
def test_a_changed_or_cut_checkpoint_is_never_read(state: TrainState, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        checkpoint.save(state.to_dict(), path)
        written = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(written) - 1))
        if data.draw(st.booleans()):
            del written[at:]
        else:
            written[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(written)
        with pytest.raises(ValueError, match=r"state\.pt: is (truncated|damaged)"):
            checkpoint.load(path)


@examples(30)
@given(st.lists(st.builds(TrainPosition, st.integers(1, 2), st.integers(0, 10**8 - 1)), max_size=8), names())
def test_file_names_give_back_their_positions_and_sort_like_them(positions: list[TrainPosition], other: str) -> None:
    listed = sorted(map(file_name, positions))
    assert [position_of(name) for name in listed] == sorted(positions)
    assert position_of(other) is None


@examples(15)
@given(st.integers(1, 30), st.integers(1, 30))
def test_positions_rise_by_one_step_through_both_stages(first: int, second: int) -> None:
    training = TrainingConfig(stage1=StageConfig(steps=first), stage2=StageConfig(steps=second))
    walked = [START]
    while walked[-1] != (2, second):
        walked.append(walked[-1].after_next_step(training))
    assert [position.overall_step(training) for position in walked] == list(range(first + second + 1))
    assert all(before < after for before, after in pairwise(walked))
