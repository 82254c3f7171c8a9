//! SHOW HELP: every command, those of the registry first.

use crate::admin::answer::{Cell, text};
use crate::admin::show::{SHOWS, Show, View};

const COMMANDS: &[(&str, &str)] = &[
    (
        "PAUSE [database]",
        "Waits until server connections are released, closes them, and lets clients wait.",
    ),
    ("RESUME [database]", "Ends PAUSE and KILL."),
    (
        "RECONNECT [database]",
        "Closes each server connection once it is released.",
    ),
    (
        "WAIT_CLOSE [database]",
        "Waits until RECONNECT or RELOAD has reached every server connection.",
    ),
    (
        "RELOAD",
        "Reads the config again; an invalid one is rejected whole.",
    ),
    ("DISABLE database", "Refuses new clients of a database."),
    ("ENABLE database", "Ends DISABLE."),
    (
        "KILL [database]",
        "Drops all clients and server connections at once, and pauses.",
    ),
    ("KILL_CLIENT id", "Drops one client."),
    (
        "PURGE CACHE [TABLE name|TAG tag|TENANT value]",
        "Drops answers that are kept.",
    ),
    (
        "RESOLVE [database]",
        "Ends what was left prepared, by what was decided.",
    ),
    (
        "RESOLVE 'gid' COMMIT|ROLLBACK",
        "Ends one prepared transaction of ours whose decider is lost.",
    ),
    (
        "SET key = value",
        "Changes a limit or a timeout until the next reload.",
    ),
    (
        "SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]",
        "Stops the proxy.",
    ),
];

pub(super) const SHOW: Show = Show {
    name: "help",
    about: "This list.",
    columns: &[text("command"), text("does")],
    needs: None,
    rows,
};

fn rows(_: &View<'_>) -> Vec<Vec<Cell>> {
    let shows = SHOWS.iter().map(|show| {
        vec![
            Cell::from(format!("SHOW {}", show.name.to_uppercase())),
            Cell::from(show.about),
        ]
    });
    let commands = COMMANDS
        .iter()
        .map(|(command, does)| vec![Cell::from(*command), Cell::from(*does)]);
    shows.chain(commands).collect()
}
