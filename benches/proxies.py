#!/usr/bin/env python3
"""pgbench directly, through a bare TCP relay, through PgBouncer and through pgherd, side by side.

  proxies.py run   [--quick] [--cells S:simple:50,…] [--subjects a,b] [--rounds 5] [--seconds 4] [--engines auto]
  proxies.py idle  [--subjects a,b] [--clients 10000]      memory for an idle client
  proxies.py tpcb  [--seconds 60] [--clients 50]           see tpcb.py
  proxies.py faults [--seconds 60]                         see faults.py

A cell is SCRIPT:PROTOCOL:CLIENTS. SCRIPT is S (select-only, 1,000,000 rows) or T (tpcb-like, one
server). All subjects stay up; in each round each cell is measured on one subject after the other.
The tables hold medians over the rounds. `× relay` is the median of the ratios within each round, of
the proxy's CPU for a transaction to the relay's. CPU is user and system time of all threads.
`pgherd-4-…` routes over four shards: by literal in the simple protocol, by parameter in the others;
`pgherd-4-unix` reaches its servers through Unix sockets, all others through TCP.
Prints Markdown; writes every measurement to bench-results/ as JSON.
"""
import argparse
import glob
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

import faults
import lab
import tpcb

ROWS = 1_000_000
SELECT = rf"\set aid random(1, {ROWS})" + "\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
SUBJECTS = ("direct", "relay", "pgbouncer", "pgherd-1", "pgherd-4-postgres", "pgherd-4-jump", "pgherd-4-unix")
PROTOCOLS = ("simple", "extended", "prepared")
FULL = [f"{script}:{protocol}:{clients}" for script in "ST" for protocol in PROTOCOLS for clients in (1, 10, 50, 200)]
QUICK = [f"S:{protocol}:{clients}" for protocol in PROTOCOLS for clients in (10, 50)]
RESULTS = os.path.join(lab.ROOT, "bench-results")


