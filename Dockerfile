# The image of a node, for ray_cluster.yaml (docker.image) and cluster/kuberay/. Build it where the nodes' hardware is at home:
#     docker build -t REGISTRY/vdsm:0.1.0 .
# PyTorch brings its own CUDA libraries; the machine brings the driver. rsync and bash are there for `ray up`.
FROM python:3.11.13-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Debian's release pins these, and its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bash openssh-client procps rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash ray

# Not root: a job can do whatever this user can. User 1000, ray, and its home are those of Ray's own images.
USER 1000
WORKDIR /home/ray
ENV VIRTUAL_ENV=/home/ray/venv \
    PATH=/home/ray/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0

# The libraries change rarely: a layer of their own, before the project's code.
COPY --chown=1000:1000 constraints.txt pyproject.toml setup.py README.md LICENSE vdsm_command.py /home/ray/vdsm/
COPY --chown=1000:1000 configs /home/ray/vdsm/configs
RUN python -m venv "$VIRTUAL_ENV" \
    && mkdir -p vdsm/cluster vdsm/pipeline vdsm/preprocessing vdsm/vdsm \
    && echo '__version__ = "0"' > vdsm/vdsm/__init__.py \
    && pip install --no-cache-dir -c vdsm/constraints.txt "./vdsm[tune,studio,dashboards]" \
    && pip uninstall -y vdsm-pipeline

COPY --chown=1000:1000 cluster /home/ray/vdsm/cluster
COPY --chown=1000:1000 pipeline /home/ray/vdsm/pipeline
COPY --chown=1000:1000 preprocessing /home/ray/vdsm/preprocessing
COPY --chown=1000:1000 vdsm /home/ray/vdsm/vdsm
RUN pip install --no-cache-dir --no-deps ./vdsm && vdsm --help > /dev/null

CMD ["vdsm", "--help"]
