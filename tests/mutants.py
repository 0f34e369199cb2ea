"""Mutants: is there a test that fails for each small change of the model, the order and the shard commit?

    python -m tests.mutants                                 every mutant: hours
    python -m tests.mutants --groups order --sample 200     200 of the mutants of a group, drawn by --seed
    python -m tests.mutants --table                         counts and survivors of what has been run
    mutmut show NAME                                        the change that nothing noticed

mutmut makes the mutants, and runs the tests that reach each of them in a forked process. This module adds what it
lacks: statements left out, mutants of decorated functions, tests that reach a function through a fixture of several
tests, the unit tests of a group alone, and samples. In those processes it is a pytest plugin (`-p tests.mutants`).
"""

import argparse
import fnmatch
import math
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Group(NamedTuple):
    """A part of the code, and the unit tests that should kill its mutants."""

    functions: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "evaluation": Group(("vdsm.evaluation.*",), ("tests/vdsm/evaluation/*",)),
    "model": Group(("vdsm.*",), ("tests/vdsm/test_*", "tests/pipeline/models/test_library*")),
    "order": Group(
        ("pipeline.training.*",),
        tuple(
            f"tests/pipeline/training/test_{name}*"
            for name in ("order", "batches", "lanes", "partners", "sharded_order")
        ),
    ),
    "commit": Group(
        ("preprocessing.*", "cluster.storage.*"),
        ("tests/preprocessing/dataset/*", "tests/preprocessing/sharding/*", "tests/cluster/storage/*"),
    ),
}
"""The first group that matches a function is its group."""
SERVERS = {"local_ray", "s3_server", "s3_bucket"}
"""Fixtures whose tests are left out: they take seconds, and a forked Ray does not work."""
CHOSEN = "MUTANT_GROUPS"
"""Environment variable with the names of the groups to test."""
reached: defaultdict[Any, set[str]] = defaultdict(set)
"""Fixture -> the functions that its set-up called."""
seconds: defaultdict[Any, float] = defaultdict(float)
"""Fixture -> duration of its set-up."""


def group_of(function: str) -> str:
    """Return the name of the group of a function or a mutant."""
    return next(name for name, group in GROUPS.items() if _matches(function, group.functions))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the chosen groups that need no server."""
    chosen = os.environ.get(CHOSEN, " ".join(GROUPS)).split()
    patterns = [pattern for name in chosen for pattern in GROUPS[name].tests]
    kept, left = [], []
    for item in items:
        needs_server = SERVERS & set(getattr(item, "fixturenames", ())) or "[s3" in item.name
        (kept if _matches(item.nodeid, patterns) and not needs_server else left).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Note the duration of a fixture and the functions that it calls; mutmut counts them for its first test alone."""
    from mutmut.state import state

    calls = state()._stats
    before, start = set(calls), time.monotonic()
    calls.clear()
    try:
        return (yield)
    finally:
        reached[fixturedef] |= calls
        seconds[fixturedef] += time.monotonic() - start
        calls |= before


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Complete mutmut's table of the tests that reach a function, and their durations, by those of the fixtures.

    Only the tests of a function's group stay in the table. mutmut runs the shortest ones first.
    """
    from mutmut.state import state

    if os.environ.get("MUTANT_UNDER_TEST") != "stats":
        return
    tests, durations = state().tests_by_mangled_function_name, state().duration_by_test
    for item in session.items:
        if item.nodeid not in durations:
            continue  # skipped
        info = getattr(item, "_fixtureinfo", None)
        for fixture in [one for defined in (info.name2fixturedefs.values() if info else ()) for one in defined]:
            durations[item.nodeid] += seconds[fixture]
            if fixture.scope != "function":
                for function in reached[fixture]:
                    tests[function].add(item.nodeid)
    for function, names in tests.items():
        names -= {name for name in names if not _matches(name, GROUPS[group_of(function)].tests)}


def extend_mutmut() -> None:
    """Leave out each call whose result is unused, and each `raise`; mutate decorated functions, too.

    The decorator stays on the function that calls a mutant.
    """
    import libcst as cst
    from mutmut.mutation import file_mutation

    def leave_out(node: cst.Expr | cst.Raise) -> list[cst.Pass]:
        return [cst.Pass()] if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call) else []

    file_mutation.mutation_operators += [(cst.Expr, leave_out), (cst.Raise, leave_out)]
    skip, arrange = file_mutation.MutationVisitor._skip_node_and_children, file_mutation.function_trampoline_arrangement

    def skip_undecorated(self: Any, node: cst.CSTNode) -> bool:
        return skip(self, node.with_changes(decorators=[]) if isinstance(node, cst.FunctionDef) else node)

    def arrange_undecorated(function: cst.FunctionDef, *args: Any, **kwargs: Any) -> Any:
        before, nodes, after, names = arrange(function, *args, **kwargs)
        kept = ("staticmethod", "classmethod")
        decorators = [one for one in function.decorators if getattr(one.decorator, "value", None) in kept]
        copies = [one.with_changes(decorators=decorators) for one in nodes[1:]]
        return before, [nodes[0], *copies], after, names

    file_mutation.MutationVisitor._skip_node_and_children = skip_undecorated  # type: ignore[method-assign]
    file_mutation.function_trampoline_arrangement = arrange_undecorated


def results() -> dict[str, dict[str, int | None]]:
    """Return the exit code of the tests for every mutant, None if they were not run, by group."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import walk_mutatable_files

    found: dict[str, dict[str, int | None]] = {name: {} for name in GROUPS}
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        for mutant, code in data.exit_code_by_key.items():
            found[group_of(mutant)][mutant] = code
    return found


