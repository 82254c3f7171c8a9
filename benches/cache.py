"""A shop's reads through the cache: in the process, through Redis, and without it, side by side in one run.

    python3 benches/cache.py [--products 30000] [--clients 16] [--seconds 10] [--warm 10] [--rounds 2] [--out FOLDER]

Products are asked for by Zipf's law: pages by key, lists of a category, facets of one; 5 % of the statements
write, nine in ten of these the stock of a product, the others its price, which lists show. Each cell is measured after
`--warm` seconds of the same load. Told are reads a second, the 95th percentile, the share of reads that were answered
from the cache, the CPU of proxy, Redis and PostgreSQL together for a statement, and that of the load generator, which
runs on the same cores: over the mix, and for lists and facets alone.
"""
import argparse
import glob
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time

import lab

SHARDS = 2
TABLES = """
create table wc_products (product_id bigint primary key, category int, brand int, name text, price numeric(10,2), about text);
create table wc_inventory (product_id bigint primary key, stock int);
create index on wc_products (category);
"""
SCRIPTS = {
    "page": (60, "\\set id random_zipfian(1, {products}, 1.07)\n"
                 "select name, price, about from wc_products where product_id = :id;\n"),
    "list": (20, "\\set c random_zipfian(1, {categories}, 1.07) - 1\n"
                 "select product_id, name, price from wc_products where category = :c order by price, product_id limit 24;\n"),
    "facet": (15, "\\set c random_zipfian(1, {categories}, 1.07) - 1\n"
                  "select brand, count(*) from wc_products where category = :c group by brand order by brand;\n"),
    "stock": (4.5, "\\set id random_zipfian(1, {products}, 1.07)\n"
                   "update wc_inventory set stock = stock - 1 where product_id = :id;\n"),
    "price": (0.5, "\\set id random_zipfian(1, {products}, 1.07)\n"
                   "update wc_products set price = price + 0.01 where product_id = :id;\n"),
}
POLICY = {"mode": "cached", "ttl": "15m", "swr": "2h", "index": ["category"]}
READS = ("page", "list", "facet")


class Redis:
    """A Redis server that keeps nothing on disk."""

    def __init__(self, bench):
        program = shutil.which("redis-server")
        if not program:
            raise lab.Failed("there is no redis-server here; scripts/install-deps bench installs it")
        self.port = lab.free_port()
        self.popen = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=bench.folder,
            start_new_session=True)
        open(os.path.join(bench.folder, "pids", str(self.popen.pid)), "w").close()
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        raise lab.Failed("redis-server is not up")

    def stop(self):
        self.popen.kill()
        self.popen.wait()


def config(bench, redis, cached):
    tables = {name: {"distribution": "products", "key": "product_id"} for name in ("wc_products", "wc_inventory")}
    more = {}
    if cached:
        tables["wc_products"]["cache"] = POLICY
        tables["wc_inventory"]["cache"] = {"mode": "bounded", "ttl": "30s", "strong_columns": ["stock"]}
        more["cache"] = {"redis": f"redis://127.0.0.1:{redis.port}"} if redis else {"memory": "256MB"}
    return bench.pgherd_config("shop", SHARDS, {"products": {"key": "bigint", "place": {"jump": "all"}}}, tables,
                               gather={"twins": 2}, **more)


def percentile(folder, share):
    times = []
    for path in glob.glob(os.path.join(folder, "log*")):
        with open(path) as lines:
            times += [int(line.split()[2]) for line in lines]
        os.remove(path)
    times.sort()
    return times[int(len(times) * share)] / 1000 if times else 0.0


def hits(herd):
    """Reads that were answered from the cache, and all of cached tables."""
    with lab.Client(herd.port, "pgherd") as console:
        rows = [line for line in console.query("show cache")]
    found = total = 0
    for row in rows:
        values = [int(value) for value in (row[4], row[5], row[6], row[11])]
        found += values[0] + values[1]
        total += sum(values)
    return found, total


