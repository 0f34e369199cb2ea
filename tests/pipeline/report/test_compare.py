"""`vdsm compare`: metrics side by side, a star only for disjoint intervals, no comparison of unlike evaluations."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import compare as compare_module
from pipeline import evaluate, pairs
from pipeline.evaluation import make_samples
from pipeline.recipe import Recipe
from pipeline.report.comparison import Report, compare_metric, differing_settings
from pipeline.report.metric_format import format_interval, format_value, is_share
from tests.pipeline.chromium import Chromium
from tests.pipeline.untrained_report import untrained_report

pytestmark = pytest.mark.slow

Metric = dict[str, Any]


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, first_report: Path, tiny_recipe: Recipe, small_figures: Path
) -> list[Path]:
    """Evaluate two runs; the second has another seed, and one of its metrics is improved."""
    folder = tmp_path_factory.mktemp("compared")
    other = Recipe.model_validate({**tiny_recipe.model_dump(), "seed": 5})
    options = ["--seed", "0", "--judges", str(first_report)]
    second = untrained_report(folder, "second", other, small_figures, 1, *options)
    metrics = json.loads((second / "metrics.json").read_text())
    metrics["figures"]["swap.action.accuracy"] |= {"value": 0.99, "low": 0.98, "high": 1.0}
    (second / "metrics.json").write_text(json.dumps(metrics))
    return [first_report, second]


@pytest.fixture(scope="module")
def out(reports: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    # The second is named by the parent folder of its report.
    compare_module.main([str(reports[0]), str(reports[1].parent), "--out", str(folder)])
    return folder


def test_table_holds_the_metrics_of_every_report_with_a_star_where_intervals_are_disjoint(
    reports: list[Path], out: Path
) -> None:
    found = json.loads((out / "compare.json").read_text())
    assert [report["name"] for report in found["reports"]] == ["first <run>", "second"]
    all_metrics = [json.loads((report / "metrics.json").read_text()) for report in reports]
    for name, entry in found["figures"].items():
        assert entry["values"] == [metrics["figures"].get(name) for metrics in all_metrics]
    assert found["figures"]["swap.action.accuracy"]["best"] == 1
    assert found["pairs_sha256"] == all_metrics[0]["provenance"]["pairs_sha256"]


def test_page_shows_the_metrics_and_makes_no_request(reports: list[Path], out: Path, chromium: str) -> None:
    all_metrics = [json.loads((report / "metrics.json").read_text()) for report in reports]
    with Chromium(chromium) as browser:
        browser.open(out / "compare.html", width=375)
        cells = browser.run(
            "[...document.querySelectorAll('[data-metric]')].map(cell => [cell.dataset.metric, "
            "+cell.dataset.report, cell.firstChild.textContent.trim(), cell.querySelector('small')?.textContent])"
        )
        for name, report, value, ends in cells:
            metric = all_metrics[report]["figures"].get(name)
            share = is_share(name, all_metrics[report])
            expected = (format_value(metric["value"], share), format_interval(metric, share)) if metric else ("–", None)
            assert (value, ends) == expected, name
        assert {name for name, *_ in cells} == set(all_metrics[0]["figures"]) | set(all_metrics[1]["figures"])
        stars = browser.run("[...document.querySelectorAll('.best')].map(c => [c.dataset.metric, c.dataset.report])")
        assert ["swap.action.accuracy", "1"] in stars
        assert browser.run("document.querySelectorAll('#transfer .animation canvas').length") == 2
        assert browser.run("document.documentElement.scrollWidth") == 375
        lines = browser.run("document.querySelector('.charts figure').querySelectorAll('polyline').length")
        assert lines == 2 + 2  # two curves, and two dashes in the legend
        assert browser.console_errors == []
        file = (out / "compare.html").resolve().as_uri()
        assert [url for url in browser.requests if url not in (file, "about:blank") and url[:5] != "data:"] == []


@pytest.fixture(scope="module")
def peer(first_report: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluate another system, whose clips copy the clip that gives the motion, under the judge of the first report."""
    folder, out = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("peer")
    options = ["--evaluation.judge-steps", "2", "--evaluation.judge-batch-clips", "4", "--evaluation.pairs", "20"]
    pairs.main(["--data", str(small_figures), "--out", str(folder), "--clip-frames", "4", *options])
    make_samples.main(folder, small_figures)
    args = ["--samples", str(folder), "--data", str(small_figures), "--judges", str(first_report)]
    evaluate.main([*args, "--out", str(out), "--system", "theirs <b> | x"])
    return out


def test_samples_of_another_system_stand_beside_runs(
    reports: list[Path], peer: Path, tmp_path: Path, chromium: str
) -> None:
    compare_module.main([*map(str, reports), str(peer), "--out", str(tmp_path)])
    found = json.loads((tmp_path / "compare.json").read_text())
    assert [report["name"] for report in found["reports"]] == ["first <run>", "second", "theirs <b> | x"]
    assert len(found["reports"][2]["samples_sha256"]) == 64
    note = "Of theirs <b> | x there are only samples: probes, ELBO and what needs no label are measured on runs alone."
    assert found["notes"] == [note]
    copied = found["figures"]["swap.action.accuracy"]["values"][2]
    assert copied == json.loads((peer / "metrics.json").read_text())["figures"]["swap.action.accuracy"]
    for name in ("cycle.static", "likeness.identity", "moving.self_swap.gain", "smoothness.change"):
        assert [value is None for value in found["figures"][name]["values"]] == [False, False, True]
    assert found["settings"]["seed"] == [0, 5, None]
    assert [name for name in found["settings"] if name.startswith(("model.", "training."))] == []
    with Chromium(chromium) as browser:
        browser.open(tmp_path / "compare.html", width=375)
        header = "[...document.querySelectorAll('#headline thead th')].map(cell => cell.textContent)"
        assert browser.run(header)[1:4] == ["first <run>", "second", "theirs <b> | x"]
        shared = "[...document.querySelectorAll('#settings > .scroll tbody th')].map(cell => cell.textContent)"
        assert "seed" in browser.run(shared)
        flags = browser.run("[...document.querySelectorAll('.flags strong')].map(flag => flag.textContent)")
        assert "first <run>, second, theirs <b> | x" in flags  # what all reports warn of is stated once
        assert browser.run("document.documentElement.scrollWidth") == 375
        assert browser.console_errors == []