def run(groups: Sequence[str], sample: int | None, seed: int, processes: int) -> None:
    """Run the tests of all mutants of the groups, or of a sample of each, that have no result yet."""
    from mutmut import __main__ as mutmut
    from mutmut.utils import file_utils

    extend_mutmut()
    Path("mutants").mkdir(exist_ok=True)
    file_utils.copy_src_dir()
    file_utils.copy_also_copy_files()
    file_utils.setup_source_paths()
    mutmut.create_mutants(processes)
    names: list[str] = []
    for group in groups:
        mutants = results()[group]
        drawn = sorted(mutants) if sample is None else random.Random(seed).sample(sorted(mutants), k=len(mutants))
        names += [name for name in drawn[:sample] if mutants[name] is None]
    if names:
        mutmut._run(names, processes)


def table() -> None:
    """Print the counts by group and module, and the names of the survivors."""
    from mutmut.stats import status_by_exit_code

    print(f"{'':44} mutants   run killed timeout survived no test  score")
    survivors = []
    for group, mutants in results().items():
        modules: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for mutant, code in mutants.items():
            status = status_by_exit_code[code]
            for name in (group, mutant.partition(".x")[0]):
                modules[name][status] += 1
            if status not in ("killed", "timeout", "not checked"):
                survivors.append(f"{status}: {mutant}")
        for name, counts in modules.items():
            ran, dead = counts.total() - counts["not checked"], counts["killed"] + counts["timeout"]
            cells = (counts.total(), ran, counts["killed"], counts["timeout"], counts["survived"], counts["no tests"])
            score = _interval(dead, ran) if ran else ""
            print(f"{name:44} {cells[0]:7} {cells[1]:5} {cells[2]:6} {cells[3]:7} {cells[4]:8} {cells[5]:7}  {score}")
    print("\n".join(survivors))


def _interval(dead: int, ran: int) -> str:
    """Return a share with its 95% interval (Wilson), which applies where the mutants are a sample."""
    z, share = 1.96, dead / ran
    centre = (share + z * z / (2 * ran)) / (1 + z * z / ran)
    half = z / (1 + z * z / ran) * math.sqrt(share * (1 - share) / ran + z * z / (4 * ran * ran))
    return f"{share:6.1%} ({centre - half:.1%} to {centre + half:.1%})"


def main() -> None:
    """Run mutants, or print the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--sample", type=int, help="mutants of each group, at random; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    args = parser.parse_args()
    # One thread: a forked process has no others, and mutants run side by side.
    os.environ |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    os.environ[CHOSEN] = " ".join(args.groups)
    if not args.table:
        run(args.groups, args.sample, args.seed, args.processes)
    table()


if __name__ == "__main__":
    main()
