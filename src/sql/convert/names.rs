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
        _ => Family::Other,
    }
}

fn array(element: Family) -> Family {
    match element {
        Family::Int2 | Family::Int4 | Family::Int8 => Family::IntArray,
        Family::Text => Family::TextArray,
        Family::Uuid => Family::UuidArray,
        Family::Date
        | Family::Timestamp
        | Family::TimestampTz
        | Family::Numeric
        | Family::IntArray
        | Family::TextArray
        | Family::UuidArray
        | Family::Other => Family::Other,
    }
}
