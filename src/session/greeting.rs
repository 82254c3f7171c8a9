//! What a client is told of the server at login, under the settings it asks for.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::config::KeepUnnamed;
use crate::error::{Fault, SqlState};
use crate::server::hidden;
use crate::server::pool::{Lease, Pool};
use crate::server::settings::{Settings, of_whole};

use super::engine::{Database, Engine, GREETINGS_MAX, Greeting};
use super::startup;

impl Engine {
    /// What a server reports at login under these settings; asked once, then remembered.
    ///
    /// # Errors
    /// The home shard cannot be asked, or refuses the settings.
    ///
    /// # Cancel safety
    /// Safe: the connection that was asked is closed.
    pub(super) async fn greeting(
        self: &Rc<Engine>,
        database: &Rc<Database>,
        pools: &Rc<[Rc<Pool>]>,
        user: &str,
        settings: &Rc<Settings>,
    ) -> Result<Rc<Greeting>, Fault> {
        let bare = settings.without("application_name", &Settings::default());
        let key = (user.to_owned(), bare.fingerprint(), database.epoch());
        if let Some(known) = database.greetings.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let home = usize::from(database.topology.home().0);
        let Some(pool) = pools.get(home) else {
            return Err(Fault::fatal(
                SqlState::INTERNAL,
                "the home shard has no pool",
            ));
        };
        let mut lease = pool.acquire(&bare, self.now(), 0).await?;
        let limit = database.limits.server_connect_timeout;
        let parameters = ask_greeting(&mut lease, &bare, limit).await?;
        let mut greeting = Greeting {
            parameters,
            search_path: "\"$user\", public".to_owned(),
            role: user.to_owned(),
        };
        if database.minds_names()
            && let Some(connection) = lease.connection()
        {
            let asked = hidden::ask_row(connection, NAMES);
            let row = tokio::time::timeout(limit, asked)
                .await
                .map_err(|_elapsed| late())??;
            if let [search_path, role] = row.as_slice() {
                search_path.clone_into(&mut greeting.search_path);
                role.clone_into(&mut greeting.role);
            }
        }
        lease.give_back(self.now());
        let mut greetings = database.greetings.borrow_mut();
        if greetings.len() >= GREETINGS_MAX {
            greetings.clear();
        }
        let greeting = Rc::new(greeting);
        greetings.insert(key, Rc::clone(&greeting));
        Ok(greeting)
    }
}

impl Greeting {
    /// The settings of a session that was greeted so, where names decide about shards: its search path is
    /// sent, since that of a server connection is as old as the connection.
    pub(super) fn with_path(&self, settings: &Rc<Settings>) -> Rc<Settings> {
        const PATH: &str = "search_path";
        match settings.get(PATH) {
            Some(_) => Rc::clone(settings),
            None => settings.with(PATH, &of_whole(PATH, &self.search_path)),
        }
    }
}

/// What decides how names are resolved.
pub(super) const NAMES: &str = "SELECT current_setting('search_path'), current_user";

pub(super) fn late() -> Fault {
    Fault::fatal(
        SqlState::CONNECTION_FAILURE,
        "the server did not take the session's settings in time",
    )
    .hint("Check the home shard's health.")
}

/// The client's startup parameters as settings, and its application_name.
pub(super) fn startup_settings(
    client: &startup::Client,
    database: &Database,
) -> (Rc<Settings>, String) {
    let mut values = BTreeMap::new();
    let mut application_name = String::new();
    if database.limits.keep_unnamed_statements == KeepUnnamed::Custom {
        values.insert("plan_cache_mode".to_owned(), "force_custom_plan".to_owned());
    }
    for (name, value) in &client.parameters {
        let name = name.to_ascii_lowercase();
        let value = match name.as_str() {
            // asyncpg puts quotes inside the value.
            "client_encoding" => value.trim_matches('\''),
            _ => value,
        };
        if name == "application_name" {
            value.clone_into(&mut application_name);
        }
        let text = of_whole(&name, value);
        values.insert(name, text);
    }
    (Settings::new(values), application_name)
}

/// Brings a connection to the settings and reads what it reports now.
async fn ask_greeting(
    lease: &mut Lease,
    settings: &Rc<Settings>,
    limit: Duration,
) -> Result<Vec<(String, String)>, Fault> {
    let Some(connection) = lease.connection() else {
        return Ok(Vec::new());
    };
    let mut reported = connection.parameters.as_ref().clone();
    let sql = hidden::settings_sql(connection, settings);
    if !sql.is_empty() {
        connection.settings_unsure = true;
        let asked = hidden::run_reported(connection, &sql, &mut reported);
        match tokio::time::timeout(limit, asked).await {
            Ok(result) => result?,
            Err(_elapsed) => return Err(late()),
        }
        connection.settings = Rc::clone(settings);
        connection.settings_unsure = false;
        connection.parameters = Rc::new(reported.clone());
    }
    Ok(reported)
}
