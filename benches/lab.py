"""Throwaway PostgreSQL servers, proxies in front of them, and a client of the protocol.

Python 3.9 or newer, standard library only. Everything lies in one temporary folder; a small shell on
the other end of a pipe stops every process and removes the folder when this process ends, however it
ends. As root, PostgreSQL and PgBouncer run as the user postgres.
"""
import contextlib
import glob
import json
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def target_folder():
    """Where cargo puts what it builds: CARGO_TARGET_DIR and cargo's own settings count."""
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"]
    metadata = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return json.loads(metadata.stdout)["target_directory"]


PGHERD = os.environ.get("PGHERD") or os.path.join(target_folder(), "release/pgherd")
USER = "bench"
POOL = 20
TICK = os.sysconf("SC_CLK_TCK")
# A PG* setting of the caller's own must not reach what is started here.
ENV = {key: value for key, value in os.environ.items() if not key.startswith("PG") or key == "PGHERD"}
ENV.update(PGSSLMODE="disable", PGGSSENCMODE="disable", PGUSER=USER, PGCONNECT_TIMEOUT="10", LC_ALL="C")

SITTER = r"""
trap '' INT TERM HUP QUIT
while read -r _; do :; done
for file in "$1"/pids/*; do
    [ -e "$file" ] && kill -KILL "${file##*/}" 2>/dev/null
done
for file in "$1"/shard_*/postmaster.pid; do
    [ -e "$file" ] && read -r pid <"$file" && kill -QUIT "$pid" 2>/dev/null
    tries=0
    while [ -e "$file" ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""


def log(*words):
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def programs():
    """The folder of PostgreSQL's server programs."""
    newest = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
    for folder in os.environ["PATH"].split(":") + newest[::-1] + ["/usr/local/pgsql/bin"]:
        if all(os.path.exists(os.path.join(folder, name)) for name in ("initdb", "postgres", "pgbench")):
            return folder
    sys.exit("there is no PostgreSQL server here; scripts/install-deps bench installs it")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def as_postgres():
    """Arguments of Popen: another user when we are root."""
    if os.getuid() != 0:
        return {}
    return dict(user="postgres", group=pwd.getpwnam("postgres").pw_gid, extra_groups=[])


def raise_open_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Failed(Exception):
    """A command that did not do what it should."""


def run(command, check=True, **options):
    """Runs a command to its end and returns what it printed."""
    options.setdefault("env", ENV)
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if check and ended.returncode:
        raise Failed(f"{' '.join(command)}: exit code {ended.returncode}\n{ended.stdout[-3000:]}")
    return ended.stdout


