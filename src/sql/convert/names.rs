//! Names and types, folded as PostgreSQL folds them.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a type of any other kind says nothing of keys"
)]

use sqlparser::ast::{ArrayElemTypeDef, DataType, Ident, ObjectName, ObjectNamePart};

use super::{Result, unknown};
use crate::sql::cursor::{Name, fold};
use crate::sql::statement::Family;

pub(super) fn ident(ident: Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value
    } else {
        fold(&ident.value)
    }
}

pub(super) fn parts(name: ObjectName) -> Result<Vec<String>> {
    name.0
        .into_iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(part) => Ok(ident(part)),
            ObjectNamePart::Function(_) => unknown("a name that is computed"),
        })
        .collect()
}

pub(super) fn name(name: ObjectName) -> Result<Name> {
    match Name::of(parts(name)?) {
        Some(name) => Ok(name),
        None => unknown("a name of more than three parts"),
    }
}

/// Words that PostgreSQL takes for no name of a table or function, unless quoted: its reserved
/// keywords (`src/include/parser/kwlist.h`). Where one stands, the statement was misread.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// Whether a name begins with a word that is none.
pub(super) fn is_reserved(name: &ObjectName) -> bool {
    match name.0.first() {
        Some(ObjectNamePart::Identifier(first)) => {
            first.quote_style.is_none()
                && RESERVED
                    .iter()
                    .any(|word| first.value.eq_ignore_ascii_case(word))
        }
        Some(ObjectNamePart::Function(_)) | None => false,
    }
}

/// Whether what a cast to this type gives is worked out from the value alone: the built-in types
/// but those that stand for rows of the catalogs, and those that know the word `now`.
pub(super) fn is_plain_type(data_type: &DataType) -> bool {
    const PLAIN: &[&str] = &[
        "bpchar", "cidr", "circle", "box", "inet", "lseg", "macaddr", "macaddr8", "money", "name",
        "oid", "path", "pg_lsn", "point", "polygon", "tsquery", "tsvector", "xid",
    ];
    match data_type {
        DataType::Custom(name, _) => match name.0.as_slice() {
            [ObjectNamePart::Identifier(only)] => PLAIN.contains(&ident(only.clone()).as_str()),
            _ => false,
        },
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::Parenthesis(element)
            | ArrayElemTypeDef::AngleBracket(element),
        ) => is_plain_type(element),
        DataType::Regclass
        | DataType::Date
        | DataType::Time(..)
        | DataType::Timestamp(..)
        | DataType::TimestampNtz(..) => false,
        _ => true,
    }
}

/// The types whose values are numbers of objects, which each server gives for itself.
pub const OBJECT_TYPES: [&str; 9] = [
    "regclass",
    "regcollation",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Whether values of this type are numbers of objects, which each server gives for itself.
pub(super) fn is_object_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Regclass => true,
        DataType::Custom(name, _) => name.0.last().is_some_and(|part| match part {
            ObjectNamePart::Identifier(last) => {
                OBJECT_TYPES.contains(&ident(last.clone()).as_str())
            }
            ObjectNamePart::Function(_) => true,
        }),
        _ => false,
    }
}

/// The column a target names: `a`, or `a.field` of a composite.
pub(super) fn column(name: ObjectName) -> Result<String> {
    match parts(name)?.into_iter().next() {
        Some(column) => Ok(column),
        None => unknown("an empty name"),
    }
}

pub(super) fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::SmallInt(None) | DataType::Int2(None) => Family::Int2,
        DataType::Integer(None) | DataType::Int(None) | DataType::Int4(None) => Family::Int4,
        DataType::BigInt(None) | DataType::Int8(None) => Family::Int8,
        DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) => Family::Text,
        DataType::Uuid => Family::Uuid,
        DataType::Date => Family::Date,
        DataType::Timestamp(None, zone) => match zone {
            sqlparser::ast::TimezoneInfo::None | sqlparser::ast::TimezoneInfo::WithoutTimeZone => {
                Family::Timestamp
            }
            sqlparser::ast::TimezoneInfo::WithTimeZone | sqlparser::ast::TimezoneInfo::Tz => {
                Family::TimestampTz
            }
        },
        DataType::Numeric(sqlparser::ast::ExactNumberInfo::None)
        | DataType::Decimal(sqlparser::ast::ExactNumberInfo::None) => Family::Numeric,
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(element, None)
            | ArrayElemTypeDef::Parenthesis(element)
            | ArrayElemTypeDef::AngleBracket(element),
        ) => array(family(element)),
        DataType::Custom(_, modifiers) if modifiers.is_empty() => Family::Named,
        _ => Family::Other,
    }
}

fn array(element: Family) -> Family {
    match element {
        Family::Int2 | Family::Int4 | Family::Int8 => Family::IntArray,
        Family::Text => Family::TextArray,
        Family::Uuid => Family::UuidArray,
        Family::Named => Family::NamedArray,
        Family::Date
        | Family::Timestamp
        | Family::TimestampTz
        | Family::Numeric
        | Family::IntArray
        | Family::TextArray
        | Family::UuidArray
        | Family::NamedArray
        | Family::Other => Family::Other,
    }
}
