"""What strangers meet at a cluster: closed ports, and open ones that want the token."""

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.namespaces import BIN, TOKEN, Machines
from tests.e2e.submitted_jobs import ADDRESS

BETWEEN_NODES = {22, 6379, 6380, 6381, 6382, 6383, 6384, 6385, 44217, 44227, 10001, *range(10002, 11000)}
"""What may listen on the network: SSH, what the cluster files name, Ray Client, and the metrics of autoscaler and
dashboard, whose ports Ray fixes. On AWS the security group closes all of it but 22."""


def check_ports(net: Machines, address: str, must: set[int]) -> None:
    """From another machine nothing but the named ports of a node can be reached: not the job API (8265)."""
    found = net.open_ports(address)
    assert must <= found
    assert found <= BETWEEN_NODES, sorted(found - BETWEEN_NODES)


def check_client(net: Machines, head: str) -> None:
    """Ray Client: who reaches its port gets no further without the token, nor with a wrong one; with it he does."""
    join = f"import ray; ray.init(address='ray://{head}:10001', logging_level='ERROR'); print('joined')"

    def somebody(token: str) -> tuple[int, str]:
        own = {"HOME": str(net.folder), "RAY_AUTH_MODE": "token" if token else "disabled", "RAY_AUTH_TOKEN": token}
        done = net.run([BIN / "python", "-c", join], timeout=280, **own)  # in that home is no token
        return done.returncode, done.stdout

    code, said = somebody(TOKEN)
    assert (code, "joined" in said) == (0, True), said[-4000:]
    with ThreadPoolExecutor(2) as pool:
        for code, said in pool.map(somebody, ("", "0" * 64)):
            assert code != 0, said
            assert "joined" not in said


def check_job_api(net: Machines) -> None:
    """Behind the forwarded port, asking and submitting: refused without the token and with a wrong one."""
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
