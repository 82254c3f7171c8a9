//! Every SHOW against its golden, and the registry against itself.
//!
//! `UPDATE_GOLDEN=1 cargo test golden` writes the goldens anew; read the difference in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::admin::answer::{Cell, Type};
use crate::admin::console::Console;
use crate::admin::environment;
use crate::admin::fixture::TestHerd;
use crate::admin::show::{NOT_YET, SHOWS, find, refused, timestamp};
use crate::session::console::Rights;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/show")
        .join(format!("{name}.txt"))
}

async fn shown(name: &str) -> String {
    let console = Console::new(Arc::new(TestHerd::new()));
    let mut answers = console
        .query(&format!("SHOW {name}"), "grafana", Rights::Stats)
        .await
        .unwrap();
    let answer = answers.pop().unwrap();
    let head = answer
        .columns
        .iter()
        .map(|column| format!("{}:{}", column.name, column.kind.as_str()));
    let mut text = head.collect::<Vec<_>>().join("|") + "\n";
    for row in &answer.rows {
        assert_eq!(
            row.len(),
            answer.columns.len(),
            "cells of a row of SHOW {name}"
        );
        for (cell, column) in row.iter().zip(answer.columns.iter()) {
            let fits = match cell {
                Cell::Null => true,
                Cell::Text(_) => column.kind == Type::Text,
                Cell::Int(_) => column.kind != Type::Text,
            };
            assert!(fits, "{cell:?} in column {} of SHOW {name}", column.name);
        }
        let cells = row.iter().map(|cell| match cell {
            Cell::Null => "∅".into(),
            Cell::Text(_) | Cell::Int(_) => {
                cell.show().replace(env!("CARGO_PKG_VERSION"), "VERSION")
            }
        });
        text += &(cells.collect::<Vec<_>>().join("|") + "\n");
    }
    text
}

#[tokio::test]
async fn every_show_is_as_its_golden() {
    let mut different = Vec::new();
    for show in SHOWS {
        let (path, text) = (golden(show.name), shown(show.name).await);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expect = fs::read_to_string(&path).unwrap_or_default();
        if text != expect {
            different.push(format!(
                "SHOW {}:\n{text}\nbut {} has:\n{expect}",
                show.name,
                path.display()
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_golden_has_its_show() {
    for file in fs::read_dir(golden("x").parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(find(&name).is_some(), "{name}");
    }
}

#[test]
fn names_and_columns_are_unique() {
    let mut names = BTreeSet::new();
    for show in SHOWS {
        assert!(names.insert(show.name), "SHOW {} twice", show.name);
        assert!(
            environment::setting(show.name).is_none(),
            "SHOW {} hides a setting",
            show.name
        );
        assert!(show.about.ends_with('.'), "about of SHOW {}", show.name);
        assert_eq!(show.name, show.name.to_lowercase());
        let columns: BTreeSet<_> = show.columns.iter().map(|column| &column.name).collect();
        assert_eq!(
            columns.len(),
            show.columns.len(),
            "columns of SHOW {}",
            show.name
        );
    }
    for name in NOT_YET {
        assert!(names.insert(name), "SHOW {name} is there");
        assert!(refused(name).is_err());
    }
}

#[test]
fn times_are_dates() {
    let check = |seconds: u64, expect: &str| {
        assert_eq!(
            timestamp(UNIX_EPOCH + Duration::from_secs(seconds)).show(),
            expect
        );
    };
    check(0, "1970-01-01 00:00:00 UTC");
    check(951_782_400, "2000-02-29 00:00:00 UTC");
    check(1_709_164_799, "2024-02-28 23:59:59 UTC");
    check(4_107_542_400, "2100-03-01 00:00:00 UTC");
}
