"""The Kubernetes manifests have only known fields of the right type, pods are not root, and code needs the token."""

import copy
import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.ray_runtime import PACKAGES

MANIFESTS = ("raycluster", "rayjob", "rayservice")
KUBERNETES = "1.33"
Tree = dict[str, Any]


def manifest(root: Path, name: str) -> Tree:
    return dict(yaml.safe_load((root / "cluster" / "kuberay" / f"{name}.yaml").read_text()))


def templates(tree: Tree) -> list[Tree]:
    spec = tree["spec"]
    if tree["kind"] == "RayJob":
        return [spec["submitterPodTemplate"]]
    spec = spec.get("rayClusterConfig", spec)
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


def schema_errors(root: Path, tree: Tree) -> list[str]:
    """Return the errors of a manifest: its Ray fields by our schema, its pods by that of Kubernetes."""
    import kubernetes_validate
    from jsonschema import Draft202012Validator

    schema = yaml.safe_load((root / "tests" / "cluster" / "kuberay_schema.yaml").read_text())
    found = [error.message for error in Draft202012Validator(schema).iter_errors(tree)]
    for template in [] if found else templates(tree):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": copy.deepcopy(template["spec"])}
        options = tree["spec"].get("autoscalerOptions", {})
        if options and "serviceAccountName" in pod["spec"] and template is templates(tree)[0]:
            # The operator adds this container to the head's pod.
            own = {name: options[name] for name in ("resources", "securityContext", "volumeMounts")}
            pod["spec"]["containers"].append({"name": "autoscaler", "image": "x", **own})
        try:
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(error.message)
    return found


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_fit_the_schema(root: Path, name: str) -> None:
    assert schema_errors(root, manifest(root, name)) == []


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("raycluster", lambda tree: tree["spec"].update(workerGroupSpec=tree["spec"].pop("workerGroupSpecs"))),
        ("raycluster", lambda tree: tree["spec"]["autoscalerOptions"].update(idleTimeoutSeconds="600")),
        ("raycluster", lambda tree: tree["spec"]["authOptions"].update(mode="tokens")),
        ("raycluster", lambda tree: tree["spec"]["workerGroupSpecs"][1].update(minReplica=1)),
        ("raycluster", lambda tree: templates(tree)[1]["spec"].update(serviceAcountName="vdsm")),
        ("raycluster", lambda tree: templates(tree)[2]["spec"]["containers"][0].update(image=3)),
        ("raycluster", lambda tree: templates(tree)[0]["spec"]["containers"][0]["ports"][0].pop("containerPort")),
        ("rayservice", lambda tree: tree["spec"].update(serveConfig=tree["spec"].pop("serveConfigV2"))),
        ("rayservice", lambda tree: templates(tree)[0]["spec"]["containers"][0]["env"][-1].update(valuesFrom={})),
        ("rayjob", lambda tree: tree["spec"].pop("entrypoint")),
        ("rayjob", lambda tree: tree["spec"].update(runtimeEnvYaml="env_vars: {}")),
    ],
)
def test_a_planted_typo_is_caught(root: Path, name: str, plant: Callable[[Tree], object]) -> None:
    tree = copy.deepcopy(manifest(root, name))
    plant(tree)
    assert len(schema_errors(root, tree)) >= 1


def access(root: Path) -> list[Tree]:
    return list(yaml.safe_load_all((root / "cluster" / "kuberay" / "access.yaml").read_text()))


def test_the_accounts_and_the_network_policy_fit_the_schema(root: Path) -> None:
    import kubernetes_validate

    for document in access(root):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_workers_have_an_account_of_their_own_and_jobs_no_token_of_kubernetes(root: Path) -> None:
    head, *workers = templates(manifest(root, "raycluster"))
    accounts = {one["metadata"]["name"]: one for one in access(root) if one["kind"] == "ServiceAccount"}
    assert set(accounts) == {"vdsm-head", "vdsm-worker"}
    assert not any(one["automountServiceAccountToken"] for one in accounts.values())
    assert head["spec"]["serviceAccountName"] == "vdsm-head"
    assert {worker["spec"]["serviceAccountName"] for worker in workers} == {"vdsm-worker"}
    for template in (head, *workers, *templates(manifest(root, "rayjob"))):
        assert template["spec"]["automountServiceAccountToken"] is False
        mounts = [one["mountPath"] for box in template["spec"]["containers"] for one in box["volumeMounts"]]
        assert not any("serviceaccount" in path for path in mounts)
    options = manifest(root, "raycluster")["spec"]["autoscalerOptions"]
    assert any("serviceaccount" in one["mountPath"] for one in options["volumeMounts"])


