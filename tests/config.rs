//! The configuration on real files: shipped examples, faults, properties.

use std::path::{Path, PathBuf};

use pgherd::config::{self, ConfigFault, Parsed, Sources, glob};

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
