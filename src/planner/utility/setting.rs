//! SET, RESET, SHOW, DISCARD, LISTEN and their kin.

use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect};
use crate::planner::utility::transaction;
use crate::sql::cursor::Cursor;
use crate::sql::scan::Kind;

/// Plans a statement about the session's settings; `None` for another kind. One that is not
/// understood to its end has no effect here.
pub(super) fn plan(mut cursor: Cursor<'_>) -> Option<Draft> {
    let first = cursor.take_any(&[
        "set", "reset", "show", "discard", "listen", "unlisten", "notify",
    ])?;
    let draft = match first {
        "set" => set(cursor),
        "reset" => reset(cursor),
        "show" => show(cursor),
        "discard" => discard(cursor),
        "listen" => listen(cursor),
        "unlisten" => unlisten(cursor),
        _ => Some(Draft {
            writes: true,
            ..Draft::server("NOTIFY", Effect::None, Access::Home)
        }),
    };
    Some(draft.unwrap_or_else(Draft::unread))
}

fn listen(mut cursor: Cursor<'_>) -> Option<Draft> {
    let channel = cursor.name()?;
    last(cursor, Draft::session("LISTEN", Effect::Listen { channel }))
}

fn unlisten(mut cursor: Cursor<'_>) -> Option<Draft> {
    let channel = if cursor.take_operator("*") {
        None
    } else {
        Some(cursor.name()?)
    };
    last(
        cursor,
        Draft::session("UNLISTEN", Effect::Unlisten { channel }),
    )
}

/// The draft, if the statement ends here.
fn last(cursor: Cursor<'_>, draft: Draft) -> Option<Draft> {
    cursor.is_done().then_some(draft)
}

fn setting(verb: &'static str, effect: Effect) -> Draft {
    Draft::server(verb, effect, Access::Anywhere)
}

/// SET TRANSACTION, from its modes on.
fn set_transaction(mut cursor: Cursor<'_>) -> Option<Draft> {
    let modes = cursor.rest_text();
    let draft = Draft::session("SET", Effect::SetTransaction { modes });
    if cursor.take("snapshot") {
        cursor.string()?;
        return last(cursor, draft);
    }
    (!cursor.is_done() && transaction::modes(cursor)).then_some(draft)
}

fn set(mut cursor: Cursor<'_>) -> Option<Draft> {
    if cursor.at("transaction") && !next_is_assignment(cursor) {
        cursor.advance();
        return set_transaction(cursor);
    }
    if cursor.take("constraints") {
        let rest = cursor.rest_text();
        let effect = Effect::SetConstraints { rest };
        return Some(Draft::server("SET", effect, Access::Bound));
    }
    let mut local = false;
    if cursor.at("session") && !next_is_assignment(cursor) {
        cursor.advance();
        if cursor.take("characteristics") {
            return characteristics(cursor);
        }
        if cursor.take("authorization") {
            return special("session_authorization", cursor, false);
        }
        if cursor.take("transaction") {
            return set_transaction(cursor);
        }
    } else if cursor.at("local") && !next_is_assignment(cursor) {
        cursor.advance();
        local = true;
        if cursor.take("transaction") {
            return set_transaction(cursor);
        }
        if cursor.take_words(&["session", "authorization"]) {
            return special("session_authorization", cursor, true);
        }
    }
    if cursor.at_words(&["time", "zone"]) {
        cursor.take_words(&["time", "zone"]);
        return time_zone(cursor, local);
    }
    if !next_is_assignment(cursor) {
        for (word, name) in [
            ("role", "role"),
            ("names", "client_encoding"),
            ("schema", "search_path"),
            ("catalog", "catalog"),
        ] {
            if cursor.take(word) {
                return special(name, cursor, local);
            }
        }
        if cursor.take_words(&["xml", "option"]) {
            return special("xmloption", cursor, local);
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
///
/// SET NAMES alone is the default; the others have a value.
fn special(name: &str, cursor: Cursor<'_>, local: bool) -> Option<Draft> {
    let is_default = cursor.at("default") && cursor.tokens().len() == 1;
    if cursor.is_done() && name != "client_encoding" {
        return None;
    }
    let name = name.to_owned();
    Some(if cursor.is_done() || is_default {
        setting("SET", Effect::Reset { name, local })
    } else {
        let value = cursor.rest_text();
        setting("SET", Effect::Set { name, value, local })
    })
}

/// LOCAL and DEFAULT both mean the default.
fn time_zone(cursor: Cursor<'_>, local: bool) -> Option<Draft> {
    if cursor.at("local") && cursor.tokens().len() == 1 {
        return Some(setting(
            "SET",
            Effect::Reset {
                name: "timezone".into(),
                local,
            },
        ));
    }
    special("timezone", cursor, local)
}

fn characteristics(mut cursor: Cursor<'_>) -> Option<Draft> {
    cursor.take_words(&["as", "transaction"]).then_some(())?;
    (!cursor.is_done() && transaction::modes(cursor)).then_some(())?;
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
    // `SET x FROM CURRENT` and mistakes: the server knows.
    (cursor.take("to") || cursor.take_operator("=")).then_some(())?;
    (!cursor.is_done()).then_some(())?;
    let default = cursor.at("default") && cursor.tokens().len() == 1;
    if name.starts_with("pgherd.") {
        // A string, a word or a number, perhaps with its sign.
        let mut rest = cursor;
        let _sign = rest.take_operator("-") || rest.take_operator("+");
        let one = rest.tokens().len() == 1;
        let value = (!default).then(|| cursor.string().unwrap_or_else(|| cursor.rest_text()));
        return one.then(|| Draft::session("SET", Effect::SetPgherd { name, value, local }));
    }
    if default {
        return Some(setting("SET", Effect::Reset { name, local }));
    }
    let value = cursor.rest_text();
    Some(setting("SET", Effect::Set { name, value, local }))
}

fn reset(mut cursor: Cursor<'_>) -> Option<Draft> {
    if cursor.take("all") {
        return last(cursor, setting("RESET", Effect::ResetAll));
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
    cursor.is_done().then_some(())?;
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

fn show(mut cursor: Cursor<'_>) -> Option<Draft> {
    let spelled = cursor.take_words(&["time", "zone"])
        || cursor.take_words(&["transaction", "isolation", "level"])
        || cursor.take_words(&["session", "authorization"]);
    if spelled {
        return last(cursor, setting("SHOW", Effect::None));
    }
    let name = cursor.parts()?.join(".").to_ascii_lowercase();
    let draft = if name.starts_with("pgherd.") {
        Draft::session("SHOW", Effect::ShowPgherd { name })
    } else {
        setting("SHOW", Effect::None)
    };
    last(cursor, draft)
}

fn discard(mut cursor: Cursor<'_>) -> Option<Draft> {
    let draft = match cursor.take_any(&["all", "plans", "sequences", "temp", "temporary"])? {
        "all" => Draft {
            no_block: true,
            ..Draft::session("DISCARD ALL", Effect::DiscardAll)
        },
        "plans" => setting("DISCARD PLANS", Effect::DiscardOther),
        "sequences" => setting("DISCARD SEQUENCES", Effect::DiscardOther),
        _ => setting("DISCARD TEMP", Effect::DiscardOther),
    };
    last(cursor, draft)
}
