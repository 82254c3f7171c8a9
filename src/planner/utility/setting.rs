//! SET, RESET, SHOW, DISCARD, LISTEN and their kin.

use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect};
use crate::sql::cursor::Cursor;
use crate::sql::scan::Kind;

/// Plans a statement about the session's settings; `None` for another kind.
pub(super) fn plan(mut cursor: Cursor<'_>) -> Option<Draft> {
    let first = cursor.take_any(&[
        "set", "reset", "show", "discard", "listen", "unlisten", "notify",
    ])?;
    match first {
        "set" => set(cursor),
        "reset" => reset(cursor),
        "show" => Some(show(cursor)),
        "discard" => Some(discard(cursor)),
        "listen" => Some(Draft::session(
            "LISTEN",
            Effect::Listen {
                channel: cursor.name()?,
            },
        )),
        "unlisten" => {
            let channel = if cursor.take_operator("*") {
                None
            } else {
                Some(cursor.name()?)
            };
            Some(Draft::session("UNLISTEN", Effect::Unlisten { channel }))
        }
        _ => Some(Draft {
            writes: true,
            ..Draft::server("NOTIFY", Effect::None, Access::Home)
        }),
    }
}

fn setting(verb: &'static str, effect: Effect) -> Draft {
    Draft::server(verb, effect, Access::Anywhere)
}

fn set_transaction(cursor: Cursor<'_>) -> Draft {
    let modes = cursor.rest_text();
    Draft::session("SET", Effect::SetTransaction { modes })
}

fn set(mut cursor: Cursor<'_>) -> Option<Draft> {
    if cursor.take("transaction") {
        return Some(set_transaction(cursor));
    }
    if cursor.take("constraints") {
        return Some(Draft::server("SET", Effect::None, Access::Bound));
    }
    let mut local = false;
    if cursor.at("session") && !next_is_assignment(cursor) {
        cursor.advance();
        if cursor.take("characteristics") {
            return characteristics(cursor);
        }
        if cursor.take("authorization") {
            return Some(special("session_authorization", cursor, false));
        }
    } else if cursor.at("local") && !next_is_assignment(cursor) {
        cursor.advance();
        local = true;
        if cursor.take("transaction") {
            return Some(set_transaction(cursor));
        }
        if cursor.take_words(&["session", "authorization"]) {
            return Some(special("session_authorization", cursor, true));
        }
    }
    if cursor.at_words(&["time", "zone"]) {
        cursor.take_words(&["time", "zone"]);
        return Some(time_zone(cursor, local));
    }
    if !next_is_assignment(cursor) {
        for (word, name) in [
            ("role", "role"),
            ("names", "client_encoding"),
            ("schema", "search_path"),
            ("catalog", "catalog"),
        ] {
            if cursor.take(word) {
                return Some(special(name, cursor, local));
            }
        }
        if cursor.take_words(&["xml", "option"]) {
            return Some(special("xmloption", cursor, local));
        }
    }
    assignment(cursor, local)
}

/// Whether the next word is a setting's own name: `SET local TO …`.
fn next_is_assignment(mut cursor: Cursor<'_>) -> bool {
    cursor.advance();
    cursor.at("to") || cursor.kind() == Some(Kind::Dot) || {
        let mut rest = cursor;
        rest.take_operator("=")
    }
}

/// `SET x value`, where PostgreSQL has a word of its own for the setting.
fn special(name: &str, cursor: Cursor<'_>, local: bool) -> Draft {
    let name = name.to_owned();
    if cursor.is_done() || cursor.at("default") {
        return setting("SET", Effect::Reset { name, local });
    }
    setting(
        "SET",
        Effect::Set {
            name,
            value: cursor.rest_text(),
            local,
        },
    )
}

/// LOCAL and DEFAULT both mean the default.
fn time_zone(cursor: Cursor<'_>, local: bool) -> Draft {
    if cursor.at("local") {
        return setting(
            "SET",
            Effect::Reset {
                name: "timezone".into(),
                local,
            },
        );
    }
    special("timezone", cursor, local)
}