def children():
    """CPU of the processes that were run and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_one(bench, herd, redis, arguments, names):
    scripts = []
    for name in names:
        weight, text = SCRIPTS[name]
        path = bench.write(f"{name}.sql", text.format(**vars(arguments)))
        scripts += ["-f", f"{path}@{int(weight * 10)}"]
    folder = os.path.join(bench.folder, "logs")
    os.makedirs(folder, exist_ok=True)
    pids = [herd.pid] + [server.pid for server in bench.servers[:SHARDS]] + ([redis.popen.pid] if redis else [])
    load = ("-n", "-M", "prepared", "-c", arguments.clients, "-j", 2)
    if arguments.warm:
        lab.pgbench(bench, herd.port, "shop", *load, "-T", arguments.warm, *scripts, timeout=600)
    before, was, loaded = sum(lab.cpu(pid) for pid in pids), hits(herd), children()
    text = lab.pgbench(bench, herd.port, "shop", *load, "-T", arguments.seconds, "-l", f"--log-prefix={folder}/log",
                       *scripts, timeout=600)
    spent, now, loaded = sum(lab.cpu(pid) for pid in pids) - before, hits(herd), children() - loaded
    done = next(int(line.split(":")[1].split("/")[0]) for line in text.splitlines()
                if line.startswith("number of transactions actually processed"))
    total = now[1] - was[1]
    weights = {name: SCRIPTS[name][0] for name in names}
    share = sum(weights[name] for name in names if name in READS) / sum(weights.values())
    return {"reads_a_second": done * share / arguments.seconds, "p95_ms": percentile(folder, 0.95),
            "cpu_us": spent / done * 1e6, "load_us": loaded / done * 1e6, "hits": (now[0] - was[0]) / total if total else 0.0}


def measure(arguments):
    with lab.Lab(SHARDS) as bench:
        bench.create_database("shop")
        for server in bench.servers:
            server.psql("shop", TABLES)
        # Rows go where the proxy places them.
        plain = config(bench, None, False)
        path = bench.write("setup.yaml", json.dumps(plain))
        lab.log(lab.run([lab.PGHERD, "setup", "-c", path]).strip().replace("\n", "; "))
        off = bench.pgherd("off", plain)
        for table, columns in (("wc_products", "i, i % {categories}, i % 97, 'product ' || i, (i % 9973) / 7.0, repeat('about it ', 20)"),
                               ("wc_inventory", "i, 1000")):
            rows = lab.psql(bench.servers[0].port, "shop",
                            f"copy (select {columns} from generate_series(1, {{products}}) i) to stdout".format(**vars(arguments)))
            lab.run(["psql", "-h", "127.0.0.1", "-p", str(off.port), "-d", "shop", "-Xq", "-v", "ON_ERROR_STOP=1",
                     "-c", f"copy {table} from stdin"], input=rows + "\n")
        for server in bench.servers:
            server.psql("shop", "vacuum analyze")
        redis = Redis(bench)
        subjects = [("off", off, None), ("in the process", bench.pgherd("process", config(bench, None, True)), None),
                    ("through Redis", bench.pgherd("redis", config(bench, redis, True)), redis)]
        found = {"products": arguments.products, "clients": arguments.clients, "seconds": arguments.seconds, "cells": []}
        for mix, names in (("mix", list(SCRIPTS)), ("lists and facets", ["list", "facet"])):
            rounds = {name: [] for name, _, _ in subjects}
            for _ in range(arguments.rounds):
                for name, herd, server in subjects:
                    rounds[name].append(measure_one(bench, herd, server, arguments, names))
                    lab.log(mix, name, rounds[name][-1])
            for name, _, _ in subjects:
                cell = {key: statistics.median(one[key] for one in rounds[name]) for key in rounds[name][0]}
                found["cells"].append({"mix": mix, "cache": name, **cell})
        redis.stop()
        return found


def table(found):
    lines = [f"{found['products']} products, {found['clients']} clients, {found['seconds']} s each\n",
             "| statements | cache | reads a second | p95 ms | hits | CPU µs a statement | load generator's µs |",
             "|---|---|---|---|---|---|---|"]
    for cell in found["cells"]:
        lines.append(f"| {cell['mix']} | {cell['cache']} | {cell['reads_a_second']:.0f} | {cell['p95_ms']:.2f} "
                     f"| {cell['hits']:.0%} | {cell['cpu_us']:.0f} | {cell['load_us']:.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--products", type=int, default=30_000)
    parser.add_argument("--categories", type=int, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--warm", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", default=os.path.join(lab.ROOT, "bench-results"))
    arguments = parser.parse_args()
    found = measure(arguments)
    text = table(found)
    print(text)
    os.makedirs(arguments.out, exist_ok=True)
    for name, content in (("cache.md", text + "\n"), ("cache.json", json.dumps(found, indent=1) + "\n")):
        with open(os.path.join(arguments.out, name), "w") as output:
            output.write(content)


if __name__ == "__main__":
    try:
        main()
    except (lab.Failed, lab.Refused, subprocess.TimeoutExpired, socket.timeout) as error:
        sys.exit(f"cache: {error}")
