//! The refusals of the planner: what is not exact, and what to change.

use crate::error::{Fault, SqlState};
use crate::sql::parse::Unread;
use crate::sql::scan::Unreadable;

const COPIES: &str = "the copies of reference table";
const KEY_UPDATE: &str = "cannot change the key of";
const LOOKUP: &str = "values of";
const ID_UPDATE: &str = "cannot change the ids of";
const SHARD_HINT: &str = "Name the shard with SET pgherd.shard, or connect to the shard itself.";
const DIRECTLY: &str = "Stop the traffic, alter the table on each server directly, and restart with the changed configuration.";

fn unsupported(message: String) -> Fault {
    Fault::error(SqlState::FEATURE_NOT_SUPPORTED, message)
}

/// A read whose rows lie on several shards and cannot be concatenated.
///
/// `keyed`: the statement names keys of all its sharded tables, but they are not of one shard.
pub fn read(table: &str, clause: &str, keyed: bool) -> Fault {
    let fault = unsupported(format!("{clause} over several shards is not supported"));
    let needs = if clause.starts_with("a call of") {
        "what it calls is an aggregate, or is not known to be none".to_owned()
    } else {
        format!("{clause} needs the rows of all of them together")
    };
    if keyed {
        return fault
            .detail(format!(
                "The keys that it names of sharded table \"{table}\" and of those beside it are not of one shard, and {needs}."
            ))
            .hint("Send one statement for the keys of each shard, or name the shard with SET pgherd.shard.");
    }
    fault
        .detail(format!(
            "No predicate confines sharded table \"{table}\" to the keys of one shard, and {needs}."
        ))
        .hint(format!(
            "Compare the key of \"{table}\" with a constant or a parameter in WHERE, or name the shard with SET pgherd.shard."
        ))
}

/// An UPDATE or DELETE that is not confined to one shard.
pub fn write(verb: &str, table: &str, keyed: bool) -> Fault {
    let fault = unsupported(format!("{verb} of several shards is not supported"));
    if keyed {
        return fault
            .detail(format!(
                "The keys that it names of sharded table \"{table}\" and of those beside it are not of one shard."
            ))
            .hint("Send one statement for the keys of each shard; what it reads of another shard, read first and send as constants or parameters.");
    }
    fault
        .detail(format!(
            "No predicate confines sharded table \"{table}\" to the keys of one shard."
        ))
        .hint(format!(
            "Compare the key of \"{table}\" with a constant or a parameter in WHERE, or send one statement for each shard's keys."
        ))
}

/// An INSERT whose rows belong to several shards.
pub fn insert(table: &str) -> Fault {
    unsupported("INSERT into several shards is not supported".into())
        .detail(format!(
            "The rows of this INSERT into sharded table \"{table}\" have keys of several shards."
        ))
        .hint("Send the rows as an INSERT … VALUES of its own, one INSERT for each key, or load them with COPY.")
}

/// An INSERT that does not say its key.
pub fn no_key(table: &str, column: &str, why: &str) -> Fault {
    unsupported(format!(
        "INSERT into sharded table \"{table}\" without a value for its key"
    ))
    .detail(format!("Key column \"{column}\" {why}."))
    .hint(format!(
        "Name \"{column}\" in the column list and give it a constant or a parameter."
    ))
}

/// A COPY that does not bring its key.
pub fn no_key_copied(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "COPY into sharded table \"{table}\" without its key"
    ))
    .detail(format!("Key column \"{column}\" is not among the columns."))
    .hint(format!(
        "Name \"{column}\" in the column list of the COPY, with a value in each row."
    ))
}

/// An INSERT on a hinted shard of a row that belongs to another.
pub fn misplaced(table: &str, own: &str, hinted: &str) -> Fault {
    unsupported(format!(
        "a row of sharded table \"{table}\" does not belong to shard \"{hinted}\""
    ))
    .detail(format!(
        "Its key is placed on shard \"{own}\", and there it would be looked for."
    ))
    .hint("RESET pgherd.shard, or leave the hint out: the row goes where its key says.")
}

/// An INSERT with a NULL key.
pub fn null_key(table: &str) -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("null value in the key of sharded table \"{table}\""),
    )
    .detail("A row without a key belongs to no shard.")
    .hint("Give the key column a value.")
}

