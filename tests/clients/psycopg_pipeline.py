"""psycopg 3 in pipeline mode: statements of several shards before one Sync, errors in the middle."""
import psycopg

from habits import Habits, same

habit = Habits()


def connect(**more):
    return psycopg.connect("", **more)


@habit
def answers_in_order(connection):
    with connection.pipeline():
        cursors = [connection.execute("select k + %s from kv where k = 7", (more,)) for more in range(1, 40)]
        same([cursor.fetchone()[0] for cursor in cursors], list(range(8, 47)))


@habit
def several_shards_before_one_sync(connection):
    try:
        with connection.pipeline():
            cursors = [connection.execute("select v from kv where k = %s", (key,)) for key in range(1, 40)]
            same([cursor.fetchone()[0] for cursor in cursors], [f"v{key}" for key in range(1, 40)])
    except psycopg.errors.FeatureNotSupported as error:
        # One implicit transaction over several shards: refused, and the client can go on.
        assert error.diag.message_hint, "a refusal needs a hint"
    same(connection.execute("select v from kv where k = 3").fetchone(), ("v3",))


@habit
def prepared_in_a_pipeline(connection):
    for _ in range(3):
        with connection.pipeline():
            cursors = [connection.execute("select k + %s from kv where k = 7", (more,), prepare=True) for more in (5, 6, 7)]
            same([cursor.fetchone() for cursor in cursors], [(12,), (13,), (14,)])


@habit
def one_shard_in_a_block(connection):
    with connect() as own, own.pipeline():
        own.execute("insert into kv values (8101, 'pipe')")
        read = own.execute("select v from kv where k = 8101")
        own.execute("delete from kv where k = 8101")
        own.commit()
        same(read.fetchone(), ("pipe",))


@habit
def error_in_the_middle(connection):
    with connect(autocommit=True) as own:
        try:
            with own.pipeline():
                first = own.execute("select v from kv where k = 1")
                own.execute("select v / 0 from kv where k = 1")
                own.execute("select v from kv where k = 1")
                first.fetchone()
            raise AssertionError("no error came")
        except psycopg.Error as error:
            same(error.sqlstate, "42883")
        same(own.execute("select v from kv where k = 2").fetchone(), ("v2",))


@habit
def the_write_before_an_error_is_undone(connection):
    with connect(autocommit=True) as own:
        try:
            with own.pipeline():
                own.execute("insert into kv values (8102, 'undone')")
                own.execute("select 1 / (k - 8102) from kv where k = 8102")
            raise AssertionError("no error came")
        except psycopg.errors.DivisionByZero:
            pass
        same(own.execute("select v from kv where k = 8102").fetchone(), None)


@habit
def sync_in_between(connection):
    with connection.pipeline() as pipeline:
        one = connection.execute("select v from kv where k = 20")
        pipeline.sync()     # from here on another transaction, on another shard
        two = connection.execute("select v from kv where k = 21")
        same((one.fetchone(), two.fetchone()), (("v20",), ("v21",)))


@habit
def executemany_in_a_pipeline(connection):
    with connection.cursor() as cursor:
        cursor.executemany("select k + %s from kv where k = 7", [(1,), (2,), (3,)], returning=True)
        rows = [cursor.fetchone()]
        while cursor.nextset():
            rows.append(cursor.fetchone())
        same(rows, [(8,), (9,), (10,)])


if __name__ == "__main__":
    habit.run(lambda: connect(autocommit=True))
