#!/usr/bin/env python3
"""What real clients do, on plain PostgreSQL and through pgherd with four shards: a matrix.

  run.py [--clients psql,pdo,…] [--mode transaction] [--verbose]

Each client is a script that prints a line a habit: `ok`, or `no` and why, with tabs between. A habit
that fails on plain PostgreSQL is the script's fault or the driver's, and is shown as such. Exit code
0 when everything that works on PostgreSQL works through pgherd.
Drivers are installed in a cache folder (PGHERD_CLIENTS, else ~/.cache/pgherd-clients).
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys
import textwrap
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(HERE)), "benches"))
import lab      # noqa: E402
import tpcb     # noqa: E402

CACHE = os.environ.get("PGHERD_CLIENTS", os.path.expanduser("~/.cache/pgherd-clients"))
PYTHON = os.path.join(CACHE, "venv/bin/python")
JDBC = "/usr/share/java/postgresql.jar"
PASSWORD = "a pass:word"
TIME_LIMIT = 180
SCHEMA = (
    "create table kv (k bigint primary key, v text)",
    "create table notes (id integer primary key, body text)",
    "create table labels (name text primary key)",
)
ROWS = 1000


def install(clients):
    """Fetches the drivers that are missing."""
    os.makedirs(CACHE, exist_ok=True)
    if clients & {"psycopg", "psycopg-async", "psycopg-pipeline", "asyncpg"}:
        if not os.path.exists(PYTHON):
            command("python3", "-m", "venv", os.path.join(CACHE, "venv"))
        if subprocess.run([PYTHON, "-c", "import psycopg, asyncpg"], stderr=subprocess.DEVNULL).returncode:
            command(PYTHON, "-m", "pip", "install", "-q", "psycopg[binary]", "asyncpg")
    if clients & {"node-postgres", "postgres.js"}:
        if not os.path.exists(os.path.join(CACHE, "node_modules/pg")) or not os.path.exists(os.path.join(CACHE, "node_modules/postgres")):
            command("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", CACHE, "pg", "postgres")
    if "jdbc" in clients:
        classes = os.path.join(CACHE, "java")
        source = os.path.join(HERE, "Jdbc.java")
        built = os.path.join(classes, "Jdbc.class")
        if not os.path.exists(built) or os.path.getmtime(built) < os.path.getmtime(source):
            command("javac", "-cp", JDBC, "-d", classes, source)


def command(*words):
    lab.log(" ".join(words))
    if subprocess.run(words, cwd=CACHE).returncode:
        sys.exit(f"could not run {words[0]}; scripts/install-deps clients installs what is needed")


def clients():
    """Each client's command."""
    script = lambda name: os.path.join(HERE, name)
    return {
        "psql": ["bash", script("psql.sh")],
        "pgbench": ["bash", script("pgbench.sh")],
        "psycopg": [PYTHON, script("psycopg_habits.py")],
        "psycopg-async": [PYTHON, script("psycopg_async.py")],
        "psycopg-pipeline": [PYTHON, script("psycopg_pipeline.py")],
        "asyncpg": [PYTHON, script("asyncpg_habits.py")],
        "node-postgres": ["node", script("node_postgres.js")],
        "postgres.js": ["node", script("postgres_js.js")],
        "pdo": ["php", script("pdo.php")],
        "jdbc": ["java", "-cp", f"{os.path.join(CACHE, 'java')}:{JDBC}", "Jdbc"],
        "tokio-postgres": [os.path.join(os.path.dirname(lab.PGHERD), "examples/client_habits")],
    }


def habits(argv, port, database):
    """Runs one client's script: its habits and what became of each."""
    environment = dict(lab.ENV, PGHOST="127.0.0.1", PGPORT=str(port), PGUSER=lab.USER, PGPASSWORD=PASSWORD,
                       PGDATABASE=database, NODE_PATH=os.path.join(CACHE, "node_modules"), PYTHONDONTWRITEBYTECODE="1")
    environment.pop("PGSSLMODE")
    found = collections.OrderedDict()
    try:
        ended = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=TIME_LIMIT)
        output, errors, code = ended.stdout, ended.stderr, ended.returncode
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")
        errors, code = f"no end after {TIME_LIMIT} s", 1
    except OSError as error:
        output, errors, code = "", str(error), 1
    for line in output.splitlines():
        fields = line.split("\t")
        if fields[0] in ("ok", "no") and len(fields) > 1:
            found[fields[1]] = "" if fields[0] == "ok" else " ".join(fields[2:]) or "failed"
    if code or not found:
        found["(the script)"] = re.sub(r"\s+", " ", errors.strip())[-400:] or f"exit code {code}"
    return found


