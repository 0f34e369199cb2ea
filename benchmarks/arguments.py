"""Shared by all benchmarks: the command line, a description of the machine, and the output.

Benchmarks are run by path (`python benchmarks/step.py`), which makes this folder importable. Importing this module also
makes the packages of the repository importable where they are not installed.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def parser(description: str | None, *, json_help: str = "print one JSON object") -> argparse.ArgumentParser:
    """Build the command line of a benchmark, with its docstring as help and the option `--json`."""
    built = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    built.add_argument("--json", action="store_true", help=json_help)
    return built


def run_parser(description: str | None, *, pairs: int, of: str) -> argparse.ArgumentParser:
    """Build the command line of a benchmark that swaps the codes of `pairs` pairs of clips of a trained run."""
    built = parser(description)
    built.add_argument("--run", required=True, help="folder of the run")
    built.add_argument("--data", required=True, help="dataset that the run was trained on")
    built.add_argument("--pairs", type=int, default=pairs, help=f"pairs of {of} clips whose codes are swapped")
    return built


def add_threads(to: argparse.ArgumentParser, default: int) -> None:
    """Add the option `--threads`."""
    to.add_argument("--threads", type=int, default=default, help="CPU threads of the process")


def machine() -> dict[str, Any]:
    """Describe this machine: model of its CPU, CPUs that this process may use, version of Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def show(results: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one JSON object, or one line per result."""
    if as_json:
        print(json.dumps(results))
        return
    width = max(map(len, results))
    for name, value in results.items():
        print(f"{name:{width}} {value}")


def show_scores(scores: Mapping[str, Any], *, as_json: bool) -> None:
    """Print scores (`vdsm.evaluation.scores.Score`) with their intervals: one JSON object, or one line each."""
    if as_json:
        show({name: score.rounded() for name, score in scores.items()}, as_json=True)
        return
    width = max(map(len, scores))
    for name, score in scores.items():
        print(f"{name:{width}} {score.value:.4g} ({score.low:.4g} to {score.high:.4g}), n {score.n}")
