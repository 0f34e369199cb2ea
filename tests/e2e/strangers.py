"""What an outsider finds on a cluster: closed ports, and open ones that require the token."""

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.hosts import BIN
from tests.e2e.namespaces import TOKEN, Machines
from tests.e2e.submitted_jobs import ADDRESS
from tests.listeners import store_ports

BETWEEN_NODES = {22, 6379, 6380, 6381, 6382, 6383, 6384, 6385, 44217, 44227, 10001, *range(10002, 11000)}
"""Ports that may listen on the network: SSH, those in the cluster files, Ray Client, and the metrics of autoscaler and
dashboard, whose ports Ray fixes. On AWS the security group closes all but 22."""


GLOO_PORTS = range(32_768, 61_000)
"""Ports of gloo, which the system chooses; a training adds them, and that of torch's store."""
FIREWALL = "".join(
    f"nft add {line}\n"
    for line in (
        "table inet ray",
        "chain inet ray in '{ type filter hook input priority 0; }'",
        "rule inet ray in ct state established,related accept",
        "rule inet ray in iifname lo accept",
        "rule inet ray in ip saddr { NODES } accept",
        "rule inet ray in tcp dport != 22 drop",
    )
)
"""The rules of docs/operations.md."""


def check_ports(net: Machines, address: str, must: set[int], *, training: bool = False) -> set[int]:
    """Check that another machine can reach only the named ports of a node, and not the job API (8265)."""
    found = net.open_ports(address)
    allowed = BETWEEN_NODES | ({*store_ports(), *GLOO_PORTS} if training else set())
    assert must <= found
    assert found <= allowed, sorted(found - allowed)
    return found


def check_client(net: Machines, head: str) -> None:
    """Check that Ray Client admits the token only: neither a missing nor a wrong one."""
    join = f"import ray; ray.init(address='ray://{head}:10001', logging_level='ERROR'); print('joined')"

    def connect(token: str) -> tuple[int, str]:
        own = {"HOME": str(net.folder), "RAY_AUTH_MODE": "token" if token else "disabled", "RAY_AUTH_TOKEN": token}
        done = net.run([BIN / "python", "-c", join], timeout=280, **own)  # that home has no token
        return done.returncode, done.stdout

    code, output = connect(TOKEN)
    assert (code, "joined" in output) == (0, True), output[-4000:]
    with ThreadPoolExecutor(2) as pool:
        for code, output in pool.map(connect, ("", "0" * 64)):
            assert code != 0, output
            assert "joined" not in output


def check_job_api(net: Machines) -> None:
    """Check that the job API behind the forwarded port refuses requests without the token or with a wrong one."""
    code = (
        "import json, sys, urllib.error, urllib.request\n"
        "for token in sys.argv[1:]:\n"
        "    for job in (None, json.dumps({'entrypoint': 'true'}).encode()):\n"
        f"        request = urllib.request.Request('{ADDRESS}/api/jobs/', job)\n"
        "        request.add_header('Content-Type', 'application/json')\n"
        "        if token != '-': request.add_header('Authorization', f'Bearer {token}')\n"
        "        try: print(urllib.request.urlopen(request).status)\n"
        "        except urllib.error.HTTPError as error: print(error.code)\n"
    )
    answers = net.run([BIN / "python", "-c", code, "-", "0" * 64, TOKEN]).stdout.split()
    assert set(answers[:4]) <= {"401", "403"}, answers
    assert answers[4:] == ["200", "200"]
