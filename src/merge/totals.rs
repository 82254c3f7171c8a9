//! Totals of all rows, from one row of totals a shard.

use super::decimal::Decimal;
use super::row::Field;
use super::value::{Kind, Value};
use super::{Total, TotalKind};
use crate::error::{Fault, SqlState};
use crate::types::oid;

/// How the values of one column are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    means: Means,
    binary: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// `bigint`: of counts and of integers.
    Integers,
    Numerics,
    Smallest(Kind),
    Largest(Kind),
    And,
    Or,
}

/// The totals of the rows so far; NULL where no shard had any.
#[derive(Clone, Debug)]
pub struct Totals {
    columns: Vec<Column>,
    values: Vec<Option<Vec<u8>>>,
}

impl Totals {
    /// For the columns that the shards describe; `None` where the values of one cannot be combined exactly.
    pub fn new(totals: &[Total], fields: &[Field]) -> Option<Totals> {
        if totals.len() != fields.len() {
            return None;
        }
        let column = |(total, field): (&Total, &Field)| {
            let kind = || Kind::of(field.kind, total.collation);
            let means = match (total.kind, field.kind) {
                (TotalKind::Count | TotalKind::Sum, oid::INT8) => Means::Integers,
                (TotalKind::Sum, oid::NUMERIC) => Means::Numerics,
                (TotalKind::Min, _) => Means::Smallest(kind()?),
                (TotalKind::Max, _) => Means::Largest(kind()?),
                (TotalKind::And, oid::BOOL) => Means::And,
                (TotalKind::Or, oid::BOOL) => Means::Or,
                (TotalKind::Count | TotalKind::Sum | TotalKind::And | TotalKind::Or, _) => {
                    return None;
                }
            };
            Some(Column {
                means,
                binary: field.binary,
            })
        };
        let columns: Option<Vec<Column>> = totals.iter().zip(fields).map(column).collect();
        Some(Totals {
            columns: columns?,
            values: vec![None; fields.len()],
        })
    }

    /// The kinds of the values that are compared, by the column, each with whether it is in binary format.
    pub fn kinds(&self) -> impl Iterator<Item = (Option<Kind>, bool)> {
        self.columns.iter().map(|column| match column.means {
            Means::Smallest(kind) | Means::Largest(kind) => (Some(kind), column.binary),
            Means::Integers | Means::Numerics | Means::And | Means::Or => (None, column.binary),
        })
    }

    /// Adds a shard's row.
    ///
    /// # Errors
    /// 22003: a sum passes its type; XX000: a value is none of its type.
    pub fn add<'a>(&mut self, row: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), Fault> {
        for ((column, total), value) in self.columns.iter().zip(&mut self.values).zip(row) {
            let Some(value) = value else {
                continue;
            };
            let combined = match total {
                None => value.to_vec(),
                Some(total) => column.combined(total, value)?,
            };
            *total = Some(combined);
        }
        Ok(())
    }

    /// The values of the one row.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        self.values.iter().map(Option::as_deref)
    }
}

impl Column {
    fn combined(self, total: &[u8], value: &[u8]) -> Result<Vec<u8>, Fault> {
        match self.means {
            Means::Integers => self.sum(total, value),
            Means::Numerics => {
                let (one, two) = (self.decimal(total)?, self.decimal(value)?);
                let sum = one.plus(&two).ok_or_else(|| {
                    Fault::error(
                        SqlState::NUMERIC_OUT_OF_RANGE,
                        "value overflows numeric format",
                    )
                })?;
                Ok(sum.write(self.binary))
            }
            Means::Smallest(kind) => {
                let less = self.read(kind, value)? < self.read(kind, total)?;
                Ok(if less { value } else { total }.to_vec())
            }
            Means::Largest(kind) => {
                let more = self.read(kind, value)? > self.read(kind, total)?;
                Ok(if more { value } else { total }.to_vec())
            }
            Means::And => {
                let more = self.read(Kind::Bool, value)? < self.read(Kind::Bool, total)?;
                Ok(if more { value } else { total }.to_vec())
            }
            Means::Or => {
                let more = self.read(Kind::Bool, value)? > self.read(Kind::Bool, total)?;
                Ok(if more { value } else { total }.to_vec())
            }
        }
    }

