"""A shard is killed every two seconds and started again, under load.

What must hold: no answer is wrong, no client waits for ever, every acknowledged write is on its
shard once, and a second after the last restart every statement succeeds again. Half of the clients
use the simple protocol, half the extended one; a third of their writes are blocks of two rows.
"""
import collections
import random
import threading
import time

import lab
import tpcb

KEYS = 1000
HANG_AFTER = 20         # seconds without an answer
SCHEMA = (
    "create table fault_fixed (k bigint primary key, v text not null)",
    "create table fault_log (k bigint, client integer, n bigint, primary key (k, client, n))",
)


class Worker(threading.Thread):
    """One client. `acknowledged` and `tried` hold (key, client, number) of its rows."""

    def __init__(self, number, port):
        super().__init__(daemon=True)
        self.number, self.port = number, port
        self.random = random.Random(number)
        self.stopping = threading.Event()
        self.acknowledged, self.tried, self.wrong = set(), set(), []
        self.errors, self.answers, self.next = collections.Counter(), 0, 0
        self.client = None

    def run(self):
        while not self.stopping.is_set():
            try:
                self.step()
                self.answers += 1
            except lab.Refused as error:
                self.errors[error.code] += 1
                if error.fields.get("V") in ("FATAL", "PANIC"):
                    self.drop()
                elif self.client and self.client.status != "I":
                    self.roll_back()
            except TimeoutError:
                self.wrong.append(f"client {self.number} had no answer for {HANG_AFTER} s")
                self.drop()
            except OSError:
                self.errors["closed"] += 1
                self.drop()
        self.drop()

    def drop(self):
        if self.client:
            self.client.close()
        self.client = None

    def roll_back(self):
        try:
            self.client.query("rollback")
        except (lab.Refused, OSError):
            self.drop()

    def ask(self, sql, *values):
        if self.number % 2:
            return self.client.execute(sql, *values)
        for place, value in reversed(list(enumerate(values, 1))):
            sql = sql.replace(f"${place}", str(value))
        return self.client.query(sql)

    def step(self):
        if not self.client:
            self.client = lab.Client(self.port, "faults", timeout=HANG_AFTER)
        key = self.random.randint(1, KEYS)
        kind = self.random.randrange(3)
        if kind == 0:
            rows = self.ask("select k, v from fault_fixed where k = $1", key)
            if rows != [[str(key), f"v{key}"]]:
                self.wrong.append(f"key {key} was answered with {rows}")
            return
        mine = [(key, self.number, self.next + more) for more in range(kind)]
        self.next += kind
        self.tried.update(mine)
        if kind == 2:
            self.ask("begin")
        for row in mine:
            self.ask("insert into fault_log (k, client, n) values ($1, $2, $3)", *row)
        if kind == 2:
            self.ask("commit")
            if (self.client.tag, self.client.status) != ("COMMIT", "I"):
                # After an error this would be right; here no statement of the block has failed.
                self.wrong.append(f"COMMIT was answered {self.client.tag}, status {self.client.status}, and no error came")
                return
        self.acknowledged.update(mine)


def config(bench, engines):
    tables = {name: {"distribution": "keys", "key": "k"} for name in ("fault_fixed", "fault_log")}
    return bench.pgherd_config("faults", 4, {"keys": {"key": "bigint", "place": {"jump": "all"}}}, tables, engines=engines)


def recovered(port, tried=200):
    """Errors of statements over all shards, a second after the last restart."""
    failed = []
    for number in range(10):
        try:
            with lab.Client(port, "faults", timeout=HANG_AFTER) as client:
                for key in range(1 + number, KEYS, KEYS * 10 // tried):
                    client.query(f"select v from fault_fixed where k = {key}")
        except (lab.Refused, OSError) as error:
            failed.append(str(error))
    return failed


def rows_on_shards(bench):
    rows = collections.Counter()
    for server in bench.servers:
        for line in server.psql("faults", "select k, client, n from fault_log").splitlines():
            rows[tuple(map(int, line.split("|")))] += 1
    return rows


def main(seconds, clients, engines):
    """Runs the load under faults; True when everything held."""
    with lab.Lab(4, "synchronous_commit = on") as bench:
        bench.create_database("faults")
        herd = bench.pgherd("pgherd", config(bench, engines))
        for statement in SCHEMA:
            lab.psql(herd.port, "faults", statement)
        tpcb.copy(herd.port, "faults", "fault_fixed (k, v)", (f"{key}\tv{key}\n" for key in range(1, KEYS + 1)))
        workers = [Worker(number, herd.port) for number in range(clients)]
        for worker in workers:
            worker.start()
        kills, end, choose = 0, time.time() + seconds, random.Random(1)
        while time.time() < end:
            time.sleep(1.5)
            server = choose.choice(bench.servers)
            server.kill()
            kills += 1
            time.sleep(0.5)
            server.start()
        for server in bench.servers:
            server.wait_until_up()
        time.sleep(1)
        wrong = [f"a second after the last restart: {error}" for error in recovered(herd.port)]
        for worker in workers:
            worker.stopping.set()
        for worker in workers:
            worker.join(HANG_AFTER + 5)
            if worker.is_alive():
                wrong.append(f"client {worker.number} hangs")
            wrong += worker.wrong
        rows = rows_on_shards(bench)
        acknowledged = set().union(*(worker.acknowledged for worker in workers))
        tried = set().union(*(worker.tried for worker in workers))
        lost = acknowledged - rows.keys()
        if lost:
            wrong.append(f"{len(lost)} acknowledged rows are lost, such as {sorted(lost)[:3]}")
        if rows.keys() - tried:
            wrong.append("there are rows that no client wrote")
        if any(count != 1 for count in rows.values()):
            wrong.append("there are rows that stand twice")
        errors = sum((worker.errors for worker in workers), collections.Counter())
        if herd.popen.poll() is not None:
            wrong.append(f"pgherd ended with {herd.popen.returncode}: {herd.log()}")
    print(f"faults: {kills} kills in {seconds} s, {sum(worker.answers for worker in workers)} transactions answered, "
          f"{len(acknowledged)} rows acknowledged, {len(lost)} lost; errors by SQLSTATE: {dict(errors)}")
    for line in wrong[:20]:
        print("  " + line)
    print("faults: " + ("ok" if not wrong else "FAILED"))
    return not wrong
