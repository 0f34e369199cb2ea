"""The page of all decisions: one self-contained file that shows boxes, cuts, groups and what is dropped."""

import re
from pathlib import Path

import pytest

from preprocessing.preparing import page as pages
from preprocessing.preparing.decisions import Video, decide
from preprocessing.preparing.job import PAGE
from preprocessing.preparing.page import make_page
from preprocessing.sources.config import LabelsConfig
from preprocessing.sources.labels import InputPart, read_labels
from tests.pipeline.chromium import Chromium


def test_it_needs_no_network_and_no_script(prepared: Path) -> None:
    text = (prepared / PAGE).read_text()
    assert "<script" not in text
    assert not re.search(r"https?://|url\(|@import|<link", text)
    assert set(re.findall(r'(?:src|srcset|href)="([a-z]+:)', text)) == {"data:"}
    assert "default-src 'none'; img-src data:" in text
    assert "@media (prefers-color-scheme: dark)" in text


def test_it_shows_every_decision_with_its_reason(prepared: Path) -> None:
    text = (prepared / PAGE).read_text()
    sections = {re.findall("<h3>(.*?)</h3>", one)[0]: one for one in text.split('<section class="video">')[1:]}
    assert len(sections) == 8
    assert sections["anna/jump/cut.mp4"].count("<u style") == 1
    assert sections["anna/jump/cut.mp4"].count('<i class="kept"') == 2
    assert "still (nothing moves)" in sections["bert/wave/still.mp4"]
    assert "not a video that can be opened" in sections["bert/jump/text.avi"]
    assert "action: wave, person: anna" in sections["anna/wave/one.mp4"]
    groups = text.split("<h2>Near-duplicates</h2>")[1].split("<h2>")[0]
    assert groups.count("<figure>") == 3


def test_of_many_videos_some_are_shown_and_those_with_faults_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "VIDEOS", 4)
    damage = {"reason": "no <b>video</b>", "where": ""}
    videos = [Video(f"{number}.mp4", {"damage": damage if number > 7 else None}, []) for number in range(10)]
    text = make_page(decide(videos, 6)).decode()
    assert re.findall("<h3>(.*?)</h3>", text) == ["0.mp4", "1.mp4", "8.mp4", "9.mp4"]
    assert "4 of 10 are shown" in text
    assert "no &lt;b&gt;video&lt;/b&gt;" in text


def test_a_part_without_a_label_that_others_have_is_dropped_for_shards_could_not_use_it(tmp_path: Path) -> None:
    part = {"start_s": 0.0, "end_s": 3.0, "kept": True, "box": [0, 0, 64, 64], "reason": "", "where": ""}
    labels = ({"identity": "a", "take": "1"}, {"identity": "b"}, {"take": "2"})
    videos = [
        Video(f"{number}.mp4", {"parts": [dict(part)], "damage": None}, [InputPart(own)])
        for number, own in enumerate(labels)
    ]
    decisions = decide(videos, 6)
    assert [video.parts[0]["reason"] for video in decisions.videos] == [
        "",
        "no label",
        "",
    ]  # an identity can be missing
    assert decisions.reasons() == [("no label", 1)]
    (tmp_path / "sidecar.csv").write_bytes(decisions.sidecar())
    reader = read_labels(LabelsConfig(sidecar=str(tmp_path / "sidecar.csv")))
    assert reader.parts("0.mp4")[0].labels == {"identity": "a", "take": "1"}
    with pytest.raises(ValueError, match="no label: take"):
        reader.parts("1.mp4")


def test_it_fits_a_phone_and_makes_no_requests(prepared: Path, chromium: str) -> None:
    with Chromium(chromium) as browser:
        for width in (1200, 390):
            browser.open(prepared / PAGE, width=width)
            assert browser.run("document.documentElement.scrollWidth") == width
        inside = (
            "[...document.querySelectorAll('.frame')].every(frame => [...frame.querySelectorAll('i')].every(box => {"
            "const a = frame.getBoundingClientRect(), b = box.getBoundingClientRect();"
            "return b.left >= a.left - 1 && b.right <= a.right + 1 && b.top >= a.top - 1 && b.bottom <= a.bottom + 1}))"
        )
        assert browser.run(inside)
        assert browser.console_errors == []
        requested = {request for request in browser.requests if not request.startswith("data:")}
        assert requested == {(prepared / PAGE).as_uri()}
