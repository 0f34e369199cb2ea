"""`vdsm evaluate` on an untrained run: what it writes, and that it is reproducible."""

import datetime
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import evaluate as evaluate_module
from pipeline.recipe import Recipe
from pipeline.report.table import text_table
from pipeline.runs.store import data_hash
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.evaluation import commands
from tests.pipeline.untrained_report import untrained_run
from vdsm import checkpoint

pytestmark = pytest.mark.slow

SMALL = [*commands.SMALL, "--evaluation.probe-clips", "24", "--evaluation.grid-clips", "12"]


@pytest.fixture(scope="module")
def report(run: Path, small_figures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    evaluate_module.main(["--run", str(run), "--data", str(small_figures), "--out", str(out), *SMALL])
    return out


@pytest.fixture(scope="module")
def metrics(report: Path) -> dict[str, Any]:
    return dict(json.loads((report / "metrics.json").read_text()))


def timeless(folder: Path) -> dict[str, Any]:
    """Return metrics.json without its time."""
    found = dict(json.loads((folder / "metrics.json").read_text()))
    assert set(found["provenance"].pop("time")) == {"finished", "seconds"}
    return found


def test_metrics_have_a_version_and_every_figure_its_n_chance_and_interval(metrics: dict[str, Any]) -> None:
    assert metrics["schema_version"] == 2
    attributes = ["skin", "hat", "shirt", "trousers"]
    assert metrics["factors"] == {"action": "action", "static": attributes}
    wanted = {
        "swap.action.accuracy",
        "swap.static.joint",
        "prior.static.action.accuracy",
        "prior.dynamics.static.joint",
    }
    wanted |= {f"swap.static.{name}.accuracy" for name in attributes} | {"is", "h_y_given_x", "h_y"}
    wanted |= {f"judge.{name}.accuracy" for name in ["action", *attributes]}
    wanted |= {f"leakage.{name}" for name in ["action", *attributes]}
    wanted |= {"reconstruction.mse", "reconstruction.psnr", "reconstruction.ssim", "consistency.action"}
    wanted |= {"cycle.static", "cycle.dynamics", "experts.in_use", "judge.joint", "consistency.joint"}
    wanted |= {"likeness.identity", "likeness.action", "likeness.leakage.identity", "likeness.leakage.action"}
    wanted |= {"likeness.real", "moving.self_swap.gain", "moving.poses.psnr", "moving.first_frame.psnr", "moving.share"}
    measures = ("psnr", "mse", "ssim", "gradient")
    wanted |= {f"moving.{name}.{part}" for name in ("self_swap", "poses") for part in measures}
    wanted |= {"smoothness.change", "smoothness.acceleration"}
    wanted |= {"elbo.frame", "elbo.sequence", "frechet.judge.swap", "frechet.judge.reconstruction"}
    wanted |= {"frechet.judge.prior_static", "frechet.judge.prior_dynamics", "prior.dynamics.h_y"}
    wanted |= {
        f"probe.{code}.{factor}.{kind}"
        for code in ("static", "dynamics")
        for factor in ["action", *attributes]
        for kind in ("linear", "mlp")
    }
    assert wanted <= set(metrics["figures"])
    tables = [metrics["figures"], *metrics["controls"].values()]
    for name, figure in (item for table in tables for item in table.items()):
        assert set(figure) == {"value", "n", "chance", "low", "high"}, name
        assert figure["low"] <= figure["high"]
        assert figure["n"] > 0
    assert set(metrics["controls"]) == {"perfect", "ignores_static", "ignores_dynamics", "copies", "shuffled"}
    assert {sum(map(sum, counts)) for counts in metrics["confusion"].values()} == {20}
    assert sum(metrics["expert_use"]) == pytest.approx(1, abs=1e-4)


def test_metrics_say_where_they_come_from(metrics: dict[str, Any], run: Path, small_figures: Path) -> None:
    source = metrics["provenance"]
    assert source["checkpoint_sha256"] == checkpoint.verify(run / "stage2.pt")
    assert source["data_sha256"] == data_hash(ClipDataset(str(small_figures), "test").manifest)
    assert source["recipe"]["model"]["num_experts"] == 4
    assert (source["stage"], source["step"], source["finished"], source["seed"]) == (2, 16, True, 0)
    assert source["evaluation"]["pairs"] == 20
    assert source["versions"]["torch"] == torch.__version__
    assert source["bootstrap"] == {"resamples": 1000, "level": 0.95, "draws": "test identities"}
    assert datetime.datetime.fromisoformat(source["time"]["finished"]).tzinfo is not None


def test_an_untrained_model_gets_a_warning(metrics: dict[str, Any]) -> None:
    assert [text for text in metrics["warnings"] if "does not follow the static code" in text]


def test_same_command_gives_the_same_metrics_with_a_stored_judge_and_with_a_damaged_one(
    report: Path, run: Path, small_figures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args, first = ["--run", str(run), "--data", str(small_figures), *SMALL], timeless(report)
    evaluate_module.main([*args, "--out", str(tmp_path / "kept"), "--judges", str(report)])
    assert not list((tmp_path / "kept").glob("judge-*"))
    assert timeless(tmp_path / "kept") == first
    assert (tmp_path / "kept" / "report.html").read_bytes() == (report / "report.html").read_bytes()
    # A damaged one is trained again.
    (stored,), new = report.glob("judge-*.pt"), tmp_path / "new"
    new.mkdir()
    (new / stored.name).write_bytes(stored.read_bytes()[:1000])
    evaluate_module.main([*args, "--out", str(new)])
    assert "training it again" in caplog.text
    assert timeless(new) == first
    assert (new / stored.name).stat().st_size == stored.stat().st_size


def test_text_table_has_value_interval_chance_and_ceiling(metrics: dict[str, Any]) -> None:
    line = next(line for line in text_table(metrics).splitlines() if " action " in line)
    figure = metrics["figures"]["swap.action.accuracy"]
    assert f"{100 * figure['value']:.1f}%" in line
    assert f"{100 * figure['chance']:.1f}%" in line


def test_settings_are_those_of_the_run_unless_given(run: Path, small_figures: Path, tmp_path: Path) -> None:
    from pipeline.evaluation.inputs import with_recipe_of_run

    args = ["--run", str(run), "--data", str(small_figures)]
    assert with_recipe_of_run(args, tmp_path) == ["--config", str(run / "config.yaml"), *args]
    assert with_recipe_of_run([*args, "--config", "x.yaml"], tmp_path) == [*args, "--config", "x.yaml"]


def test_the_recipe_of_a_run_in_s3_is_read_before_its_local_copy_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(args: list[str], scratch: Path) -> list[str]:
        (scratch / "config.yaml").write_text("seed: 7\n")
        return ["--config", str(scratch / "config.yaml"), *args]

    measured: list[evaluate_module.EvaluateCommand] = []
    monkeypatch.setattr(evaluate_module, "with_recipe_of_run", fetched)
    monkeypatch.setattr(evaluate_module, "evaluate", measured.append)
    evaluate_module.main(["--run", "s3://bucket/run", "--data", "data", "--out", "out"])
    assert measured[0].seed == 7


def test_run_without_a_sequence_stage_is_measured_by_its_poses(
    tmp_path: Path, tiny_recipe: Recipe, small_figures: Path
) -> None:
    folder = tmp_path / "run"
    untrained_run(folder, tiny_recipe, small_figures, seed=0, stage=1)
    evaluate_module.main(["--run", str(folder), "--data", str(small_figures), "--out", str(tmp_path / "out"), *SMALL])
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["swap_by"] == "poses"
    assert "pose_swap.action.accuracy" in found["figures"]
    assert "swap.action.accuracy" not in found["figures"]


def unlabelled(small_figures: Path, folder: Path, names: tuple[str, ...] = ()) -> Path:
    """Copy the figures without labels, or with some of them only."""
    shutil.copytree(small_figures, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["vocabulary"] = {name: manifest["vocabulary"][name] for name in names}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("names", [(), ("hat", "shirt")])
def test_data_without_an_action_label_has_cycle_and_elbo_and_no_judge(
    names: tuple[str, ...], run: Path, small_figures: Path, tmp_path: Path
) -> None:
    data, out = unlabelled(small_figures, tmp_path / "data", names), tmp_path / "out"
    evaluate_module.main(["--run", str(run), "--data", str(data), "--out", str(out), "--other-data", *SMALL])
    found = json.loads((out / "metrics.json").read_text())
    groups = {name.partition(".")[0] for name in found["figures"]}
    label_free = {"cycle", "likeness", "moving", "smoothness"}
    assert groups == label_free | {"elbo", "reconstruction", "still", "experts"} | ({"probe"} if names else set())
    assert found["controls"] == {}
    assert found["provenance"]["judge"] is None
    assert not list(out.glob("judge-*"))
    assert [text for text in found["warnings"] if "no action label" in text]
    assert [text for text in found["warnings"] if "worse than its first frame repeated" in text]
    table = text_table(found)
    assert "without labels" in table
    assert f"{found['figures']['likeness.identity']['value']:.1%}" in table
    page = (out / "report.html").read_text()
    assert "A transfer looks more like the donor of its appearance than" in page
    assert page.index('id="without-labels"') < page.index('id="samples"')


def test_static_codes_are_refined_where_the_settings_say_so(
    run: Path, small_figures: Path, metrics: dict[str, Any], tmp_path: Path
) -> None:
    args = ["--run", str(run), "--data", str(small_figures), "--out"]
    changed = ["--seed", "3", *SMALL, "--evaluation.refinement-steps", "8"]
    evaluate_module.main([*args, str(tmp_path), *changed])
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["provenance"]["evaluation"]["refinement_steps"] == 8
    assert metrics["provenance"]["evaluation"]["refinement_steps"] == 0
    # The weights are random, so that a refined code reconstructs a clip better than the encoded one.
    assert found["figures"]["reconstruction.mse"]["value"] < metrics["figures"]["reconstruction.mse"]["value"]
    page = (tmp_path / "report.html").read_text()
    assert "refined on their clips by 8 gradient steps" in page
    (again,) = re.findall(r"<pre>(vdsm evaluate [^<]*)</pre>", page)
    assert sorted(shlex.split(again)[2:]) == sorted([*args, "FOLDER", *changed])


def test_measuring_leaves_a_run_unchanged(run: Path, small_figures: Path) -> None:
    from pipeline.evaluation.inputs import load
    from vdsm.evaluation.protocol import ProtocolConfig, measure

    inputs = load(str(run), str(small_figures))
    assert not [name for name, module in inputs.model.named_modules() if module.training]
    before = {name: tensor.clone() for name, tensor in inputs.model.state_dict().items()}
    measure(inputs.model, inputs.test, None, ProtocolConfig(pairs=8))
    assert not [name for name, module in inputs.model.named_modules() if module.training]
    assert all(torch.equal(tensor, inputs.model.state_dict()[name]) for name, tensor in before.items())


def test_continuous_factors_are_probed_per_clip_and_per_frame(tiny_recipe: Recipe, tmp_path: Path) -> None:
    """The angle of a pendulum in every frame, its amplitude and its period."""
    from preprocessing.dataset.manifest import write_manifest
    from preprocessing.recipe import DataRecipe, ShardsConfig
    from preprocessing.sharding import manifest, plan, rejects
    from preprocessing.sharding.output_lock import acquire_output
    from preprocessing.sharding.write_shard import write_shard
    from preprocessing.sources.config import PendulumConfig, SourceConfig
    from preprocessing.sources.registry import make_source

    data = str(tmp_path / "data")
    pendulum = PendulumConfig(identities=8, clips_per_identity=4, clip_frames=8, size=32, test_fraction=0.5)
    recipe = DataRecipe(source=SourceConfig(name="pendulum", pendulum=pendulum), shards=ShardsConfig(target_mb=1.5))
    source = make_source(recipe.source, recipe.seed)
    planned = plan.make_plan(recipe, source)
    acquire_output(data, planned)
    summaries = [write_shard(data, planned.identity, shard, source) for shard in planned.shards]
    content = manifest.make_manifest(data, planned, source, summaries, rejects.write_rejects(data, []))
    write_manifest(data, content)
    untrained_run(tmp_path / "run", tiny_recipe, Path(data), seed=0)
    out = tmp_path / "out"
    evaluate_module.main(["--run", str(tmp_path / "run"), "--data", data, "--out", str(out), *SMALL])
    figures = json.loads((out / "metrics.json").read_text())["figures"]
    for kind in ("linear", "mlp"):
        for name in ("static.angle", "dynamics.angle", "dynamics.amplitude", "static.period_s"):
            assert (figures[f"probe.{name}.{kind}"]["chance"], figures[f"probe.{name}.{kind}"]["n"]) == (0, 16), name
        assert figures[f"probe.pose.angle.{kind}"]["n"] == 16 * tiny_recipe.training.stage2.clip_frames