def test_the_table_of_results_has_columns_for_other_systems(
    reports: list[Path], peer: Path, tmp_path: Path, root: Path
) -> None:
    """Of two seeds of a recipe and two trainings of another system; the latter first, which lacks some metrics."""
    other = tmp_path / "other"
    shutil.copytree(peer, other)
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["provenance"]["samples"] += "2"
    metrics["figures"]["swap.action.accuracy"]["value"] = 0.5
    (other / "metrics.json").write_text(json.dumps(metrics))
    command = [sys.executable, root / "benchmarks" / "results.py", peer, *reports, other]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, *lines = done.stdout.splitlines()
    assert head.startswith("| | theirs <b> \\| x (n = 2) | first <run>, second (n = 2) | `ignores_static` |")
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines}
    assert rows["| `swap.action.accuracy`"][0].endswith(" and 50.0%")
    assert rows["| `swap.action.accuracy`"][1].endswith(" and 99.0%")
    assert rows["| `probe.static.action.linear`"][0] == "–"  # needs the model
    assert "%" in rows["| `probe.static.action.linear`"][4]  # the control `shuffled`, which only runs have


def test_only_settings_that_differ_are_listed(out: Path) -> None:
    settings = json.loads((out / "compare.json").read_text())["settings"]
    assert settings["seed"] == [0, 5]
    assert "model.num_experts" not in settings


def test_settings_under_former_names_are_compared_under_the_current_ones() -> None:
    recipes: list[Metric] = [
        {"training": {"stage1": {"decoded_frames": 4}, "stage2": {"annealing": {"matching": 1.0}}}},
        {"training": {"stage1": {"num_decoded_frames": 4}, "stage2": {"annealing": {"pose_distillation": 2.0}}}},
    ]
    reports = [Report("a", "a", {"provenance": {"recipe": recipe}}, "", None) for recipe in recipes]
    assert differing_settings(reports) == {"training.stage2.annealing.pose_distillation": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("name", "intervals", "best"),
    [
        ("swap.action.accuracy", [(0.8, 0.7, 0.9), (0.95, 0.91, 0.99)], 1),
        ("swap.action.accuracy", [(0.8, 0.7, 0.92), (0.95, 0.91, 0.99)], None),
        ("leakage.hat", [(0.02, 0.0, 0.05), (0.2, 0.1, 0.3), (0.3, 0.2, 0.4)], 0),
        ("leakage.hat", [(0.02, 0.0, 0.05), (0.2, 0.1, 0.3), (0.06, 0.04, 0.09)], None),
        ("reconstruction.mse", [(0.02, 0.019, 0.021), None, (0.03, 0.029, 0.031)], 0),
        ("reconstruction.psnr", [(20.0, 19.0, 21.0), None], None),
        ("judge.action.accuracy", [(0.8, 0.7, 0.9), (1.0, 1.0, 1.0)], None),
    ],
)
def test_best_is_marked_only_if_it_is_reliable(
    name: str, intervals: list[tuple[float, float, float] | None], best: int | None
) -> None:
    values: list[Metric | None] = [
        None if ends is None else {"value": ends[0], "low": ends[1], "high": ends[2], "n": 9, "chance": None}
        for ends in intervals
    ]
    assert compare_metric(name, values)["best"] == best


def other_data(metrics: Metric) -> None:
    metrics["provenance"]["data_sha256"] = "0" * 64


def other_pairs(metrics: Metric) -> None:
    metrics["provenance"]["pairs_sha256"] = "0" * 64


def other_version(metrics: Metric) -> None:
    metrics["schema_version"] = 1


def no_figures(metrics: Metric) -> None:
    del metrics["figures"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_data, "measured on different data"),
        (other_pairs, "measured on different pairs of test clips"),
        (other_version, "written by different versions (schema"),
        (no_figures, "metrics.json is damaged"),
    ],
)
def test_unlike_evaluations_are_not_compared(
    change: Callable[[Metric], None],
    message: str,
    reports: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(reports[1], copied)
    metrics = copy.deepcopy(json.loads((copied / "metrics.json").read_text()))
    change(metrics)
    (copied / "metrics.json").write_text(json.dumps(metrics))
    line = refused([str(reports[0]), str(copied), "--out", str(tmp_path / "out")], capsys)
    assert message in line
    assert str(copied) in line
    assert not (tmp_path / "out").exists()


def test_missing_reports_are_reported_in_one_line(
    reports: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([str(reports[0]), str(tmp_path / "nowhere"), "--out", str(tmp_path)], capsys)
    assert f"{tmp_path / 'nowhere'}: no metrics.json found" in line
    run = reports[0].parents[1] / "runs" / "first <run>"
    assert "this run has no report in its folder" in refused([str(reports[0]), str(run), "--out", "x"], capsys)
    assert "give at least two reports" in refused([str(reports[0]), "--out", str(tmp_path)], capsys)
    assert "reports has no value" in refused(["--out", str(tmp_path)], capsys)


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which a command ends."""
    with pytest.raises(SystemExit) as exit_info:
        compare_module.main(args)
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line
