//! Whether the users' types are alike on the shards: clients are told the home shard's.

use std::collections::BTreeMap;

use super::Shard;
use crate::control::finding::Finding;
use crate::control::pool::{Connection, column};
use crate::error::Fault;

/// Types by name, with what they are made of, tables' and arrays' left out.
pub(super) type Words = BTreeMap<String, String>;

const TYPES: &str = "
    SELECT pg_catalog.concat(n.nspname, '.', t.typname), CASE t.typtype
               WHEN 'e' THEN 'an enum of ' || COALESCE((
                   SELECT pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', '
                                                ORDER BY l.enumsortorder)
                   FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid), 'nothing')
               WHEN 'd' THEN pg_catalog.concat('a domain over ',
                   pg_catalog.format_type(t.typbasetype, t.typtypmod),
                   CASE WHEN t.typnotnull THEN ' NOT NULL' END,
                   (SELECT pg_catalog.string_agg(' ' || pg_catalog.pg_get_constraintdef(k.oid), ''
                                                 ORDER BY pg_catalog.pg_get_constraintdef(k.oid))
                    FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
               WHEN 'c' THEN 'a composite of ' || COALESCE((
                   SELECT pg_catalog.string_agg(pg_catalog.concat(a.attname, ' ',
                              pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
                   FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), 'nothing')
               WHEN 'r' THEN 'a range of ' || pg_catalog.format_type(r.rngsubtype, NULL)
               WHEN 'm' THEN 'a multirange'
               ELSE 'a base type' END
    FROM pg_catalog.pg_type t
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
    LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
    WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)' AND (t.typrelid = 0 OR c.relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)";

/// Reads them from a shard.
///
/// # Cancel safety
/// Safe: the answer is dropped.
pub(super) async fn read(connection: &mut Connection<'_>) -> Result<Words, Fault> {
    let mut words = Words::new();
    for row in &connection.rows(TYPES, &[]).await? {
        words.insert(column(Some(row), 0)?, column(Some(row), 1)?);
    }
    Ok(words)
}

/// Compares one shard with the home shard.
pub(super) fn check(home: &Shard, shard: &Shard, findings: &mut Vec<Finding>) {
    for (name, wanted) in &home.types {
        let finding = match shard.types.get(name) {
            Some(found) if found == wanted => continue,
            Some(found) => Finding::error(format!(
                "type \"{name}\" is {found}, but {wanted} on the home shard"
            )),
            None => Finding::warning(format!("type \"{name}\" of the home shard is missing")),
        };
        findings.push(finding.hint(HINT).on(&shard.name));
    }
    for name in shard.types.keys() {
        if !home.types.contains_key(name) {
            let what = format!("type \"{name}\" is not on the home shard");
            findings.push(Finding::warning(what).hint(HINT).on(&shard.name));
        }
    }
}

const HINT: &str = "Make the types equal; DDL sent through pgherd reaches every shard.";
