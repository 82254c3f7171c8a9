//! Messages put into the oids of the home shard, or of another: see [`Mapping`].
//!
//! *Invariant:* only oids are overwritten; no message changes its length.

use crate::types::oids::{Mapping, Unmapped, Way};

use super::frontend::Bind;

/// The columns of an answer whose binary values name types: their places and types, as the home shard
/// calls these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming(Vec<(usize, u32)>);

impl Naming {
    /// Whether no value has to be looked into.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes a column.
    pub fn push(&mut self, column: usize, kind: u32) {
        self.0.push((column, kind));
    }

    /// Puts the body of a DataRow, or what of a CopyData follows the count of a row's fields, into the
    /// home shard's oids.
    ///
    /// # Errors
    /// A type has no counterpart.
    pub fn put_row(&self, body: &mut [u8], mapping: &Mapping, way: Way) -> Result<(), Unmapped> {
        let mut rest = body.get_mut(2..).unwrap_or_default();
        let mut column = 0_usize;
        for (wanted, kind) in &self.0 {
            loop {
                let Some((value, after)) = split_value(rest) else {
                    return Ok(());
                };
                rest = after;
                let here = column == *wanted;
                column = column.saturating_add(1);
                if here {
                    if let Some(value) = value {
                        mapping.put(*kind, value, way)?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The value at the front, which its length precedes, and what follows it.
fn split_value(rest: &mut [u8]) -> Option<(Option<&mut [u8]>, &mut [u8])> {
    let (length, after) = rest.split_first_chunk_mut::<4>()?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) => {
            let (value, after) = after.split_at_mut_checked(length)?;
            Some((Some(value), after))
        }
        Err(_negative) => Some((None, after)),
    }
}

/// Puts the body of a RowDescription into the home shard's oids; returns the columns whose values name
/// types as well.
///
/// # Errors
/// A type has no counterpart. A table that has none is left out, as PostgreSQL leaves out what is no
/// table's column.
pub fn put_row_description(body: &mut [u8], mapping: &Mapping) -> Result<Naming, Unmapped> {
    let mut naming = Naming::default();
    let mut rest = body.get_mut(2..).unwrap_or_default();
    let mut column = 0_usize;
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let Some((_, after)) = rest.split_at_mut_checked(end.saturating_add(1)) else {
            break;
        };
        // Its table (4) and column (2), the type (4), its length (2), the modifier (4), the format (2).
        let Some((fixed, after)) = after.split_first_chunk_mut::<18>() else {
            break;
        };
        let [t0, t1, t2, t3, c0, c1, k0, k1, k2, k3, .., f0, f1] = fixed;
        let table = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
        let at_home = mapping.relation_oid(table, Way::ToHome);
        if at_home.is_none() {
            [*c0, *c1] = [0; 2];
        }
        [*t0, *t1, *t2, *t3] = at_home.unwrap_or(0).to_be_bytes();
        let kind = u32::from_be_bytes([*k0, *k1, *k2, *k3]);
        let kind = mapping.type_oid(kind, Way::ToHome)?;
        [*k0, *k1, *k2, *k3] = kind.to_be_bytes();
        if [*f0, *f1] == [0, 1] && !mapping.alike && mapping.embeds(kind) {
            naming.push(column, kind);
        }
        column = column.saturating_add(1);
        rest = after;
    }
    Ok(naming)
}

/// Puts types that follow a count of two bytes: the body of a ParameterDescription, or what follows the
/// text in a Parse.
///
/// # Errors
/// A type has no counterpart.
pub fn put_types(body: &mut [u8], mapping: &Mapping, way: Way) -> Result<(), Unmapped> {
    let (types, _) = body.get_mut(2..).unwrap_or_default().as_chunks_mut::<4>();
    for kind in types {
        let oid = u32::from_be_bytes(*kind);
        *kind = mapping.type_oid(oid, way)?.to_be_bytes();
    }
    Ok(())
}

/// What follows the names in a Bind with the types within its binary values put as a shard calls them;
/// `None` when they name none. `types` are the parameters', as the home shard calls them.
///
/// # Errors
/// The shard has no such type.
pub fn bind_values(
    bind: &Bind<'_>,
    types: impl Fn(usize) -> u32,
    mapping: &Mapping,
) -> Result<Option<Vec<u8>>, Unmapped> {
    let mut put: Option<Vec<u8>> = None;
    let mut at = bind.values_start();
    for (index, (binary, value)) in bind.values().enumerate() {
        at = at.saturating_add(4);
        let Some(value) = value else { continue };
        let end = at.saturating_add(value.len());
        let kind = types(index);
        if binary && mapping.embeds(kind) {
            let all = put.get_or_insert_with(|| bind.after_names.to_vec());
            if let Some(value) = all.get_mut(at..end) {
                mapping.put(kind, value, Way::ToShard)?;
            }
        }
        at = end;
    }
    Ok(put)
}
