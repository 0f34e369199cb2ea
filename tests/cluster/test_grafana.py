"""The Grafana dashboard is consistent and can be imported. Its metrics: health/test_doctor and e2e/test_metrics."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def board(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "cluster" / "grafana" / "vdsm.json").read_text()))


def test_every_query_uses_the_chosen_source_and_existing_variables(board: dict[str, Any]) -> None:
    variables = {one["name"] for one in board["templating"]["list"]}
    for panel in board["panels"]:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) > 0
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= variables
            assert all(target["expr"].count(pair[0]) == target["expr"].count(pair[1]) for pair in ("()", "{}", "[]"))


def test_panels_are_on_the_grid_and_do_not_overlap(board: dict[str, Any]) -> None:
    positions = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for title, position in positions:
        assert position["x"] >= 0, title
        assert position["x"] + position["w"] <= 24, title
    for (title, one), (other, two) in combinations(positions, 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        below = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert beside or below, (title, other)