/// A write that would move a row.
pub fn key_update(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "{KEY_UPDATE} sharded table \"{table}\""
    ))
    .detail(format!(
        "The statement sets key column \"{column}\", and the row may then belong to another shard."
    ))
    .hint("Delete the row and insert it with its new key, or leave the key out of SET.")
}

/// An id that was given to a new row, and does not carry the bucket of its key.
pub fn wrong_id(id: &str, carried: u64, wanted: u64) -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("id {id} does not carry the bucket of its key"),
    )
    .detail(format!(
        "The row would not be found by its id: the low 14 bits of the id are {carried}, and the key's bucket is {wanted}."
    ))
    .hint("Leave the id out, so that it is generated, or give one that was generated for this key.")
}

/// New rows whose ids cannot be looked at.
pub fn unproven_id(table: &str, column: &str, why: &str) -> Fault {
    let id = if column.is_empty() {
        "The id".to_owned()
    } else {
        format!("Column \"{column}\"")
    };
    unsupported(format!(
        "the ids of new rows of sharded table \"{table}\" cannot be checked"
    ))
    .detail(format!(
        "{id} {why}, and each id must carry the bucket of its key."
    ))
    .hint("Insert the rows with VALUES, and leave the ids out, so that they are generated, or give them as constants or parameters.")
}

/// An INSERT of a query's rows without their ids.
pub fn no_id(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "INSERT of a query's rows into sharded table \"{table}\" without their ids"
    ))
    .detail(format!(
        "Ids are generated for rows of VALUES, and \"{column}\" is not among the columns that the statement names."
    ))
    .hint("Read the rows first and insert them with VALUES, or name the columns with the ids among them.")
}

/// A COPY that does not bring the ids.
pub fn no_id_copied(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "COPY into sharded table \"{table}\" without its ids"
    ))
    .detail(format!(
        "Ids are generated for INSERT only, and \"{column}\" is not among the columns."
    ))
    .hint(format!(
        "Bring \"{column}\" in each row, or insert the rows with INSERT … VALUES."
    ))
}

/// An INSERT that cannot be given ids where it stands.
pub fn ids_within() -> Fault {
    unsupported("ids cannot be generated for an INSERT within another statement".into())
        .detail("The INSERT leaves out ids that pgherd generates.")
        .hint("Send the INSERT as a statement of its own, or give it the ids.")
}

/// A write that would give a row an id of another bucket.
pub fn id_update(table: &str, column: &str) -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("{ID_UPDATE} sharded table \"{table}\""),
    )
    .detail(format!(
        "Column \"{column}\" carries the bucket of the key, and it would perhaps carry another."
    ))
    .hint(format!(
        "Leave \"{column}\" and the key out of SET, or delete the row and insert it anew."
    ))
}

/// A new row of a table placed by ids, with an id that does not name one shard.
pub fn pinned_id(table: &str) -> Fault {
    unsupported(format!(
        "the shard of a new row of sharded table \"{table}\" cannot be told by its id"
    ))
    .detail("A pinned key is in the bucket that the id carries, so that the row it belongs to is on one of several shards.")
    .hint("Name the shard with SET pgherd.shard, or take the pin out of the distribution.")
}

/// A column with a lookup table whose type is not known, or has no plain equality.
pub fn unknown_lookup(table: &str) -> Fault {
    unsupported(format!(
        "{LOOKUP} sharded table \"{table}\" are not known in a type that lookup tables hold"
    ))
    .detail("They are looked up on the home shard, by the type that its catalogs tell.")
    .hint(
        "Make the table on all shards, and look up columns of type integer, bigint, text or uuid.",
    )
}

/// A value of a column with a lookup table that only the server knows.
pub fn unknown_value(table: &str, column: &str, why: &str) -> Fault {
    unsupported(format!(
        "{LOOKUP} sharded table \"{table}\" cannot be entered in its lookup table"
    ))
    .detail(format!(
        "Column \"{column}\" {why}, and the row would not be found by it."
    ))
    .hint(format!(
        "Give \"{column}\" as a constant or a parameter, NULL where there is none, with INSERT … VALUES, UPDATE or COPY."
    ))
}

/// An UPDATE of a column with a lookup table, of rows whose keys are not known.
pub fn unproven_entry(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "{LOOKUP} sharded table \"{table}\" cannot be entered in its lookup table"
    ))
    .detail(format!(
        "The statement sets column \"{column}\", and the keys of its rows are not known."
    ))
    .hint("Give the key in WHERE, as a constant or a parameter.")
}

