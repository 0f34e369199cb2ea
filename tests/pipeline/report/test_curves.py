import json
import re

from pipeline.report.curves import panels, read_records


def lines(**keys: float) -> str:
    return "".join(
        json.dumps({"kind": "train", "stage": stage, "step": step, "overall_step": step + 40 * (stage - 1), **keys})
        + "\n"
        for stage in (1, 2)
        for step in range(10, 50, 10)
    )


def test_curves_lie_inside_their_drawing_and_show_the_stage_change() -> None:
    drawn = panels(read_records(lines(loss=0.5, kl_pose=1e-4, weight_pose=30.0, temperature=3.0)))
    assert [panel.legend[0][1] for panel in drawn] == ["loss", "kl pose", "weight pose", "temperature"]
    for panel in drawn:
        assert "stage 2" in panel.svg
        points = re.findall(r'points="([^"]+)"', panel.svg)
        places = [tuple(map(float, place.split(","))) for line in points for place in line.split()]
        assert len(places) == 8
        assert all(58 <= x <= 550 and 10 <= y <= 184 for x, y in places)


def test_broken_lines_and_missing_or_odd_values_are_left_out() -> None:
    text = lines(loss=0.5) + '{"kind": "train", "st\n[1]\n{"loss": 3}\n'
    text += '{"kind": "train", "stage": 2, "step": 90, "loss": NaN, "kl_pose": 0.0, "kl_static": "x"}\n'
    records = read_records(text)
    assert len(records) == 9
    (panel,) = panels(records)
    assert "nan" not in panel.svg.lower()
    assert panels([]) == []


def test_long_runs_are_thinned() -> None:
    records = [
        {"kind": "train", "stage": 1, "step": step, "overall_step": step, "loss": 1 / step} for step in range(1, 20_001)
    ]
    (panel,) = panels(records)
    (points,) = re.findall(r'points="([^"]+)"', panel.svg)
    assert len(points.split()) <= 300