fn characteristics(mut cursor: Cursor<'_>) -> Option<Draft> {
    cursor.take_words(&["as", "transaction"]).then_some(())?;
    // One mode is a setting of its own; several at once cannot be noted as one.
    let several = cursor
        .tokens()
        .iter()
        .any(|token| token.kind == Kind::Comma);
    let effect = |name: &str, value: &str| {
        setting(
            "SET",
            Effect::Set {
                name: name.into(),
                value: value.into(),
                local: false,
            },
        )
    };
    if several {
        return Some(setting("SET", Effect::Pin("session characteristics")));
    }
    if cursor.take_words(&["isolation", "level"]) {
        let level = cursor.rest_text().to_ascii_lowercase();
        let words: Vec<_> = level.split_ascii_whitespace().collect();
        let value = format!("'{}'", words.join(" "));
        return Some(
            if cursor.tokens().len() == words.len() && words.len() <= 2 {
                effect("default_transaction_isolation", &value)
            } else {
                setting("SET", Effect::Pin("session characteristics"))
            },
        );
    }
    let (name, value) = if cursor.take_words(&["read", "only"]) {
        ("default_transaction_read_only", "on")
    } else if cursor.take_words(&["read", "write"]) {
        ("default_transaction_read_only", "off")
    } else if cursor.take_words(&["not", "deferrable"]) {
        ("default_transaction_deferrable", "off")
    } else if cursor.take("deferrable") {
        ("default_transaction_deferrable", "on")
    } else {
        ("", "")
    };
    Some(if cursor.is_done() && !name.is_empty() {
        effect(name, value)
    } else {
        setting("SET", Effect::Pin("session characteristics"))
    })
}

fn assignment(mut cursor: Cursor<'_>, local: bool) -> Option<Draft> {
    let name = cursor.parts()?.join(".").to_ascii_lowercase();
    if !cursor.take("to") && !cursor.take_operator("=") {
        // `SET x FROM CURRENT` and mistakes: the server knows.
        return Some(setting("SET", Effect::None));
    }
    let default = cursor.at("default") && cursor.tokens().len() == 1;
    if name.starts_with("pgherd.") {
        let value = (!default).then(|| cursor.string().unwrap_or_else(|| cursor.rest_text()));
        return Some(Draft::session(
            "SET",
            Effect::SetPgherd { name, value, local },
        ));
    }
    if default {
        return Some(setting("SET", Effect::Reset { name, local }));
    }
    let value = cursor.rest_text();
    Some(setting("SET", Effect::Set { name, value, local }))
}

fn reset(mut cursor: Cursor<'_>) -> Option<Draft> {
    if cursor.at("all") {
        return Some(setting("RESET", Effect::ResetAll));
    }
    let name = if cursor.take_words(&["time", "zone"]) {
        "timezone".into()
    } else if cursor.take_words(&["session", "authorization"]) {
        "session_authorization".into()
    } else if cursor.take_words(&["transaction", "isolation", "level"]) {
        "transaction_isolation".into()
    } else {
        cursor.parts()?.join(".").to_ascii_lowercase()
    };
    if name.starts_with("pgherd.") {
        return Some(Draft::session(
            "RESET",
            Effect::SetPgherd {
                name,
                value: None,
                local: false,
            },
        ));
    }
    Some(setting("RESET", Effect::Reset { name, local: false }))
}

fn show(mut cursor: Cursor<'_>) -> Draft {
    match cursor
        .parts()
        .map(|parts| parts.join(".").to_ascii_lowercase())
    {
        Some(name) if name.starts_with("pgherd.") => {
            Draft::session("SHOW", Effect::ShowPgherd { name })
        }
        Some(_) | None => setting("SHOW", Effect::None),
    }
}

fn discard(cursor: Cursor<'_>) -> Draft {
    if cursor.at("all") {
        return Draft {
            no_block: true,
            ..Draft::session("DISCARD ALL", Effect::DiscardAll)
        };
    }
    let verb = if cursor.at("plans") {
        "DISCARD PLANS"
    } else if cursor.at("sequences") {
        "DISCARD SEQUENCES"
    } else {
        "DISCARD TEMP"
    };
    setting(verb, Effect::DiscardOther)
}