/// A value of a column that is kept unique over the shards, and that only the server knows.
pub fn unknown_unique(table: &str, column: &str, why: &str) -> Fault {
    unsupported(format!(
        "sharded table \"{table}\" has a unique column whose values must be known"
    ))
    .detail(format!(
        "Column \"{column}\" {why}, and may be the same as on another shard."
    ))
    .hint(format!(
        "Give \"{column}\" as a constant or a parameter, NULL where there is none, with INSERT … VALUES, or UPDATE of one key."
    ))
}

/// ON CONFLICT over a column that is kept unique over the shards.
pub fn conflicting_unique(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "ON CONFLICT of rows of sharded table \"{table}\" that another shard may have is not supported"
    ))
    .detail(format!(
        "Column \"{column}\" is kept unique over the shards, and the row that is in the way may be on any of them."
    ))
    .hint("Name a unique constraint's columns that contain the key in ON CONFLICT.")
}

/// A statement that writes a column that is kept unique, in a form that nothing can be claimed for.
pub fn unclaimed(table: &str) -> Fault {
    unsupported(format!(
        "such a write of a unique column of sharded table \"{table}\" is not supported"
    ))
    .detail("Its values are claimed on the home shard in the same transaction.")
    .hint("Send a plain INSERT … VALUES or UPDATE, without EXPLAIN.")
}

/// Where a value belongs that nobody has asked the home shard for.
pub fn unasked(table: &str) -> Fault {
    unsupported(format!(
        "only the home shard knows where rows of \"{table}\" are"
    ))
    .detail("They are found through a lookup table or a directory, which is read when the statement runs.")
    .hint("Ask a pgherd that serves the database, with EXPLAIN (ROUTE).")
}

/// A new row placed by another table's, which is not there.
pub fn unentered(table: &str, value: &str, other: &str) -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("the shard of a new row of sharded table \"{table}\" is not known"),
    )
    .detail(format!(
        "It belongs with the row of \"{other}\" that has \"{value}\", and the lookup table has none."
    ))
    .hint(format!("Insert the row of \"{other}\" first."))
}

/// A new row placed by another table's, where there may be one on several shards.
pub fn scattered(value: &str, other: &str, column: &str) -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("value \"{value}\" of \"{other}\".\"{column}\" belongs to several shards"),
    )
    .detail("Other tables' rows are placed by it, so that it can be on one shard only; its lookup table has an entry for a key of another shard.")
    .hint("Use another value; or delete the entry that no row has any more from the lookup table in schema pgherd of the home shard.")
}

/// More values to look up than one statement may have.
pub fn many_lookups(max: usize) -> Fault {
    Fault::error(
        SqlState::PROGRAM_LIMIT,
        "the statement has too many values to look up",
    )
    .detail(format!(
        "At most {max} values are looked up for one statement, with as many keys."
    ))
    .hint("Name the key as well, or send the values in several statements.")
}

/// Tables that do not live together.
pub fn mixed(first: &str, second: &str) -> Fault {
    unsupported(format!(
        "tables \"{first}\" and \"{second}\" cannot be used in one statement"
    ))
    .detail("Their rows are on different shards, or may be.")
    .hint(format!(
        "Query them one after the other, or declare \"{second}\" a reference table or sharded by the same distribution."
    ))
}

/// A read of several shards that locks rows.
pub fn locks(table: &str) -> Fault {
    unsupported("FOR UPDATE or FOR SHARE over several shards is not supported".to_owned())
        .detail(format!(
            "The rows of sharded table \"{table}\" would be locked on no shard."
        ))
        .hint("Confine the statement to the keys of one shard, or read without locking.")
}

/// A read of several shards through a view whose owner's policies would count.
pub fn policies_of_owner(table: &str) -> Fault {
    unsupported(format!(
        "table \"{table}\" with row level security within a view is not supported in a read of several shards"
    ))
    .detail("The policies of the view's owner decide which of its rows are seen, and it would be read by the user.")
    .hint("Read the table itself, or confine the statement to the keys of one shard.")
}

/// A read of several shards of a table with partitions or children, some with policies.
pub fn policies_of_parent(table: &str) -> Fault {
    unsupported(format!(
        "table \"{table}\" with partitions or children and row level security is not supported in a read of several shards"
    ))
    .detail("The policies of the table that is named decide which rows are seen, and each of its parts would be read by its own.")
    .hint("Confine the statement to the keys of one shard.")
}

