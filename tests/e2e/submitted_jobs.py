"""The two jobs of the cluster tests, submitted as by a user: through the forwarded dashboard, with the token."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from cluster.ray_runtime import PACKAGES
from tests.e2e.hosts import BIN
from tests.e2e.namespaces import Machines

ADDRESS = "http://127.0.0.1:8265"
BUCKET = "namespace-bucket"
URL = f"s3://{BUCKET}/vdsm"
STEPS = (1500, 40)
"""Steps of each stage, enough that a machine can be preempted during training."""


def copy_code(root: Path, folder: Path) -> Path:
    """Copy the packages and a recipe that takes seconds; return the folder for `--working-dir`."""
    code = folder / "code"
    for name in PACKAGES:
        shutil.copytree(root / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    recipe: dict[str, Any] = yaml.safe_load((root / "tests" / "tiny.yaml").read_text())
    recipe["model"] |= {"frame_size": 64, "encoder_channels": [4, 4, 8, 8], "decoder_channels": [16, 8, 8, 4]}
    training = recipe["training"]
    training["stage1"]["steps"], training["stage2"]["steps"] = STEPS
    training |= {"num_workers": 1, "checkpoint_interval": 50, "validation_interval": 500, "max_failures": 5}
    (code / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return code


def submit(machines: Machines, code: Path, *args: str, options: tuple[str, ...] = (), **variables: str) -> str:
    """Run `ray job submit` to completion and return its output; the test fails if the job fails."""
    start = [BIN / "ray", "job", "submit", "--address", ADDRESS, "--working-dir", code, *options, "--"]
    done = machines.run([*start, *args], cwd=code, timeout=400, **variables)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


SHARD = ("python", "preprocessing/shard.py", "--config", "tiny.yaml", "--out", f"{URL}/data")
TRAIN = ("python", "pipeline/train.py", "--config", "tiny.yaml", "--data", f"{URL}/data", "--out", f"{URL}/runs")


def stored(machines: Machines, code: Path, name: str) -> str:
    """Return the text of an object below URL, empty if it does not exist."""
    program = (
        "import sys; from cluster.storage import api as storage\n"
        f"url = '{URL}/{name}'\n"
        "print(storage.read_bytes(url).decode() if storage.exists(url) else '', end='')"
    )
    return machines.python(program, PYTHONPATH=str(code))


def lines(text: str) -> list[dict[str, Any]]:
    """Return the records of a log of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]
