//! The tables of a file of CREATE TABLE statements, as `route` needs them: names and columns.
//!
//! It reads pg_dump's schemas and what people write. Types do not matter: a key has the type of its
//! distribution. Whatever is no CREATE TABLE is passed over.

use std::path::Path;

use crate::error::{Fault, SqlState};
use crate::placement::catalog::{Catalog, Collation, Column, Table};
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::{self, Kind, Lexing, Token};
use crate::sql::split::split;

/// Words that begin a constraint, not a column.
const CONSTRAINTS: &[&str] = &[
    "constraint",
    "primary",
    "unique",
    "check",
    "foreign",
    "exclude",
    "like",
];

/// The tables of the file; those without a schema are in `public`.
pub(super) fn read(path: &Path) -> Result<Catalog, Fault> {
    let failed = |detail: String| {
        Fault::error(
            SqlState::CONFIG,
            format!("could not read the tables of \"{}\"", path.display()),
        )
        .detail(detail)
        .hint("Give a file of CREATE TABLE statements, as pg_dump --schema-only writes.")
    };
    let text = std::fs::read(path).map_err(|error| failed(format!("The system says: {error}.")))?;
    let catalog = tables(&text).map_err(|why| failed(format!("It has {why}.")))?;
    if catalog.tables().next().is_none() {
        return Err(failed("It has no CREATE TABLE with columns.".to_owned()));
    }
    Ok(catalog)
}

fn tables(text: &[u8]) -> Result<Catalog, scan::Unreadable> {
    let tokens = scan::scan(text, Lexing::default())?;
    let mut catalog = Catalog::new(1);
    for statement in split(&tokens, text) {
        if let Some((name, table)) = table(Cursor::new(text, statement)) {
            let schema = name.schema.as_deref().unwrap_or("public");
            catalog.insert(schema, &name.name, table);
        }
    }
    Ok(catalog)
}

fn table(mut cursor: Cursor<'_>) -> Option<(Name, Table)> {
    if !cursor.take("create") {
        return None;
    }
    cursor.take("unlogged");
    if !cursor.take("table") {
        return None;
    }
    cursor.take_words(&["if", "not", "exists"]);
    let name = cursor.qualified()?;
    if cursor.kind() != Some(Kind::OpenParen) {
        return None;
    }
    let text = cursor.text();
    let body = cursor.tokens().get(1..).unwrap_or_default();
    let items = items(body);
    let columns = items
        .into_iter()
        .filter_map(|item| column(Cursor::new(text, item)));
    let table = Table {
        plain: true,
        columns: columns.collect(),
        ..Table::default()
    };
    Some((name, table))
}

/// The items of a list in parentheses, whose opening one is already taken.
fn items(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth: usize = 0;
    let mut end = tokens.len();
    let mut cuts = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.kind == Kind::OpenParen {
            depth += 1;
        } else if token.kind == Kind::CloseParen && depth == 0 {
            end = index;
            break;
        } else if token.kind == Kind::CloseParen {
            depth -= 1;
        } else if token.kind == Kind::Comma && depth == 0 {
            cuts.push(index);
        }
    }
    let mut all = Vec::new();
    let mut from = 0;
    for to in cuts.into_iter().chain([end]) {
        all.push(tokens.get(from..to).unwrap_or_default());
        from = to + 1;
    }
    all
}

fn column(mut cursor: Cursor<'_>) -> Option<Column> {
    if CONSTRAINTS.iter().any(|word| cursor.at(word)) {
        return None;
    }
    let name = cursor.name()?;
    let generated = cursor.mentions("generated") && cursor.mentions("stored");
    Some(Column {
        name,
        oid: 0,
        generated,
        modifier: -1,
        primary: false,
        collation: Collation::Other,
        loose: false,
    })
}

#[cfg(test)]
mod tests {
    use super::tables;

    #[test]
    fn tables_and_columns_are_read() {
        let text = b"-- a dump\nSET x = 1;
            CREATE TABLE public.\"Orders\" (id bigint NOT NULL, \"cust\" int DEFAULT f(1, 2),
                total numeric(10,2) GENERATED ALWAYS AS (id * 2) STORED,
                CONSTRAINT c CHECK (id > 0), PRIMARY KEY (id, cust));
            create unlogged table if not exists Notes (note text);
            ALTER TABLE x ADD COLUMN y int;";
        let catalog = tables(text).expect("readable");
        let columns = |name: &str| -> Vec<(String, bool)> {
            let table = catalog.table("public", name).expect("a table");
            let columns = table.columns.iter();
            columns
                .map(|column| (column.name.clone(), column.generated))
                .collect()
        };
        let expect = |pairs: &[(&str, bool)]| -> Vec<(String, bool)> {
            pairs
                .iter()
                .map(|(name, generated)| ((*name).to_owned(), *generated))
                .collect()
        };
        assert_eq!(
            columns("Orders"),
            expect(&[("id", false), ("cust", false), ("total", true)])
        );
        assert_eq!(columns("notes"), expect(&[("note", false)]));
        assert_eq!(catalog.tables().count(), 2);
    }
}