/// A read of several shards that calls what may look at more than its arguments.
pub fn looks_elsewhere(what: &str, table: &str) -> Fault {
    unsupported(format!("{what} in a read of several shards is not supported"))
        .detail(format!(
            "It may look at more than its arguments, and beside the rows fetched of sharded table \"{table}\" there is nothing to look at."
        ))
        .hint("Call it in a statement that is confined to the keys of one shard, or on rows read before.")
}

/// The moment at which a block began, where only the statement's own can be had.
pub fn moment_in_block() -> Fault {
    unsupported(
        "the current time in a read of several shards within a transaction block is not supported in this form"
            .to_owned(),
    )
    .detail("It is the moment at which the block began, which the gather server cannot tell within a view, as a text, with a precision, or in age().")
    .hint("Write now(), current_date, current_timestamp or localtimestamp in the statement itself, or run it outside the block.")
}

/// A plan of the gather server that is nested too deeply.
pub fn deep_plan() -> Fault {
    Fault::error(
        SqlState::TOO_COMPLEX,
        "the statement is nested too deeply to be gathered",
    )
    .hint("Take it apart.")
}

/// A column that is not known yet.
pub fn stale_catalog() -> Fault {
    Fault::error(
        SqlState::SERIALIZATION_FAILURE,
        "the schema was changed while the statement was planned",
    )
    .hint("Send the statement again.")
}

/// Columns of a table that the plan needs and nobody told.
pub fn columns(table: &str) -> Fault {
    unsupported(format!("the columns of table \"{table}\" are not known"))
        .detail("The statement has no column list, and the table is not in the catalogs of the home shard.")
        .hint("Name the columns, key columns among them.")
}

/// A table that the config does not allow.
pub fn unlisted(table: &str) -> Fault {
    unsupported(format!("table \"{table}\" is not in the configuration"))
        .detail("The database has `unlisted: refuse`.")
        .hint(format!(
            "Add \"{table}\" under `tables` as sharded, reference or single."
        ))
}

/// A view that is written, or that is not read here, and whose tables are not all on the home shard.
pub fn view(name: &str) -> Fault {
    unsupported(format!("view \"{name}\" cannot be placed"))
        .detail("It is written, materialized or not understood, and what it reads is sharded or on every shard.")
        .hint("Read or write its tables themselves.")
}

/// Views in views without end.
pub fn views() -> Fault {
    Fault::error(
        SqlState::TOO_COMPLEX,
        "the views of the statement are too many to follow",
    )
    .hint("Query the tables themselves.")
}

/// A text that PostgreSQL's lexical rules do not settle.
pub fn unreadable(reason: Unreadable) -> Fault {
    unsupported("the statement cannot be read with certainty".into())
        .detail(format!("It has {reason}."))
        .hint(format!(
            "Use parameters and plain strings, with client_encoding UTF8 and standard_conforming_strings on. {SHARD_HINT}"
        ))
}

/// A statement that has no view.
pub fn unread(reason: &Unread) -> Fault {
    match reason {
        Unread::TooLarge => Fault::error(
            SqlState::PROGRAM_LIMIT,
            "the statement is too large to be routed",
        )
        .hint("Pass long lists as an array parameter, and load rows with COPY."),
        Unread::TooDeep => Fault::error(
            SqlState::TOO_COMPLEX,
            "the statement is too complex to be routed",
        )
        .hint("Write long chains of OR as = ANY (…), and take parentheses away."),
        Unread::Syntax(_) | Unread::Unknown(_) => {
            unsupported("the statement cannot be routed".into()).hint(SHARD_HINT)
        }
    }
    .detail(format!("The proxy does not read it whole: {reason}."))
}

/// A write of a reference table whose copies would differ.
pub fn copies(table: &str, why: &str) -> Fault {
    unsupported(format!("{COPIES} \"{table}\" would differ"))
        .detail(format!(
            "The statement has {why}, and each shard would work it out for itself."
        ))
        .hint("Work the value out first, and send it as a constant or a parameter.")
}

/// ALTER TABLE that gives a table a name by which the configuration places it elsewhere.
pub fn renamed(table: &str, name: &str) -> Fault {
    unsupported(format!(
        "table \"{table}\" cannot be renamed or moved to \"{name}\""
    ))
    .detail("The configuration places its rows by its name, and by the new one they would be looked for elsewhere.")
    .hint(format!(
        "Change its entry under `tables`. {DIRECTLY}"
    ))
}

