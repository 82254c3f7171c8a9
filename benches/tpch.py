"""TPC-H's 22 queries over four shards: the answers of one PostgreSQL, and the times beside it.

    python3 benches/tpch.py DIFFSQL [--sf 0.01] [--rounds 3] [--python PROGRAM] [--out FOLDER]

DIFFSQL is a program that makes the rows (`load`) and compares answers (`run`), with the queries in
`tpch.sql` beside it; PROGRAM is a Python that has what it imports. The rows are loaded into one
PostgreSQL, into another in a different physical order, and through pgherd into four shards: customer,
orders, lineitem, part and partsupp by the first column of their primary key; region, nation and supplier
on each shard. Exits with success when every answer is the same.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

import lab

SHARDS = 4
KEYS = {"customer": ("int", "c_custkey"), "orders": ("bigint", "o_orderkey"), "lineitem": ("bigint", "l_orderkey"),
        "part": ("int", "p_partkey"), "partsupp": ("int", "ps_partkey")}
PLACES = {"customer": "customers", "orders": "orders", "lineitem": "orders", "part": "parts", "partsupp": "parts"}
REFERENCE = ("region", "nation", "supplier")


def config(bench):
    distributions = {PLACES[table]: {"key": kind, "place": {"jump": "all"}} for table, (kind, _) in KEYS.items()}
    tables = {table: {"distribution": PLACES[table], "key": key} for table, (_, key) in KEYS.items()}
    tables.update({table: "reference" for table in REFERENCE})
    return bench.pgherd_config("tpch", SHARDS, distributions, tables, gather={"twins": 2})


def dsn(port):
    return f"host=127.0.0.1 port={port} dbname=tpch user={lab.USER}"


def statements(tool):
    with open(os.path.join(os.path.dirname(os.path.abspath(tool)), "tpch.sql")) as text:
        return [one.strip() for one in text.read().split(";\n") if one.strip()]


def milliseconds(port, sql, rounds):
    """The median of some runs, after one that does not count; an error as it was told."""
    times = []
    try:
        with lab.Client(port, "tpch", timeout=120) as client:
            for _ in range(rounds + 1):
                begin = time.perf_counter()
                client.query(sql)
                times.append((time.perf_counter() - begin) * 1000)
    except (lab.Refused, OSError) as error:
        return None, str(error)
    return statistics.median(times[1:]), None


def fetched(port, sql):
    """Rows and bytes that a statement fetches for its twin, as EXPLAIN ANALYZE tells; None where it needs none."""
    rows, size = 0, None
    try:
        with lab.Client(port, "tpch", timeout=120) as client:
            lines = [line[0] or "" for line in client.query("explain (analyze, timing off) " + sql)]
    except (lab.Refused, OSError):
        return None, None
    for before, line in zip([""] + lines, lines):
        if before.startswith("Fragment:") and (found := re.fullmatch(r"\s*\(actual rows=(\d+)\)", line)):
            rows += int(found[1])
        if found := re.fullmatch(r"Fetched: (\d+) bytes", line):
            size = int(found[1])
    return (rows, size) if size is not None else (None, None)


def verdicts(tool, python, folder, ports, count):
    """What the tool says of each query, and its last lines."""
    single, shuffled, herd = ports
    out = os.path.join(folder, "diffsql.json")
    said = lab.run([python, tool, "run", "--suite", "tpch", "--single", dsn(single), "--shuffled", dsn(shuffled),
                    "--sut", dsn(herd), "--out", out], timeout=1800)
    with open(out) as text:
        found = json.load(text)
    each = {f"Q{number}": {"verdict": "same"} for number in range(1, count + 1)}
    each.update({bad["name"]: bad for bad in found["bad"]})
    return each, found["tally"], said.strip().splitlines()[-2:]


def setup(path):
    return lab.run([lab.PGHERD, "setup", "-c", path])


def measure(arguments):
    with lab.Lab(SHARDS + 2, "max_parallel_workers_per_gather = 0") as bench:
        bench.create_database("tpch")
        settings = config(bench)
        herd = bench.pgherd("pgherd", settings)
        single, shuffled = (server.port for server in bench.servers[SHARDS:])
        load = [arguments.python, arguments.tool, "load", "--suite", "tpch", "--sf", str(arguments.sf)]
        for port, more in ((single, []), (shuffled, ["--shuffle", "1"]), (herd.port, [])):
            begin = time.time()
            said = lab.run([*load, "--dsn", dsn(port), *more], timeout=1800)
            lab.log(f"loaded in {time.time() - begin:.1f} s: {said.strip().splitlines()[-1]}")
        lab.log(setup(os.path.join(bench.folder, "pgherd.yaml")).strip().replace("\n", "; "))
        queries = statements(arguments.tool)
        each, tally, said = verdicts(arguments.tool, arguments.python, bench.folder, (single, shuffled, herd.port), len(queries))
        lab.log(*said)
        rows = []
        for number, sql in enumerate(queries, 1):
            name = f"Q{number}"
            one, _ = milliseconds(single, sql, arguments.rounds)
            many, error = milliseconds(herd.port, sql, arguments.rounds)
            count, size = fetched(herd.port, sql)
            rows.append({"query": name, "fetched_rows": count, "fetched_bytes": size, "verdict": each[name]["verdict"], "postgres_ms": one, "pgherd_ms": many,
                         "said": each[name].get("said") or error})
        return {"sf": arguments.sf, "shards": SHARDS, "rounds": arguments.rounds, "tally": tally, "queries": rows}


def table(found):
    lines = [f"TPC-H, {found['shards']} shards, scale {found['sf']}: medians of {found['rounds']} runs\n",
             "| query | verdict | one PostgreSQL ms | pgherd ms | times as long | rows fetched | kB fetched |",
             "|---|---|---|---|---|---|---|"]
    show = lambda value: "-" if value is None else f"{value:.1f}"
    for row in found["queries"]:
        one, many = row["postgres_ms"], row["pgherd_ms"]
        ratio = f"{many / one:.1f}" if one and many else "-"
        lines.append(f"| {row['query']} | {row['verdict']} | {show(one)} | {show(many)} | {ratio} "
                     f"| {'-' if row['fetched_rows'] is None else row['fetched_rows']} "
                     f"| {'-' if row['fetched_bytes'] is None else row['fetched_bytes'] // 1000} |")
    lines += [f"{row['query']}: {row['said']}" for row in found["queries"] if row["said"]]
    total = lambda key: sum(row[key] or 0 for row in found["queries"])
    lines.append(f"\n{found['tally'].get('same', 0)} of {len(found['queries'])} the same; "
                 f"{total('postgres_ms'):.0f} ms on one PostgreSQL, {total('pgherd_ms'):.0f} ms through pgherd")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tool", help="the program that loads and compares")
    parser.add_argument("--sf", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", default=os.path.join(lab.ROOT, "bench-results"))
    arguments = parser.parse_args()
    found = measure(arguments)
    text = table(found)
    print(text)
    os.makedirs(arguments.out, exist_ok=True)
    for name, content in (("tpch.md", text + "\n"), ("tpch.json", json.dumps(found, indent=1) + "\n")):
        with open(os.path.join(arguments.out, name), "w") as output:
            output.write(content)
    return found["tally"].get("same") == len(found["queries"])


if __name__ == "__main__":
    try:
        sys.exit(0 if main() else 1)
    except (lab.Failed, subprocess.TimeoutExpired) as error:
        sys.exit(f"tpch: {error}")
