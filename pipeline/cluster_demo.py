"""`make cluster-demo`: the whole pipeline as submitted jobs, on two Ray nodes and an S3 server on this machine.

The jobs are those of docs/operations.md, with other addresses. All processes are ended when it finishes, also after
Ctrl-C. The objects, the logs and the report stay in the folder.
"""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.cli.paths import Location
from cluster.cli.progress import format_duration
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from cluster.errors import UserError

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "vdsm"
DATA, RUNS, REPORT = (f"s3://{BUCKET}/demo/{name}" for name in ("figures", "runs", "report"))
RECIPE = ("--config", "configs/cluster-demo.yaml")
DOCTOR_LIMITS = ("--min-free-gb", "1", "--min-mb-s", "0.5")
"""Relaxed, because both nodes and the storage share one machine, which may be busy."""
JOBS = (
    # Drivers run on the head, which has no CPUs, and distribute the work over the workers.
    ("doctor", (), ("cluster/doctor.py", "--storage", f"s3://{BUCKET}/demo", "--nodes", "2", *DOCTOR_LIMITS)),
    ("shard", (), ("preprocessing/shard.py", *RECIPE, "--out", DATA)),
    ("train", (), ("pipeline/train.py", *RECIPE, "--data", DATA, "--out", RUNS, "--name", "demo")),
    # Evaluation computes in its driver, so the driver requests a CPU and runs on a worker.
    (
        "evaluate",
        ("--entrypoint-num-cpus", "1"),
        ("pipeline/evaluate.py", "--run", f"{RUNS}/demo", "--data", DATA, "--out", REPORT, *RECIPE),
    ),
)
"""Name, options of `ray job submit`, and arguments of `python`."""


class ClusterDemoCommand(Controls):
    """Start two Ray nodes and an S3 server here, submit the jobs from doctor to evaluate, and fetch the report."""

    out: Location = "cluster-demo"
    """Folder for the objects, the logs and the report."""


def demonstrate(command: ClusterDemoCommand) -> None:
    """Start the cluster, run all jobs, fetch the report, and end the cluster.

    Raises:
        UserError: the S3 server or a node does not start, or a job fails.
    """
    from cluster.development import s3_server
    from cluster.development.ray_cluster import local_cluster
    from cluster.storage import api as storage
    from cluster.storage.scratch import scratch_folder

    if command.dry_run:
        sys.stdout.write("".join(f"{name}: python {' '.join(args)}\n" for name, _, args in JOBS))
        return
    out = Path(command.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (
        scratch_folder() as scratch,
        s3_server.serve(out / "s3", access_key="demo", secret_key=secrets.token_hex(16)) as server,
    ):
        credentials = server.environment()
        # The nodes have the keys in their environment, as with an instance role; no job receives them.
        variables = {**credentials, "VDSM_CACHE": str(scratch / "cache")}
        with local_cluster(scratch, cpus=max(2, len(os.sched_getaffinity(0))), variables=variables) as ray:
            log.info("two Ray nodes and the S3 server are up; dashboard %s", ray.job_api)
            os.environ.update(credentials)
            _make_bucket()
            for number, (name, options, args) in enumerate(JOBS, 1):
                log.info("phase %d of %d: %s job", number, len(JOBS), name)
                submit(name, options, args, ray.environment())
            for name in ("metrics.json", "report.html"):
                storage.download(storage.join(REPORT, name), out / name)
    sys.stdout.write(f"done in {format_duration(time.monotonic() - started)}: {out / 'report.html'}\n")


def _make_bucket() -> None:
    import boto3

    client = boto3.session.Session().client("s3")
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)


def submit(name: str, options: Sequence[str], args: Sequence[str], environment: Mapping[str, str]) -> None:
    """Submit a job and wait for its end, passing its output through.

    Args:
        name: name of the job, for messages.
        options: options of `ray job submit`.
        args: arguments of `python` in the job.
        environment: variables that `ray job submit` needs.

    Raises:
        UserError: the job failed.
    """
    ray = Path(sys.executable).parent / "ray"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
    job = [str(ray), "job", "submit", "--working-dir", ".", *options, "--", "python", *args]
    done = subprocess.run(job, cwd=ROOT, env={**inherited, **environment}, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise UserError(f"the {name} job failed; its output is above")


main = entry(ClusterDemoCommand, demonstrate, prog="cluster_demo.py")


if __name__ == "__main__":
    main()
