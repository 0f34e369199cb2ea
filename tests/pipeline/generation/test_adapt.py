"""`vdsm adapt`: a run of its own that shows one person, the same every time, and nothing else replaced."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from cluster.storage import api as storage
from pipeline import adapt as adapt_module
from pipeline import generate as generate_module
from pipeline.evaluation.inputs import load
from pipeline.generation import adapted_run
from pipeline.generation.adaptation_request import AdaptationRequest
from pipeline.recipe import Recipe
from pipeline.runs.store import load_run
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.untrained_report import untrained_run
from vdsm.checkpoint import load_disentangler
from vdsm.evaluation.progress import NO_PROGRESS

STEPS = ["--static-steps", "2", "--decoder-steps", "3"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, small_figures: Path) -> Path:
    path = tmp_path_factory.mktemp("mine") / "me.mp4"
    frames = ClipDataset(str(small_figures), "test").frames(1).repeat(2, 1).repeat(2, 2)
    imageio.imwrite(path, frames, plugin="pyav", codec="libx264", fps=12, out_pixel_format="yuv420p")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_an_adapted_run_transfers_actions_onto_the_person(
    run: Path, video: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "me"
    before = contents(run)
    adapt_module.main(["--run", str(run), "--videos", str(video), "--out", str(out), *STEPS])
    assert contents(run) == before
    printed = capsys.readouterr().out
    assert "adapting" in printed
    assert "dB before" in printed
    description = json.loads((out / "adapted.json").read_text())
    assert description["clips"] == [str(video)]
    assert description["frames"] == 8, "the entire video"
    assert set(description["psnr_db"]) == {"before", "after"}
    assert imageio.imread(out / "adapted.gif").ndim == 4

    def transfer(static_of: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        keys = ClipDataset(str(small_figures), "test").keys
        path = tmp_path / f"{static_of}.npz"
        generate_module.main(
            ["--run", str(out), "--data", str(small_figures), "--what", "transfer", "--out", str(path)]
            + ["--dynamics-of", keys[2], "--static-of", keys[static_of]]
        )  # fmt: skip
        with np.load(path) as arrays:
            frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = arrays["frames"]
            return frames

    assert np.array_equal(transfer(0), transfer(5)), "an adapted model shows one person"


def test_a_rerun_writes_the_same_model_and_a_trained_run_is_never_replaced(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--run", str(run), "--videos", str(video), *STEPS, "--out"]
    adapt_module.main([*args, str(tmp_path / "a")])
    adapt_module.main([*args, str(tmp_path / "a")])
    adapt_module.main([*args, str(tmp_path / "b")])
    first, second = (load_disentangler(tmp_path / name / "stage2.pt").state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "a" / "adapted.gif").read_bytes() == (tmp_path / "b" / "adapted.gif").read_bytes()
    before = contents(run)
    with pytest.raises(SystemExit):
        adapt_module.main([*args, str(run)])
    assert "holds a run that `vdsm train` wrote" in capsys.readouterr().err
    assert contents(run) == before


def test_nothing_is_left_of_an_adaptation_of_a_run_with_more_stages(
    run: Path, video: Path, tmp_path: Path, tiny_recipe: Recipe, small_figures: Path
) -> None:
    out, first = tmp_path / "a", tmp_path / "one"
    untrained_run(first, tiny_recipe, small_figures, seed=1, stage=1)
    for source in (run, first):
        adapt_module.main(["--run", str(source), "--videos", str(video), *STEPS, "--out", str(out)])
    assert [name for name in contents(out) if name.endswith(".pt")] == ["stage1.pt"]
    assert load_run(str(out))[2]["stage"] == 1


def test_a_run_that_deletes_the_checkpoint_meanwhile_does_not_matter(run: Path, video: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "going")
    request = AdaptationRequest(
        run=str(tmp_path / "going"), videos=[str(video)], out=str(tmp_path / "a"), static_steps=1, decoder_steps=1
    )
    work = adapted_run.prepare(request)
    for path in (tmp_path / "going").rglob("*.pt"):
        path.unlink()
    work.execute(NO_PROGRESS)
    assert load_run(str(tmp_path / "a"))[2]["stage"] == 2


def test_neither_refinement_nor_the_published_priors_take_the_person_from_an_adapted_model(
    run: Path, video: Path, small_figures: Path, tmp_path: Path
) -> None:
    adapt_module.main(["--run", str(run), "--videos", str(video), *STEPS, "--out", str(tmp_path / "me")])
    frames = torch.rand(2, 8, 3, 32, 32)
    plain = load(str(tmp_path / "me"), str(small_figures)).model
    code = plain.encode(frames).static[0]
    other = load(str(tmp_path / "me"), str(small_figures), refinement_steps=3, prior="published").model
    assert torch.equal(other.encode(frames).static, code.expand(2, -1))
    sampled = other.sample_static(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(sampled, code.expand(3, -1), atol=1e-4, rtol=0)
    assert load(str(run), str(small_figures), refinement_steps=3, prior="published").model.refinement_steps == 3


@pytest.mark.parametrize("kept", range(6))
def test_an_adaptation_that_was_killed_between_its_files_is_no_run_and_can_be_rerun(
    run: Path,
    video: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
) -> None:
    args = ["--run", str(run), "--videos", str(video), "--static-steps", "1", "--decoder-steps", "1", "--out"]
    out, left = tmp_path / "a", kept

    def killed(write: Callable[..., None]) -> Callable[..., None]:
        def written(*given: Any) -> None:
            nonlocal left
            if str(out) in str(given) and ".write-test-" not in str(given):
                if not left:
                    raise KeyboardInterrupt
                left -= 1
            write(*given)

        return written

    adapt_module.main([*args, str(out)])  # an earlier one, which is replaced
    with monkeypatch.context() as patch:
        for name in ("write_bytes", "upload", "delete"):
            patch.setattr(f"cluster.storage.api.{name}", killed(getattr(storage, name)))
        with pytest.raises(SystemExit):
            adapt_module.main([*args, str(out)])
    assert (out / "run.json").exists() == (kept == 0)
    adapt_module.main([*args, str(out)])
    assert {"run.json", "config.yaml", "stage2.pt", "adapted.json", "adapted.gif"} <= set(contents(out))


def test_a_picture_and_the_clips_of_an_identity_can_be_adapted_to(
    run: Path, video: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ClipDataset(str(small_figures), "test")
    picture = tmp_path / "me.png"
    imageio.imwrite(picture, test.frames(0)[0])
    name = test.identities[0]
    adapt_module.main(
        ["--run", str(run), "--data", str(small_figures), "--identity", name, "--videos", str(picture)]
        + ["--out", str(tmp_path / "me"), *STEPS]
    )  # fmt: skip
    description = json.loads((tmp_path / "me" / "adapted.json").read_text())
    own = [key for key, identity in zip(test.keys, test.identities, strict=True) if identity == name]
    assert description["clips"] == [str(picture), *own]
    assert description["frames"] == 1 + sum(len(test.frames(test.keys.index(key))) for key in own)
    assert f"{1 + len(own)} clips" in capsys.readouterr().out


def test_data_alone_means_all_of_its_clips(
    run: Path, small_figures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = sum(len(ClipDataset(str(small_figures), split)) for split in ("train", "test"))
    args = ["--run", str(run), "--data", str(small_figures), "--max-frames", "10", "--out", str(tmp_path / "all")]
    adapt_module.main([*args, "--dry-run"])
    assert f"to {everything} clips, 10 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no clips to adapt to; give --videos or --data"),
        (["--identity", "anna"], "--identity anna names clips of a dataset; give --data"),
        (["--data", "DATA", "--identity", "nobody"], "has no clip of the identity nobody; it has "),
        (["--videos", "missing.mp4"], "missing.mp4: there is no such file"),
    ],
)
def test_what_cannot_be_adapted_to_is_one_line_before_any_work(
    run: Path,
    small_figures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    given = [str(small_figures) if option == "DATA" else option for option in options]
    with pytest.raises(SystemExit):
        adapt_module.main(["--run", str(run), "--out", str(tmp_path / "me"), *given])
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "me").exists()


def test_an_adapted_run_is_not_adapted_again_and_a_dry_run_writes_nothing(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--videos", str(video), *STEPS]
    adapt_module.main(["--run", str(run), *args, "--out", str(tmp_path / "b"), "--dry-run"])
    assert not (tmp_path / "b").exists()
    assert "would write" in capsys.readouterr().out
    adapt_module.main(["--run", str(run), *args, "--out", str(tmp_path / "a")])
    with pytest.raises(SystemExit):
        adapt_module.main(["--run", str(tmp_path / "a"), *args, "--out", str(tmp_path / "b")])
    assert "is adapted to a person already" in capsys.readouterr().err