/// ALTER TABLE of a key column.
pub fn key_altered(what: &str, column: &str, table: &str) -> Fault {
    unsupported(format!(
        "{what} key column \"{column}\" of sharded table \"{table}\" is not supported"
    ))
    .detail("The configuration places the table's rows by this column.")
    .hint(format!(
        "Change the key of \"{table}\" under `tables`, or its distribution. {DIRECTLY}"
    ))
}

/// A table whose rows would be among another's, and lie elsewhere.
pub fn apart(child: &str, parent: &str) -> Fault {
    unsupported(format!(
        "table \"{child}\" cannot be a part of table \"{parent}\""
    ))
    .detail("The configuration places their rows differently.")
    .hint(format!(
        "List \"{child}\" under `tables` as \"{parent}\" is, or create it empty with CREATE TABLE … PARTITION OF or INHERITS, without listing it."
    ))
}

/// A table that is placed as the one that it is taken out of.
pub fn parted(child: &str) -> Fault {
    unsupported(format!("table \"{child}\" cannot be taken out of its parent"))
        .detail("It is not listed, so that its rows are placed as its parent's are, and would be found no more.")
        .hint(format!(
            "List \"{child}\" under `tables` as its parent is, and reload the configuration first."
        ))
}

/// A write of a reference table that reads what is not on every shard.
pub fn copies_read(table: &str, other: &str) -> Fault {
    unsupported(format!(
        "{COPIES} \"{table}\" would differ"
    ))
    .detail(format!(
        "The statement reads \"{other}\", whose rows are not the same on every shard."
    ))
    .hint("A write of a reference table may read reference tables only: read the others first, and send their values as constants or parameters.")
}

/// Code that touches a table whose rows are not all on the shard where it runs.
pub fn reaches(what: &str, kind: &str, table: &str) -> Fault {
    unsupported(format!("{what} may touch {kind} \"{table}\""))
        .detail("It runs on one shard, and would find only the rows that are there.")
        .hint(format!(
            "Send its statements over \"{table}\" themselves, with their keys, or name the shard that it runs on with SET pgherd.shard."
        ))
}

/// Code of the home shard in a statement that runs on others.
pub fn home_only(what: &str, table: &str) -> Fault {
    unsupported(format!(
        "{what} cannot be called in a statement over table \"{table}\""
    ))
    .detail("It touches single tables, catalogs, sequences or listeners, which are those of the home shard.")
    .hint(format!(
        "Call it in a statement without \"{table}\" first, and send what it answers as a constant or a parameter."
    ))
}

/// Code of which it cannot be told what it touches.
pub fn opaque(what: &str, why: &str) -> Fault {
    unsupported(format!("what {what} touches is not known"))
        .detail(format!(
            "{}{}, and it would find only the rows of the shard where it runs.",
            why.get(..1).unwrap_or_default().to_uppercase(),
            why.get(1..).unwrap_or_default()
        ))
        .hint("Send its statements themselves, or name the shard that it runs on with SET pgherd.shard.")
}

/// Code that writes a reference table on the shard where it runs.
pub fn copies_called(what: &str, table: &str) -> Fault {
    unsupported(format!("{COPIES} \"{table}\" would differ"))
        .detail(format!(
            "{}{} may write it, on the shard where it runs only.",
            what.get(..1).unwrap_or_default().to_uppercase(),
            what.get(1..).unwrap_or_default()
        ))
        .hint(format!(
            "Write \"{table}\" by a statement of its own, which runs on every shard."
        ))
}

/// A table whose own triggers, rules or expressions touch rows of other shards.
pub fn astray(table: &str, why: &str) -> Fault {
    unsupported(format!(
        "table \"{table}\" runs code that reaches beyond its rows' shard"
    ))
    .detail(format!(
        "A trigger, rule, policy, default, check or index runs where the row is: {why}."
    ))
    .hint("Drop it, or let it touch only what is beside the table's rows; constraints: allow in the configuration accepts what it does on each shard.")
}

const ALLOW: &str = "constraints: allow in the configuration accepts it on each shard by itself";