    fn sum(self, total: &[u8], value: &[u8]) -> Result<Vec<u8>, Fault> {
        let (Value::Int(one), Value::Int(two)) =
            (self.read(Kind::Int, total)?, self.read(Kind::Int, value)?)
        else {
            return Err(malformed());
        };
        let sum = one
            .checked_add(two)
            .ok_or_else(|| Fault::error(SqlState::NUMERIC_OUT_OF_RANGE, "bigint out of range"))?;
        Ok(if self.binary {
            sum.to_be_bytes().to_vec()
        } else {
            sum.to_string().into_bytes()
        })
    }

    fn read(self, kind: Kind, bytes: &[u8]) -> Result<Value, Fault> {
        Value::read(kind, bytes, self.binary).ok_or_else(malformed)
    }

    fn decimal(self, bytes: &[u8]) -> Result<Decimal, Fault> {
        Decimal::read(bytes, self.binary).ok_or_else(malformed)
    }
}

/// A value that is none of the type that it is said to have.
pub fn malformed() -> Fault {
    Fault::error(
        SqlState::INTERNAL,
        "a shard sent a value that is not read here",
    )
    .hint("This is a fault of pgherd; please report it.")
}

#[cfg(test)]
mod tests {
    use super::Totals;
    use crate::merge::row::fields;
    use crate::merge::value::Kind;
    use crate::merge::{Total, TotalKind};
    use crate::placement::catalog::Collation;
    use crate::wire::backend::{self, Column};

    fn totals(kinds: &[TotalKind], types: &[u32]) -> Option<Totals> {
        let columns: Vec<_> = types
            .iter()
            .map(|&type_oid| Column {
                name: "x",
                type_oid,
                type_length: -1,
            })
            .collect();
        let mut description = Vec::new();
        backend::row_description(&mut description, &columns);
        let totals: Vec<_> = kinds
            .iter()
            .map(|&kind| Total {
                kind,
                collation: Collation::Other,
            })
            .collect();
        Totals::new(&totals, &fields(&description[5..]).expect("well formed"))
    }

    #[test]
    fn rows_of_totals_are_combined() {
        use TotalKind::{And, Count, Max, Min, Or, Sum};
        let mut totals = totals(
            &[Count, Sum, Sum, Min, Max, And, Or],
            &[20, 20, 1700, 23, 1082, 16, 16],
        )
        .expect("all known");
        assert_eq!(totals.kinds().nth(4), Some((Some(Kind::Date), false)));
        for row in [
            ["2", "-5", "1.5", "7", "2024-01-01", "t", "f"].map(Some),
            [Some("0"), None, None, None, None, None, None],
            ["3", "9", "0.25", "-1", "infinity", "f", "t"].map(Some),
        ] {
            let row = row.iter().map(|value| value.map(str::as_bytes));
            totals.add(row).expect("in range");
        }
        let values: Vec<_> = totals
            .values()
            .map(|value| std::str::from_utf8(value.expect("not NULL")).expect("ASCII"))
            .collect();
        assert_eq!(values, ["5", "4", "1.75", "-1", "infinity", "f", "t"]);
    }

    #[test]
    fn what_is_not_exact_is_not_combined() {
        for (kind, of) in [
            (TotalKind::Sum, 701),
            (TotalKind::Sum, 1186),
            (TotalKind::Min, 25),
            (TotalKind::Max, 1186),
            (TotalKind::And, 23),
        ] {
            assert!(totals(&[kind], &[of]).is_none(), "{kind:?} of {of}");
        }
    }

    #[test]
    fn a_sum_that_passes_bigint_is_an_error() {
        let mut totals = totals(&[TotalKind::Sum], &[20]).expect("known");
        let most = i64::MAX.to_string();
        let row = || std::iter::once(Some(most.as_bytes()));
        totals.add(row()).expect("the first");
        let fault = totals.add(row()).expect_err("too large");
        assert_eq!(
            (fault.code.as_str(), fault.message.as_str()),
            ("22003", "bigint out of range")
        );
    }
}
