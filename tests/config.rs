//! The configuration on real files: shipped examples, faults, properties.

use std::path::{Path, PathBuf};

use pgherd::config::{self, ConfigFault, Parsed, Sources, glob};
use pgherd::placement;

/// Parses a file of the tree.
fn parse_file(path: &str) -> Result<Parsed, Vec<ConfigFault>> {
    let text = std::fs::read_to_string(tree(path)).unwrap();
    parse_text(&text, tree(path).to_str().unwrap(), &[])
}

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn parse_text(text: &str, file: &str, env: &[(&str, &str)]) -> Result<Parsed, Vec<ConfigFault>> {
    let env = |name: &str| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let list = |pattern: &str| -> Result<Vec<PathBuf>, String> {
        let (folder, pattern) = glob::split(pattern);
        let folder = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
        let paths = folder.filter_map(Result::ok).map(|entry| entry.path());
        let fits = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| glob::matches(pattern, name))
        };
        Ok(paths.filter(fits).collect())
    };
    config::parse(
        text,
        file,
        &Sources {
            env: &env,
            read: &read,
            glob: &list,
        },
    )
}

#[test]
fn a_small_file_takes_all_defaults() {
    let text = "users: [{name: app, password: x}]\ndatabases: {shop: {shards: {a: host=db1}}}\n";
    let config = parse_text(text, "pgherd.yaml", &[])
        .unwrap()
        .ready()
        .unwrap();
    assert_eq!(config.limits, config::Limits::default());
    assert_eq!(config.databases["shop"].home, "a");
}

#[test]
fn a_missing_file_is_told() {
    let text = "databases: {shop: {shards: {a: host=db1}, tables_from: [nowhere/*.yaml]}}\n";
    let faults = parse_text(text, "pgherd.yaml", &[]).unwrap_err();
    assert_eq!(faults[0].path, "databases.shop.tables_from");
}

/// Compares with a file of the tree; `UPDATE_GOLDEN=1` writes it.
fn check_golden(path: &str, text: &str) {
    let path = tree(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        golden,
        "{} differs: UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}

#[test]
fn the_reference_holds_every_key_at_its_default() {
    let text = config::reference::text();
    check_golden("conf/reference.yaml", &text);
    let parsed = parse_text(&text, "conf/reference.yaml", &[]).unwrap();
    assert_eq!(parsed.not_yet, []);
    assert_eq!(parsed.config.limits, config::Limits::default());
}

/// Parses an example and builds its placements.
fn check_example(path: &str) -> Parsed {
    let parsed = parse_file(path).unwrap_or_else(|faults| panic!("{path}: {faults:#?}"));
    for database in parsed.config.databases.values() {
        let shards: Vec<String> = database
            .shards
            .iter()
            .map(|shard| shard.name.clone())
            .collect();
        for distribution in database.distributions.values() {
            placement::Distribution::new(distribution, &shards).unwrap();
        }
    }
    parsed
}

#[test]
fn shipped_examples_are_valid() {
    for path in [
        "conf/minimal.yaml",
        "conf/restaurants.yaml",
        "conf/storefront.yaml",
        "conf/reference.yaml",
    ] {
        assert_eq!(check_example(path).not_yet, [], "{path}");
    }
    let shop = check_example("conf/woocommerce/pgherd.yaml");
    let database = &shop.config.databases["shop"];
    assert_eq!((database.shards.len(), database.tables.len()), (10, 14));
    assert!(
        shop.not_yet
            .iter()
            .all(|fault| fault.file.contains("/tables/")),
        "{:#?}",
        shop.not_yet
    );
    assert!(shop.not_yet.iter().any(|fault| fault.path == "cache"));
    assert!(shop.ready().is_err());
}

#[test]
fn all_faults_are_told_at_once_with_their_lines() {
    let text = std::fs::read_to_string(tree("tests/golden/config/bad.yaml")).unwrap();
    let faults = parse_text(&text, "bad.yaml", &[]).unwrap_err();
    let told: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
    check_golden("tests/golden/config/bad.txt", &told);
    assert!(faults.len() >= 25);
    assert!(faults.is_sorted_by_key(|fault| fault.line));
    assert!(faults.iter().all(|fault| !fault.hint.is_empty()));
}
