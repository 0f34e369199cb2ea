"""Training curves: inside their drawing, thinned, and readable from records of any version."""

import json
import re

from pipeline.report.curves import read_records, training_charts


def lines(**keys: float) -> str:
    return "".join(
        json.dumps({"kind": "train", "stage": stage, "step": step, "overall_step": step + 40 * (stage - 1), **keys})
        + "\n"
        for stage in (1, 2)
        for step in range(10, 50, 10)
    )


def test_curves_lie_inside_their_drawing_and_show_the_stage_change() -> None:
    charts = training_charts(read_records(lines(loss=0.5, kl_pose=1e-4, weight_pose=30.0, temperature=3.0)))
    assert [chart.legend[0][1] for chart in charts] == ["loss", "kl pose", "weight pose", "temperature"]
    for chart in charts:
        assert "stage 2" in chart.svg
        points = re.findall(r'points="([^"]+)"', chart.svg)
        positions = [tuple(map(float, point.split(","))) for line in points for point in line.split()]
        assert len(positions) == 8
        assert all(58 <= x <= 550 and 10 <= y <= 184 for x, y in positions)


def test_damaged_lines_and_missing_or_invalid_values_are_skipped() -> None:
    text = lines(loss=0.5) + '{"kind": "train", "st\n[1]\n{"loss": 3}\n'
    text += '{"kind": "train", "stage": 2, "step": 90, "loss": NaN, "kl_pose": 0.0, "kl_static": "x"}\n'
    records = read_records(text)
    assert len(records) == 9
    (chart,) = training_charts(records)
    assert "nan" not in chart.svg.lower()
    assert training_charts([]) == []


def test_long_runs_are_thinned() -> None:
    records = [
        {"kind": "train", "stage": 1, "step": step, "overall_step": step, "loss": 1 / step} for step in range(1, 20_001)
    ]
    (chart,) = training_charts(records)
    (points,) = re.findall(r'points="([^"]+)"', chart.svg)
    assert len(points.split()) <= 300


def test_records_under_former_names_are_drawn_under_the_current_ones() -> None:
    former = lines(kl_pose=1e-4, disagreement=2e-3)
    former += '{"kind": "train", "stage": 2, "step": 50, "overall_step": 90, "kl_pose": 1e-4, "mismatch": 3e-3}\n'
    (chart,) = training_charts(read_records(former))
    assert [name for _, name in chart.legend] == [
        "kl pose", "static consistency", "dynamics consistency", "pose distillation"
    ]  # fmt: skip
    lengths = [len(points.split()) for points in re.findall(r'points="([^"]+)"', chart.svg)]
    assert lengths == [9, 4, 4, 1]
    current = former.replace("mismatch", "pose_distillation")
    current = "".join(
        line.replace("disagreement", "static_consistency" if '"stage": 1' in line else "dynamics_consistency") + "\n"
        for line in current.splitlines()
    )
    assert training_charts(read_records(current)) == [chart]
