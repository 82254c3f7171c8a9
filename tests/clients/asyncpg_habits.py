"""asyncpg: named statements prepared with Flush, Execute with a row limit, cursors, its pool's reset."""
import asyncio

import asyncpg

from habits import Habits, same

habit = Habits()


@habit
async def fetchval_takes_one_row(connection):
    for key in range(1, 40):
        same(await connection.fetchval("select v from kv where k = $1", key), f"v{key}")


@habit
async def fetchval_of_many_rows(connection):
    for _ in range(3):
        same(await connection.fetchval("select generate_series(1, 100)"), 1)


@habit
async def prepared_statement(connection):
    statement = await connection.prepare("select k, v from kv where k = $1")
    same([attribute.name for attribute in statement.get_attributes()], ["k", "v"])
    for key in range(1, 100, 3):
        same(tuple(await statement.fetchrow(key)), (key, f"v{key}"))


@habit
async def cursor_in_a_block(connection):
    async with connection.transaction():
        rows = [row[0] async for row in connection.cursor("select generate_series(1, 500)", prefetch=50)]
    same(rows, list(range(1, 501)))


@habit
async def executemany(connection):
    await connection.executemany("insert into notes values ($1, $2)", [(id, "asyncpg") for id in range(200, 260)])
    same(await connection.execute("delete from notes where body = 'asyncpg'"), "DELETE 60")


@habit
async def executemany_over_shards(connection):
    try:
        await connection.executemany("insert into kv values ($1, $2)", [(key, "asyncpg") for key in range(8200, 8240)])
        for key in range(8200, 8240):
            same(await connection.execute("delete from kv where k = $1", key), "DELETE 1")
    except asyncpg.FeatureNotSupportedError as error:
        # Its implicit transaction would write on several shards: refused, with nothing written.
        assert error.hint, "a refusal needs a hint"
        for key in range(8200, 8240):
            same(await connection.fetchval("select count(*) from kv where k = $1", key), 0)


@habit
async def copy_records(connection):
    same(await connection.copy_records_to_table("kv", columns=["k", "v"], records=[(key, "record") for key in range(8300, 8400)]), "COPY 100")
    for key in range(8300, 8400):
        same(await connection.execute("delete from kv where k = $1", key), "DELETE 1")


@habit
async def types_that_are_looked_up(connection):
    same(await connection.fetchval("select array[1, 2, 3]::int[]"), [1, 2, 3])
    same(tuple(await connection.fetchval("select row(1, 'a'::text)")), (1, "a"))
    same(await connection.fetchval("select '{\"a\": 1}'::jsonb"), '{"a": 1}')
    same(str(await connection.fetchval("select 'kv'::regclass::text")), "kv")


@habit
async def error_then_go_on(connection):
    try:
        await connection.execute("insert into kv values ($1, 'twice')", 1)
        raise AssertionError("a duplicate was taken")
    except asyncpg.UniqueViolationError as error:
        same(error.constraint_name, "kv_pkey")
    same(await connection.fetchval("select v from kv where k = 1"), "v1")


@habit
async def pool_with_reset(connection):
    async with asyncpg.create_pool(min_size=2, max_size=5) as pool:
        async def one(key):
            async with pool.acquire() as own:
                await own.execute("set work_mem = '6MB'")
                return await own.fetchval("select v from kv where k = $1", key)
        same(await asyncio.gather(*map(one, range(1, 60))), [f"v{key}" for key in range(1, 60)])
        assert await pool.fetchval("show work_mem") != "6MB"


@habit
async def listener(connection):
    heard = asyncio.Queue()
    other = await asyncpg.connect()
    await other.add_listener("asyncpg_habit", lambda *note: heard.put_nowait(note[3]))
    await connection.execute("select pg_notify('asyncpg_habit', 'hi')")
    same(await asyncio.wait_for(heard.get(), 10), "hi")
    await other.close()


@habit
async def cancel_by_timeout(connection):
    try:
        await connection.execute("select pg_sleep(30)", timeout=0.5)
        raise AssertionError("it did not time out")
    except (asyncio.TimeoutError, TimeoutError):
        pass
    same(await connection.fetchval("select v from kv where k = 3"), "v3")


@habit
async def server_settings(connection):
    other = await asyncpg.connect(server_settings={"application_name": "asyncpg habit", "statement_timeout": "63s"})
    same(await other.fetchval("show statement_timeout"), "63s")
    same(await other.fetchval("select v from kv where k = 17"), "v17")
    await other.close()


if __name__ == "__main__":
    asyncio.run(habit.run_async(asyncpg.connect))
