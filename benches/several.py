"""Reads over four shards: what putting the answer together costs beside the shards' own work.

    python3 benches/several.py [--rows 1000000] [--rounds 5] [--stream 10000000] [--out FOLDER]

The *merge tax* is the time of a statement through pgherd over that of the shards alone: their own parts of
it, sent to all of them at once by a client each, until the last has answered. Beside it stands one
PostgreSQL that holds all rows. Then rows a second of the proxy's CPU, concatenated and merged, and its
memory while many rows stream through a merge.
"""
import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time

import lab

SHARDS = 4
GROUPS = 10_000
TABLE = "create table samples (k int primary key, g int, n int, amount numeric(10,2), name text)"
FILL = ("insert into samples select i, i * 7919::bigint %% %d, i * 104729::bigint %% 1000003, (i %% 10007) / 100.0, 'name ' || i "
        "from generate_series(0, %d) i where %s")

# Name, the statement, and each shard's own part of it.
CASES = [
    ("top 100", "select k, n from samples order by n, k limit 100", None),
    ("top 100 behind 1000", "select k, n from samples order by n, k limit 100 offset 1000",
     "select k, n from samples order by n, k limit 1100"),
    ("group by, 10k groups", "select g, count(*), sum(n), avg(amount), max(name) from samples group by g",
     "select g, count(*), sum(n), sum(amount), count(amount), max(name) from samples group by g"),
    ("top 10 of 10k groups", "select g, sum(amount) from samples group by g order by 2 desc, 1 limit 10",
     "select g, sum(amount) from samples group by g"),
    ("totals", "select count(*), sum(n), min(k), max(k) from samples", None),
    ("average", "select avg(amount), stddev(n::float8) from samples",
     "select count(amount), sum(amount), var_pop(n::float8), sum(n::float8) from samples"),
]


class Drain:
    """A connection whose answers are read and thrown away."""

    END = b"Z\0\0\0\5I"

    def __init__(self, port):
        self.client = lab.Client(port, "several", timeout=600)
        self.socket = self.client.socket

    def run(self, sql):
        """Bytes of the answer."""
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
        total, tail, first = 0, b"", b""
        while not tail.endswith(self.END):
            got = self.socket.recv(1 << 20)
            if not got:
                raise lab.Failed("the connection was closed")
            first = first or got[:200]
            total += len(got)
            tail = (tail + got)[-len(self.END):]
        if first[:1] == b"E":
            raise lab.Failed(f"{sql}: {first!r}")
        return total


def seconds(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def at_once(drains, sql):
    threads = [threading.Thread(target=drain.run, args=(sql,)) for drain in drains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(arguments):
    with lab.Lab(SHARDS + 1, "work_mem = 64MB") as bench:
        bench.create_database("several")
        for server in bench.servers:
            mine = "true" if server.index == SHARDS else f"i %% {SHARDS} = {server.index}"
            server.psql("several", TABLE)
            server.psql("several", (FILL % (GROUPS, arguments.rows - 1, mine)).replace("%%", "%"))
            server.psql("several", "vacuum analyze samples")
        config = bench.pgherd_config("several", SHARDS, {"k": {"key": "int", "place": {"modulo": "all"}}},
                                     {"samples": {"distribution": "k", "key": "k"}}, gather={"twins": 2})
        path = bench.write("setup.yaml", json.dumps(config))
        lab.log(lab.run([lab.PGHERD, "setup", "-c", path]).strip().replace("\n", "; "))
        herd = bench.pgherd("pgherd", config)
        through, one = Drain(herd.port), Drain(bench.servers[SHARDS].port)
        shards = [Drain(server.port) for server in bench.servers[:SHARDS]]
        found = {"rows": arguments.rows, "rounds": arguments.rounds, "cases": [], "streams": []}
        for name, sql, part in CASES:
            times = {"pgherd": [], "shards": [], "one": []}
            for _ in range(arguments.rounds + 1):
                times["shards"].append(seconds(lambda: at_once(shards, part or sql)))
                times["pgherd"].append(seconds(lambda: through.run(sql)))
                times["one"].append(seconds(lambda: one.run(sql)))
            middle = {key: statistics.median(values[1:]) for key, values in times.items()}
            found["cases"].append({"case": name, "sql": sql, **middle, "tax": middle["pgherd"] / middle["shards"]})
        for name, sql in (("concatenated", "select k, n, g from samples"), ("merged", "select k, n, g from samples order by k")):
            before = lab.cpu(herd.pid)
            rounds = 3
            took = seconds(lambda: [through.run(sql) for _ in range(rounds)])
            spent = lab.cpu(herd.pid) - before
            rows = rounds * arguments.rows
            found["streams"].append({"stream": name, "rows_a_cpu_second": rows / spent, "rows_a_second": rows / took})
        if arguments.stream:
            times = max(1, arguments.stream // arguments.rows)
            peak, resting = [0], lab.resident(herd.pid)
            done = threading.Event()

            def watch():
                while not done.wait(0.05):
                    peak[0] = max(peak[0], lab.resident(herd.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            took = seconds(lambda: through.run(f"select k, n from samples, generate_series(1, {times}) x order by k"))
            done.set()
            watcher.join()
            found["memory"] = {"rows": times * arguments.rows, "seconds": took, "resting_mib": resting / 1024,
                               "peak_mib": peak[0] / 1024}
        return found


def table(found):
    lines = [f"{found['rows']} rows on {SHARDS} shards, medians of {found['rounds']} runs\n",
             "| statement | shards' own part ms | pgherd ms | tax | one PostgreSQL ms |", "|---|---|---|---|---|"]
    for case in found["cases"]:
        lines.append(f"| {case['case']} | {case['shards'] * 1000:.1f} | {case['pgherd'] * 1000:.1f} | {case['tax']:.2f} "
                     f"| {case['one'] * 1000:.1f} |")
    lines += ["", "| rows | millions a second of the proxy's CPU | millions a second |", "|---|---|---|"]
    for stream in found["streams"]:
        lines.append(f"| {stream['stream']} | {stream['rows_a_cpu_second'] / 1e6:.2f} | {stream['rows_a_second'] / 1e6:.2f} |")
    if memory := found.get("memory"):
        lines.append(f"\n{memory['rows']} rows merged in {memory['seconds']:.1f} s; the proxy's memory: "
                     f"{memory['resting_mib']:.0f} MiB before, {memory['peak_mib']:.0f} MiB at most")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream", type=int, default=10_000_000)
    parser.add_argument("--out", default=os.path.join(lab.ROOT, "bench-results"))
    arguments = parser.parse_args()
    found = measure(arguments)
    text = table(found)
    print(text)
    os.makedirs(arguments.out, exist_ok=True)
    for name, content in (("several.md", text + "\n"), ("several.json", json.dumps(found, indent=1) + "\n")):
        with open(os.path.join(arguments.out, name), "w") as output:
            output.write(content)


if __name__ == "__main__":
    try:
        main()
    except (lab.Failed, lab.Refused, subprocess.TimeoutExpired, socket.timeout) as error:
        sys.exit(f"several: {error}")
