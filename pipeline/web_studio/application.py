"""The application as Ray Serve deployments: a web server, and copies of the model that are started under load.

`application` is also what a Serve configuration file names in `import_path`; see cluster/kuberay/rayservice.yaml.
"""

from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.cli.run import set_up_logging
from cluster.errors import UserError
from cluster.ray_internals import serve_replica_on_loopback
from pipeline.web_studio.gate import TOKEN, GateSettings
from pipeline.web_studio.model_replica import ModelReplica
from pipeline.web_studio.settings import ModelFacts, StudioSettings
from pipeline.web_studio.web import make_app

NAME = "studio"
MOST_WAITING = 1000
"""Requests that may wait for a replica; more are answered with 503."""


@serve.ingress()
class Web:
    """Serves the page and its API."""

    def __init__(
        self, model: DeploymentHandle[Any], facts: ModelFacts, settings: StudioSettings, gate: GateSettings
    ) -> None:
        from pipeline.web_studio.studio import Studio

        set_up_logging()
        serve_replica_on_loopback()
        self._gate = gate
        self._studio = Studio(model, facts, settings)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the ASGI application; Serve asks for it once a replica has started."""
        return make_app(self._studio, self._gate)


def deploy(settings: StudioSettings, facts: ModelFacts, gate: GateSettings, *, accelerator: bool) -> serve.Application:
    """Return the application.

    Args:
        settings: of the studio.
        facts: of its model.
        gate: what its gate refuses; that of Serve's proxy has the same settings.
        accelerator: whether each copy of the model needs a GPU of its own.
    """
    model = serve.deployment(ModelReplica).options(  # type: ignore[attr-defined]
        name="Model",
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if accelerator else 0},
        autoscaling_config={
            "min_replicas": 1, "max_replicas": settings.max_replicas, "target_ongoing_requests": 8,
            "upscale_delay_s": 5, "downscale_delay_s": 120,
        },
        max_ongoing_requests=64, max_queued_requests=MOST_WAITING, graceful_shutdown_timeout_s=2,
    )  # fmt: skip
    web = serve.deployment(Web).options(  # type: ignore[attr-defined]
        name="Web", ray_actor_options={"num_cpus": 0}, num_replicas=1, max_ongoing_requests=200,
        max_queued_requests=MOST_WAITING, graceful_shutdown_timeout_s=2,
    )  # fmt: skip
    found: serve.Application = web.bind(model.bind(settings), facts, settings, gate)
    return found


def application(args: dict[str, Any]) -> serve.Application:
    """Return the application that a Serve configuration file describes.

    Args:
        args: fields of `StudioSettings`.

    Raises:
        UserError: the model or the data is missing or damaged, or there is no token.
    """
    from pipeline.web_studio.model_facts import facts_of, load

    settings, gate = StudioSettings.model_validate(args), GateSettings.from_environment()
    if gate.token_sha256 is None:
        raise UserError(f"the studio of a cluster needs a token; set {TOKEN} in the environment of all Ray nodes")
    return deploy(settings, facts_of(load(settings), settings), gate, accelerator=settings.device.startswith("cuda"))
