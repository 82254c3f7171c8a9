//! Resumes CREATE INDEX CONCURRENTLY: where it fails PostgreSQL leaves an invalid index behind, which IF NOT EXISTS
//! then passes over (`DefineIndex` in `indexcmds.c`).

use crate::sql::cursor::{Cursor, Name};
use crate::sql::quote::quote_literal;
use crate::sql::scan::{Lexing, scan};
use crate::wire::backend;

use super::member::Member;
use super::{Conversation, Trouble};

/// An index that is made unless it is there.
pub(super) struct Resumed {
    index: String,
    table: Name,
}

impl Resumed {
    /// The index of a CREATE INDEX CONCURRENTLY IF NOT EXISTS.
    pub(super) fn of(text: &[u8], lexing: Lexing) -> Option<Resumed> {
        let tokens = scan(text, lexing).ok()?;
        let mut cursor = Cursor::new(text, &tokens);
        if !cursor.take("create") {
            return None;
        }
        cursor.take("unique");
        if !cursor.take_words(&["index", "concurrently", "if", "not", "exists"]) {
            return None;
        }
        let index = cursor.name()?;
        if !cursor.take("on") {
            return None;
        }
        cursor.take("only");
        let table = cursor.qualified()?;
        Some(Resumed { index, table })
    }

    /// Builds it anew where a failure has left it invalid. Another session may be about to finish it: it is not
    /// dropped.
    pub(super) async fn finish<C: Conversation>(
        &self,
        client: &mut C,
        member: &mut Member,
    ) -> Result<(), Trouble> {
        let ask = format!(
            "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
             FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE i.indrelid = pg_catalog.to_regclass({}) AND c.relname = {} AND NOT i.indisvalid",
            quote_literal(&self.table.quoted()),
            quote_literal(&self.index)
        );
        let mut invalid = None;
        member.push_text(ask.as_bytes())?;
        member
            .hear(client, |_, heard| {
                if heard.tag == b'D' {
                    let row = backend::row_values(heard.body);
                    let name = row.first().copied().flatten();
                    invalid = name.map(|name| String::from_utf8_lossy(name).into_owned());
                }
                Ok(true)
            })
            .await?;
        let Some(name) = invalid else {
            return Ok(());
        };
        member.push_text(format!("REINDEX INDEX CONCURRENTLY {name}").as_bytes())?;
        member.hear(client, |_, _| Ok(true)).await
    }
}

#[cfg(test)]
mod tests {
    use super::Resumed;
    use crate::sql::scan::Lexing;

    #[test]
    fn what_is_made_unless_it_is_there_is_read() {
        for (text, expect) in [
            (
                "create index concurrently if not exists i on t (a)",
                Some(("i", None, "t")),
            ),
            (
                "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I\" ON ONLY s.t USING btree (a)",
                Some(("I", Some("s"), "t")),
            ),
            ("create index concurrently i on t (a)", None),
            ("create index if not exists i on t (a)", None),
            ("drop index concurrently if exists i", None),
        ] {
            let resumed = Resumed::of(text.as_bytes(), Lexing::default());
            let found = resumed.as_ref().map(|resumed| {
                let table = &resumed.table;
                (
                    resumed.index.as_str(),
                    table.schema.as_deref(),
                    table.name.as_str(),
                )
            });
            assert_eq!(found, expect, "{text}");
        }
    }
}
