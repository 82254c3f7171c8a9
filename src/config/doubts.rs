//! What is valid in a configuration and hardly meant.

use super::Config;
use crate::error::{Fault, SqlState};

impl Config {
    /// Each a warning.
    pub fn doubts(&self) -> Vec<Fault> {
        let lists = [
            ("admin_users", &self.admin_users),
            ("stats_users", &self.stats_users),
        ];
        // Without users every name is one; auth.query finds those that are not listed.
        if self.users.is_empty() || self.auth.query.is_some() {
            return Vec::new();
        }
        let mut doubts = Vec::new();
        for (key, names) in lists {
            for name in names.iter().filter(|name| !self.users.contains_key(*name)) {
                let message = format!("{key}: user \"{name}\" is not among the users");
                doubts.push(
                    Fault::error(SqlState::CONFIG, message)
                        .detail("Nobody can log in by this name.")
                        .hint("Add it to users, set auth.query, or remove it."),
                );
            }
        }
        doubts
    }
}
