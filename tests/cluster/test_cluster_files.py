"""The cluster files are valid for Ray and EC2, and keep everything closed that must be."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.health.checks import DEDICATED_KEYS
from cluster.ray_runtime import PACKAGES

pytestmark = pytest.mark.slow

Tree = dict[str, Any]
FILES = {"ray_cluster.yaml": "aws", "cluster/onprem.yaml": "local"}
TEMPLATE = Path(__file__).resolve().parents[2] / "cluster" / "aws" / "stack.yaml"


@pytest.fixture(autouse=True)
def offline(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the repository root, which paths in the files are relative to, and without a real AWS account."""
    monkeypatch.chdir(root)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def load(name: str) -> Tree:
    return dict(yaml.safe_load(Path(name).read_text()))


def prepared(tree: Tree) -> Tree:
    """Return the file as `ray up` completes it, or raise the error that `ray up` would."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: Tree = prepare_config(copy.deepcopy(tree))
    validate_config(config)
    return config


def parameter_errors(node_config: Tree, shape: Any) -> str:
    """Return boto3's validation errors for parameters of an operation of EC2's: keys and types."""
    from botocore.validate import ParamValidator

    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    return str(report.generate_report())


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepared(load(name))
    assert config["provider"]["type"] == FILES[name]


@pytest.mark.parametrize(
    "plant",
    [
        lambda tree: tree.update(idle_timeout_minute=5),
        lambda tree: tree.update(max_workers="many"),
        lambda tree: tree["available_node_types"]["gpu_spot"].update(min_worker=1),
        lambda tree: tree.update(head_start_commands=tree.pop("head_start_ray_commands")),
        lambda tree: tree["docker"].update(images="x"),
    ],
)
def test_ray_rejects_a_planted_typo(plant: Callable[[Tree], object]) -> None:
    tree = load("ray_cluster.yaml")
    plant(tree)
    with pytest.raises(Exception, match=r"is not of type|unexpected|Additional properties"):
        prepared(tree)


def test_every_key_of_a_node_is_a_parameter_of_ec2() -> None:
    import boto3

    client = boto3.session.Session().client("ec2", region_name="us-west-2")
    shape = client.meta.service_model.operation_model("RunInstances").input_shape
    for name, kind in load("ray_cluster.yaml")["available_node_types"].items():
        assert parameter_errors(kind["node_config"], shape) == "", name
        for path in (["InstanceTyp"], ["MetadataOptions", "HttpToken"], ["BlockDeviceMappings", 0, "Ebs", "Size"]):
            broken = copy.deepcopy(kind["node_config"])
            node: Any = broken
            for step in path[:-1]:
                node = node[step]
            node[path[-1]] = "x"
            assert f"Unknown parameter in {'input' if len(path) == 1 else path[0]}" in parameter_errors(broken, shape)


def test_nodes_are_what_the_comments_say() -> None:
    tree = load("ray_cluster.yaml")
    kinds = tree["available_node_types"]
    assert kinds[tree["head_node_type"]]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    assert kinds["gpu_spot"]["resources"]["GPU"] == 1
    for name, kind in kinds.items():
        node = kind["node_config"]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
        assert all(
            disk["Ebs"]["VolumeType"] == "gp3" and disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"]
        )
        assert {spec["ResourceType"] for spec in node["TagSpecifications"]} == {"instance", "volume"}
        assert re.fullmatch("ami-[0-9a-f]{17}", node["ImageId"])
        worker = name != "head"
        assert node["IamInstanceProfile"]["Name"] == ("vdsm-ray-worker" if worker else "vdsm-ray-head")
        if worker:
            assert node["InstanceMarketOptions"]["MarketType"] == "spot"
            assert kind["min_workers"] == 0
    assert sum(kind.get("max_workers", 0) for kind in kinds.values()) == tree["max_workers"]


@pytest.mark.parametrize("name", FILES)
def test_ray_starts_with_the_token_time_for_jobs_to_save_and_the_dashboard_on_loopback(name: str) -> None:
    tree = load(name)
    starts = [line for key in ("head", "worker") for line in tree[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_JOB_STOP_WAIT_TIME_S=120 RAY_AUTH_MODE=token ray start" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any(path.endswith("/.ray/auth_token") for path in tree["file_mounts"])
    assert "0.0.0.0" not in Path(name).read_text()


@pytest.mark.parametrize("name", FILES)
def test_set_up_installs_this_project_in_the_tested_versions(root: Path, name: str) -> None:
    tree = load(name)
    mounted = {Path(local).name for remote, local in tree["file_mounts"].items() if "vdsm" in remote}
    assert mounted >= {*PACKAGES, "pyproject.toml", "constraints.txt", "configs"}
    for local in tree["file_mounts"].values():
        assert local.startswith("~") or (root / local).exists(), local
    installs = [line for line in tree["setup_commands"] if "pip install" in line]
    assert len(installs) == 1
    assert "constraints.txt" in installs[0]


def test_the_head_gets_an_ssh_key_of_its_own() -> None:
    text = (Path("cluster") / "onprem.yaml").read_text()
    key = load("cluster/onprem.yaml")["auth"]["ssh_private_key"]
    assert "id_" not in key
    assert f"ssh-keygen -t ed25519 -N '' -C vdsm-cluster -f {key}" in text
    assert "vdsm-cluster" in DEDICATED_KEYS


def test_image_manifest_and_constraints_name_one_version_of_ray(root: Path) -> None:
    pinned = re.search(r"^ray==(.+)$", (root / "constraints.txt").read_text(), re.M)
    assert pinned is not None
    version = pinned[1]
    assert load("ray_cluster.yaml")["docker"]["image"] == f"rayproject/ray:{version}-py311"
    assert load("cluster/kuberay/raycluster.yaml")["spec"]["rayVersion"] == version


def test_what_ray_starts_on_ec2_has_its_role_its_tags_and_no_open_port() -> None:
    """Run Ray's own code up to RunInstances for the shipped file, against a simulated EC2 (moto)."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.aws.utils import client_cache, resource_cache

    template = load_template()
    with mock_aws():
        resource_cache.cache_clear()
        client_cache.cache_clear()
        ec2, iam = boto3.session.Session().client("ec2", region_name="us-west-2"), boto3.session.Session().client("iam")
        for profile in ("HeadProfile", "WorkerProfile"):
            iam.create_instance_profile(InstanceProfileName=template[profile]["Properties"]["InstanceProfileName"])
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName="vdsm", Description="x", VpcId=vpc)["GroupId"]
        ingress = template["Group"]["Properties"]["SecurityGroupIngress"]
        assert [(rule["FromPort"], rule["ToPort"], rule["CidrIp"]) for rule in ingress] == [
            (22, 22, {"Ref": "AdminCidr"})
        ]
        tree = load("ray_cluster.yaml")
        for kind in tree["available_node_types"].values():
            kind["node_config"]["SecurityGroupIds"] = [group]
            kind["node_config"]["ImageId"] = ec2.describe_images()["Images"][0]["ImageId"]
        tree["auth"]["ssh_private_key"] = "~/none"  # otherwise Ray would write a key to ~/.ssh
        for kind in tree["available_node_types"].values():
            kind["node_config"]["KeyName"] = "none"
        config = bootstrap_aws(prepared(tree))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for name in ("cpu_spot", "gpu_spot"):
            node = config["available_node_types"][name]["node_config"]
            provider.create_node(node, {"ray-node-kind": "worker", "ray-user-node-type": name}, 1)
        machines = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
        assert sorted(one["InstanceType"] for one in machines) == ["c7i.2xlarge", "g6.xlarge"]
        for one in machines:
            assert one["InstanceLifecycle"] == "spot"
            assert one["IamInstanceProfile"]["Arn"].endswith(":instance-profile/vdsm-ray-worker")
            tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
            assert (tags["project"], tags["ray-cluster-name"]) == ("vdsm", "vdsm")
            assert [entry["GroupId"] for entry in one["SecurityGroups"]] == [group]
        # Ray created no group of its own, and opened no port in ours.
        groups = ec2.describe_security_groups()["SecurityGroups"]
        assert {one["GroupName"] for one in groups} == {"default", "vdsm"}
        assert not [rule for one in groups for rule in one["IpPermissions"] if rule.get("IpRanges")]


