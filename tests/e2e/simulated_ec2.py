"""EC2 for hosts in namespaces: moto serves the API, and each running instance is assigned to a free host."""

import json
import subprocess
import threading
from dataclasses import dataclass
from typing import Any

from tests.e2e.hosts import BIN, EC2, SERVICES, Host, until
from tests.e2e.namespaces import Machines, ip

_WATCH = """
import boto3, json, time
ec2 = boto3.client("ec2")
while True:
    found = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    print(json.dumps([{
        "id": one["InstanceId"], "state": one["State"]["Name"], "type": one["InstanceType"],
        "address": one.get("PrivateIpAddress", ""), "spot": one.get("InstanceLifecycle") == "spot",
        "profile": one.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2],
        "metadata": one.get("MetadataOptions", {}),
        "tags": {tag["Key"]: tag["Value"] for tag in one.get("Tags", [])},
    } for one in found]), flush=True)
    time.sleep(0.5)
"""
_ACCOUNT = """
import boto3, json
ec2, iam = boto3.client("ec2"), boto3.client("iam")
for name in ("vdsm-ray-head", "vdsm-ray-worker"):
    iam.create_instance_profile(InstanceProfileName=name)
vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
group = ec2.create_security_group(GroupName="vdsm", Description="as in cluster/aws/stack.yaml", VpcId=vpc)["GroupId"]
rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
print(json.dumps({"group": group, "image": ec2.describe_images()["Images"][0]["ImageId"]}))
"""


@dataclass
class Instance:
    """One machine, as described by the API."""

    id: str
    state: str
    type: str
    address: str
    spot: bool
    profile: str
    metadata: dict[str, Any]
    tags: dict[str, str]

    @property
    def is_live(self) -> bool:
        """Whether it is starting or running."""
        return self.state in ("pending", "running")


class SimulatedEc2:
    """The API, and a thread that applies its changes to the hosts."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._free = list(machines.hosts)
        self._assigned: dict[str, Host] = {}
        self._terminated: set[str] = set()
        self._closed = threading.Event()
        machines.start([BIN / "moto_server", "-H", SERVICES, "-p", "5077"], "ec2.log")
        probe = f"import urllib.request; urllib.request.urlopen('{EC2}/moto-api/').status"
        until(lambda: machines.run([BIN / "python", "-c", probe]).returncode == 0, "the EC2 API responds", 60)
        account = json.loads(machines.python(_ACCOUNT).splitlines()[-1])
        self.group, self.image = str(account["group"]), str(account["image"])
        machines.start([BIN / "python", "-c", _WATCH], "instances.jsonl")
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "SimulatedEc2":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(30)

    def instances(self) -> list[Instance]:
        """Return all instances, including terminated ones."""
        lines = (self._machines.folder / "instances.jsonl").read_text().split("\n")
        complete = [line for line in lines[:-1] if line.startswith("[")]
        return [Instance(**one) for one in json.loads(complete[-1])] if complete else []

    def launched(self, kind: str) -> list[Instance]:
        """Return all instances of one type that ever ran, as they were then: termination removes their profile."""
        found: dict[str, Instance] = {}
        for line in (self._machines.folder / "instances.jsonl").read_text().split("\n")[:-1]:
            for one in json.loads(line) if line.startswith("[") else []:
                if one["type"] == kind and one["state"] == "running":
                    found.setdefault(one["id"], Instance(**one))
        return list(found.values())

    def live(self, kind: str = "") -> list[Instance]:
        """Return the starting and running instances of one instance type, or of all."""
        return [one for one in self.instances() if one.is_live and kind in ("", one.type)]

    def host_of(self, instance: Instance) -> Host:
        """Return the host assigned to an instance."""
        return self._assigned[instance.id]

    def preempt(self, instance: Instance) -> None:
        """Terminate a spot instance, as EC2 does when it needs the capacity."""
        self._machines.python(f"import boto3; boto3.client('ec2').terminate_instances(InstanceIds=[{instance.id!r}])")

    def _follow(self) -> None:
        while not self._closed.wait(0.3):
            self._allow_keys()
            for one in self.instances():
                if one.state == "running" and one.id not in self._assigned and self._free:
                    host = self._free.pop(0)
                    ip("-n", host.namespace, "addr", "add", f"{one.address}/16", "dev", "eth0")
                    ip("-n", host.namespace, "route", "replace", "default", "dev", "eth0", "src", one.address)
                    self._assigned[one.id] = host
                elif one.state == "terminated" and one.id in self._assigned and one.id not in self._terminated:
                    self._terminated.add(one.id)
                    host = self._assigned[one.id]
                    host.power_off()
                    ip("-n", host.namespace, "addr", "flush", "dev", "eth0")
                    ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
                    ip("-n", host.namespace, "route", "add", "172.31.0.0/16", "dev", "eth0")
                    host.power_on()
                    self._free.append(host)

    def _allow_keys(self) -> None:
        """Authorize the public key of Ray's key pair on every machine, as EC2 does through its metadata."""
        for key in (self._machines.home / ".ssh").glob("*.pem"):
            done = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=False)
            allowed = self._machines.public_keys.read_text()
            if done.returncode == 0 and done.stdout not in allowed:
                self._machines.public_keys.write_text(allowed + done.stdout)
