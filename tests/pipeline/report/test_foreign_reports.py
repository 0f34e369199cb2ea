"""`vdsm compare` reads reports that may come from anywhere: any content is compared, or refused in one line."""

import contextlib
import copy
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from cluster.errors import UserError
from pipeline.report import transfer_file
from pipeline.report.compare_page import render_comparison
from pipeline.report.comparison import check_comparable, comparison, read_reports
from pipeline.report.table import text_table
from tests.fuzz.mutations import mutate_tree

METRIC: dict[str, Any] = {"value": 0.5, "n": 10, "chance": 0.1, "low": 0.4, "high": 0.6}
NAMES = ("swap.action.accuracy", "swap.static.hat.accuracy", "leakage.hat", "moving.poses.psnr", "elbo.frame", "is")
REPORT: dict[str, Any] = {
    "schema_version": 2,
    "swap_by": "dynamics code",
    "factors": {"action": "action", "static": ["hat"]},
    "vocabulary": {"action": ["wave", "walk"], "hat": ["none", "red"]},
    "figures": dict.fromkeys(NAMES, METRIC),
    "controls": {"perfect": {"swap.action.accuracy": METRIC}},
    "warnings": ["few clips"],
    "provenance": {
        "data": "/data", "data_sha256": "0" * 64, "pairs_sha256": "1" * 64, "clip_frames": 8, "test_clips": 6,
        "test_identities": 2, "judge": {"key": "2" * 64}, "evaluation": {"pairs": 10}, "run": "runs/a",
        "recipe": {"seed": 0, "model": {"frame_size": 32}},
    },
}  # fmt: skip


def written(folder: Path, first: Any, second: Any = REPORT, picture: bytes = b"") -> list[str]:
    for name, content in (("a", first), ("b", second)):
        (folder / name).mkdir(exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name / "metrics.json").write_bytes(data)
        if picture:
            (folder / name / "transfer.webp").write_bytes(picture)
    return [str(folder / "a"), str(folder / "b")]


def compare(urls: list[str]) -> str:
    reports = read_reports(urls)
    compared = comparison(reports, check_comparable(reports))
    json.dumps(compared, allow_nan=False)
    page = render_comparison(reports, compared)
    page.encode()
    return page


def test_reports_of_this_layout_are_compared(tmp_path: Path) -> None:
    assert "/data" in compare(written(tmp_path, REPORT))


@pytest.mark.parametrize("name", [name for name in REPORT if name != "schema_version"])
@pytest.mark.parametrize("value", [None, 5, "text", [1], {"a": 1}, {"a": {"b": [1]}}, "absent"])
def test_a_field_of_another_kind_is_named(name: str, value: Any, tmp_path: Path) -> None:
    if name == "swap_by" and value == "text":
        pytest.skip("a text is what it is")
    changed = {key: one for key, one in (REPORT | {name: value}).items() if value != "absent" or key != name}
    with pytest.raises(UserError, match=rf"a/metrics.json is damaged, or .* \(.*{name}"):
        compare(written(tmp_path, changed))


@pytest.mark.parametrize("name", ["system", "run", "samples"])
@pytest.mark.parametrize("value", [{"a": 1}, [1], 1e308])
def test_a_source_that_is_no_text_is_named(name: str, value: Any, tmp_path: Path) -> None:
    changed = REPORT | {"provenance": REPORT["provenance"] | {name: value}}
    with pytest.raises(UserError, match=rf"a/metrics.json is damaged, or .* \(.*{name}"):
        compare(written(tmp_path, changed))


def test_of_metrics_without_intervals_none_is_the_best(tmp_path: Path) -> None:
    changed = REPORT | {"figures": dict.fromkeys(NAMES, METRIC | {"value": 0.9, "low": None, "high": None})}
    compare(urls := written(tmp_path, changed))
    reports = read_reports(urls)
    assert {entry["best"] for entry in comparison(reports, [])["figures"].values()} == {None}


@pytest.mark.parametrize("content", [b"[" * 60_000, b"9" * 5000, b"", b"null", b"\xff", b'{"figures": {"is": NaN}}'])
def test_what_is_no_report_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a/metrics.json is damaged") as error:
        compare(written(tmp_path, content))
    assert str(error.value).isprintable()


def test_mutations_of_a_report_are_compared_or_refused_clearly(tmp_path: Path) -> None:
    random = Random(22)
    for _ in range(150):
        changed = mutate_tree(copy.deepcopy(REPORT), random)
        data = json.dumps(changed).replace("Infinity", "1e999").encode()
        with contextlib.suppress(UserError):
            compare(written(tmp_path, data, data if random.random() < 0.5 else REPORT))


def animation(width: int, frames: int) -> bytes:
    buffer = io.BytesIO()
    images = [Image.new("RGB", (width, 16), (index, 0, 0)) for index in range(frames)]
    images[0].save(buffer, "WEBP", save_all=True, append_images=images[1:], duration=100, lossless=True)
    return buffer.getvalue()


def test_an_animation_that_is_damaged_or_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = animation(64, 3)
    assert "canvas" in compare(written(tmp_path, REPORT, picture=good))
    still = io.BytesIO()
    Image.new("RGB", (16, 16)).save(still, "PNG")
    for bad in (good[:-40], b"RIFF", b"GIF89a" + bytes(40), still.getvalue(), good[:20] + bytes(200)):
        with pytest.raises(UserError, match=r"a/transfer.webp is damaged"):
            compare(written(tmp_path, REPORT, picture=bad))
    monkeypatch.setattr(transfer_file, "MAX_PIXELS", 64 * 16 * 2)
    with pytest.raises(UserError, match="more than 2,048 pixels"):
        compare(written(tmp_path, REPORT, picture=good))


def test_names_of_labels_are_neither_mark_up_nor_commands_of_the_terminal() -> None:
    label = "[/red]\x1b[2J"
    changed = copy.deepcopy(REPORT)
    changed["factors"]["static"] = [label]
    changed["figures"] = {"swap.action.accuracy": METRIC, f"swap.static.{label}.accuracy": METRIC}
    changed["warnings"] = [f"[bold]{label}"]
    printed = text_table(changed)
    assert "[/red]\\x1b[2J" in printed
    assert "note: [bold][/red]" in printed
    assert "\x1b" not in printed
