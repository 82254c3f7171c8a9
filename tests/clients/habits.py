"""What the Python scripts share: a habit is a function; its outcome is a line."""
import asyncio
import signal
import traceback

LIMIT = 30      # seconds for one habit


class Habits:
    """Runs each function once and prints what became of it."""

    def __init__(self):
        self.all = []

    def __call__(self, function):
        self.all.append(function)
        return function

    def run(self, connect):
        """Each habit has a connection of its own, so that one that fails takes no other along."""
        signal.signal(signal.SIGALRM, late)
        for function in self.all:
            try:
                signal.alarm(LIMIT)
                with connect() as connection:
                    function(connection)
                done(function.__name__)
            except Exception as error:
                done(function.__name__, error)
            finally:
                signal.alarm(0)

    async def run_async(self, connect):
        for function in self.all:
            try:
                await asyncio.wait_for(on_its_own(connect, function), LIMIT)
                done(function.__name__)
            except Exception as error:
                done(function.__name__, error)


async def on_its_own(connect, function):
    connection = await connect()
    try:
        await function(connection)
    finally:
        # Not by close(): a client that hangs would not end.
        await asyncio.wait_for(connection.close(), 5)


def late(*_):
    raise TimeoutError(f"no answer within {LIMIT} s")


def done(name, error=None):
    if error is None:
        print(f"ok\t{name}", flush=True)
        return
    last = traceback.extract_tb(error.__traceback__)
    where = [frame for frame in last if "habits" in frame.filename or "psycopg_" in frame.filename]
    line = where[-1].lineno if where else "?"
    print(f"no\t{name}\t{type(error).__name__} at line {line}: {' '.join(str(error).split())}", flush=True)


def same(got, expected):
    if got != expected:
        raise AssertionError(f"got {got!r:.200}, expected {expected!r:.200}")
