"""What the Python scripts share: a habit is a function; its outcome is a line."""
import traceback


class Habits:
    """Runs each function once and prints what became of it."""

    def __init__(self):
        self.all = []

    def __call__(self, function):
        self.all.append(function)
        return function

    def run(self, *arguments):
        for function in self.all:
            try:
                function(*arguments)
                done(function.__name__)
            except Exception as error:
                done(function.__name__, error)

    async def run_async(self, *arguments):
        for function in self.all:
            try:
                await function(*arguments)
                done(function.__name__)
            except Exception as error:
                done(function.__name__, error)


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