def prepare(port, database):
    for statement in SCHEMA:
        lab.psql(port, database, statement)
    tpcb.copy(port, database, "kv (k, v)", (f"{key}\tv{key}\n" for key in range(1, ROWS + 1)))
    lab.psql(port, database, "insert into labels values ('a'), ('b')")


def matrix(results):
    """A row a client, then every habit with its mark."""
    mark = lambda plain, herd, habit: "o" if plain.get(habit, "missing") else "!" if herd.get(habit, "missing") else "+"
    print("| client | habits | on PostgreSQL | through pgherd |\n|---|---|---|---|")
    for name, (plain, herd) in results.items():
        habits = list(dict.fromkeys([*plain, *herd]))
        works = lambda side: sum(not side.get(habit, "missing") for habit in habits)
        print(f"| {name} | {len(habits)} | {works(plain)} | {works(herd)} |")
    print("\n+ works on PostgreSQL and through pgherd   ! works on PostgreSQL only   o fails on PostgreSQL too\n")
    for name, (plain, herd) in results.items():
        marks = [f"{mark(plain, herd, habit)} {habit}" for habit in dict.fromkeys([*plain, *herd])]
        print(textwrap.fill("   ".join(marks), 110, initial_indent=f"{name}: ", subsequent_indent="    ", break_on_hyphens=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients")
    parser.add_argument("--mode", default="transaction", choices=["transaction", "session"])
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    every = clients()
    chosen = options.clients.split(",") if options.clients else list(every)
    install(set(chosen))
    results, lost, worked = {}, 0, 0
    with lab.Lab(4) as bench:
        bench.create_database("clients")
        bench.servers[0].psql("postgres", "create database plain")
        prepare(bench.servers[0].port, "plain")
        config = bench.pgherd_config(
            "clients", 4, {"keys": {"key": "bigint", "place": {"jump": "all"}}},
            {"kv": {"distribution": "keys", "key": "k"}, "notes": "single", "labels": "reference"},
            pool_mode=options.mode, auth={"method": "scram-sha-256"}, users=[{"name": lab.USER, "password": PASSWORD}])
        herd = start(bench, config)
        prepare(herd.port, "clients")
        for name in chosen:
            lab.log(name)
            plain = habits(every[name], bench.servers[0].port, "plain")
            through = habits(every[name], herd.port, "clients")
            results[name] = plain, through
            for habit, why in through.items():
                if why:
                    lost += not plain.get(habit, "missing")
                    print(f"{name}: {habit}: {why}")
                else:
                    worked += 1
            if options.verbose:
                print("\n".join(f"{name} on PostgreSQL: {habit}: {why}" for habit, why in plain.items() if why))
    print(f"\npool mode {options.mode}, 4 shards\n")
    matrix(results)
    print(f"\nclients: {worked} habits work through pgherd, {lost} work on PostgreSQL only")
    sys.exit(1 if lost else 0)


def start(bench, config):
    """Starts pgherd; the lab's own client has no password, so psql asks whether it is up."""
    os.environ["PGPASSWORD"] = lab.ENV["PGPASSWORD"] = PASSWORD
    path = bench.write("pgherd.yaml", json.dumps(config))
    port = int(config["listen"][0].rsplit(":", 1)[1])
    process = lab.Process(bench, "pgherd", [lab.PGHERD, "run", "-c", path], port, "clients")
    bench.processes.append(process)
    end = time.time() + 20
    while "1" != lab.psql(port, "clients", "select 1", check=False):
        if time.time() > end or process.popen.poll() is not None:
            sys.exit(f"pgherd is not up: {process.log()}")
        time.sleep(0.1)
    return process


if __name__ == "__main__":
    main()
