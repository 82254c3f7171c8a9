//! The refusals of a tenant's statements: why it cannot be told that they are confined, and what to change.

use crate::error::{Fault, SqlState};
use crate::types::key::KeyType;

fn denied(message: impl Into<String>) -> Fault {
    Fault::error(SqlState::INSUFFICIENT_PRIVILEGE, message)
}

pub(super) fn unconfined(table: &str, column: &str) -> Fault {
    denied(format!("\"{table}\" is not confined to the tenant"))
        .detail(format!(
            "No equality says that \"{column}\" of each row of \"{table}\" that it reads or writes is the tenant."
        ))
        .hint(format!(
            "Compare \"{column}\" of each reference to \"{table}\" with the tenant by = and AND, as in {column} = $1; in an INSERT, give it as a constant or a parameter."
        ))
}

/// A value that is not the tenant.
pub fn another(table: &str) -> Fault {
    denied(format!("the rows of \"{table}\" are not the tenant's"))
        .detail("The value that the tenant's column is compared with or set to is not the session's tenant, or cannot be told.")
        .hint("Give the tenant's own value, as a constant or a parameter of the column's type.")
}

/// A session whose tenant cannot be told.
pub fn unknown_tenant(setting: &str) -> Fault {
    denied("it cannot be told which tenant the session is of")
        .detail(format!(
            "Setting \"{setting}\" was set in a way that is not understood."
        ))
        .hint(format!(
            "Set it to one constant, as in SET {setting} = '42'."
        ))
}

/// A setting that stays as it is in a tenant's session.
pub fn fixed(setting: &str) -> Fault {
    denied(format!("a tenant cannot set \"{setting}\""))
        .detail("It would lift the session's confinement to its tenant.")
        .hint("Leave it as it is, or connect as a user without a tenant.")
}

/// A session that may have made what its names mean.
pub fn unsure() -> Fault {
    denied("it cannot be told what a tenant's statement reads")
        .detail(
            "The session ran code or made temporary relations before it was confined to a tenant.",
        )
        .hint("Confine a new connection, on which nothing of the kind was done.")
}

/// What is not open to tenants at all.
pub fn not_allowed(what: &str, hint: &str) -> Fault {
    denied(format!("{what} is not allowed for a tenant"))
        .detail("What it reads and writes cannot be told to be the tenant's alone.")
        .hint(hint)
}

/// A text nobody parsed.
pub(in crate::planner) fn unread(reason: &str) -> Fault {
    denied("a tenant's statement is not understood")
        .detail(format!("What it reads cannot be told: {reason}."))
        .hint("Write it another way, or send it as a user without a tenant.")
}

/// A user of a tenant in a database that confines nobody.
pub fn no_tenancy() -> Fault {
    denied("tenants are not confined in this database")
        .detail("Its configuration does not say which column holds the tenant.")
        .hint("Set tenant: {column: …} of the database.")
}

pub(super) fn no_column(table: &str, column: &str) -> Fault {
    denied(format!("\"{table}\" holds rows of no tenant"))
        .detail(format!("\"{column}\" is not among the columns of its key."))
        .hint(format!(
            "Make \"{column}\" the key of \"{table}\" in the configuration, or one of the columns of its key."
        ))
}

pub(super) fn no_key(kind: KeyType, why: &str) -> Fault {
    denied("the tenant is no value of the tenant's column")
        .detail(format!("It is no {}: {why}.", kind.name()))
        .hint("Correct the user's tenant in the configuration, or what the session sets.")
}

pub(super) fn conflict(table: &str, column: &str) -> Fault {
    denied(format!(
        "ON CONFLICT could change a row of \"{table}\" of another tenant"
    ))
    .detail(format!(
        "\"{column}\" is not among the columns that ON CONFLICT names."
    ))
    .hint(format!(
        "Name the columns of a unique index with \"{column}\" among them, or DO NOTHING."
    ))
}

pub(super) fn given(table: &str, column: &str) -> Fault {
    denied(format!(
        "\"{column}\" of \"{table}\" could be set to another tenant"
    ))
    .detail("The value that it is set to is no constant and no parameter.")
    .hint(format!("Leave \"{column}\" out of SET."))
}

pub(super) fn function(name: &str) -> Fault {
    denied(format!("a call of {name} is not allowed for a tenant"))
        .detail("It is not known to read nothing but its arguments.")
        .hint("Call built-in functions that read no table, or work it out in the application.")
}

pub(super) fn tested() -> Fault {
    denied("a test of what is worked out is not allowed for a tenant")
        .detail("IS NULL, IS TRUE and their like are open for columns and constants alone, and so are subscripts: an error of what they test would tell of other tenants' rows.")
        .hint("Compare what is worked out with a value by an operator, or test the column itself.")
}

pub(super) fn search_path() -> Fault {
    denied("a tenant's search_path must not name pg_catalog behind another schema")
        .detail("Functions of the other schema would be taken for built-in ones.")
        .hint("Leave pg_catalog out of search_path.")
}

pub(super) fn view(table: &str) -> Fault {
    denied(format!("\"{table}\" may show rows of other tenants"))
        .detail("It is a view, or the parent of sharded tables.")
        .hint("Read the tables themselves, and compare the tenant's column of each.")
}

pub(super) fn unknown(table: &str) -> Fault {
    denied(format!("table \"{table}\" is not known"))
        .detail("It is not among the tables of the home shard, as far as they were read; a view could have the name.")
        .hint("Check its name and search_path; a table that was made on the servers is known after RELOAD.")
}

pub(super) fn catalog(table: &str) -> Fault {
    denied(format!("catalog \"{table}\" is not open to a tenant"))
        .detail("It may hold values of rows, or tell of other sessions.")
        .hint("Read it as a user without a tenant.")
}

pub(super) fn everyones(table: &str) -> Fault {
    denied(format!(
        "reference table \"{table}\" is not a tenant's to write"
    ))
    .detail("Its rows are every tenant's.")
    .hint("Write it as a user without a tenant.")
}
