"""The table of the sharpness, in the terminal and as rows for pages."""

from typing import Any

import pytest

from pipeline.report.metric_format import direction
from pipeline.report.sharpness import sharpness_rows
from pipeline.report.table import text_table

SYSTEMS = ("swap", "pose_swap", "self_swap", "poses", "first_frame")
MEASURES = ("psnr", "ssim", "gradient")


def metrics(*systems: str) -> dict[str, Any]:
    """Return metrics in which every system has a value of its own for every measure."""
    shared = {"n": 160, "chance": None, "low": 0.25, "high": 99}
    figures = {
        f"moving.{system}.{measure}": {"value": 10 * row + column + 0.5, **shared}
        for row, system in enumerate(systems) for column, measure in enumerate(MEASURES)
    }  # fmt: skip
    return {
        "figures": figures, "controls": {}, "warnings": [], "vocabulary": {}, "swap_by": "dynamics code",
        "factors": {"action": "action", "static": []},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        (SYSTEMS, ["swap", "poses", "first_frame"]),
        (("self_swap", "poses", "first_frame"), ["self_swap", "poses", "first_frame"]),
        (("pose_swap", "poses", "first_frame"), ["pose_swap", "poses", "first_frame"]),
        (("poses", "first_frame"), ["poses", "first_frame"]),
        ((), []),
    ],
)
def test_swaps_stand_beside_stage_1_and_own_codes_where_the_true_swap_is_unknown(
    measured: tuple[str, ...], shown: list[str]
) -> None:
    found = metrics(*measured)
    rows = sharpness_rows(found)
    assert [row.name for row in rows] == [f"moving.{system}.{measure}" for measure in MEASURES for system in shown]
    for row in rows:
        assert row.metric is found["figures"][row.name]
        assert len(row.meaning) > 30
    assert len({row.title for row in rows}) == len({row.meaning for row in rows}) == len(rows)


def test_the_terminal_shows_every_row_with_its_interval() -> None:
    lines = text_table(metrics(*SYSTEMS)).splitlines()
    (swaps,) = [line for line in lines if "PSNR in dB, swaps " in line]
    assert "0.5" in swaps
    assert "0.25 – 99" in swaps
    (edges,) = [line for line in lines if "edge error, own poses" in line]
    assert "32.5" in edges
    assert "sharpness" not in text_table(metrics())


def test_only_a_models_values_are_better_or_worse() -> None:
    assert [direction(f"moving.swap.{measure}") for measure in ("psnr", "ssim", "gain", "gradient", "mse")] == [
        1, 1, 1, -1, -1,
    ]  # fmt: skip
    assert [direction(name) for name in ("moving.first_frame.gradient", "moving.first_frame.psnr", "moving.share")] == [
        0, 0, 0,
    ]  # fmt: skip
    assert direction("reconstruction.mse") == -1
