"""A studio whose dataset and runs are in S3."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from cluster.storage import api as storage
from pipeline.web_studio.settings import StudioSettings
from tests.pipeline.web_studio.in_process import in_process


@pytest.mark.slow
@pytest.mark.long
def test_data_and_runs_in_s3_are_shown_and_a_running_training_is_followed(
    monkeypatch: pytest.MonkeyPatch, s3_bucket: str, figures_dataset: Path, runs_folder: Path, tmp_path: Path
) -> None:
    for folder, name in ((figures_dataset, "data"), (runs_folder, "runs")):
        for path in folder.rglob("*"):
            if path.is_file():
                storage.upload(path, storage.join(s3_bucket, name, str(path.relative_to(folder))))
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path))
    with in_process(StudioSettings(data=f"{s3_bucket}/data", runs=f"{s3_bucket}/runs")) as studio:
        status, page = studio.ask("api/clips?kind=train&label=hat:crown&limit=2")
        assert (status, {clip["labels"]["hat"] for clip in page["clips"]}) == (200, {"crown"})
        status, pairs = studio.ask("api/pairs")
        assert status == 200
        assert pairs["total"] > 0
        blend = {"static": [{"of": page["clips"][0]["of"]}], "dynamics": [{"of": page["clips"][1]["of"]}]}
        step = {"factor": "hat", "towards": "cone", "amount": 1}
        assert {one["name"] for one in studio.ask("api/factors")[1]["factors"]} == {"skin", "hat", "shirt", "trousers"}
        plain, moved = studio.ask("api/explore", blend), studio.ask("api/explore", {**blend, "walk": step})
        assert (plain[0], moved[0]) == (200, 200)
        assert plain[1]["result"]["uri"] != moved[1]["result"]["uri"]
        names = [run["name"] for run in studio.ask("api/runs")[1]]
        assert names == sorted(["second", "training", "first <run>"])
        query = "&".join(f"name={quote(name)}" for name in names if name != "training")
        status, compared = studio.ask(f"api/runs/compare?{query}")
        assert (status, len(compared["names"]), len(compared["animations"])) == (200, 2, 2)
        log = storage.join(s3_bucket, "runs", "training", "metrics.jsonl")
        before = studio.ask("api/runs/curves?name=training")[1]["steps"]["training"]
        record = {"kind": "train", "stage": 1, "step": before + 70, "loss": 0.1}
        storage.write_bytes(log, storage.read_bytes(log) + json.dumps(record).encode() + b"\n")
        assert studio.ask("api/runs/curves?name=training")[1]["steps"]["training"] == before + 70
        status, answer = studio.ask("api/runs/curves?name=absent")
        assert (status, answer["error"]) == (422, f"absent: there is no run of this name in {s3_bucket}/runs")
