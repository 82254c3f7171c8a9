// What the Node scripts share: a habit is an async function; its outcome is a line.
'use strict';
const assert = require('node:assert/strict');

async function run(habits) {
  for (const [name, habit] of Object.entries(habits)) {
    try {
      await habit();
      console.log(`ok\t${name}`);
    } catch (error) {
      const line = (/(?:node_postgres|postgres_js)\.js:(\d+)/.exec(error.stack || '') || [])[1];
      console.log(`no\t${name}\tline ${line}: ${String(error.message).replace(/\s+/g, ' ')}`);
    }
  }
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
