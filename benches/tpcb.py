"""A tpcb-like load whose statements all carry bid, on four shards, and the sums afterwards.

Four tables of its own, keyed and placed by bid; rows loaded by COPY through pgherd. Each transaction
lies on one shard. Afterwards each shard is asked directly: for each branch the sums of accounts and
tellers, and the branch's own balance, are the sum of its history; all rows of a branch lie on one
shard; the history has a row for each transaction that pgbench counted.
"""
import os
import re
import subprocess

import lab

BRANCHES, TELLERS, ACCOUNTS = 100, 10, 1000
PROTOCOLS = ("simple", "extended", "prepared")
SCHEMA = (
    "create table tpcb_branches (bid integer primary key, bbalance integer not null)",
    "create table tpcb_tellers (tid integer, bid integer, tbalance integer not null, primary key (bid, tid))",
    "create table tpcb_accounts (aid integer, bid integer, abalance integer not null, filler text, primary key (bid, aid))",
    "create table tpcb_history (tid integer, bid integer, aid integer, delta integer, mtime timestamp)",
)
SUMS = """
select bid, b.bbalance,
  (select sum(tbalance) from tpcb_tellers t where t.bid = b.bid),
  (select sum(abalance) from tpcb_accounts a where a.bid = b.bid),
  (select coalesce(sum(delta), 0) from tpcb_history h where h.bid = b.bid),
  (select count(*) from tpcb_tellers t where t.bid = b.bid),
  (select count(*) from tpcb_accounts a where a.bid = b.bid)
from tpcb_branches b order by bid"""
STRAYS = " union all ".join(
    f"select count(*) from tpcb_{table} where bid not in (select bid from tpcb_branches)"
    for table in ("tellers", "accounts", "history"))


def rows():
    """Each table's rows as COPY text."""
    branches = range(1, BRANCHES + 1)
    yield "tpcb_branches (bid, bbalance)", (f"{bid}\t0\n" for bid in branches)
    yield "tpcb_tellers (tid, bid, tbalance)", (
        f"{(bid - 1) * TELLERS + n}\t{bid}\t0\n" for bid in branches for n in range(1, TELLERS + 1))
    yield "tpcb_accounts (aid, bid, abalance, filler)", (
        f"{(bid - 1) * ACCOUNTS + n}\t{bid}\t0\t{'x' * 84}\n" for bid in branches for n in range(1, ACCOUNTS + 1))


def copy(port, database, table, lines):
    ended = subprocess.run(
        ["psql", "-h", "127.0.0.1", "-p", str(port), "-d", database, "-Xq", "-v", "ON_ERROR_STOP=1",
         "-c", f"copy {table} from stdin"],
        input="".join(lines), text=True, env=lab.ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ended.returncode:
        raise lab.Failed(f"copy {table}: {ended.stdout}")


def load(port):
    for statement in SCHEMA:
        lab.psql(port, "tpcb", statement)
    for table, lines in rows():
        copy(port, "tpcb", table, lines)


def check(bench, transactions):
    """What is wrong, in words; empty when every sum agrees."""
    wrong, seen, history = [], {}, 0
    for server in bench.servers:
        for line in server.psql("tpcb", SUMS).splitlines():
            bid, branch, tellers, accounts, deltas, teller_rows, account_rows = map(int, line.split("|"))
            if bid in seen:
                wrong.append(f"branch {bid} is on shard_{seen[bid]} and shard_{server.index}")
            seen[bid] = server.index
            if not branch == tellers == accounts == deltas:
                wrong.append(f"branch {bid} on shard_{server.index}: balance {branch}, tellers {tellers}, "
                             f"accounts {accounts}, history {deltas}")
            if (teller_rows, account_rows) != (TELLERS, ACCOUNTS):
                wrong.append(f"branch {bid} on shard_{server.index}: {teller_rows} tellers, {account_rows} accounts")
        strays = sum(map(int, server.psql("tpcb", STRAYS).split()))
        if strays:
            wrong.append(f"shard_{server.index}: {strays} rows away from their branch")
        history += int(server.psql("tpcb", "select count(*) from tpcb_history"))
    if len(seen) != BRANCHES:
        wrong.append(f"{len(seen)} branches of {BRANCHES}")
    if len(set(seen.values())) != len(bench.servers):
        wrong.append(f"only the shards {sorted(set(seen.values()))} hold branches")
    if history != transactions:
        wrong.append(f"{history} rows of history, {transactions} transactions")
    return wrong


def config(bench, engines):
    tables = {f"tpcb_{name}": {"distribution": "branches", "key": "bid"}
              for name in ("branches", "tellers", "accounts", "history")}
    return bench.pgherd_config("tpcb", 4, {"branches": {"key": "bigint", "place": {"jump": "all"}}}, tables, engines=engines)


def main(seconds, clients, engines):
    """Runs the load in each protocol; True when all of it agreed."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tpcb_bid.sql")
    good = True
    with lab.Lab(4, "synchronous_commit = off") as bench:
        bench.create_database("tpcb")
        herd = bench.pgherd("pgherd", config(bench, engines))
        load(herd.port)
        print(f"tpcb-like by bid, 4 shards, {clients} clients, {seconds} s a protocol\n")
        print("| protocol | transactions | failed | tps | sums |\n|---|---|---|---|---|")
        total = 0
        for protocol in PROTOCOLS:
            said = lab.pgbench(bench, herd.port, "tpcb", "-n", "-f", script, "-M", protocol, "-c", clients,
                               "-j", min(2, clients), "-T", seconds, check=False, timeout=seconds + 120)
            done = re.search(r"actually processed: (\d+)", said)
            failed = re.search(r"failed transactions: (\d+)", said)
            tps = re.search(r"tps = ([\d.]+)", said)
            errors = sorted(set(re.findall(r"(?:ERROR|FATAL|error|aborted).*", said)))
            done = int(done[1]) if done else 0
            failed = int(failed[1]) if failed else None
            total += done
            wrong = check(bench, total)
            good = good and not wrong and not errors and failed == 0 and done > 0
            print(f"| {protocol} | {done} | {failed} | {float(tps[1]) if tps else 0:.0f} | {'agree' if not wrong else 'DIFFER'} |",
                  flush=True)
            for line in (errors + wrong)[:10]:
                print(f"  {line}")
    print("\ntpcb: " + ("ok, every shard's sums agree with its history" if good else "FAILED"))
    return good
