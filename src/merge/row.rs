//! RowDescription and DataRow, as far as columns are looked at or left out.

/// One column of a RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: Box<[u8]>,
    /// The OID of its type.
    pub kind: u32,
    pub binary: bool,
    /// Where its description ends in the body.
    end: usize,
}

/// Reads the body of a RowDescription; `None` when malformed.
pub fn fields(body: &[u8]) -> Option<Vec<Field>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut fields = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, after) = rest.split_at_checked(end)?;
        // The name's end, its table (4) and column (2), the type (4), its length (2), the modifier (4), the format (2).
        let (fixed, after) = after.split_first_chunk::<19>()?;
        rest = after;
        fields.push(Field {
            name: name.into(),
            kind: u32::from_be_bytes(*fixed.get(7..)?.first_chunk::<4>()?),
            binary: fixed.get(17..)? == [0, 1],
            end: body.len().checked_sub(rest.len())?,
        });
    }
    Some(fields)
}

/// Appends a RowDescription of the first `count` columns of one with this body.
pub fn put_description(body: &[u8], fields: &[Field], count: usize, out: &mut Vec<u8>) {
    let end = match count.checked_sub(1).and_then(|last| fields.get(last)) {
        Some(field) => field.end,
        None => 2,
    };
    let columns = body.get(2..end).unwrap_or_default();
    put(b'T', count, columns, out);
}

/// Appends a DataRow of the first `count` values of one with this body. Returns whether it is well formed.
pub fn put_row(body: &[u8], count: usize, out: &mut Vec<u8>) -> bool {
    let mut values = Values::of(body);
    for _ in 0..count {
        if values.next().is_none() {
            return false;
        }
    }
    let end = body.len().saturating_sub(values.rest.len());
    put(b'D', count, body.get(2..end).unwrap_or_default(), out);
    true
}

fn put(tag: u8, count: usize, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let length = content.len().saturating_add(6);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(content);
}

/// The values of a DataRow, `None` for NULL; ends at a malformed one.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// Of a DataRow's body.
    pub fn of(body: &'a [u8]) -> Values<'a> {
        Values {
            rest: body.get(2..).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Option<&'a [u8]>> {
        let (length, after) = self.rest.split_first_chunk::<4>()?;
        // −1 is NULL.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = after;
            return Some(None);
        };
        let (value, after) = after.split_at_checked(length)?;
        self.rest = after;
        Some(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::{Values, fields, put_description, put_row};
    use crate::wire::backend::{self, Column};

    #[test]
    fn hidden_columns_are_left_out() {
        let mut whole = Vec::new();
        backend::row_description(
            &mut whole,
            &[Column::text("a"), Column::bigint("b"), Column::text("c")],
        );
        let described = fields(&whole[5..]).expect("well formed");
        assert_eq!(described.len(), 3);
        assert_eq!((described[1].kind, described[1].binary), (20, false));
        for (count, columns) in [
            (0, &[][..]),
            (1, &[Column::text("a")]),
            (2, &[Column::text("a"), Column::bigint("b")]),
        ] {
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            put_description(&whole[5..], &described, count, &mut found);
            backend::row_description(&mut wanted, columns);
            assert_eq!(found, wanted);
        }
        let values = [Some(b"x".as_slice()), None, Some(b"yz")];
        let mut row = Vec::new();
        backend::data_row(&mut row, values.into_iter());
        assert_eq!(Values::of(&row[5..]).collect::<Vec<_>>(), values);
        let (mut found, mut wanted) = (Vec::new(), Vec::new());
        assert!(put_row(&row[5..], 2, &mut found));
        backend::data_row(&mut wanted, values.into_iter().take(2));
        assert_eq!(found, wanted);
        assert!(!put_row(&row[5..], 4, &mut found));
    }
}
