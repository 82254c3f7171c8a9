// postgres.js: statements described with Flush, pipelines a hundred deep, transactions pipelined.
'use strict';
const postgres = require('postgres');
const { assert, fails, run } = require('./habits');

const open = async () => postgres({ max: 4, password: process.env.PGPASSWORD, onnotice: () => {} });

async function main() {
  const habits = {
    async tagged_statements(sql) {
      for (let key = 1; key < 40; key++) assert.equal((await sql`select v from kv where k = ${key}`)[0].v, `v${key}`);
    },
    async pipeline_of_many(sql) {
      const keys = Array.from({ length: 300 }, (_, index) => index + 1);
      const answers = await Promise.all(keys.map((key) => sql`select v from kv where k = ${key}`));
      assert.deepEqual(answers.map((rows) => rows[0].v), keys.map((key) => `v${key}`));
    },
    async arrays(sql) {
      await sql`select 1`; // the types of arrays are looked up with the first statement
      assert.deepEqual((await sql`select ${sql.array([1, 2, 3])}::int[] as a`)[0].a, [1, 2, 3]);
    },
    async transaction(sql) {
      const found = await sql.begin(async (tx) => {
        await tx`insert into kv values (8601, 'pjs')`;
        const rows = await tx`select v from kv where k = 8601`;
        await tx`delete from kv where k = 8601`;
        return rows[0].v;
      });
      assert.equal(found, 'pjs');
    },
    async pipelined_transaction(sql) {
      const answers = await sql.begin((tx) => [tx`select v from kv where k = 51`, tx`select k from kv where k = 51`]);
      assert.deepEqual(answers.map((rows) => Object.values(rows[0])[0]), ['v51', '51']);
    },
    async rolled_back(sql) {
      await fails(sql.begin(async (tx) => {
        await tx`insert into kv values (8602, 'gone')`;
        await tx`insert into kv values (8602, 'twice')`;
      }), '23505');
      assert.equal((await sql`select v from kv where k = 8602`).length, 0);
    },
    async cursor(sql) {
      let seen = 0;
      await sql`select generate_series(1, 100) as x`.cursor(10, (rows) => { seen += rows.length; });
      assert.equal(seen, 100);
    },
    async copy_in(sql) {
      const { pipeline } = require('node:stream/promises');
      const { Readable } = require('node:stream');
      const lines = Array.from({ length: 100 }, (_, index) => `${8700 + index}\tcopied\n`);
      await pipeline(Readable.from(lines), await sql`copy kv (k, v) from stdin`.writable());
      for (let key = 8700; key < 8800; key++) assert.equal((await sql`delete from kv where k = ${key}`).count, 1);
    },
    async listen(sql) {
      const heard = new Promise((resolve, reject) => {
        sql.listen('pjs_habit', resolve, () => sql.notify('pjs_habit', 'hi')).catch(reject);
      });
      assert.equal(await heard, 'hi');
    },
    async simple_protocol(sql) {
      const answers = await sql`select 1 as a; select 2 as a`.simple();
      assert.deepEqual(answers.map((rows) => rows[0].a), [1, 2]);
    },
    async cancel(sql) {
      const sleeping = sql`select pg_sleep(30)`;
      setTimeout(() => sleeping.cancel(), 500);
      await fails(sleeping, '57014');
      assert.equal((await sql`select v from kv where k = 8`)[0].v, 'v8');
    },
  };
  await run(habits, open, (sql) => sql.end({ timeout: 5 }));
}

main();
