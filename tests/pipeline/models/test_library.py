"""The public Python API: what loads, what it takes and returns, and that it computes what `vdsm generate` does."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

import vdsm
import vdsm.data
from pipeline import generate
from preprocessing.dataset.reader import ClipDataset
from vdsm import companions, loading
from vdsm.checkpoint import load_disentangler
from vdsm.model import Model

Frames = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model(exported: Path) -> Model:
    return vdsm.load(exported)


@pytest.fixture(scope="module")
def clips(small_figures: Path) -> Frames:
    """Return five clips of as many frames as the model takes: uint8 [5, 4, 32, 32, 3]."""
    test = ClipDataset(str(small_figures), "test")
    return np.stack([test.frames(index)[:4] for index in range(5)])


def as_floats(clips: Frames) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(clips.astype(np.float32) / np.float32(255), -1, 2).copy())


def as_bytes(frames: torch.Tensor) -> Frames:
    found: Frames = np.rint(np.moveaxis(frames.numpy(), 2, -1) * 255).astype(np.uint8)
    return found


def equal_frames(first: Frames, second: Frames) -> bool:
    """Return whether clips are equal, up to one step of a pixel that lies at the border between two."""
    difference = np.abs(first.astype(int) - second.astype(int))
    return first.shape == second.shape and difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_codes_and_clips_are_those_of_the_network(model: Model, run: Path, clips: Frames) -> None:
    network, frames = load_disentangler(run / "stage2.pt"), as_floats(clips)
    expected = network.encode(frames)
    for name in ("static", "pose", "dynamics"):
        torch.testing.assert_close(getattr(model.encode(clips), name), getattr(expected, name))
    assert equal_frames(model.reconstruct(clips), as_bytes(network.reconstruct(frames)))
    swapped = network.swap(dynamics_of=frames[:2], static_of=frames[2:4])
    assert equal_frames(model.swap(clips[2:4], clips[:2]), as_bytes(swapped))
    assert equal_frames(model.rollout(clips[:2], 9), as_bytes(network.rollout(frames[:2], 9)))
    generator = torch.Generator().manual_seed(7)
    assert equal_frames(model.sample(3, seed=7), as_bytes(network.sample_prior(3, 4, generator)))
    codes = model.encode(clips)
    assert equal_frames(model.decode(codes.static[2:4], codes.dynamics[:2]), as_bytes(swapped))


def test_a_single_clip_gives_a_single_clip_and_is_combined_with_each_of_several(model: Model, clips: Frames) -> None:
    one = model.swap(static_of=clips[0], dynamics_of=clips[1])
    assert (one.shape, one.dtype) == ((4, 32, 32, 3), np.uint8)
    assert model.swap(clips[0], clips[1], frames=6).shape == (6, 32, 32, 3)
    grid = model.swap(static_of=clips[0], dynamics_of=clips[1:4])
    assert grid.shape == (3, 4, 32, 32, 3)
    assert equal_frames(grid[0], one)
    assert [tuple(code.shape) for code in model.encode(clips[0])] == [(4,), (4, 4), (5,)]
    assert [tuple(code.shape) for code in model.encode(clips[:2])] == [(2, 4), (2, 4, 4), (2, 5)]
    assert model.rollout(clips[0], 10).shape == (10, 32, 32, 3)
    assert model.sample(2, frames=7).shape == (2, 7, 32, 32, 3)
    assert model.decode(*model.encode(clips[0])[::2]).shape == (4, 32, 32, 3)


def test_arrays_tensors_and_files_are_read_alike(model: Model, clips: Frames, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", clips[0])
    np.savez(tmp_path / "all.npz", frames=clips)
    (tmp_path / "images").mkdir()
    for number, frame in enumerate(clips[0]):
        Image.fromarray(frame).save(tmp_path / "images" / f"{number}.png")
    expected = model.encode(clips[0]).static
    for given in (
        torch.from_numpy(clips[0]),
        tmp_path / "one.npy",
        str(tmp_path / "images"),
        clips[0][:, :, ::-1][:, :, ::-1],
    ):
        assert torch.equal(model.encode(given).static, expected)
    assert model.encode(tmp_path / "all.npz").static.shape == (5, 4)
    assert model.encode([tmp_path / "one.npy", tmp_path / "images"]).static.shape == (2, 4)
    longer = np.concatenate([clips[0], clips[1]])
    assert torch.equal(model.encode(longer).static, expected)


def test_a_video_and_a_still_picture_of_another_size_are_fitted(model: Model, clips: Frames, tmp_path: Path) -> None:
    video = np.concatenate([clips[0], clips[1]]).repeat(2, axis=1).repeat(4, axis=2)
    imageio.imwrite(tmp_path / "a.mp4", video, plugin="pyav", codec="libx264", fps=25, out_pixel_format="yuv420p")
    Image.fromarray(clips[1][0].repeat(3, axis=0).repeat(3, axis=1)).save(tmp_path / "who.png")
    model = Model(model.network, model.facts)
    at_12_fps = model.encode(tmp_path / "a.mp4").dynamics
    model.fps = None
    assert not torch.equal(model.encode(tmp_path / "a.mp4").dynamics, at_12_fps)
    assert model.swap(tmp_path / "who.png", tmp_path / "a.mp4").shape == (4, 32, 32, 3)
    with pytest.raises(ValueError, match=r"who\.png: is a still picture, which shows no action"):
        model.swap(static_of=clips[0], dynamics_of=tmp_path / "who.png")


def test_a_swap_is_that_of_vdsm_generate(run: Path, exported: Path, clips: Frames, tmp_path: Path) -> None:
    np.savez(tmp_path / "who.npz", frames=clips[:2])
    np.savez(tmp_path / "how.npz", frames=clips[2:5])
    donors = ["--static-of", str(tmp_path / "who.npz"), "--dynamics-of", str(tmp_path / "how.npz")]
    found = []
    for way in (["--run", str(run)], ["--model", str(exported)]):
        generate.main([*way, *donors, "--out", str(tmp_path / "out.npz")])
        found.append(np.load(tmp_path / "out.npz")["frames"])
    assert np.array_equal(*found)
    for number, action in enumerate(clips[2:5]):
        mine = vdsm.load(run).swap(static_of=tmp_path / "who.npz", dynamics_of=action)
        assert equal_frames(mine, found[0][2 * number : 2 * number + 2])


def test_a_run_and_its_exported_model_give_the_same_bits(run: Path, exported: Path, clips: Frames) -> None:
    first, second = vdsm.load(run), vdsm.load(str(exported))
    assert np.array_equal(first.swap(clips[:3], clips[2:5]), second.swap(clips[:3], clips[2:5]))
    assert np.array_equal(first.sample(2, seed=1), second.sample(2, seed=1))
    for one, two in zip(first.encode(clips), second.encode(clips), strict=True):
        assert torch.equal(one, two)


@pytest.mark.slow
def test_runs_and_exported_models_load_from_s3(run: Path, exported: Path, s3_bucket: str, clips: Frames) -> None:
    from cluster.storage import api as storage

    for folder in (run, exported):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            storage.upload(path, f"{s3_bucket}/{folder.name}/{path.relative_to(folder)}")
    expected = vdsm.load(exported).swap(clips[0], clips[1])
    for folder in (run, exported):
        assert np.array_equal(vdsm.load(f"{s3_bucket}/{folder.name}").swap(clips[0], clips[1]), expected)


def test_a_shipped_model_loads_by_its_name_unless_a_folder_has_it(
    exported: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "SHIPPED", exported.parent)
    monkeypatch.chdir(tmp_path)
    assert loading.shipped() == ("figures",)
    assert vdsm.load("figures").facts.fps == 12.5
    shutil.copytree(run, tmp_path / "figures")
    assert vdsm.load("figures").facts.fps is None
    with pytest.raises(ValueError, match=r"^figurs: there is no such folder, .* \(shipped: figures\)$"):
        vdsm.load("figurs")


def test_an_invalid_input_is_reported_in_one_line(model: Model, clips: Frames, exported: Path, tmp_path: Path) -> None:
    for given, message in (
        (clips.astype(np.float32), r"clips is float32 \[5, 4, 32, 32, 3\]; it must be uint8 \[T, 32, 32, 3\] or \[B"),
        (clips[0][:2], "clips has 2 frames; the model needs 4, give longer clips"),
        (clips[:, :, :16], r"clips is uint8 \[5, 4, 16, 32, 3\]"),
        (tmp_path / "none.mp4", "none.mp4: there is no such file"),
        ([], "clips holds no clip"),
    ):
        with pytest.raises(ValueError, match=message) as failure:
            model.encode(given)  # type: ignore[arg-type]
        assert "\n" not in str(failure.value)
    with pytest.raises(ValueError, match="there are 2 and 3 clips in static_of and dynamics_of; give equal numbers"):
        model.swap(clips[:2], clips[:3])
    with pytest.raises(ValueError, match="frames is 0; it must be at least 1"):
        model.rollout(clips, 0)
    with pytest.raises(ValueError, match=r"^device is cuda:99: "):
        vdsm.load(exported, device="cuda:99")
    with pytest.raises(ValueError, match="there is no run here"):
        vdsm.load(tmp_path)


def test_a_model_without_a_sequence_stage_swaps_poses_and_says_what_it_cannot(run: Path, clips: Frames) -> None:
    loaded = vdsm.load(run)
    model = Model(loaded.network, type(loaded.facts)(clip_frames=4, sequence_stage=False))
    codes = model.encode(clips)
    expected = loaded.network.decode(codes.pose[2:4], codes.static[:2])
    assert equal_frames(model.swap(clips[:2], clips[2:4]), as_bytes(expected))
    for call in (lambda: model.sample(1), lambda: model.rollout(clips, 9), lambda: model.swap(clips, clips, frames=9)):
        with pytest.raises(ValueError, match="needs the sequence stage, which this model lacks; train it further"):
            call()


def test_loading_leaves_the_random_numbers_of_the_caller(exported: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    vdsm.load(exported).sample(1)
    assert torch.equal(torch.rand(4), expected)


def test_a_dataset_is_a_torch_dataset(small_figures: Path) -> None:
    data = vdsm.data.load(small_figures, "test", frames=4)
    reader = ClipDataset(str(small_figures), "test")
    assert len(data) == len(reader)
    batch: dict[str, Any] = next(iter(DataLoader(data, batch_size=3, num_workers=0)))
    assert torch.equal(batch["frames"][2], torch.from_numpy(reader.frames(2)[:4]))
    assert batch["labels"]["action"].tolist() == reader.labels["action"][:3].tolist()
    assert batch["key"] == reader.keys[:3]
    with pytest.raises(ValueError, match="frames is 99; it must be from 1 to"):
        vdsm.data.load(small_figures, frames=99)
    with pytest.raises(ValueError, match="has no split valid"):
        vdsm.data.load(small_figures, "valid")
    with pytest.raises(IndexError):
        data[len(data)]


@pytest.mark.slow
def test_the_library_needs_no_ray(exported: Path, run: Path, small_figures: Path, tmp_path: Path, root: Path) -> None:
    code = f"""
