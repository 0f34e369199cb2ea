"""The weights follow the published schedules at every point of a stage."""

import math
import re
from typing import Any

import numpy as np
import pytest

from vdsm.annealing import ramp_at, spline_at, un_annealed, weights_at
from vdsm.config import REGULARISERS, STAGE_2_ANNEALING, AnnealingConfig, CosineRamp, Spline

PUBLISHED_VALUES = 64 * 64 * 3
STAGES = {"stage 1": AnnealingConfig(), "stage 2": STAGE_2_ANNEALING}


def piecewise_parabolas(spline: Spline, progress: float) -> float:
    """Evaluate one parabola per interval between break points, with all 3(n - 2) coefficients from one linear system.

    The parabolas pass through the knots, and adjacent ones agree in value and slope where they meet.
    """
    x = [fraction for fraction, _ in spline.knots]
    breaks = [(x[i] + x[i + 1]) / 2 for i in range(1, len(x) - 2)]
    size = 3 * (len(breaks) + 1)
    rows, right = [], []

    def row(entries: dict[int, tuple[float, float, float]], value: float) -> None:
        line = np.zeros(size)
        for piece, powers in entries.items():
            line[3 * piece : 3 * piece + 3] = powers
        rows.append(line)
        right.append(value)

    def piece_of(point: float) -> int:
        return sum(point > edge for edge in breaks)

    for point, value in spline.knots:
        row({piece_of(point): (1, point, point**2)}, value)
    for index, edge in enumerate(breaks):
        row({index: (1, edge, edge**2), index + 1: (-1, -edge, -(edge**2))}, 0)
        row({index: (0, 1, 2 * edge), index + 1: (0, -1, -2 * edge)}, 0)
    coefficients = np.linalg.solve(np.array(rows), np.array(right)).reshape(-1, 3)
    a, b, c = coefficients[piece_of(progress)]
    return float(min(max(a + b * progress + c * progress**2, spline.floor), spline.ceiling))


