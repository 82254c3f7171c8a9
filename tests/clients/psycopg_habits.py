"""psycopg 3, synchronous: named statements after five runs, COPY, cursors, notifications, cancel."""
import threading
import time

import psycopg
from psycopg import sql

from habits import Habits, same

habit = Habits()


def connect(**more):
    return psycopg.connect("", **more)


@habit
def parameters_at_login(connection):
    for name in ("server_version", "client_encoding", "DateStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings"):
        assert connection.info.parameter_status(name), name


@habit
def prepared_on_every_shard(connection):
    for _ in range(3):
        for key in range(1, 60):
            same(connection.execute("select v from kv where k = %s", (key,), prepare=True).fetchone(), (f"v{key}",))


@habit
def prepared_by_itself_after_five_runs(connection):
    for key in range(100, 120):
        same(connection.execute("select k, v from kv where k = %s", (key,)).fetchone(), (key, f"v{key}"))


@habit
def binary_parameters_and_results(connection):
    with connection.cursor(binary=True) as cursor:
        for key in (1, 300, 70_000):
            rows = cursor.execute("select k from kv where k = %b", (key,)).fetchall()
            same(rows, [(key,)] if key <= 1000 else [])


@habit
def types(connection):
    from datetime import datetime
    from decimal import Decimal
    row = connection.execute("select %s::numeric, %s::timestamp, %s::int[], %s::bytea, %s::jsonb, null",
                             (Decimal("1.50"), datetime(2026, 1, 2, 3, 4, 5), [1, 2], b"\0\xff", '{"a": 1}')).fetchone()
    same(row, (Decimal("1.50"), datetime(2026, 1, 2, 3, 4, 5), [1, 2], b"\0\xff", {"a": 1}, None))


@habit
def deallocate_in_a_block(connection):
    with connection.transaction():
        connection.execute("select v from kv where k = %s", (3,), prepare=True)
        connection.execute("deallocate all")
        same(connection.execute("select v from kv where k = %s", (3,), prepare=False).fetchone(), ("v3",))
    connection._prepared.clear()


@habit
def sql_prepare_and_execute(connection):
    with connection.transaction():
        connection.execute("prepare by_id (integer) as select $1 + count(*) from notes where id = -1")
        same(connection.execute("execute by_id (7)").fetchone(), (7,))
        connection.execute("deallocate by_id")


@habit
def write_and_roll_back(connection):
    with connection.transaction():
        connection.execute("insert into kv values (%s, %s)", (5001, "new"))
    same(connection.execute("select v from kv where k = 5001").fetchone(), ("new",))
    with connection.transaction(force_rollback=True):
        connection.execute("update kv set v = 'gone' where k = %s", (5001,))
    same(connection.execute("delete from kv where k = %s returning v", (5001,)).fetchall(), [("new",)])


@habit
def savepoints(connection):
    with connection.transaction():
        connection.execute("insert into kv values (5002, 'kept')")
        try:
            with connection.transaction():
                connection.execute("insert into kv values (5002, 'twice')")
        except psycopg.errors.UniqueViolation as error:
            same(error.diag.constraint_name, "kv_pkey")
        same(connection.execute("select v from kv where k = 5002").fetchone(), ("kept",))
        connection.execute("delete from kv where k = 5002")


@habit
def failed_block(connection):
    with connect() as other:
        try:
            other.execute("select 1 / (k - k) from kv where k = 1")
        except psycopg.errors.DivisionByZero:
            pass
        try:
            other.execute("select 1")
            raise AssertionError("the block is not failed")
        except psycopg.errors.InFailedSqlTransaction:
            pass
        other.rollback()
        same(other.execute("select v from kv where k = 2").fetchone(), ("v2",))


@habit
def copy_in_split_by_key(connection):
    with connection.cursor() as cursor:
        with cursor.copy("copy kv (k, v) from stdin") as copy:
            for key in range(6000, 6400):
                copy.write_row((key, f"copied {key}"))
        same(cursor.rowcount, 400)
    for key in (6000, 6123, 6399):
        same(connection.execute("select v from kv where k = %s", (key,)).fetchone(), (f"copied {key}",))


@habit
def copy_in_binary(connection):
    with connection.cursor() as cursor:
        with cursor.copy("copy kv (k, v) from stdin (format binary)") as copy:
            copy.set_types(["int8", "text"])
            for key in range(6400, 6500):
                copy.write_row((key, "binary"))
    same(connection.execute("select v from kv where k = %s", (6433,)).fetchone(), ("binary",))


@habit
def copy_in_that_fails(connection):
    try:
        with connection.cursor().copy("copy kv (k, v) from stdin") as copy:
            copy.write_row((6500, "not to stay"))
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    connection.rollback()
    same(connection.execute("select count(*) from kv where k = %s", (6500,)).fetchone(), (0,))
    try:
        with connection.cursor().copy("copy kv (k, v) from stdin") as copy:
            copy.write("not a number\tx\n")
        raise AssertionError("a bad key was taken")
    except psycopg.Error as error:
        same(error.sqlstate[:2], "22")
    connection.rollback()


@habit
def copy_out(connection):
    with connection.cursor().copy("copy (select k, v from kv where k = 12) to stdout") as copy:
        same(list(copy.rows()), [("12", "v12")])


@habit
def declared_cursor(connection):
    with connection.transaction(), connection.cursor(name="by hand") as cursor:
        cursor.execute("select generate_series(1, 1000)")
        same(len(cursor.fetchmany(10)), 10)
        same(cursor.fetchone(), (11,))