def test_containers_cannot_change_their_image_which_is_named_by_its_digest(root: Path) -> None:
    for name in MANIFESTS:
        for template in templates(manifest(root, name)):
            for container in template["spec"]["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"]
                assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])
                assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    assert manifest(root, "raycluster")["spec"]["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"]


def test_only_the_cluster_reaches_its_pods_except_for_the_job_api(root: Path) -> None:
    (policy,) = (one["spec"] for one in access(root) if one["kind"] == "NetworkPolicy")
    name = manifest(root, "raycluster")["metadata"]["name"]
    own = {"podSelector": {"matchLabels": {"ray.io/cluster": name}}}
    assert policy["podSelector"] == own["podSelector"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    inside, others = policy["ingress"]
    assert inside == {"from": [own]}
    assert others["ports"] == [{"port": 8265}]
    (submitter,) = templates(manifest(root, "rayjob"))
    assert others["from"][0] == {"podSelector": {"matchLabels": submitter["metadata"]["labels"]}}
    open_to_all = [rule for rule in policy["egress"] if "to" not in rule]
    assert all(port["port"] == 53 for rule in open_to_all for port in rule["ports"])
    assert [
        one["ipBlock"]["except"] for rule in policy["egress"] for one in rule.get("to", []) if "ipBlock" in one
    ] == [["169.254.0.0/16"]]


def test_pods_are_not_root_and_code_needs_the_token(root: Path) -> None:
    tree = manifest(root, "raycluster")
    assert tree["spec"]["authOptions"] == {"mode": "token"}
    assert tree["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not tree["spec"]["headGroupSpec"]["enableIngress"]
    assert tree["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for template in templates(tree):
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        for container in template["spec"]["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert not any("KEY" in one["name"] or "SECRET" in one["name"] for one in container["env"])


def test_the_job_is_a_command_of_this_project(root: Path) -> None:
    from pipeline.cli import COMMANDS

    spec = manifest(root, "rayjob")["spec"]
    program, command, *args = shlex.split(spec["entrypoint"])
    assert (program, command in COMMANDS) == ("vdsm", True)
    recipe = args[args.index("--config") + 1]
    assert (root / "configs" / Path(recipe).name).is_file()
    assert "KEY" not in spec["runtimeEnvYAML"]
    cluster = manifest(root, "raycluster")
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_the_studio_of_a_cluster_is_that_of_this_project_and_lets_nobody_in_without_its_token(root: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    from pipeline.web_studio.gate import TOKEN
    from pipeline.web_studio.settings import StudioSettings
    from pipeline.web_studio.start import CALLBACK, GATE

    tree = manifest(root, "rayservice")
    assert tree["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    for template in templates(tree):
        assert template["spec"]["automountServiceAccountToken"] is False
        (container,) = template["spec"]["containers"]
        given = {one["name"]: one for one in container["env"]}
        assert given[CALLBACK]["value"] == GATE
        assert given[TOKEN]["valueFrom"]["secretKeyRef"]["name"] == "vdsm-studio"
    found = []
    for text in (tree["spec"]["serveConfigV2"], (root / "cluster" / "studio.yaml").read_text()):
        (application,) = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
        found.append(application)
        module, _, function = application.import_path.partition(":")
        assert hasattr(importlib.import_module(module), function)
        StudioSettings.model_validate(application.args)
    assert found[0] == found[1], "`serve deploy` and the RayService start the same application"
    assert yaml.safe_load((root / "cluster" / "studio.yaml").read_text())["http_options"]["host"] == "127.0.0.1"


def test_the_image_is_linted_and_not_root(root: Path) -> None:
    import shutil
    import subprocess
    import sys

    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint is not None, "installed by `make install`"
    done = subprocess.run([hadolint, str(root / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    lines = (root / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["1000"]
    assert all("-c vdsm/constraints.txt" in line or "--no-deps" in line for line in lines if "pip install" in line)
    allowed = (root / ".dockerignore").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]}
    assert copied == {line[1:] for line in allowed if line.startswith("!")}
    assert set(PACKAGES) < copied