@pytest.mark.parametrize(
    "spline",
    [
        STAGES["stage 1"].pose,
        STAGES["stage 2"].pose,
        Spline(knots=((0, 3), (0.3, 1), (1, 2))),
        Spline(knots=((0, 1), (0.1, 2), (0.35, 1.5), (0.7, 4), (0.9, 2), (1, 3))),
    ],
    ids=["stage 1", "stage 2", "three knots", "six knots"],
)
def test_spline_agrees_with_piecewise_parabolas(spline: Spline) -> None:
    for progress in np.linspace(0, 1, 101):
        assert spline_at(spline, progress) == pytest.approx(piecewise_parabolas(spline, progress), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("config", STAGES.values(), ids=STAGES.keys())
def test_pose_weight_passes_through_the_knots(config: AnnealingConfig) -> None:
    for progress, value in config.pose.knots:
        assert weights_at(config, progress, PUBLISHED_VALUES).pose == pytest.approx(value, abs=1e-9)


def test_pose_weight_of_stage_1_follows_the_published_table() -> None:
    table = (30, 20.7, 13.1, 7.15, 2.87, 0.24, 0.005, 0.005, 0.38, 0.78, 1)
    for tenth, value in enumerate(table):
        assert spline_at(AnnealingConfig().pose, tenth / 10) == pytest.approx(value, abs=0.1)


def test_pose_weight_of_stage_1_rests_on_its_floor_where_the_spline_undershoots() -> None:
    weights = {n / 100: spline_at(AnnealingConfig().pose, n / 100) for n in range(101)}
    on_floor = [progress for progress, weight in weights.items() if weight == 0.005]
    assert min(weights.values()) == 0.005
    assert on_floor == [n / 100 for n in range(round(100 * on_floor[0]), round(100 * on_floor[-1]) + 1)]
    assert on_floor[0] == pytest.approx(0.55, abs=0.05)
    assert on_floor[-1] == pytest.approx(0.75, abs=0.05)


def test_spline_stops_at_its_ceiling() -> None:
    spline = Spline(knots=((0, 100), (0.5, 50), (1, 1)))
    assert spline_at(spline, 0.0) == 80.0
    assert spline_at(spline, 0.5) == pytest.approx(50)


@pytest.mark.parametrize(("start", "end", "fraction"), [(0.1, 1.0, 1 / 3), (1.0, 10.0, 0.5), (4.0, 0.5, 1.0)])
def test_ramp_is_half_a_cosine(start: float, end: float, fraction: float) -> None:
    ramp = CosineRamp(start=start, end=end, fraction=fraction)
    assert ramp_at(ramp, 0.0) == pytest.approx(start)
    # cos falls from 1 to -1: a quarter of the way in time is (1 - sqrt(1/2)) / 2 of the way in value.
    assert ramp_at(ramp, fraction / 4) == pytest.approx(start + (end - start) * (1 - math.sqrt(0.5)) / 2)
    assert ramp_at(ramp, fraction / 2) == pytest.approx((start + end) / 2)
    assert ramp_at(ramp, fraction) == pytest.approx(end)
    assert ramp_at(ramp, (1 + fraction) / 2) == pytest.approx(end)
    assert ramp_at(ramp, 1.0) == pytest.approx(end)


def test_weights_of_stage_1_at_start_middle_and_end() -> None:
    start, middle, end = (weights_at(AnnealingConfig(), progress, PUBLISHED_VALUES) for progress in (0.0, 0.5, 1.0))
    assert start[:8] == pytest.approx((30, 0.1, 0.1, 1, 0, 0, 0, 0))
    assert middle[:8] == pytest.approx((0.2, 1, 0.55, 10, 0, 0, 0, 0))
    assert end[:8] == pytest.approx((1, 1, 1, 10, 0, 0, 0, 0))
    assert weights_at(AnnealingConfig(), 1 / 6, PUBLISHED_VALUES).static == pytest.approx(0.55)
    assert weights_at(AnnealingConfig(), 1 / 3, PUBLISHED_VALUES).static == pytest.approx(1)
    assert weights_at(AnnealingConfig(), 1 / 4, PUBLISHED_VALUES).temperature == pytest.approx(5.5)


def test_weights_of_stage_2_at_start_middle_and_end() -> None:
    start, middle, end = (weights_at(STAGE_2_ANNEALING, progress, PUBLISHED_VALUES) for progress in (0.0, 0.5, 1.0))
    assert start[:8] == pytest.approx((0.1, 0.1, 0.1, 10, 0, 0, 0, 0))
    assert middle[:8] == pytest.approx((0.4, 1, 0.55, 10, 0, 0, 0, 0))
    assert end[:8] == pytest.approx((1, 1, 1, 10, 0, 0, 0, 0))


@pytest.mark.parametrize("values", [32 * 32, 32 * 32 * 3, 128 * 128 * 3])
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_weights_of_divergences_grow_with_the_values_of_a_frame_but_no_others(values: int, progress: float) -> None:
    scale = values / PUBLISHED_VALUES
    config = AnnealingConfig(
        static_consistency=0.7, motion_consistency=0.02, dynamics_consistency=0.8, pose_distillation=0.9
    )
    published = weights_at(config, progress, PUBLISHED_VALUES)
    weights = weights_at(config, progress, values)
    assert weights[:3] == pytest.approx([scale * weight for weight in published[:3]])
    assert weights.temperature == published.temperature
    motion = 0.0 if progress == 0 else 0.02
    assert published[4:8] == pytest.approx((0.7, motion, 0.8, 0.9))
    assert weights[4:8] == pytest.approx((scale * 0.7, motion, scale * 0.8, scale * 0.9))


def test_motion_consistency_grows_over_the_first_fifth_of_a_stage() -> None:
    config = AnnealingConfig(motion_consistency=0.02)
    found = [weights_at(config, progress, PUBLISHED_VALUES).motion_consistency for progress in (0, 0.05, 0.1, 0.2, 0.6)]
    assert found == pytest.approx([0, 0.005, 0.01, 0.02, 0.02])


def test_un_annealed_weights_are_one() -> None:
    plain = {"pose": 1, "static": 1, "dynamics": 1, "temperature": 7}
    assert un_annealed(7.0)._asdict() == plain | dict.fromkeys(REGULARISERS, 0) | {"pair_tolerance": None}


@pytest.mark.parametrize("name", REGULARISERS)
@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_weights_of_regularisers_are_checked(name: str, weight: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {weight}; it must be a number of at least 0"):
        AnnealingConfig(**{name: weight})


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            CosineRamp,
            {"start": 0.0, "end": 1.0, "fraction": 0.5},
            "start is 0.0 and end 1.0; both must be above 0",
        ),
        (CosineRamp, {"start": 1.0, "end": -2.0, "fraction": 0.5}, "start is 1.0 and end -2.0"),
        (CosineRamp, {"start": 1.0, "end": 1.0, "fraction": 0.0}, "fraction is 0.0; it must be in (0, 1]"),
        (CosineRamp, {"start": 1.0, "end": 1.0, "fraction": 1.5}, "fraction is 1.5"),
        (Spline, {"knots": ((0, 1), (1, 1))}, "they must be at least three, rising from 0 to 1"),
        (Spline, {"knots": ((0, 1), (0.6, 1), (0.5, 1), (1, 1))}, "knots have the fractions [0, 0.6, 0.5, 1]"),
        (Spline, {"knots": ((0, 1), (0.5, 1), (0.5, 2), (1, 1))}, "knots have the fractions [0, 0.5, 0.5, 1]"),
        (Spline, {"knots": ((0.1, 1), (0.5, 1), (1, 1))}, "knots have the fractions [0.1, 0.5, 1]"),
        (Spline, {"knots": ((0, 1), (0.5, 1), (0.9, 1))}, "knots have the fractions [0, 0.5, 0.9]"),
        (Spline, {"knots": ((0, 1), (0.5, 1), (1, 1)), "floor": 0.0}, "floor is 0.0 and ceiling 80.0"),
        (Spline, {"knots": ((0, 1), (0.5, 1), (1, 1)), "floor": 9.0, "ceiling": 8.0}, "floor is 9.0 and ceiling 8.0"),
    ],
)
def test_an_invalid_schedule_is_refused(kind: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**settings)
