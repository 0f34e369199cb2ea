"""Latent exploration of codes whose parts are known, against a slow implementation written from its definition."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.errors import UserError
from pipeline import evaluate
from pipeline.evaluation.exploration import Exploration, explore, units_of
from tests.pipeline.evaluation.commands import SMALL
from tests.vdsm.evaluation.conftest import JUDGE_CONFIG
from tests.vdsm.evaluation.squares import LENGTH, PerfectModel, Squares, draw
from vdsm.evaluation.judge import Judge, dump_judge, judge_frames, parse_judge, train_judge
from vdsm.evaluation.measurement import Latents, collect_latents
from vdsm.evaluation.model import encode_clips
from vdsm.evaluation.outputs import SwapDecoder
from vdsm.evaluation.pairs import Pairs, draw_pairs
from vdsm.evaluation.progress import NO_PROGRESS

FACTORS = ("action", "colour", "side")
TRAIN, TEST = Squares("train"), Squares("test")
PAIRS = draw_pairs(TEST, 40, 0)
Slow = dict[str, float]


@pytest.fixture(scope="module")
def judge(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Judge:
    def make(folder: Path) -> None:
        (folder / "judge.pt").write_bytes(dump_judge(train_judge(TRAIN, JUDGE_CONFIG), "squares"))

    return parse_judge((made_once("judge-of-squares", make) / "judge.pt").read_bytes(), "squares")


class Rotated(PerfectModel):
    """A model with colour and side in both of the first numbers of its code, each with a share of the other."""

    def encode(self, frames: Tensor) -> "object":  # type: ignore[override]
        codes = super().encode(frames)
        colour, background, side = codes.static.unbind(1)
        return type(codes)(torch.stack((4 * side + colour, background, side), 1), codes.pose, codes.dynamics)

    def decode(self, pose: Tensor, static: Tensor) -> Tensor:
        return super().decode(pose, torch.stack((static[:, 0] % 4, static[:, 1], static[:, 2]), 1))


def latents(model: PerfectModel, clips: Squares) -> Latents:
    return collect_latents(clips, encode_clips(model, clips, LENGTH))


def found(model: PerfectModel, judge: Judge | None, groups: int = 3, pairs: Pairs = PAIRS) -> Exploration:
    train, test = latents(model, TRAIN), latents(model, TEST)
    return explore(
        train, test, clips=TEST, pairs=pairs, decoder=SwapDecoder(model, test.codes, LENGTH), judge=judge,
        groups=groups, sequence_stage=True, trees=4, seed=0, progress=NO_PROGRESS,
    )  # fmt: skip


def slow(model: PerfectModel, judge: Judge, parts: list[list[int]]) -> tuple[dict[str, list[int]], Slow]:
    """Return the parts of each factor and all values, one clip and one factor at a time, by the definitions."""
    from sklearn.ensemble import RandomForestClassifier

    def code(clips: Squares, index: int) -> list[float]:
        frames = torch.from_numpy(clips.all_frames[index])[None].permute(0, 1, 4, 2, 3).float() / 255
        codes = model.encode(frames)
        return [*codes.static[0].tolist(), *codes.dynamics[0].tolist()]

    known, unseen = ([code(clips, index) for index in range(len(clips))] for clips in (TRAIN, TEST))
    shares: dict[str, list[float]] = {}
    for name in FACTORS:
        forest = RandomForestClassifier(4, max_features=None, random_state=0).fit(known, TRAIN.labels[name])
        every = [tree.feature_importances_ for tree in forest.estimators_]
        shares[name] = [sum(tree[column] for tree in every for column in part) for part in parts]
    chosen: dict[str, list[int]] = {name: [] for name in FACTORS}
    for number in range(len(parts)):
        best = max(FACTORS, key=lambda name: shares[name][number] / sum(shares[name]))
        if shares[best][number] > 0:
            chosen[best].append(number)
    values: Slow = {}
    for name in FACTORS:
        columns = [column for number in chosen[name] for column in parts[number]]
        forest = RandomForestClassifier(4, max_features=None, random_state=0)
        forest.fit([[row[column] for column in columns] for row in known], TRAIN.labels[name])
        predicted = forest.predict([[row[column] for column in columns] for row in unseen])
        right = [guess == answer for guess, answer in zip(predicted, TEST.labels[name])]
        values[f"exploration.{name}.accuracy"] = sum(right) / len(right)
        swapped = kept = 0.0
        for a, b in zip(PAIRS.dynamics_of, PAIRS.static_of):
            mixed = torch.tensor([unseen[b][column] if column in columns else unseen[a][column] for column in range(4)])
            seen = judge_frames(judge, model.decode(mixed[None, 3:, None].expand(1, LENGTH, 1), mixed[None, :3])).values
            swapped += seen[name][0] == TEST.labels[name][b]
            kept += sum(seen[other][0] == TEST.labels[other][a] for other in FACTORS if other != name) / 2
        values[f"exploration.{name}.swapped"] = swapped / len(PAIRS)
        values[f"exploration.{name}.kept"] = kept / len(PAIRS)
    return chosen, values


WRONG = PerfectModel(TRAIN, TEST, render=lambda person, action: draw((person[0] + action) % 4, *person[1:], action))
"""Its colour depends on the action, too."""


@pytest.mark.parametrize("model", [PerfectModel(TRAIN, TEST), WRONG, Rotated(TRAIN, TEST)], ids=["perfect", "wrong",
                         "rotated"])  # fmt: skip
def test_it_is_what_a_slow_implementation_finds(model: PerfectModel, judge: Judge) -> None:
    fast = found(model, judge)
    chosen, values = slow(model, judge, [[0], [1], [2], [3]])
    assert fast.chosen == chosen
    assert {name: score.value for name, score in fast.scores.items()} == pytest.approx(values)
    assert {round(float(row.sum()), 9) for row in fast.importances.values()} == {1.0}


def test_each_factor_of_a_perfect_model_is_in_its_part_and_swapped_alone(judge: Judge) -> None:
    fast = found(PerfectModel(TRAIN, TEST), judge)
    assert fast.plain()["chosen"] == {"action": ["dynamics 1"], "colour": ["static 1"], "side": ["static 3"]}
    assert {name: score.value for name, score in fast.scores.items() if not name.endswith("accuracy")} == {
        f"exploration.{name}.{kind}": 1.0 for name in FACTORS for kind in ("swapped", "kept")
    }
    assert all(0 < (score.chance or 0) < 0.6 for name, score in fast.scores.items() if not name.endswith("accuracy"))


def test_a_static_code_of_one_group_is_swapped_as_a_whole(judge: Judge) -> None:
    fast = found(PerfectModel(TRAIN, TEST), judge, groups=1)
    assert [unit.columns for unit in units_of(3, 1, 1)] == [(0, 1, 2), (3,)]
    assert sorted(unit for units in fast.chosen.values() for unit in units) == [0, 1]
    owner = next(name for name in ("colour", "side") if fast.chosen[name])
    other = "side" if owner == "colour" else "colour"
    assert fast.scores[f"exploration.{owner}.swapped"].value == 1
    assert fast.scores[f"exploration.{owner}.kept"].value < 0.9  # the other attribute goes with it
    same = np.mean(TEST.labels[other][PAIRS.dynamics_of] == TEST.labels[other][PAIRS.static_of])
    assert fast.scores[f"exploration.{other}.swapped"].value == pytest.approx(same)  # it has no part: nothing changes


def test_without_a_judge_only_the_map_is_measured() -> None:
    scores = found(PerfectModel(TRAIN, TEST), None).scores
    assert set(scores) == {f"exploration.{name}.accuracy" for name in FACTORS}


def test_a_single_factor_is_refused() -> None:
    only = latents(PerfectModel(TRAIN, TEST), TEST)
    alone = Latents(only.codes, {"side": only.labels["side"]}, {"side": ["a", "b", "c"]}, {}, {}, only.identities)
    with pytest.raises(UserError, match="have 1 labels with several values, and an exploration needs 2; set it to 0"):
        explore(
            alone, alone, clips=TEST, pairs=PAIRS, decoder=SwapDecoder(PerfectModel(TEST), only.codes, LENGTH),
            judge=None, groups=3, sequence_stage=True, trees=4, seed=0, progress=NO_PROGRESS,
        )  # fmt: skip


@pytest.mark.long
def test_the_command_adds_it_to_metrics_and_report(run: Path, small_figures: Path, tmp_path: Path) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out", str(tmp_path), *SMALL]
    evaluate.main([*args, "--evaluation.exploration-trees", "3"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    names = set(metrics["vocabulary"])
    assert {name for name in metrics["figures"] if name.startswith("exploration.")} == {
        f"exploration.{name}.{kind}" for name in names for kind in ("accuracy", "swapped", "kept")
    }
    assert set(metrics["exploration"]["chosen"]) == names
    assert len(metrics["exploration"]["importances"]["action"]) == len(metrics["exploration"]["units"])
    page = (tmp_path / "report.html").read_text()
    assert re.search(r"<h3[^>]*>Exploration: parts of the codes by factor</h3>", page)
    assert '<th scope="row">static 1</th>' in page
