"""psycopg 3, asynchronous: many connections at once, COPY, cancel by a dropped task."""
import asyncio

import psycopg

from habits import Habits, same

habit = Habits()


async def connect():
    return await psycopg.AsyncConnection.connect("", autocommit=True)


@habit
async def many_clients_at_once(connection):
    async def one(client):
        async with await connect() as own:
            for key in range(1 + client, 200, 7):
                row = await (await own.execute("select v from kv where k = %s", (key,), prepare=True)).fetchone()
                same(row, (f"v{key}",))
    await asyncio.gather(*(one(client) for client in range(40)))


@habit
async def same_names_different_texts(connection):
    async with await connect() as one, await connect() as two:
        for _ in range(3):
            first = await one.execute("select 'one', v from kv where k = %s", (11,), prepare=True)
            second = await two.execute("select 'two', k from kv where k = %s", (12,), prepare=True)
            same(await first.fetchone(), ("one", "v11"))
            same(await second.fetchone(), ("two", 12))


@habit
async def block_on_one_shard(connection):
    async with connection.transaction():
        await connection.execute("insert into kv values (%s, 'async')", (8001,))
        same(await (await connection.execute("select v from kv where k = %s", (8001,))).fetchone(), ("async",))
        await connection.execute("delete from kv where k = %s", (8001,))


@habit
async def copy_in_and_out(connection):
    async with connection.transaction():
        async with connection.cursor() as cursor:
            async with cursor.copy("copy notes (id, body) from stdin") as copy:
                for id in range(100, 200):
                    await copy.write_row((id, "copied"))
            async with cursor.copy("copy (select id from notes where body = 'copied' order by id) to stdout") as copy:
                same(len([row async for row in copy.rows()]), 100)
            await cursor.execute("delete from notes where body = 'copied'")


@habit
async def cancelled_task(connection):
    async with await connect() as one:
        task = asyncio.create_task(one.execute("select pg_sleep(30)"))
        await asyncio.sleep(0.5)
        task.cancel()
        try:
            await task
            raise AssertionError("it was not cancelled")
        except (asyncio.CancelledError, psycopg.errors.QueryCanceled):
            pass
        same(await (await one.execute("select v from kv where k = 1")).fetchone(), ("v1",))


@habit
async def notifications(connection):
    async with await connect() as listener:
        await listener.execute("listen async_habit")
        await connection.execute("notify async_habit, 'hello'")
        async for note in listener.notifies(timeout=10, stop_after=1):
            same(note.payload, "hello")
            return
        raise AssertionError("nothing was heard")


if __name__ == "__main__":
    asyncio.run(habit.run_async(connect))