import sys
sys.modules["ray"] = None  # importing it fails, as where it is not installed
import vdsm, vdsm.data
data = vdsm.data.load({str(small_figures)!r}, frames=4)
for path in ({str(exported)!r}, {str(run)!r}):
    model = vdsm.load(path)
    model.swap(data[0]["frames"], data[1]["frames"])
    model.sample(1)
assert sys.modules["ray"] is None and not any(name.startswith("ray.") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_machine_without_the_other_packages_loads_exported_models(exported: Path, run: Path, root: Path) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["pipeline", "preprocessing", "cluster", "pydantic", "boto3", "ray"]))
import vdsm
print(vdsm.load({str(exported)!r}).sample(1).shape)
try:
    vdsm.load({str(run)!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "(1, 4, 32, 32, 3)",
        f"{run}: reading it needs pipeline, which is not installed; install vdsm-pipeline",
    ], done.stderr


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(companions, "READER", "huggingface_hub.no_such_module")
    with pytest.raises(ValueError, match=r"^x: reading it needs huggingface_hub, which is not installed; install "):
        companions.reader("x")


@pytest.mark.slow
def test_the_examples_of_the_documentation_run(
    root: Path,
    exported: Path,
    run: Path,
    small_figures: Path,
    clips: Frames,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "SHIPPED", exported.parent)
    shutil.copytree(run, tmp_path / "runs" / "figures")
    shutil.copytree(exported, tmp_path / "model")
    (tmp_path / "data").symlink_to(small_figures)
    for name, clip in (("who.mp4", clips[0]), ("how.mp4", clips[1])):
        video = np.concatenate([clip] * 8).repeat(2, axis=1).repeat(2, axis=2)
        imageio.imwrite(tmp_path / name, video, plugin="pyav", codec="libx264", fps=25, out_pixel_format="yuv420p")
    examples = re.findall(
        r"^```python\n(.*?)^```", (root / "docs" / "library.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(examples) >= 4
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/library.md", "exec"), names)
    assert (tmp_path / "swap.mp4").stat().st_size > 500