/// UNIQUE, PRIMARY KEY or EXCLUDE that does not contain the key.
pub fn not_unique(what: &str, columns: &[String], table: &str, missing: &str) -> Fault {
    let list = if columns.is_empty() {
        String::new()
    } else {
        format!(" ({})", columns.join(", "))
    };
    unsupported(format!(
        "{what}{list} of sharded table \"{table}\" would hold on each shard only"
    ))
    .detail(format!(
        "Rows of equal values may lie on different shards, since it does not contain key column \"{missing}\"."
    ))
    .hint(format!("Add \"{missing}\" to its columns; {ALLOW}."))
}

/// A constraint on a sharded table whose columns the statement does not show.
pub fn unread_constraint(what: &str, table: &str) -> Fault {
    unsupported(format!(
        "{what} of table \"{table}\" cannot be checked"
    ))
    .detail("The statement does not list its columns, or not in a form that is read here, so that it may hold on each shard only.")
    .hint(format!(
        "Write the constraint with its list of columns, the key among them; {ALLOW}."
    ))
}

/// A column that a sequence of each shard would number.
pub fn local_sequence(column: &str, table: &str) -> Fault {
    unsupported(format!(
        "column \"{column}\" of sharded table \"{table}\" would take its values from a sequence of each shard"
    ))
    .detail("The same values would come up on every shard.")
    .hint(format!(
        "Leave serial, identity and nextval out and give the values yourself; {ALLOW}."
    ))
}

/// A foreign key to a table whose rows are elsewhere.
pub fn leaves_shard(table: &str, target: &str) -> Fault {
    unsupported(format!(
        "the foreign key of table \"{table}\" to \"{target}\" leaves the shard"
    ))
    .detail("The rows that it names are not on the shard of its own rows, or not all of them.")
    .hint(format!(
        "Place both tables by the same distribution, or make \"{target}\" a reference table, or leave the foreign key out; {ALLOW}."
    ))
}

/// A foreign key between co-located tables that does not contain the key.
pub fn loses_key(table: &str, target: &str, key: &[String], other: &[String]) -> Fault {
    unsupported(format!(
        "the foreign key of table \"{table}\" to \"{target}\" leaves the shard"
    ))
    .detail("It does not contain the key of both tables, so that it may name a row of another shard.")
    .hint(format!(
        "Let ({}) be among its columns and reference ({}) of \"{target}\" in the same places, both lists written out; {ALLOW}.",
        key.join(", "),
        other.join(", ")
    ))
}

/// A foreign key whose action gives a row another key.
pub fn key_cascades(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "an action of the foreign key would change key column \"{column}\" of sharded table \"{table}\""
    ))
    .detail("The row would stay where it is, and belong to another shard or to none.")
    .hint(format!(
        "Use ON DELETE CASCADE, RESTRICT or NO ACTION, and ON UPDATE RESTRICT or NO ACTION; {ALLOW}."
    ))
}

/// A foreign key whose action gives a column with a lookup table another value.
pub fn lookup_cascades(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "an action of the foreign key would change column \"{column}\" of sharded table \"{table}\", which has a lookup table"
    ))
    .detail("The new value would not be entered there, and the row not be found by it.")
    .hint(format!(
        "Use ON DELETE CASCADE, SET NULL, RESTRICT or NO ACTION, and ON UPDATE SET NULL, RESTRICT or NO ACTION; {ALLOW}."
    ))
}

/// NOTIFY from a shard where nobody listens.
pub fn notify(table: &str) -> Fault {
    unsupported("pg_notify in a statement over sharded tables is not supported".into())
        .detail("It would notify on the shard of the rows, and listeners hear the home shard only.")
        .hint(format!(
            "Read \"{table}\" first, and call pg_notify in a statement without tables."
        ))
}

/// A statement on rows that an enum places, where more than its labels may equal it.
pub fn odd_enums(table: &str) -> Fault {
    unsupported(format!(
        "the key of sharded table \"{table}\" is an enum that has casts or operators of its own"
    ))
    .detail("What is compared with it need not be the label that rows are placed by.")
    .hint("Drop the cast that a function makes, or the operator, or make the key of type text.")
}

/// A statement on rows that are placed by a column whose equal values have many texts.
pub fn loose_key(table: &str, column: &str) -> Fault {
    unsupported(format!(
        "the key of sharded table \"{table}\" has values that are equal and differ as texts"
    ))
    .detail(format!(
        "Column \"{column}\" is of type character or citext, or its collation is nondeterministic: equal values may be on several shards."
    ))
    .hint("Give it the type text or varchar, with a deterministic collation; pgherd check reports such columns.")
}

