"""What recipes reach on the test identities of a dataset, over seeds: the table of docs/tuning.md.

    python benchmarks/seeds.py --data DATA --out OUT --seeds 1 2 3 \
        --recipes configs/figures-short.yaml runs/figures/best.yaml --json

Trains each recipe with each seed and evaluates it, as `vdsm train` and `vdsm evaluate` do; runs and reports that are
there already are not made again.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="dataset that `vdsm shard` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and reports")
    parser.add_argument("--recipes", type=Path, nargs="+", required=True, help="recipes, each by its own file name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    jobs = [(recipe, seed) for recipe in words.recipes for seed in words.seeds]
    with ThreadPoolExecutor(words.at_once) as pool:
        rows = list(pool.map(lambda job: measured(job[0], job[1], words.data, words.out), jobs))
    if words.json:
        machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
        print(json.dumps({"rows": rows, "machine": machine}))
        return
    for row in rows:
        print(
            "  ".join(f"{name} {value:.3f}" if isinstance(value, float) else str(value) for name, value in row.items())
        )
    for recipe in words.recipes:
        scores = [row["score"] for row in rows if row["recipe"] == recipe.stem]
        spread = f", standard deviation {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        print(f"{recipe.stem}: score {statistics.mean(scores):.3f}{spread}")


def measured(recipe: Path, seed: int, data: str, out: Path) -> dict[str, Any]:
    """One recipe with one seed: what it scores on the test identities, and how long the training took."""
    name = f"{recipe.stem}-{seed}"
    run, report = out / "runs" / name, out / "reports" / name
    began = time.perf_counter()
    _run(
        "train",
        "--config",
        str(recipe),
        "--seed",
        str(seed),
        "--data",
        data,
        "--out",
        str(out / "runs"),
        "--name",
        name,
    )
    train_s = time.perf_counter() - began
    if not (report / "metrics.json").exists():
        _run("evaluate", "--run", str(run), "--data", data, "--out", str(report), "--judges", str(out))
    figures = json.loads((report / "metrics.json").read_text())["figures"]
    return {"recipe": recipe.stem, "seed": seed} | scores_of(figures) | {"train_s": round(train_s, 1)}


def scores_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """The score of docs/tuning.md from the figures of metrics.json, with its parts. `leak`: of all factors the most by
    which swaps show the wrong clip's value more often than perfect swaps do."""
    action = _above(figures["swap.action.accuracy"])
    parts = [value for name, value in figures.items() if name.startswith("swap.static.") and name.endswith(".accuracy")]
    static = statistics.mean(map(_above, parts))
    leaks = [value["value"] - value["chance"] for name, value in figures.items() if name.startswith("leakage.")]
    return {
        "score": 2 * action * static / (action + static) if min(action, static) > 0 else 0.0,
        "swap_action": figures["swap.action.accuracy"]["value"],
        "swap_static_mean": statistics.mean(part["value"] for part in parts),
        "swap_joint": figures["swap.static.joint"]["value"],
        "leak": max(leaks),
    }


def _above(figure: dict[str, float]) -> float:
    return max(0.0, (figure["value"] - figure["chance"]) / (1 - figure["chance"]))


def _run(command: str, *words: str) -> None:
    script = str(ROOT / "pipeline" / f"{command}.py")
    done = subprocess.run([sys.executable, script, *words], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"vdsm {command} ended with {done.returncode}")


if __name__ == "__main__":
    main()
