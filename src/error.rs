//! What a client is told when something fails: an SQLSTATE, a message, a detail and a hint.
//!
//! Every error a user can see becomes a [`Fault`]. Messages are lower case without a full stop;
//! detail and hint are sentences, after PostgreSQL's error style guide
//! (<https://www.postgresql.org/docs/current/error-style-guide.html>). A server's own errors never
//! pass through here: they are relayed byte for byte.

use std::fmt;

/// A five-character SQLSTATE, as in PostgreSQL's `errcodes.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(&'static str);

impl SqlState {
    pub const CONNECTION_EXCEPTION: SqlState = SqlState("08000");
    pub const OBJECT_IN_USE: SqlState = SqlState("55006");
    pub const UNABLE_TO_CONNECT: SqlState = SqlState("08001");
    pub const CONNECTION_FAILURE: SqlState = SqlState("08006");
    pub const TRANSACTION_OUTCOME_UNKNOWN: SqlState = SqlState("08007");
    pub const PROTOCOL_VIOLATION: SqlState = SqlState("08P01");
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState("0A000");
    pub const STRING_TRUNCATION: SqlState = SqlState("22001");
    pub const NUMERIC_OUT_OF_RANGE: SqlState = SqlState("22003");
    pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = SqlState("22021");
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState("22023");
    pub const SEQUENCE_LIMIT: SqlState = SqlState("2200H");
    pub const INVALID_BINARY: SqlState = SqlState("22P03");
    pub const BAD_COPY_FORMAT: SqlState = SqlState("22P04");
    pub const INVALID_TEXT: SqlState = SqlState("22P02");
    pub const ACTIVE_TRANSACTION: SqlState = SqlState("25001");
    pub const NO_ACTIVE_TRANSACTION: SqlState = SqlState("25P01");
    pub const FAILED_TRANSACTION: SqlState = SqlState("25P02");
    pub const IDLE_IN_TRANSACTION_TIMEOUT: SqlState = SqlState("25P03");
    pub const UNKNOWN_STATEMENT: SqlState = SqlState("26000");
    pub const INVALID_AUTHORIZATION: SqlState = SqlState("28000");
    pub const INVALID_PASSWORD: SqlState = SqlState("28P01");
    pub const UNKNOWN_PORTAL: SqlState = SqlState("34000");
    pub const SAVEPOINT_UNKNOWN: SqlState = SqlState("3B001");
    pub const UNKNOWN_DATABASE: SqlState = SqlState("3D000");
    pub const SERIALIZATION_FAILURE: SqlState = SqlState("40001");
    pub const DEADLOCK: SqlState = SqlState("40P01");
    pub const INSUFFICIENT_PRIVILEGE: SqlState = SqlState("42501");
    pub const UNDEFINED_OBJECT: SqlState = SqlState("42704");
    pub const NOT_IN_PREREQUISITE_STATE: SqlState = SqlState("55000");
    pub const IN_USE: SqlState = SqlState("55006");
    pub const SYNTAX_ERROR: SqlState = SqlState("42601");
    pub const DUPLICATE_CURSOR: SqlState = SqlState("42P03");
    pub const DUPLICATE_STATEMENT: SqlState = SqlState("42P05");
    pub const BUDGET_SPENT: SqlState = SqlState("53200");
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState("53300");
    pub const PROGRAM_LIMIT: SqlState = SqlState("54000");
    pub const TOO_COMPLEX: SqlState = SqlState("54001");
    pub const QUERY_CANCELED: SqlState = SqlState("57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState("57P01");
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState("57P03");
    pub const IDLE_SESSION_TIMEOUT: SqlState = SqlState("57P05");
    pub const CONFIG: SqlState = SqlState("F0000");
    pub const INTERNAL: SqlState = SqlState("XX000");

    /// The constant for a code that a server sent; [`SqlState::INTERNAL`] for one that we never raise ourselves.
    pub fn of_server(code: &str) -> SqlState {
        const KNOWN: [SqlState; 18] = [
            SqlState::CONNECTION_EXCEPTION,
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_PARAMETER_VALUE,
            SqlState::FAILED_TRANSACTION,
            SqlState::INVALID_AUTHORIZATION,
            SqlState::INVALID_PASSWORD,
            SqlState::SAVEPOINT_UNKNOWN,
            SqlState::UNKNOWN_DATABASE,
            SqlState::SERIALIZATION_FAILURE,
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::SYNTAX_ERROR,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::QUERY_CANCELED,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::ACTIVE_TRANSACTION,
            SqlState::UNDEFINED_OBJECT,
            SqlState::IN_USE,
        ];
        KNOWN
            .into_iter()
            .find(|known| known.0 == code)
            .unwrap_or(SqlState::INTERNAL)
    }

    /// The five characters.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How bad it is for the connection: after `Fatal` the client is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Fatal,
    Warning,
    Notice,
}

impl Severity {
    /// The word of the protocol's `S` and `V` fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
        }
    }
}

/// One error or warning of our own, ready to be sent as an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    pub code: SqlState,
    /// Lower case, no full stop.
    pub message: String,
    /// Whole sentences: what happened, with the names.
    pub detail: Option<String>,
    /// Whole sentences: what to change.
    pub hint: Option<String>,
    /// Character position in the statement, counted from 1.
    pub position: Option<usize>,
}

impl Fault {
    /// An `ERROR`: the statement failed, the client can go on.
    pub fn error(code: SqlState, message: impl Into<String>) -> Fault {
        Fault {
            severity: Severity::Error,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// A `FATAL`: the connection ends after it.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Fault {
        Fault {
            severity: Severity::Fatal,
            ..Fault::error(code, message)
        }
    }

    /// Adds what happened, as sentences.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Fault {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to change, as sentences.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// Makes it end the connection.
    #[must_use]
    pub fn into_fatal(mut self) -> Fault {
        self.severity = Severity::Fatal;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " Hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