class _Loader(yaml.SafeLoader):
    """A YAML loader for CloudFormation's short forms: `!Ref x` is {"Ref": x}, `!Sub x` is {"Fn::Sub": x}, and so on."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Tree:
    assert isinstance(node, yaml.ScalarNode)
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": loader.construct_scalar(node)}


_Loader.add_multi_constructor("!", _short_form)


def load_template() -> Tree:
    return dict(yaml.load(TEMPLATE.read_text(), Loader=_Loader)["Resources"])


def resolved(value: Any) -> Any:
    """Return a part of the template with its references resolved, as in an account."""
    known = {"AWS::Partition": "aws", "AWS::Region": "us-west-2", "AWS::AccountId": "123456789012", "Bucket": "b-1"}
    known |= {"Prefix": "vdsm", "ClusterName": "vdsm", "Group.GroupId": "sg-0123456789abcdef0"}
    known |= {"Store.Arn": "arn:aws:s3:::b-1", "WorkerRole.Arn": "arn:aws:iam::123456789012:role/vdsm-ray-worker"}
    if isinstance(value, list):
        return [resolved(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Sub" in value:
        return re.sub(r"\$\{([^}]+)\}", lambda found: known[found[1]], value["Fn::Sub"])
    if "Fn::GetAtt" in value:
        return known[value["Fn::GetAtt"]]
    if "Ref" in value:
        return ["c7i.2xlarge", "g6.xlarge"] if value["Ref"] == "WorkerTypes" else known[value["Ref"]]
    return {name: resolved(one) for name, one in value.items()}


def policies() -> dict[str, Tree]:
    template = load_template()
    head = template["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]
    storage = template["StoragePolicy"]["Properties"]["PolicyDocument"]
    return {"head": resolved(head), "storage": resolved(storage)}


def findings(text: str) -> list[tuple[str, int]]:
    """Return the IDs of the cfn-lint rules, hints included, that a template breaks, and the numbers of the lines."""
    from cfnlint.api import ManualArgs, lint

    config = ManualArgs(regions=["us-west-2"], include_checks=["I"])
    return [(str(one.rule.id), one.linenumber) for one in lint(text, config=config)]


def test_template_and_policies_pass_the_linter() -> None:
    assert findings(TEMPLATE.read_text()) == []


def test_the_linter_finds_each_planted_error_where_it_is() -> None:
    text, planted = TEMPLATE.read_text(), set()
    for right, wrong, rule in (
        ("Action: ec2:RunInstances", "Action: ec2:RunInstance", "W3037"),
        ("[s3:GetObject,", "[s3:GetObjects,", "W3037"),
        ("Effect: Allow", "Effect: Alow", "E3530"),
        ("StringLike: {s3", "StringLikes: {s3", "E3510"),
        ("RestrictPublicBuckets", "RestrictPublicBucket", "E3002"),
    ):
        planted.add((rule, text[: text.index(right)].count("\n") + 1))
        text = text.replace(right, wrong, 1)
    assert len(planted) == 5
    assert planted <= set(findings(text))


def test_a_role_reaches_one_prefix_and_the_machines_of_its_own_cluster() -> None:
    for statement in policies()["storage"]["Statement"]:
        assert statement["Resource"] in ("arn:aws:s3:::b-1/vdsm/*", "arn:aws:s3:::b-1")
        if statement["Resource"].endswith("b-1"):
            assert statement["Condition"]["StringLike"]["s3:prefix"] == ["vdsm", "vdsm/*"]
    for statement in policies()["head"]["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement["Resource"] == "*":
            assert all(action.startswith("ec2:Describe") for action in actions)
        if "ec2:TerminateInstances" in actions:
            assert statement["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": "vdsm"}}
        if "iam:PassRole" in actions:
            assert statement["Resource"].endswith(":role/vdsm-ray-worker")
    worker = load_template()["WorkerRole"]["Properties"]
    assert worker["ManagedPolicyArns"] == [{"Ref": "StoragePolicy"}]
    assert "Policies" not in worker


def test_the_bucket_takes_nothing_unencrypted() -> None:
    template = load_template()
    rules = resolved(template["StoreRules"]["Properties"]["PolicyDocument"])["Statement"]
    assert all(rule["Effect"] == "Deny" and rule["Principal"] == "*" for rule in rules)
    plain = next(rule for rule in rules if rule["Condition"] == {"Bool": {"aws:SecureTransport": "false"}})
    assert plain["Action"] == "s3:*"
    assert plain["Resource"] == ["arn:aws:s3:::b-1", "arn:aws:s3:::b-1/*"]
    assert set(template["Store"]["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert "BucketEncryption" in template["Store"]["Properties"]