class Process:
    """A started proxy. `pid` is that of its first process."""

    def __init__(self, lab, name, argv, port, database, account=False):
        self.lab, self.name, self.port, self.database = lab, name, port, database
        if not os.path.exists(argv[0]):
            raise Failed(f"there is no {argv[0]}; cargo build --release makes pgherd, or PGHERD names another")
        with open(os.path.join(lab.folder, f"{name}.log"), "ab") as output:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENV, cwd=lab.folder,
                start_new_session=True, preexec_fn=raise_open_files, **(as_postgres() if account else {}))
        self.pid = self.popen.pid
        open(os.path.join(lab.folder, "pids", str(self.pid)), "w").close()

    def wait_until_up(self, within=20):
        end = time.time() + within
        while True:
            if self.popen.poll() is not None:
                raise Failed(f"{self.name} ended with {self.popen.returncode}\n{self.log()}")
            try:
                with Client(self.port, self.database) as client:
                    client.query("select 1")
                return self
            except (OSError, Refused) as error:
                if time.time() > end:
                    raise Failed(f"{self.name} is not up: {error}\n{self.log()}") from error
            time.sleep(0.05)

    def log(self):
        with open(os.path.join(self.lab.folder, f"{self.name}.log"), errors="replace") as output:
            return output.read()[-2000:]

    def stop(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        with contextlib.suppress(OSError):
            os.remove(os.path.join(self.lab.folder, "pids", str(self.pid)))


class Server:
    """One PostgreSQL server."""

    def __init__(self, lab, index):
        self.index, self.lab = index, lab
        self.data = os.path.join(lab.folder, f"shard_{index}")
        self.port = free_port()
        self.popen = None

    def start(self):
        with open(os.path.join(self.lab.folder, f"shard_{self.index}.log"), "ab") as output:
            self.popen = subprocess.Popen(
                [os.path.join(self.lab.programs, "postgres"), "-D", self.data, "-p", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENV, cwd="/",
                start_new_session=True, **as_postgres())
        self.pid = self.popen.pid

    def wait_until_up(self, within=30):
        end = time.time() + within
        while True:
            try:
                with Client(self.port, "postgres"):
                    return
            except (OSError, Refused) as error:
                if time.time() > end:
                    raise Failed(f"server {self.index} is not up: {error}") from error
            time.sleep(0.02)

    def kill(self):
        """As a crash: the postmaster and all its processes at once."""
        for pid in reversed(tree(self.pid)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait()

    def psql(self, database, sql):
        return psql(self.port, database, sql)


class Lab:
    """The folder, the servers, the proxies."""

    def __init__(self, shards=4, settings=""):
        self.folder = tempfile.mkdtemp(prefix="pgherd-lab-")
        self.programs = programs()
        self.processes = []
        self.sitter = subprocess.Popen(["/bin/sh", "-c", SITTER, "pgherd-lab", self.folder], stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        os.chmod(self.folder, 0o755)
        os.mkdir(os.path.join(self.folder, "pids"))
        self.sockets = os.path.join(self.folder, "sockets")
        os.mkdir(self.sockets)
        os.chmod(self.sockets, 0o777)
        self.servers = [Server(self, index) for index in range(shards)]
        self.settings = f"""
listen_addresses = '127.0.0.1'
unix_socket_directories = '{self.sockets}'
fsync = off
full_page_writes = off
shared_buffers = 128MB
max_connections = 400
max_prepared_transactions = 50
max_wal_size = 4GB
checkpoint_timeout = 30min
autovacuum_naptime = 10min
jit = off
max_parallel_workers_per_gather = 0
{settings}
"""

    def __enter__(self):
        for kind in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(kind, lambda *_: sys.exit(1))
        first = self.servers[0].data
        for server in self.servers:
            os.mkdir(server.data, 0o700)
            if os.getuid() == 0:
                shutil.chown(server.data, "postgres", pwd.getpwnam("postgres").pw_gid)
        run([os.path.join(self.programs, "initdb"), "-D", first, "-U", USER, "-A", "trust", "-E", "UTF8",
             "--no-locale", "--no-sync", "--no-instructions"], cwd="/", **as_postgres())
        with open(os.path.join(first, "postgresql.conf"), "a") as conf:
            conf.write(self.settings)
        for server in self.servers[1:]:
            run(["cp", "-a", first + "/.", server.data], cwd="/", **as_postgres())
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait_until_up()
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()
        self.sitter.stdin.close()
        self.sitter.wait()

    def start(self, name, argv, port, database, account=False):
        process = Process(self, name, argv, port, database, account)
        self.processes.append(process)
        return process.wait_until_up()

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as output:
            output.write(text)
        return path

    def create_database(self, name, shards=None):
        for server in self.servers[:shards]:
            server.psql("postgres", f"create database {name}")

    # ------------------------------------------------------------ proxies

    def relay(self):
        program = os.path.join(self.folder, "relay")
        source = os.path.join(ROOT, "benches/relay.c")
        run(["cc", "-O2", "-o", program, source])
        port = free_port()
        return self.start("relay", [program, str(port), str(self.servers[0].port)], port, "bench")

    def pgbouncer(self):
        program = shutil.which("pgbouncer", path="/usr/sbin:" + os.environ["PATH"])
        if not program:
            raise Failed("there is no pgbouncer here; scripts/install-deps bench installs it")
        port = free_port()
        users = self.write("userlist.txt", f'"{USER}" ""\n')
        config = self.write("pgbouncer.ini", f"""[databases]
bench = host=127.0.0.1 port={self.servers[0].port} dbname=bench user={USER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 20000
client_tls_sslmode = disable
server_tls_sslmode = disable
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
""")
        return self.start("pgbouncer", [program, config], port, "bench", account=True)

    def pgherd_config(self, database, shards, distributions=None, tables=None, host="127.0.0.1", **more):
        """The config of a herd over the first `shards` servers, as a dictionary."""
        servers = {f"shard_{server.index}": f"host={host} port={server.port} dbname={database}"
                   for server in self.servers[:shards]}
        config = {
            "listen": [f"127.0.0.1:{free_port()}"], "http": None, "log": {"level": "warn"},
            "tls": {"mode": "disable"}, "server_tls": {"mode": "disable"},
            "auth": {"method": "trust"}, "users": [{"name": USER}], "admin_users": [USER],
            "pool_mode": "transaction", "default_pool_size": POOL, "max_client_conn": 20000,
            "databases": {database: {
                "home": "shard_0", "server_user": USER, "shards": servers,
                "distributions": distributions or {}, "tables": tables or {}}},
        }
        config.update(more)
        return config

    def pgherd(self, name, config):
        """Starts pgherd on `config`, a dictionary: JSON is YAML."""
        path = self.write(f"{name}.yaml", json.dumps(config, indent=1))
        port = int(config["listen"][0].rsplit(":", 1)[1])
        database = next(iter(config["databases"]))
        return self.start(name, [PGHERD, "run", "-c", path], port, database)


# ---------------------------------------------------------------- commands

def psql(port, database, sql, check=True, timeout=120):
    return run(["psql", "-h", "127.0.0.1", "-p", str(port), "-d", database, "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql],
               check=check, timeout=timeout).strip()


def pgbench(lab, port, database, *arguments, check=True, timeout=None):
    command = [os.path.join(lab.programs, "pgbench"), "-h", "127.0.0.1", "-p", str(port), *map(str, arguments), database]
    return run(command, check=check, timeout=timeout)


# ---------------------------------------------------------------- what the system counts

def tree(pid):
    """The process and all its descendants."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            with contextlib.suppress(OSError):
                with open(path) as children:
                    todo += map(int, children.read().split())
    return found


def cpu(pid):
    """Seconds of CPU (user and system, all threads) of a process, its descendants and those it has reaped."""
    ticks = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            with open(f"/proc/{member}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def resident(pid):
    """KiB resident of a process and its descendants."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            with open(f"/proc/{member}/status") as status:
                total += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return total


# ---------------------------------------------------------------- a client

class Refused(Exception):
    """An ErrorResponse: its fields by their letters."""

    def __init__(self, fields):
        self.fields = fields
        self.code = fields.get("C", "")
        super().__init__(f"{self.code} {fields.get('M', '')}")


class Client:
    """A connection that speaks just enough of the protocol, without a password."""

    def __init__(self, port, database, user=USER, timeout=30, **settings):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.buffer = b""
        self.status, self.tag = "I", ""
        try:
            parameters = {"user": user, "database": database, **settings}
            body = struct.pack("!I", 196608)
            body += b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items()) + b"\0"
            self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
            self.answer()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.sendall(b"X\0\0\0\4")
        self.socket.close()

    def message(self):
        """The next message: its tag and body."""
        while True:
            if len(self.buffer) >= 5:
                length = struct.unpack("!I", self.buffer[1:5])[0]
                if len(self.buffer) > length:
                    tag, body = self.buffer[:1], self.buffer[5:length + 1]
                    self.buffer = self.buffer[length + 1:]
                    return tag, body
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionResetError("the connection was closed")
            self.buffer += got

    def answer(self):
        """The rows up to ReadyForQuery; raises the first error after reading to it, or at a fatal one."""
        rows, error = [], None
        while True:
            tag, body = self.message()
            if tag == b"D":
                rows.append(row(body))
            elif tag == b"C":
                self.tag = body[:-1].decode()
            elif tag == b"E":
                fields = {part[:1].decode(): part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
                error = error or Refused(fields)
                if fields.get("V") in ("FATAL", "PANIC"):
                    self.socket.close()
                    raise error
            elif tag == b"R" and struct.unpack("!I", body[:4])[0] != 0:
                raise Failed("a password is wanted; the lab uses trust")
            elif tag == b"Z":
                self.status = body.decode()
                if error:
                    raise error
                return rows

    def query(self, sql):
        """One simple query."""
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", len(body) + 4) + body)
        return self.answer()

    def execute(self, sql, *values):
        """One statement by the extended protocol, unnamed, its values as text."""
        def frame(tag, body):
            return tag + struct.pack("!I", len(body) + 4) + body
        bound = b"".join(struct.pack("!I", len(text)) + text for text in (str(value).encode() for value in values))
        self.socket.sendall(
            frame(b"P", b"\0" + sql.encode() + b"\0\0\0")
            + frame(b"B", b"\0\0\0\0" + struct.pack("!H", len(values)) + bound + b"\0\0")
            + frame(b"D", b"P\0") + frame(b"E", b"\0\0\0\0\0") + frame(b"S", b""))
        return self.answer()


def row(body):
    """The columns of a DataRow as text; None is NULL."""
    count, at, columns = struct.unpack("!H", body[:2])[0], 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[at:at + 4])[0]
        at += 4
        columns.append(None if length < 0 else body[at:at + length].decode())
        at += max(length, 0)
    return columns
