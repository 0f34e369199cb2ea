"""Whether the training is right on a GPU, and how fast: one command for one card, in less than 8 minutes.

    python benchmarks/gpu.py --out FOLDER                         # paper sizes
    python benchmarks/gpu.py --out FOLDER --device cpu --small    # tries the command, without a GPU

Needs torch and pyro only. Each part runs in a process of its own, with a limit of time; one that fails costs no other,
and its error is in the results. FOLDER/gpu.json and the page FOLDER/gpu.md are written after each part, so that they
hold what was measured before a preemption.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import arguments
import gpu_speed
import gpu_training
import step
import torch

from vdsm.device import find_device

PARTS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], int]] = {
    "correctness": (gpu_training.correctness, 90),
    "steps": (gpu_speed.step_times, 120),
    "loop": (gpu_training.loop, 90),
    "waits": (gpu_training.waits, 45),
    "kernels": (gpu_speed.kernels, 90),
    "layouts": (gpu_speed.layouts, 60),
    "resume": (gpu_training.resume, 60),
    "resume-deterministic": (gpu_training.resume_deterministic, 60),
    "ranks": (gpu_training.ranks, 60),
}
"""What each part calls, and its limit in seconds."""


def main() -> None:
    """Run the parts, each in a process of its own, and write their results."""
    options = parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part][0](options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": step.machine(options.device),
        "device": str(options.device),
        "small": options.small,
    }
    for part in options.parts:
        began = time.perf_counter()
        print(f"{part}: at most {PARTS[part][1]} s", file=sys.stderr, flush=True)
        results[part] = run_part(part, options)
        seconds = time.perf_counter() - began
        print(f"{part}: {results[part].get('failed', 'done')}, {seconds:.0f} s", file=sys.stderr, flush=True)
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(results))
    arguments.show(results, as_json=options.json)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    command = arguments.parser(__doc__)
    command.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    command.add_argument("--device", default="cuda", help="cpu, cuda, cuda:1, ...")
    command.add_argument("--small", action="store_true", help="2 experts and few clips: for a trial")
    command.add_argument("--steps", type=int, default=20, help="timed steps of each measurement, after one that is not")
    command.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="parts to run")
    command.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    arguments.add_threads(command, len(os.sched_getaffinity(0)))
    options = command.parse_args()
    try:
        options.device = find_device(options.device)
    except ValueError as error:
        command.exit(2, f"--device: {error}\n")
    torch.set_num_threads(options.threads)
    return options


def run_part(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a part, or why there is none."""
    command = [sys.executable, __file__, "--part", part, "--out", str(options.out), "--device", str(options.device)]
    command += ["--steps", str(options.steps), "--threads", str(options.threads), *["--small"] * options.small]
    # A session of its own: at its limit, the part ends with the ranks that it has started.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, errors = process.communicate(timeout=PARTS[part][1])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"failed": f"not done after {PARTS[part][1]} s"}
    if process.returncode:
        return {"failed": errors.strip()[-2000:] or f"exit status {process.returncode}"}
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def page(results: Mapping[str, Any]) -> str:
    """Return the results as a page in Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    lines = ["# Training on a GPU", "", f"`python benchmarks/gpu.py`; {machine}. Device `{results['device']}`."]
    if results["small"]:
        lines += ["", "**A trial with 2 experts and few clips**: its speeds say nothing of a training."]
    for part in PARTS:
        if part in results:
            lines += ["", f"## {part.replace('-', ', ').capitalize()}", "", *section(part, results)]
    return "\n".join(lines) + "\n"


def section(part: str, results: Mapping[str, Any]) -> list[str]:
    """Return the lines of a part."""
    found = results[part]
    lines = [" ".join((PARTS[part][0].__doc__ or "").split()), ""]
    if "failed" in found:
        return [*lines, "Failed:", "", "```", found["failed"], "```"]
    if part == "correctness":
        names = ("largest relative difference", "cpu", "device")
        return [*lines, *table(("", *names), [(what, *(row[n] for n in names)) for what, row in found.items()])]
    if part == "steps":
        lines += [f"A copy of a large tensor: {found['bandwidth_gb_per_s']:.0f} GB/s, read and written.", ""]
    if part == "loop":
        lines += ["`gap` is what a step takes longer than the one under Steps, as a share of it.", ""]
        found = {"rows": [row | {"gap": gap(row, results)} for row in found["rows"]]}
    if part == "kernels":
        for name, row in found.items():
            busy, whole = row["ms per step that the device is busy"], row["ms per step, with the profiler"]
            lines += [f"**{name}**: {whole:.1f} ms per step with the profiler, device busy for {busy:.1f} ms.", ""]
            lines += [
                *table(("kernel", "calls per step", "ms per step"), [tuple(k.values()) for k in row["longest"]]),
                "",
            ]
        return lines
    if "rows" in found:
        return lines + table(tuple(found["rows"][0]), [tuple(row.values()) for row in found["rows"]])
    return lines + [f"- {name}: {shown(value)}" for name, value in found.items()]


def gap(row: Mapping[str, Any], results: Mapping[str, Any]) -> float | None:
    """Return the share by which a step of the loop takes longer than a single one of the smaller batch."""
    alone = [
        one["seconds"] for one in results.get("steps", {}).get("rows", ())
        if (one["stage"], one["format"]) == (row["stage"], row["format"])
    ]  # fmt: skip
    return row["seconds_per_step"] / alone[0] - 1 if alone else None


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a table in Markdown."""
    cells = [[str(name).replace("_", " ") for name in head], ["---"] * len(head)]
    cells += [[shown(value) for value in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in cells]


def shown(value: Any) -> str:
    """Return a value in at most 4 digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return "; ".join(f"{name}: {shown(part)}" for name, part in value.items()) or "none"
    return "" if value is None else str(value).replace("|", "/")


if __name__ == "__main__":
    main()
