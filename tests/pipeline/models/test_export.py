"""`vdsm export`: the exported model is that of the run, and its card states what is known of it."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vdsm
from pipeline import export, generate
from pipeline.exports import onnx_files
from pipeline.recipe import Recipe
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.evaluation.test_schema import SMALLEST
from tests.pipeline.untrained_report import untrained_run
from vdsm.checkpoint import verify


@pytest.fixture(scope="module")
def metrics(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of metrics of the run's checkpoint, whose names could break a card."""
    folder = tmp_path_factory.mktemp("report")
    content = copy.deepcopy(SMALLEST)
    content["provenance"]["checkpoint_sha256"] = verify(run / "stage2.pt")
    content["figures"] = {
        "swap.action.accuracy": {"value": 0.9, "n": 10, "chance": 0.125, "low": 0.8, "high": 0.95},
        "swap.static.<b>|hat.accuracy": {"value": 0.5, "n": 10, "chance": 0.25, "low": 0.4, "high": 0.6},
        "probe.static.action.linear": {"value": 0.3, "n": 10, "chance": 0.1, "low": 0.2, "high": 0.4},
    }
    content["controls"]["perfect"] = {
        "swap.action.accuracy": {**content["figures"]["swap.action.accuracy"], "value": 0.98}
    }
    content["warnings"] = ["few test identities"]
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def model(run: Path, metrics: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete export."""
    folder = tmp_path_factory.mktemp("export") / "model"
    args = ["--run", str(run), "--out", str(folder), "--data", str(small_figures), "--metrics", str(metrics)]
    export.main([*args, "--license", "cc-by-4.0", "--name", "Small figures"])
    return folder


def clips_of(data: Path) -> Any:
    test = ClipDataset(str(data), "test")
    return np.stack([test.frames(index)[:4] for index in range(4)])


def test_the_exported_model_swaps_and_samples_as_the_run_does_bit_for_bit(
    run: Path, model: Path, small_figures: Path
) -> None:
    clips, first, second = clips_of(small_figures), vdsm.load(run), vdsm.load(model)
    assert np.array_equal(first.swap(clips[:2], clips[2:]), second.swap(clips[:2], clips[2:]))
    assert np.array_equal(first.sample(3), second.sample(3))  # its priors are those that were fitted
    assert second.network.fitted_priors is not None
    assert all(map(torch.equal, first.encode(clips), second.encode(clips)))
    assert second.facts.fps == ClipDataset(str(small_figures), "test").fps[0]


def test_the_card_shows_data_metrics_ceiling_limits_and_licence_and_no_path(
    model: Path, run: Path, small_figures: Path
) -> None:
    card = (model / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\nlibrary_name: vdsm\n")
    assert "\n# Small figures\n" in card
    assert "| swap.action.accuracy | 90.0% | 80.0 – 95.0 | 12.5% | 98.0% |" in card
    assert "| swap.static. b hat.accuracy | 50.0% | 40.0 – 60.0 | 25.0% | – |" in card
    assert "probe." not in card  # the report has all metrics
    assert "- few test identities" in card
    assert "32x32 pixels, RGB; the first 4 frames" in card
    assert f"`{small_figures.name}, source figures`" in card
    for path in (card, (model / "config.json").read_text()):
        assert str(run.parent) not in path
        assert str(small_figures.parent) not in path
    with Image.open(model / "sample.gif") as animation:
        assert animation.n_frames == 4
        assert animation.size == (2 * (4 * 34 - 2 + 6), 2 * (5 * 34 - 2 + 6))


def test_a_model_is_exported_over_an_earlier_export_and_over_nothing_else(
    run: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    (tmp_path / "model").mkdir()
    (out / "encode.pt2").touch()
    for _ in range(2):
        export.main(["--run", str(run), "--out", str(out), "--half"])
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "sample.gif",
    ]
    assert (out / "model.safetensors").stat().st_size < 0.7 * (model / "model.safetensors").stat().st_size
    assert "None were measured" in (out / "README.md").read_text()
    assert "No licence was given" in (out / "README.md").read_text()
    (out / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="2"):
        export.main(["--run", str(run), "--out", str(out)])
    assert "holds thesis.tex, which is not part of an exported model; choose another --out" in capsys.readouterr().err


def test_a_dry_run_names_the_files_and_writes_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export.main(["--run", str(run), "--out", str(tmp_path / "model"), "--programs", "--dry-run"])
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert names == ["model.safetensors", "sample.gif", "README.md", "encode.pt2", "decode.pt2", "config.json"]
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize("absent", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_for_onnx_is_reported_before_the_work(
    absent: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == absent else object())
    with pytest.raises(SystemExit, match="2"):
        export.main(["--run", str(run), "--out", str(tmp_path / "model"), "--onnx"])
    message = f"this needs {absent}, which is not installed; pip install 'vdsm-pipeline[onnx]'"
    assert message in capsys.readouterr().err


def test_metrics_of_another_checkpoint_and_other_data_are_refused(
    run: Path, metrics: Path, figures_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((metrics / "metrics.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(content | {"provenance": SMALLEST["provenance"]}))
    (tmp_path / "broken.json").write_text("{}")
    args = ["--run", str(run), "--out", str(tmp_path / "model")]
    for more, message in (
        (["--metrics", str(tmp_path / "other.json")], "was measured on another checkpoint than the run's newest"),
        (["--metrics", str(tmp_path / "broken.json")], "is not a metrics.json of this version ("),
        (["--metrics", str(tmp_path)], "there are no metrics here; run `vdsm evaluate` first"),
        (["--data", str(figures_dataset)], "is not the data that"),
        (["--license", "MIT or so"], "license is MIT or so; "),
    ):
        with pytest.raises(SystemExit, match="2"):
            export.main([*args, *more])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_generate_takes_an_exported_model_with_its_data_or_a_run_but_not_both(
    run: Path,
    model: Path,
    small_figures: Path,
    figures_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = []
    for way in (["--run", str(run)], ["--model", str(model)]):
        args = [*way, "--data", str(small_figures), "--what", "transfer", "--rows", "2", "--columns", "2"]
        generate.main([*args, "--out", str(tmp_path / "out.npz")])
        found.append((tmp_path / "out.npz").read_bytes())
    assert found[0] == found[1]
    for options, message in (
        ([], "run has no value; give it with --run, or an exported model with --model"),
        (["--run", str(run), "--model", str(model)], "are two models; give one of them"),
        (["--model", "no-such-model"], "no-such-model: there is no such folder, and no shipped model of this name"),
        (["--model", str(model), "--data", str(figures_dataset)], "is not the data that"),
    ):
        with pytest.raises(SystemExit, match="2"):
            generate.main([*options, "--out", str(tmp_path / "x.gif")])
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_programs_of_torch_export_compute_the_same_bits(run: Path, small_figures: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export.main(["--run", str(run), "--out", str(out), "--programs"])
    frames = torch.from_numpy(clips_of(small_figures)).permute(0, 1, 4, 2, 3).float().div(255)
    encode, decode = (torch.export.load(out / f"{name}.pt2").module() for name in ("encode", "decode"))
    network = vdsm.load(run).network
    for batch in (frames, frames[:1]):
        codes = network.encode(batch)
        with torch.no_grad():
            static, pose, dynamics = encode(batch)
            decoded = decode(static, dynamics)
        assert all(map(torch.equal, (static, pose, dynamics), codes))
        assert torch.equal(decoded, network.decode(network.poses(codes.dynamics, 4), codes.static))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("stage", [1, 2])
def test_onnx_runtime_computes_the_same_to_1e_4_for_any_number_of_clips(
    stage: int, run: Path, small_figures: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    for extra in ("onnx", "onnxscript"):
        pytest.importorskip(extra, reason="pip install 'vdsm-pipeline[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'vdsm-pipeline[onnx]'")
    if stage == 1:  # poses take the place of the dynamics code
        run = tmp_path / "stage1"
        untrained_run(run, tiny_recipe, small_figures, seed=3, stage=1)
    out = tmp_path / "model"
    export.main(["--run", str(run), "--out", str(out), "--onnx"])
    encode, decode = (
        runtime.InferenceSession(str(out / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        for name in ("encode", "decode")
    )
    assert [one.name for one in decode.get_inputs()] == ["static", "moving"]
    frames = torch.from_numpy(clips_of(small_figures)).permute(0, 1, 4, 2, 3).float().div(255)
    network = vdsm.load(run).network
    for batch in (frames, frames[:3], frames[:1]):
        codes = network.encode(batch)
        found = encode.run(["static", "pose", "dynamics"], {"frames": batch.numpy()})
        for one, two in zip(found, codes, strict=True):
            np.testing.assert_allclose(one, two.numpy(), atol=1e-4, rtol=0)
        moving = codes.dynamics if stage == 2 else codes.pose
        (drawn,) = decode.run(["frames"], {"static": codes.static.numpy(), "moving": moving.numpy()})
        expected = network.decode(network.poses(moving, 4) if stage == 2 else moving, codes.static)
        np.testing.assert_allclose(drawn, expected.numpy(), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_numbers_that_differ_from_the_models_are_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(extra, reason="pip install 'vdsm-pipeline[onnx]'")
    monkeypatch.setattr(onnx_files, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="2"):
        export.main(["--run", str(run), "--out", str(tmp_path / "model"), "--onnx"])
    assert "encode.onnx: its numbers differ from the model's by" in capsys.readouterr().err
    assert not list((tmp_path / "model").iterdir())
