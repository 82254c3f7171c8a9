// node-postgres: unnamed statements without types, named ones that are never closed, startup settings.
'use strict';
const { Client, Pool } = require('pg');
const { assert, fails, run } = require('./habits');

const value = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0];

const open = async () => {
  const client = new Client();
  await client.connect();
  return client;
};

async function main() {
  const habits = {
    async unnamed_with_parameters(client) {
      for (let key = 1; key < 60; key++) assert.equal(await value(client, 'select v from kv where k = $1', [key]), `v${key}`);
    },
    async named_and_never_closed(client) {
      for (let key = 1; key < 60; key++) {
        const answer = await client.query({ name: 'by-key', text: 'select k, v from kv where k = $1', values: [key] });
        assert.deepEqual(answer.rows, [{ k: String(key), v: `v${key}` }]);
      }
    },
    async same_name_on_two_clients(client) {
      const other = new Client();
      await other.connect();
      for (let round = 0; round < 3; round++) {
        assert.equal((await client.query({ name: 'shared', text: 'select v from kv where k = $1', values: [21] })).rows[0].v, 'v21');
        assert.equal((await other.query({ name: 'shared', text: 'select k::text || $1 as v from kv where k = 22', values: ['!'] })).rows[0].v, '22!');
      }
      await other.end();
    },
    async block_and_rollback(client) {
      await client.query('BEGIN');
      await client.query('insert into kv values ($1, $2)', [8501, 'node']);
      assert.equal(await value(client, 'select v from kv where k = $1', [8501]), 'node');
      await client.query('ROLLBACK');
      assert.equal((await client.query('select v from kv where k = $1', [8501])).rowCount, 0);
    },
    async isolation_level_first(client) {
      await client.query('BEGIN');
      await client.query('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE');
      assert.equal(await value(client, 'select v from kv where k = 1'), 'v1');
      assert.equal(await value(client, 'show transaction_isolation'), 'serializable');
      await client.query('COMMIT');
    },
    async table_less_statements_in_a_block(client) {
      await client.query('START TRANSACTION;');
      assert.match(await value(client, 'SELECT version()'), /PostgreSQL/);
      assert.equal(await value(client, 'SELECT current_schema()'), 'public');
      assert.equal(await value(client, 'select v from kv where k = $1', [44]), 'v44');
      await client.query('COMMIT');
    },
    async two_settings_in_one_string(client) {
      await client.query("SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE;");
      for (let key = 1; key < 10; key++) await client.query('select v from kv where k = $1', [key]);
      assert.match(await value(client, 'select now()::timestamptz(0)::text'), /\+02$/);
      await client.query('RESET ALL');
    },
    async several_results(client) {
      const answers = await client.query("select 1 as a; select v from kv where k = 4; select 'c' as c");
      assert.deepEqual(answers.map((answer) => Object.values(answer.rows[0])[0]), [1, 'v4', 'c']);
    },
    async error_and_on(client) {
      const error = await fails(client.query('insert into kv values ($1, $2)', [1, 'again']), '23505');
      assert.equal(error.constraint, 'kv_pkey');
      await fails(client.query('select * from never_there where k = 1'), '42P01');
      assert.equal(await value(client, 'select v from kv where k = 6'), 'v6');
    },
    async startup_settings(client) {
      const other = new Client({ statement_timeout: 64000, application_name: 'node habit', options: '-c work_mem=5MB' });
      await other.connect();
      assert.equal(await value(other, 'show statement_timeout'), '64s');
      assert.equal(await value(other, 'select v from kv where k = 31'), 'v31');
      assert.equal(await value(other, 'show work_mem'), '5MB');
      await other.end();
    },
    async pool(client) {
      const pool = new Pool({ max: 8 });
      const keys = Array.from({ length: 200 }, (_, index) => index + 1);
      const found = await Promise.all(keys.map((key) => value(pool, 'select v from kv where k = $1', [key])));
      assert.deepEqual(found, keys.map((key) => `v${key}`));
      await pool.end();
    },
    async listen(client) {
      const other = new Client();
      await other.connect();
      await other.query('LISTEN node_habit');
      const heard = new Promise((resolve) => other.on('notification', (note) => resolve(note.payload)));
      await client.query("NOTIFY node_habit, 'hi'");
      assert.equal(await heard, 'hi');
      await other.end();
    },
    async session_lock_goes_with_the_client(client) {
      const migrate = new Client();
      await migrate.connect();
      await migrate.query('SELECT pg_advisory_lock(72707369)');
      await migrate.query('select v from kv where k = 1');
      await migrate.end();
      for (let tries = 0; ; tries++) {
        if (await value(client, 'select pg_try_advisory_lock(72707369)')) break;
        if (tries === 100) throw new Error('the lock outlives its client');
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      await client.query('select pg_advisory_unlock(72707369)');
    },
    async empty_query(client) {
      assert.equal((await client.query('')).rows.length, 0);
      assert.equal(await value(client, 'select v from kv where k = 2'), 'v2');
    },
    async quoted_names(client) {
      const text = 'SELECT "public"."kv"."k", "public"."kv"."v" FROM "public"."kv" WHERE ("public"."kv"."k" = $1 AND 1=1) LIMIT $2 OFFSET $3';
      assert.deepEqual((await client.query(text, [77, 1, 0])).rows, [{ k: '77', v: 'v77' }]);
    },
  };
  await run(habits, open, (client) => client.end());
}

main();
