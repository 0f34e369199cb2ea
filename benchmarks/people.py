"""How well actions are transferred onto a person who is in no training clip, with and without `vdsm adapt`.

    python benchmarks/people.py --people DATA/people --recipe configs/videos.yaml --out FOLDER --held person2 --json

Leaves one person out: shards all recordings with that person as the test split, trains on the others as the recipe says
(in one process of one thread; from the weights in `training.start_from`, if there are any), and adapts the model to
each single recording of the person. A judge that has learned the action and the identity of real clips of everybody,
the person left out included, then judges transfers:

    onto        actions of people of the training onto the person left out: the static code is of one recording, of
                whatever action; of `vdsm adapt`, of the recording that the model was adapted to
    from        actions of the person left out onto people of the training

`action` and `identity` are the shares of transfers whose action, and whose person, are judged right. `codes` says where
the poses come from: the `dynamics` code, as in a swap, or the `poses` of the frames. PSNR is in dB, of clips decoded
from their own codes, on the pixels that move and on all; `first frame` repeats the first frame instead.

With `--prepare`, `vdsm prepare` finds and crops the people first, as in the frames that `people_in_frames.py` makes.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import imageio.v3 as imageio
import numpy as np
import torch
from one_process import Printer, recipe_of
from torch import Tensor

from pipeline.recipe import Recipe
from pipeline.runs.pairs import run_pairs
from pipeline.runs.start import new_start
from pipeline.training.job import Job
from pipeline.training.loop import train_run
from preprocessing.dataset.reader import ClipDataset
from vdsm import adaptation
from vdsm.disentangler import Disentangler
from vdsm.evaluation.judge import Judge, JudgeConfig, dump_judge, judge_frames, parse_judge, train_judge
from vdsm.pixels import to_float

FRAMES = 16
MOVES = 0.15
"""Range over a clip, for values in [0, 1], above which a pixel counts as moving."""


class Recordings:
    """All clips of all people, for the judge."""

    def __init__(self, datasets: list[ClipDataset]) -> None:
        self._clips = [(data, index) for data in datasets for index in range(len(data))]
        self.keys = [data.keys[index] for data, index in self._clips]
        self.identities = [data.identities[index] for data, index in self._clips]
        self.vocabulary = {"action": datasets[0].vocabulary["action"], "person": sorted(set(self.identities))}
        self.labels = {
            "action": np.array([data.labels["action"][index] for data, index in self._clips]),
            "person": np.array([self.vocabulary["person"].index(name) for name in self.identities]),
        }
        self.clip_frames = np.array([data.clip_frames[index] for data, index in self._clips])
        self.videos = [data.sources[index] for data, index in self._clips]

    def __len__(self) -> int:
        return len(self._clips)

    def frames(self, index: int) -> Any:
        """Return the frames of one clip: uint8 [T, H, W, C]."""
        data, row = self._clips[index]
        return data.frames(row)

    def tensor(self, indices: Any) -> Tensor:
        """Return some clips: f32 [B, T, C, H, W] in [0, 1]."""
        frames = torch.from_numpy(np.stack([self.frames(int(index))[:FRAMES] for index in indices]))
        return to_float(frames)


def make_dataset(people: Path, held: str, recipe: Path, folder: Path, is_prepared: bool) -> Path:
    """Shard the recordings with one person as the test split; return the folder of the dataset."""
    from preprocessing.prepare import main as prepare
    from preprocessing.shard import main as shard

    data = folder / "data"
    if not (data / "manifest.json").exists():
        source = folder / "source"
        for person in sorted(path for path in people.iterdir() if path.is_dir()):
            split = source / ("test" if person.name == held else "train")
            split.mkdir(parents=True, exist_ok=True)
            if not (split / person.name).exists():
                (split / person.name).symlink_to(person.resolve())
        labels = ["--source.videos.labels.folders", "split", "identity", "action"]
        given = ["--config", str(recipe), "--source.path", str(source)]
        if is_prepared:
            prepare([*given, *labels, "--out", str(folder / "prepared")])
            labels = ["--source.videos.labels.sidecar", str(folder / "prepared" / "sidecar.csv")]
        shard([*given, *labels, "--out", str(data)])
    return data


def train(recipe: Recipe, data: Path, folder: Path) -> tuple[Disentangler, float]:
    """Train as the recipe says; return the model and the seconds that it took."""
    path = folder / "model.pt"
    clips = ClipDataset(str(data), "train")
    reporter = Printer()
    if not path.exists():
        start = new_start(recipe, None)
        job = Job(
            model=recipe.model, training=recipe.training, seed=recipe.seed, clips=clips,
            pairs=run_pairs(recipe.training, clips), start_weights=(lambda: start.weights) if start else None,
        )  # fmt: skip
        train_run(job, reporter)
        torch.save({"weights": reporter.weights, "seconds": time.monotonic() - reporter.began}, path)
    stored = torch.load(path, weights_only=True)
    model = Disentangler(recipe.model)
    model.load_state_dict(stored["weights"])
    return model.eval(), stored["seconds"]


def psnr(decoded: Tensor, real: Tensor, mask: Tensor | None = None) -> float:
    """Return the PSNR in dB, of the pixels in `mask` if there is one."""
    error = (decoded - real).square()
    if mask is None:
        return float(-10 * error.mean().log10())
    weight = mask.expand_as(error)
    return float(-10 * ((error * weight).sum() / weight.sum()).log10())


def moving(clips: Tensor) -> Tensor:
    """Return which pixels of clips [B, T, C, H, W] move: [B, 1, 1, H, W]."""
    return ((clips.amax(1) - clips.amin(1)).amax(1) > MOVES).float()[:, None, None]


class Judged:
    """Transfers between one person and the others, judged."""

    def __init__(self, judge: Judge, clips: Recordings, held: str) -> None:
        self.judge, self.clips = judge, clips
        generator = np.random.default_rng(0)
        own = np.array([name == held for name in clips.identities])
        self.person = clips.vocabulary["person"].index(held)
        self.own, self.others = (self._some(np.flatnonzero(rows), generator) for rows in (own, ~own))

    def _some(self, rows: Any, generator: np.random.Generator) -> Any:
        """Choose up to two clips of each recording."""
        videos = np.array(self.clips.videos)[rows]
        return np.sort(np.concatenate([generator.permutation(rows[videos == name])[:2] for name in np.unique(videos)]))

    @torch.no_grad()
    def transfers(self, model: Disentangler, static_of: Any, dynamics_of: Any, by: str) -> tuple[Any, Any]:
        """Return which transfers have the right action, and the right person: bool [S, D]."""
        codes = model.encode(self.clips.tensor(dynamics_of))
        poses = codes.pose if by == "poses" else model.poses(codes.dynamics, FRAMES)
        static = model.encode(self.clips.tensor(static_of)).static
        action, person = [], []
        for row, code in zip(static_of, static, strict=True):
            seen = judge_frames(self.judge, model.decode(poses, code.expand(len(poses), -1))).values
            action.append(seen["action"] == self.clips.labels["action"][dynamics_of])
            person.append(seen["person"] == self.clips.labels["person"][row])
        return np.array(action), np.array(person)

    def scores(self, model: Disentangler, static_of: Any, dynamics_of: Any) -> dict[str, dict[str, float]]:
        """Return the shares of right actions and people."""
        found = {}
        for by in ("dynamics", "poses"):
            action, person = self.transfers(model, static_of, dynamics_of, by)
            found[by] = {
                "action": float(action.mean()),
                "identity": float(person.mean()),
                "both": float((action & person).mean()),
            }
        return found

    @torch.no_grad()
    def reconstruction(self, model: Disentangler, rows: Any) -> dict[str, float]:
        """Return the PSNR of clips decoded from their own codes."""
        real = self.clips.tensor(rows)
        codes = model.encode(real)
        by_poses, mask = model.decode(codes.pose, codes.static), moving(real)
        by_code = model.decode(model.poses(codes.dynamics, FRAMES), codes.static)
        first = real[:, :1].expand_as(real)
        kinds = {"poses": by_poses, "dynamics": by_code, "first frame": first}
        masks = {"all": None, "moving": mask}
        return {f"{name}, {m}": psnr(clip, real, masks[m]) for name, clip in kinds.items() for m in masks}


def picture(model: Disentangler, judged: Judged, static_of: int) -> Tensor:
    """Return one row: transfers of one clip of each action, four frames each, [C, H, W]."""
    labels = judged.clips.labels["action"][judged.others]
    donors = [judged.others[np.flatnonzero(labels == value)[1]] for value in np.unique(labels)]
    swapped = model.swap(
        dynamics_of=judged.clips.tensor(donors),
        static_of=judged.clips.tensor([static_of]).expand(len(donors), -1, -1, -1, -1),
    )
    times = (0, 4, 8, 12)
    top = torch.cat([judged.clips.tensor([donor])[0, t] for donor in donors for t in times], 2)
    return torch.cat([top, torch.cat([clip[t] for clip in swapped for t in times], 2)], 1)


def leave_out(
    held: str, people: Path, recipe_path: Path, out: Path, judge_steps: int, is_prepared: bool
) -> dict[str, Any]:
    """Train without one person; return what was measured."""
    folder = out / held
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipe_of(recipe_path)
    data = make_dataset(people, held, recipe_path, folder, is_prepared)
    model, seconds = train(recipe, data, folder)
    clips = Recordings([ClipDataset(str(data), "train"), ClipDataset(str(data), "test")])
    stored = out / "judge.pt"
    if not stored.exists():
        config = JudgeConfig(steps=judge_steps, clip_frames=FRAMES, batch_clips=32, shift=4)
        stored.write_bytes(dump_judge(train_judge(clips, config), "people"))
    judge = parse_judge(stored.read_bytes(), "people")
    judged = Judged(judge, clips, held)
    real = judge_frames(judge, clips.tensor(np.concatenate([judged.own, judged.others]))).values
    rows = np.concatenate([judged.own, judged.others])
    found: dict[str, Any] = {
        "held": held, "training_s": seconds,
        "judge, real clips": {n: float((real[n] == clips.labels[n][rows]).mean()) for n in ("action", "person")},
        "onto": judged.scores(model, judged.own, judged.others),
        "from": judged.scores(model, judged.others, judged.own),
        "psnr": judged.reconstruction(model, judged.own),
        "psnr, training": judged.reconstruction(model, judged.others),
        "adapted": {},
    }  # fmt: skip
    images = [picture(model, judged, judged.own[0])]
    videos = np.array(clips.videos)
    for video in np.unique(videos[judged.own]):
        own = judged.own[videos[judged.own] == video]
        began = time.monotonic()
        frames = clips.tensor(np.flatnonzero(videos == video)).flatten(0, 1)
        fitted = adaptation.fit(model, frames, adaptation.AdaptationConfig())
        adapted = Disentangler(recipe.model)
        adapted.load_state_dict(model.state_dict())
        adaptation.apply(adapted.eval(), fitted)
        rest = judged.own[videos[judged.own] != video]
        name = clips.vocabulary["action"][clips.labels["action"][own[0]]]
        found["adapted"][name] = {
            "seconds": time.monotonic() - began,
            "onto": judged.scores(adapted, own[:1], judged.others),
            "psnr, other recordings": judged.reconstruction(adapted, rest),
        }
        images.append(picture(adapted, judged, own[0])[:, 64:])
    image = torch.cat(images, 1).permute(1, 2, 0).clamp(0, 1).mul(255).byte().numpy()
    imageio.imwrite(folder / "transfers.png", image)
    (folder / "scores.json").write_text(json.dumps(found, indent=1))
    return found


def main() -> None:
    """Run and print the measurement."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--people", type=Path, required=True, help="folder PERSON/ACTION/*.mp4")
    command.add_argument("--recipe", type=Path, required=True, help="recipe of the source and the training")
    command.add_argument(
        "--out", type=Path, required=True, help="folder for datasets, models and scores; a rerun resumes"
    )
    command.add_argument("--held", nargs="*", help="people to leave out, one after the other; by default everybody")
    command.add_argument("--judge-steps", type=int, default=400, help="steps of the judge")
    command.add_argument("--prepare", action="store_true", help="run `vdsm prepare` before `vdsm shard`")
    command.add_argument("--json", action="store_true", help="print JSON")
    args = command.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    everybody = sorted(path.name for path in args.people.iterdir() if path.is_dir())
    results = [
        leave_out(held, args.people, args.recipe, args.out, args.judge_steps, args.prepare)
        for held in args.held or everybody
    ]
    print(json.dumps(results, indent=1 if not args.json else None))


if __name__ == "__main__":
    main()
