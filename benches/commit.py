"""Commits on several shards beside commits on one: latency, throughput, the proxy's CPU.

    python3 benches/commit.py [--seconds 5] [--rounds 3] [--clients 8] [--before PROGRAM] [--out FOLDER]

A transaction is BEGIN, two UPDATEs by key, COMMIT; pgbench runs it on one PostgreSQL directly, and through
pgherd on one shard, on two and on four. All of them take turns, so that what else the machine does
falls on each. Once with fsync, as servers should run, and once without, where the messages count and not the disk.
`--before` names another build of pgherd, whose blocks on one shard stand beside this one's. Last, reads of four
shards and commits with `consistent_reads`, beside the same without.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys

import lab

SHARDS = 4
ROWS = 40_000
TABLE = "create table accounts (id int primary key, balance int not null) with (fillfactor = 50)"

# A client has keys of its own: 4 * x and the three behind it are on one shard each.
KEYS = "\\set x 4 * (random(0, 99) + :client_id * 100)\n"


def block(*offsets):
    """UPDATEs of the keys at these places, in one transaction."""
    keys = "".join(f"\\set k{offset} :x + {offset}\n" for offset in offsets)
    updates = "".join(f"update accounts set balance = balance + 1 where id = :k{offset};\n" for offset in offsets)
    return f"{KEYS}{keys}begin;\n{updates}commit;\n"


SCRIPTS = {
    "one shard": block(1, 4001),
    "two shards, the home shard among them": block(0, 1),
    "two shards, without the home shard": block(1, 2),
    "four shards": block(0, 1, 2, 3),
    "read": "select sum(balance), count(*) from accounts where id < 8;\n",
}
WRITES = [name for name in SCRIPTS if name != "read"]


def once(bench, port, database, name, clients, seconds, pid=None):
    """Milliseconds a transaction takes, transactions a second, and the proxy's CPU for one in µs."""
    path = bench.write(f"{name.replace(' ', '_').replace(',', '')}.sql", SCRIPTS[name])
    before = lab.cpu(pid) if pid else 0
    told = lab.pgbench(bench, port, database, "-n", "-f", path, "-c", clients, "-T", seconds)
    spent = lab.cpu(pid) - before if pid else 0
    count = int(re.search(r"actually processed: (\d+)", told).group(1))
    failed = re.search(r"failed transactions: (\d+)", told)
    if failed and int(failed.group(1)) or not count:
        raise lab.Failed(f"{name}: transactions failed\n{told}")
    return {"ms": float(re.search(r"latency average = ([\d.]+)", told).group(1)),
            "tps": float(re.search(r"tps = ([\d.]+)", told).group(1)),
            "cpu_us": spent / count * 1e6 if pid else None}


def middle(rounds):
    keys = ("ms", "tps", "cpu_us")
    return {key: statistics.median(one[key] for one in rounds) if rounds[0][key] is not None else None for key in keys}


def prepare(bench):
    bench.create_database("commits")
    for server in bench.servers:
        mine = "true" if server.index == SHARDS else f"i % {SHARDS} = {server.index}"
        server.psql("commits", TABLE)
        server.psql("commits", f"insert into accounts select i, 0 from generate_series(0, {ROWS - 1}) i where {mine}")
        server.psql("commits", "vacuum analyze accounts")


def config(bench, **more):
    return bench.pgherd_config("commits", SHARDS, {"ids": {"key": "int", "place": {"modulo": "all"}}},
                               {"accounts": {"distribution": "ids", "key": "id"}}, engines=1, **more)


def measure(arguments, fsync):
    settings = "fsync = on\nfull_page_writes = on" if fsync else ""
    with lab.Lab(SHARDS + 1, settings) as bench:
        prepare(bench)
        herd = bench.pgherd("pgherd", config(bench))
        consistent = bench.pgherd("consistent", config(bench, consistent_reads=True))
        subjects = [("direct", bench.servers[SHARDS], "one shard")]
        subjects += [("pgherd", herd, name) for name in WRITES]
        subjects += [("consistent_reads", consistent, name) for name in WRITES[1:]]
        subjects += [("pgherd", herd, "read"), ("consistent_reads", consistent, "read")]
        if arguments.before:
            own, lab.PGHERD = lab.PGHERD, arguments.before
            subjects.append(("before", bench.pgherd("before", config(bench)), "one shard"))
            lab.PGHERD = own
        found = []
        for clients in (1, arguments.clients):
            rounds = {}
            for number in range(arguments.rounds + 1):
                lab.log(f"fsync {'on' if fsync else 'off'}, {clients} clients, round {number}")
                for who, subject, name in subjects:
                    pid = None if who == "direct" else subject.pid
                    seconds = arguments.seconds if number else 1
                    one = once(bench, subject.port, "commits", name, clients, seconds, pid)
                    if number:
                        rounds.setdefault((who, name), []).append(one)
            found += [{"fsync": fsync, "clients": clients, "who": who, "script": name, **middle(values)}
                      for (who, name), values in rounds.items()]
        return found


def table(found):
    lines = []
    for fsync in (True, False):
        for clients in sorted({one["clients"] for one in found}):
            part = [one for one in found if one["fsync"] == fsync and one["clients"] == clients]
            if not part:
                continue
            single = next(one for one in part if one["who"] == "pgherd" and one["script"] == "one shard")
            lines += [f"\nfsync {'on' if fsync else 'off'}, {clients} client{'s' if clients > 1 else ''}\n",
                      "| | transaction | ms | to one shard through pgherd | a second | proxy's CPU µs |", "|---|---|---|---|---|---|"]
            for one in part:
                is_read = one["script"] == "read"
                ratio = "" if is_read else f"{one['ms'] / single['ms']:.2f}"
                spent = "" if one["cpu_us"] is None else f"{one['cpu_us']:.0f}"
                lines.append(f"| {one['who']} | {one['script']} | {one['ms']:.3f} | {ratio} | {one['tps']:.0f} | {spent} |")
    return "\n".join(lines).strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--before", help="another build of pgherd")
    parser.add_argument("--out", default=os.path.join(lab.ROOT, "bench-results"))
    arguments = parser.parse_args()
    found = measure(arguments, True) + measure(arguments, False)
    text = table(found)
    print(text)
    os.makedirs(arguments.out, exist_ok=True)
    for name, content in (("commit.md", text + "\n"), ("commit.json", json.dumps(found, indent=1) + "\n")):
        with open(os.path.join(arguments.out, name), "w") as output:
            output.write(content)


if __name__ == "__main__":
    try:
        main()
    except (lab.Failed, lab.Refused, subprocess.TimeoutExpired) as error:
        sys.exit(f"commit: {error}")
