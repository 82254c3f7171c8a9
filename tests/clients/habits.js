// What the Node scripts share: a habit is an async function; its outcome is a line.
'use strict';
const assert = require('node:assert/strict');

const LIMIT = 30_000; // milliseconds for one habit

// Each habit has a client of its own, so that one that fails takes no other along.
async function run(habits, open, close) {
  process.on('unhandledRejection', () => {});
  for (const [name, habit] of Object.entries(habits)) {
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`no answer within ${LIMIT / 1000} s`)), LIMIT); });
    try {
      const client = await Promise.race([open(), late]);
      await Promise.race([habit(client), late]);
      await Promise.race([close(client), late]);
      console.log(`ok\t${name}`);
    } catch (error) {
      const line = (/(?:node_postgres|postgres_js)\.js:(\d+)/.exec(error.stack || '') || [])[1];
      console.log(`no\t${name}\tline ${line}: ${String(error.message).replace(/\s+/g, ' ')}`);
    } finally {
      clearTimeout(timer);
    }
  }
  process.exit(0); // what a failed habit left open would keep us
}

async function fails(promise, code) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.code, code, error.message);
    return error;
  }
  throw new Error(`no error ${code} came`);
}

module.exports = { assert, fails, run };