class Bench:
    """The lab with the subjects that were asked for, up and loaded."""

    def __init__(self, stack, subjects, engines):
        self.lab, self.subjects, self.skip = stack, {}, {}
        stack.create_database("bench", 1)
        lab.log("loading 1,000,000 accounts")
        lab.pgbench(stack, stack.servers[0].port, "bench", "-i", "-q", "-s", ROWS // 100_000)
        stack.servers[0].psql("bench", "vacuum analyze")
        self.script = stack.write("select.sql", SELECT)
        for name in subjects:
            self.subjects[name] = self.begin(name, engines)
        for server in stack.servers:
            server.psql("postgres", "checkpoint")

    def begin(self, name, engines):
        stack = self.lab
        if name == "direct":
            return Direct(stack.servers[0].port)
        if name == "relay":
            return stack.relay()
        if name == "pgbouncer":
            version = re.search(r"(\d+)\.(\d+)", lab.run([shutil.which("pgbouncer", path="/usr/sbin:" + os.environ["PATH"]), "-V"]))
            if (int(version[1]), int(version[2])) < (1, 21):
                self.skip[name] = "prepared"        # it knows no prepared statements in transaction mode
            return stack.pgbouncer()
        if name == "pgherd-1":
            return stack.pgherd(name, stack.pgherd_config("bench", 1, engines=engines))
        if name == "pgherd-4-unix":
            return self.sharded(name, "postgres", engines, stack.sockets)
        return self.sharded(name, name.removeprefix("pgherd-4-"), engines)

    def sharded(self, name, placement, engines, host="127.0.0.1"):
        """Four shards with the same accounts, loaded by COPY through pgherd, and looked at on each shard."""
        database = name.replace("pgherd-4-", "bench_")
        self.lab.create_database(database)
        config = self.lab.pgherd_config(
            database, 4, {"accounts": {"key": "bigint", "place": {placement: "all"}}},
            {"pgbench_accounts": {"distribution": "accounts", "key": "aid"}}, host, engines=engines)
        herd = self.lab.pgherd(name, config)
        lab.psql(herd.port, database, "create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84))")
        lab.log(f"{name}: COPY of 1,000,000 accounts through pgherd")
        out = subprocess.Popen(psql_command(self.lab.servers[0].port, "bench", "copy pgbench_accounts to stdout"),
                               stdout=subprocess.PIPE, env=lab.ENV)
        lab.run(psql_command(herd.port, database, "copy pgbench_accounts from stdin"), stdin=out.stdout)
        out.stdout.close()
        if out.wait():
            raise lab.Failed("COPY out of the server failed")
        counts = []
        for server in self.lab.servers:
            counts.append(int(server.psql(database, "select count(*) from pgbench_accounts")))
            server.psql(database, "vacuum analyze pgbench_accounts")
            if placement == "postgres":
                astray = server.psql(database, f"""create temp table placed (aid bigint) partition by hash (aid);
                    select count(*) from pgbench_accounts where not satisfies_hash_partition('placed'::regclass, 4, {server.index}, aid::bigint)""")
                if astray != "0":
                    raise lab.Failed(f"{astray} rows of shard_{server.index} belong elsewhere")
        if sum(counts) != ROWS or not all(counts):
            raise lab.Failed(f"{name}: the shards hold {counts} rows")
        return herd

    def does(self, name, script, protocol):
        if script == "T" and name.startswith("pgherd-4"):
            return False            # its transactions touch several keys
        return self.skip.get(name) != protocol

    def measure(self, name, script, protocol, clients, seconds):
        subject = self.subjects[name]
        chosen = ["-f", self.script] if script == "S" else ["-b", "tpcb-like"]
        common = ["-n", *chosen, "-M", protocol, "-c", clients, "-j", min(2, clients)]
        lab.pgbench(self.lab, subject.port, subject.database, *common, "-t", max(5, 1500 // clients), timeout=120)
        prefix = os.path.join(self.lab.folder, "latency")
        servers = [server.pid for server in self.lab.servers]
        proxy_before = lab.cpu(subject.pid) if subject.pid else 0
        server_before = sum(map(lab.cpu, servers))
        said = lab.pgbench(self.lab, subject.port, subject.database, *common, "-T", seconds, "-l",
                           f"--log-prefix={prefix}", "--sampling-rate=0.2", check=False, timeout=seconds + 120)
        proxy = (lab.cpu(subject.pid) if subject.pid else 0) - proxy_before
        server = sum(map(lab.cpu, servers)) - server_before
        done = re.search(r"actually processed: (\d+)", said)
        failed = re.search(r"failed transactions: (\d+)", said)
        tps = re.search(r"tps = ([\d.]+)", said)
        done = int(done[1]) if done else 0
        p50, p95, p99 = percentiles(prefix)
        return {
            "subject": name, "cell": f"{script}:{protocol}:{clients}", "transactions": done,
            "failed": int(failed[1]) if failed else None, "tps": float(tps[1]) if tps else 0.0,
            "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
            "proxy_us": proxy / done * 1e6 if done and subject.pid else None,
            "server_us": server / done * 1e6 if done else None,
            "errors": sorted(set(re.findall(r"(?:ERROR|FATAL|error:|aborted).*", said)))[:5],
        }


class Direct:
    """No proxy at all."""
    pid, database = None, "bench"

    def __init__(self, port):
        self.port = port


def psql_command(port, database, sql):
    return ["psql", "-h", "127.0.0.1", "-p", str(port), "-d", database, "-Xq", "-v", "ON_ERROR_STOP=1", "-c", sql]


def percentiles(prefix):
    """Milliseconds at 50, 95 and 99 % of pgbench's log, which is removed."""
    latencies = []
    for path in glob.glob(prefix + ".*"):
        with open(path) as lines:
            latencies += [int(fields[2]) for fields in map(str.split, lines) if len(fields) > 2 and fields[2].isdigit()]
        os.remove(path)
    latencies.sort()
    return [latencies[min(len(latencies) - 1, int(len(latencies) * part))] / 1000 if latencies else None
            for part in (0.5, 0.95, 0.99)]


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def shown(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def ratios(rows, base):
    """Of each round, the proxy's CPU for a transaction to the base's in the same round."""
    of_base = {row["round"]: row["proxy_us"] for row in base}
    return [row["proxy_us"] / of_base[row["round"]] for row in rows
            if row["proxy_us"] and of_base.get(row["round"])]


def report(measurements):
    cells = list(dict.fromkeys(row["cell"] for row in measurements))
    for cell in cells:
        here = [row for row in measurements if row["cell"] == cell]
        base = [row for row in here if row["subject"] == "relay"]
        direct = median(row["server_us"] for row in here if row["subject"] == "direct")
        print(f"\n**{cell}**\n\n| | proxy CPU µs/txn | × relay | PostgreSQL µs/txn | together × direct | tps | p50 ms | p95 ms | p99 ms |"
              "\n|---|---|---|---|---|---|---|---|---|")
        for name in dict.fromkeys(row["subject"] for row in here):
            rows = [row for row in here if row["subject"] == name]
            of = lambda key: median(row[key] for row in rows)
            together = None
            if direct and of("server_us") is not None:
                together = ((of("proxy_us") or 0) + of("server_us")) / direct
            print(f"| {name} | {shown(of('proxy_us'))} | {shown(median(ratios(rows, base)), 2)} | {shown(of('server_us'))} | "
                  f"{shown(together, 2)} | {shown(of('tps'), 0)} | {shown(of('p50_ms'), 2)} | {shown(of('p95_ms'), 2)} | {shown(of('p99_ms'), 2)} |")
            for row in rows:
                if row["errors"] or row["failed"]:
                    print(f"|   round {row['round']}: {row['failed']} failed; {'; '.join(row['errors'])[:200]} |")
    sys.stdout.flush()


def save(kind, data):
    os.makedirs(RESULTS, exist_ok=True)
    path = os.path.join(RESULTS, f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}.json")
    with open(path, "w") as output:
        json.dump(data, output, indent=1)
    print(f"\nwritten to {os.path.relpath(path)}", flush=True)


def machine():
    with open("/proc/cpuinfo") as info:
        model = re.search(r"model name\s*: (.*)", info.read())
    return {"cpu": model[1] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def run(options):
    cells = options.cells.split(",") if options.cells else QUICK if options.quick else FULL
    subjects = options.subjects.split(",") if options.subjects else (
        ["direct", "relay", "pgbouncer", "pgherd-4-postgres"] if options.quick else list(SUBJECTS))
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (2 if options.quick else 4)
    measurements = []
    with lab.Lab(4, "synchronous_commit = off") as stack:
        bench = Bench(stack, subjects, options.engines)
        for number in range(rounds):
            for cell in cells:
                script, protocol, clients = cell.split(":")
                for name in subjects:
                    if not bench.does(name, script, protocol):
                        continue
                    row = bench.measure(name, script, protocol, int(clients), seconds)
                    row["round"] = number
                    measurements.append(row)
                    lab.log(f"round {number} {cell:15} {name:18} {row['tps']:8.0f} tps  proxy {shown(row['proxy_us'])} µs  "
                            f"PostgreSQL {shown(row['server_us'])} µs {row['errors'] or ''}")
        print(f"pgbench, {rounds} rounds of {seconds} s, medians; {machine()}")
        report(measurements)
        memory = None if options.quick or options.cells else idle(bench, [name for name in subjects if name in ("pgbouncer", "pgherd-1", "pgherd-4-postgres")], options.clients or 10_000)
    save("run", {"machine": machine(), "measurements": measurements, "idle": memory})
    return all(not row["errors"] and not row["failed"] and row["transactions"] for row in measurements)


def idle(bench, subjects, clients):
    """KiB resident for each idle client: after connecting, and after a statement of each."""
    lab.raise_open_files()
    print(f"\n**memory, {clients} idle clients**\n\n| | KiB a client, connected | KiB a client, after a statement each | CPU % while idle |\n|---|---|---|---|")
    found = []
    for name in subjects:
        subject = bench.subjects[name]
        for _ in range(3):
            with lab.Client(subject.port, subject.database) as client:
                client.query("select 1")
        time.sleep(0.5)
        before, connected = lab.resident(subject.pid), []
        try:
            for _ in range(clients):
                connected.append(lab.Client(subject.port, subject.database))
            time.sleep(1)
            after = lab.resident(subject.pid)
            spent = lab.cpu(subject.pid)
            time.sleep(4)
            spent = (lab.cpu(subject.pid) - spent) / 4 * 100
            for client in connected:
                client.query("select 1")
            time.sleep(1)
            used = lab.resident(subject.pid)
        finally:
            for client in connected:
                client.close()
        row = {"subject": name, "clients": clients, "connected_kib": (after - before) / clients, "used_kib": (used - before) / clients,
               "idle_cpu_percent": spent}
        found.append(row)
        print(f"| {name} | {row['connected_kib']:.2f} | {row['used_kib']:.2f} | {spent:.1f} |", flush=True)
    return found


def only_idle(options):
    subjects = options.subjects.split(",") if options.subjects else ["pgbouncer", "pgherd-1"]
    with lab.Lab(4, "synchronous_commit = off") as stack:
        bench = Bench(stack, subjects, options.engines)
        save("idle", {"machine": machine(), "idle": idle(bench, subjects, options.clients or 10_000)})
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "idle", "tpcb", "faults"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cells")
    parser.add_argument("--subjects")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--engines", default="auto", type=lambda text: text if text == "auto" else int(text))
    options = parser.parse_args()
    try:
        good = {
            "run": lambda: run(options),
            "idle": lambda: only_idle(options),
            "tpcb": lambda: tpcb.main(options.seconds or 60, options.clients or 50, options.engines),
            "faults": lambda: faults.main(options.seconds or 60, options.clients or 20, options.engines),
        }[options.command]()
    except lab.Failed as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
