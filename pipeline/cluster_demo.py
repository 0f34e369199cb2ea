"""`make cluster-demo`: the whole pipeline as submitted jobs, on two Ray nodes and an S3 server on this machine.

The jobs are those of docs/operations.md, word for word but for the address. What was started is ended at the end, also
after ctrl-C; the objects, the logs and the report stay in the folder.
"""

if not __package__:  # run by path: import from the repository, not from this file's folder
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "vdsm"
DATA, RUNS, REPORT = (f"s3://{BUCKET}/demo/{name}" for name in ("figures", "runs", "report"))
RECIPE = ("--config", "configs/cluster-demo.yaml")
EASY = ("--min-free-gb", "1", "--min-mb-s", "0.5")
"""For the doctor: all of it shares one machine, which may be busy."""
JOBS = (
    # Drivers run on the head, which has no CPU for work, and spread it over the workers.
    ("doctor", (), ("cluster/doctor.py", "--storage", f"s3://{BUCKET}/demo", "--nodes", "2", *EASY)),
    ("shard", (), ("preprocessing/shard.py", *RECIPE, "--out", DATA)),
    ("train", (), ("pipeline/train.py", *RECIPE, "--data", DATA, "--out", RUNS, "--name", "demo")),
    # Evaluation computes in its driver: it asks for CPUs, and so runs on a worker.
    (
        "evaluate",
        ("--entrypoint-num-cpus", "1"),
        ("pipeline/evaluate.py", "--run", f"{RUNS}/demo", "--data", DATA, "--out", REPORT, *RECIPE),
    ),
)
"""Name, options of `ray job submit`, and what it runs."""


class ClusterDemoCommand(Controls):
    """Start two Ray nodes and an S3 server here, submit shard, train and evaluate, fetch the report, end everything."""

    out: str = "cluster-demo"
    """Folder for objects, logs and the report."""


def demonstrate(command: ClusterDemoCommand) -> None:
    """Run all jobs.

    Raises:
        UserError: the S3 server or a node does not start, or a job fails.
    """
    import boto3

    from cluster.development import ray_cluster as local_cluster
    from cluster.development import s3_server
    from cluster.storage import api as storage

    if command.dry_run:
        sys.stdout.write("".join(f"{name}: python {' '.join(words)}\n" for name, _, words in JOBS))
        return
    out = Path(command.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="vdsm-ray-", ignore_cleanup_errors=True) as scratch,
        s3_server.serve(out / "s3", access_key="demo", secret_key=secrets.token_hex(16)) as server,
    ):
        own = server.environment()
        # Keys are in the environment of the nodes, as a role would be, and in no job.
        nodes = {**own, "VDSM_CACHE": str(Path(scratch) / "cache")}
        with local_cluster.local_cluster(
            Path(scratch), cpus=max(2, len(os.sched_getaffinity(0))), variables=nodes
        ) as ray:
            log.info("two Ray nodes and the S3 server are up; dashboard %s", ray.job_api)
            os.environ.update(own)
            client = boto3.session.Session().client("s3")
            if BUCKET not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            for number, (name, options, words) in enumerate(JOBS, 1):
                log.info("%d of %d: %s", number, len(JOBS), name)
                submit(name, options, words, ray.environment())
            for name in ("metrics.json", "report.html"):
                storage.download(storage.join(REPORT, name), out / name)
    sys.stdout.write(f"done in {(time.monotonic() - began) / 60:.1f} minutes: {out / 'report.html'}\n")


def submit(name: str, options: Sequence[str], words: Sequence[str], environment: Mapping[str, str]) -> None:
    """One job, from submission to its end; what it prints is passed on.

    Raises:
        UserError: it failed.
    """
    ray = Path(sys.executable).parent / "ray"
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
    job = [str(ray), "job", "submit", "--working-dir", ".", *options, "--", "python", *words]
    done = subprocess.run(job, cwd=ROOT, env={**kept, **environment}, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise UserError(f"the {name} job failed; what it said is above")


main = entry(ClusterDemoCommand, demonstrate, prog="cluster_demo.py")


if __name__ == "__main__":
    main()
