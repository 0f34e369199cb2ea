"""Fuzz one reader with atheris (extra `fuzz`): `python -m tests.fuzz.run index --seconds 3600 --corpus DIR`.

Findings are saved in DIR/TARGET/findings as a file of the input and one of the error; the exit code is 1 if there are
any. A finding does not end the run. The corpus in DIR/TARGET/corpus is kept, so that a later run starts from it.
"""

import argparse
import contextlib
import hashlib
import logging
import re
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

MAX_BYTES = 65_536
"""Longest input."""
MEMORY_MB = 2500
"""Resident memory above which libFuzzer reports the input and ends."""
SECONDS_PER_INPUT = 30
"""Time after which libFuzzer reports the input and ends."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--fuzz", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.corpus / given.target
    for part in ("corpus", "findings"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if given.fuzz:
        _fuzz(given.target, folder, given.seconds)
    else:
        _run(given.target, given.corpus, given.seconds)


def _run(target: str, corpus: Path, seconds: int) -> None:
    """Run the fuzzer in a process of its own, again after a crash, and print what it did."""
    end, executions, edges, starts = time.monotonic() + seconds, 0, 0, 0
    while (left := round(end - time.monotonic())) > 0 and starts < 100:
        options = ["--seconds", str(left), "--corpus", str(corpus), "--fuzz"]
        command = [sys.executable, "-m", "tests.fuzz.run", target, *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
        assert process.stderr is not None
        done = 0
        for line in process.stderr:
            if progress := re.match(r"#(\d+)\s.* cov: (\d+)", line):
                done, edges = int(progress[1]), max(edges, int(progress[2]))
            elif final := re.match(r"stat::number_of_executed_units: (\d+)", line):
                done = int(final[1])
            elif not line.startswith(("INFO:", "WARNING: Failed to find function", "Done ", "stat::", "#")):
                sys.stderr.write(line)
        if process.wait() and not done:
            raise SystemExit(f"{target}: the fuzzer ended before its first execution")
        executions, starts = executions + done, starts + 1
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    _drop_quick(target, corpus / target / "findings")
    found = sorted(path for path in (corpus / target / "findings").iterdir() if path.suffix != ".txt")
    print(
        f"{target}: {executions:,} executions, {edges:,} edges, {used.ru_utime + used.ru_stime:,.0f} s of CPU time, "
        f"{starts} starts, {len(found)} findings"
    )
    for path in found:
        print(f"  {path}")
    raise SystemExit(1 if found else 0)


def _drop_quick(target: str, findings: Path) -> None:
    """Delete inputs that libFuzzer calls slow because the machine was: those that are read quickly now."""
    from tests.fuzz import targets

    for path in [*findings.glob("timeout-*"), *findings.glob("slow-unit-*")]:
        with contextlib.suppress(targets.FindingError):
            targets.check(target, path.read_bytes())
            path.unlink()


def _fuzz(target: str, folder: Path, seconds: int) -> None:
    import atheris

    logging.disable()  # readers warn of what they skip
    with atheris.instrument_imports(include=["preprocessing", "pipeline", "cluster"]):
        from tests.fuzz import targets

        for data in targets.seed_files(target):  # imports what the reader imports only when it is called
            targets.check(target, data)
    mutate = targets.TARGETS[target].mutate
    for number, data in enumerate(targets.seed_files(target)):
        (folder / "corpus" / f"seed-{number}").write_bytes(data)
    seen: set[str] = set()

    def read(data: bytes) -> None:
        try:
            targets.check(target, data)
        except targets.FindingError as error:
            _save(folder / "findings", data, error, seen)

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(data, random)[:max_size]

    flags = {
        "max_total_time": seconds, "max_len": MAX_BYTES, "rss_limit_mb": MEMORY_MB, "timeout": SECONDS_PER_INPUT,
        "print_final_stats": 1, "artifact_prefix": f"{folder}/findings/",
    }  # fmt: skip
    args = [sys.argv[0], *(f"-{name}={value}" for name, value in flags.items()), str(folder / "corpus")]
    setup: Any = atheris.Setup
    setup(args, read, custom_mutator=change)
    atheris.Fuzz()


def _save(folder: Path, data: bytes, error: Exception, seen: set[str]) -> None:
    """Save the first input of each kind of error: the same type at the same line of our code."""
    cause = error.__cause__ or error
    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if "site-packages" not in frame.filename]
    kind = f"{type(cause).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else type(cause).__name__
    if kind in seen:
        return
    seen.add(kind)
    path = folder / hashlib.sha256(kind.encode()).hexdigest()[:16]
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{error}\n{kind}\n\n{''.join(traceback.format_exception(cause))}"[:20_000])
    sys.stderr.write(f"finding: {kind}: {error}\n")


if __name__ == "__main__":
    main()