/// A read of sharded rows that gives numbers of the shard's own objects.
pub fn numbers(what: &str, table: &str) -> Fault {
    unsupported(format!("{what} in a read of sharded table \"{table}\" is not supported"))
        .detail("Types and tables have numbers of their own on each server; clients know the home shard's.")
        .hint("Ask for the name, as in tableoid::regclass, or look the number up in a statement without the table.")
}

/// A table made from rows that are not all at home.
pub fn made_from(table: &str) -> Fault {
    unsupported("cannot make a table from the rows of several shards".into())
        .detail(format!(
            "The query reads {table}, whose rows are not only on the home shard."
        ))
        .hint("Create the table first, and load it with COPY or INSERT.")
}

/// A table made by a query that also changes the session.
pub fn made_by_effects() -> Fault {
    unsupported(
        "a table made by a query that changes the session is not supported over several shards"
            .to_owned(),
    )
    .hint("Create the table first, and send what changes the session as a statement of its own.")
}

/// A statement kind that several shards cannot answer.
pub fn kind(what: &str, hint: &str) -> Fault {
    unsupported(format!("{what} is not supported over several shards")).hint(hint)
}

/// An INSERT of rows of several shards into a table that COPY would not treat alike.
pub fn not_copied(table: &str) -> Fault {
    kind(
        &format!(
            "INSERT of a query's rows into table {table}, which has a rule or gives ids ALWAYS,"
        ),
        "Read the rows, and insert them with INSERT … VALUES.",
    )
}

/// An encoding in which a character's bytes may be those of signs that rows are written with.
pub fn rows_in_encoding() -> Fault {
    unsupported(
        "INSERT of rows of several shards is not supported in this client_encoding".to_owned(),
    )
    .hint("Set client_encoding to UTF8.")
}

/// Settings under which a value's text is not read back as the same.
pub fn rows_in_text() -> Fault {
    unsupported("INSERT of rows of several shards is not supported under the session's settings".to_owned())
        .detail("DateStyle, IntervalStyle or extra_float_digits have values as texts that do not hold all of them.")
        .hint("Reset these settings.")
}

/// SQL PREPARE of a statement over sharded tables, by Parse and Bind.
pub fn sql_prepare() -> Fault {
    unsupported("PREPARE of a statement on sharded tables is a simple query only".to_owned())
        .hint("Prepare the statement itself with the extended protocol, as drivers do.")
}

/// `lastval()` or `currval()` outside a block.
pub fn unbound() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "lastval and currval are only known within the transaction that called nextval",
    )
    .detail("Outside a transaction the next statement may run on another server connection.")
    .hint("Use INSERT … RETURNING, put both statements in one transaction, or set pool_mode to session.")
}

/// `lastval()` or `currval()` behind statements of which it is not known whether they called `nextval`.
pub fn unclear_id() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "lastval is not known behind a statement that may have called nextval",
    )
    .detail("An id was generated before, and the value that came last may be a server's.")
    .hint("Use INSERT … RETURNING, or call lastval right behind the INSERT.")
}

/// A value that is no key.
pub fn unprovable(table: &str) -> Fault {
    unsupported(format!(
        "the key of sharded table \"{table}\" cannot be worked out"
    ))
    .detail("Its value has a type or a form that only the server can read.")
    .hint("Give the key as a plain constant, or as a parameter of the column's type.")
}

/// A hint that names nothing.
pub fn bad_hint(what: &str, value: &str) -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("there is no {what} \"{value}\""),
    )
    .hint(format!(
        "SHOW SHARDS and SHOW DISTRIBUTIONS on the console name every {what}."
    ))
}

/// A hinted key of no distribution.
pub fn no_distribution() -> Fault {
    Fault::error(
        SqlState::INVALID_PARAMETER_VALUE,
        "the hint names a key, but not of which distribution",
    )
    .hint("Add distribution=… to the hint.")
}

/// Whether a refusal stands against a hint: on one shard alone the statement would make copies
/// differ, or leave a row where its key does not belong; or it would show a tenant other rows.
pub fn stands(fault: &Fault) -> bool {
    fault.code == SqlState::INSUFFICIENT_PRIVILEGE
        || [COPIES, KEY_UPDATE, ID_UPDATE, LOOKUP]
            .iter()
            .any(|start| fault.message.starts_with(start))
}