@habit
def client_settings_stay_with_the_client(connection):
    with connect(autocommit=True) as one, connect(autocommit=True) as two:
        one.execute("set statement_timeout = '61s'")
        one.execute("select set_config('TimeZone', %s, false)", ("Asia/Tokyo",))
        for key in range(1, 20):
            one.execute("select v from kv where k = %s", (key,))
            two.execute("select v from kv where k = %s", (key,))
        same(one.execute("show statement_timeout").fetchone(), ("61s",))
        same(one.execute("show timezone").fetchone(), ("Asia/Tokyo",))
        same(two.execute("show statement_timeout").fetchone(), ("0",))
        same(one.info.timezone.key, "Asia/Tokyo")
        one.execute("reset all")
        same(one.execute("show statement_timeout").fetchone(), ("0",))


@habit
def set_local_ends_with_the_block(connection):
    with connect(autocommit=True) as one:
        with one.transaction():
            one.execute("set local work_mem = '7MB'")
            one.execute("select v from kv where k = 1")
            same(one.execute("show work_mem").fetchone(), ("7MB",))
        assert one.execute("show work_mem").fetchone() != ("7MB",)


@habit
def startup_options(connection):
    with connect(options="-c statement_timeout=62s -c search_path=public,pg_temp", application_name="habit") as one:
        same(one.execute("show statement_timeout").fetchone(), ("62s",))
        # A list is set anew as SET writes it, with blanks.
        path, = one.execute("show search_path").fetchone()
        same(path.replace(" ", ""), "public,pg_temp")
        same(one.execute("select v from kv where k = 9").fetchone(), ("v9",))
        same(one.execute("show application_name").fetchone(), ("habit",))


@habit
def listen_and_notify(connection):
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        listener.execute("listen habit")
        speaker.execute("select v from kv where k = 3")
        speaker.execute("select pg_notify('habit', 'one')")
        speaker.execute("notify habit, 'two'")
        heard = [note.payload for note in listener.notifies(timeout=10, stop_after=2)]
        same(heard, ["one", "two"])
        listener.execute("unlisten *")


@habit
def advisory_lock_stays_and_goes(connection):
    with connect(autocommit=True) as other:
        with connect(autocommit=True) as holder:
            holder.execute("select pg_advisory_lock(4242)")
            for key in range(1, 10):
                holder.execute("select v from kv where k = %s", (key,))
            same(other.execute("select pg_try_advisory_lock(4242)").fetchone(), (False,))
        for _ in range(100):
            if other.execute("select pg_try_advisory_lock(4242)").fetchone() == (True,):
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the lock outlives its holder")
        other.execute("select pg_advisory_unlock(4242)")


@habit
def temporary_table(connection):
    with connect(autocommit=True) as one:
        one.execute("create temporary table mine (x int)")
        one.execute("insert into mine values (1)")
        same(one.execute("select x from mine").fetchall(), [(1,)])
    with connect(autocommit=True) as two:
        same(two.execute("select to_regclass('pg_temp.mine')").fetchone(), (None,))


@habit
def cancel(connection):
    with connect(autocommit=True) as one:
        timer = threading.Timer(0.5, one.cancel_safe if hasattr(one, "cancel_safe") else one.cancel)
        timer.start()
        try:
            one.execute("select pg_sleep(30)")
            raise AssertionError("it was not cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        same(one.execute("select v from kv where k = 4").fetchone(), ("v4",))


@habit
def large_values(connection):
    big = "x" * 5_000_000
    connection.execute("insert into kv values (%s, %s)", (7000, big))
    same(len(connection.execute("select v from kv where k = 7000").fetchone()[0]), len(big))
    connection.execute("delete from kv where k = 7000")
    connection.commit()


@habit
def notices_come_once(connection):
    heard = []
    with connect(autocommit=True) as one:
        one.add_notice_handler(lambda notice: heard.append(notice.message_primary))
        one.execute("drop table if exists never_there")
    same(len(heard), 1)


@habit
def several_statements_in_one_string(connection):
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute("select 1; select v from kv where k = 5; select v from kv where k = 5")
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
        same(results, [[(1,)], [("v5",)], [("v5",)]])


@habit
def rows_of_every_shard(connection):
    keys = [row[0] for row in connection.execute("select k from kv where k in (1, 2, 3, 4, 5, 6, 7, 8)").fetchall()]
    same(sorted(keys), [1, 2, 3, 4, 5, 6, 7, 8])


@habit
def executemany(connection):
    with connection.cursor() as cursor, connection.transaction():
        cursor.executemany("insert into notes values (%s, %s)", [(id, "many") for id in range(1, 50)])
    same(connection.execute("delete from notes where body = 'many'").rowcount, 49)
    connection.commit()


@habit
def catalogs(connection):
    rows = connection.execute("select attname from pg_attribute where attrelid = 'kv'::regclass and attnum > 0").fetchall()
    same([name for name, in rows], ["k", "v"])
    same(connection.execute(sql.SQL("select to_regtype({})").format(sql.Literal("int4"))).fetchone(), ("integer",))


if __name__ == "__main__":
    habit.run(lambda: connect(autocommit=True))
    with connect(autocommit=True) as connection:
        for key in range(6000, 6500):
            connection.execute("delete from kv where k = %s", (key,))
