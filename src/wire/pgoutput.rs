//! Messages of the logical decoding plugin pgoutput, protocol version 1, as far as they tell which rows changed.
//! See <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>.

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What a number in later messages means.
    Relation {
        id: u32,
        relation: Relation,
    },
    Insert {
        id: u32,
        new: Row,
    },
    /// `old` is there where its key changed, or the table's replica identity is FULL.
    Update {
        id: u32,
        old: Option<Row>,
        new: Row,
    },
    /// Of the columns of the replica identity alone, unless that is FULL.
    Delete {
        id: u32,
        old: Row,
    },
    Truncate {
        ids: Vec<u32>,
    },
    /// Begin, Commit and what tells of no row.
    Other,
}

/// A table and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub schema: String,
    pub name: String,
    /// In their order; whether each is part of the replica identity.
    pub columns: Vec<(String, bool)>,
}

/// The values of a row as text, in the order of the columns. `None` is NULL, or not told.
pub type Row = Vec<Option<String>>;

/// Reads a message; `None` where it is none.
pub fn read(message: &[u8]) -> Option<Change> {
    let (tag, body) = message.split_first()?;
    let mut rest = Rest(body);
    Some(match tag {
        b'R' => {
            let id = rest.u32()?;
            let (schema, name) = (rest.string()?, rest.string()?);
            rest.take(1)?;
            let mut columns = Vec::new();
            for _ in 0..rest.u16()? {
                let is_key = rest.take(1)? == [1];
                columns.push((rest.string()?, is_key));
                rest.take(8)?;
            }
            // What is PostgreSQL's own comes without a name.
            let schema = if schema.is_empty() {
                "pg_catalog".to_owned()
            } else {
                schema
            };
            let relation = Relation {
                schema,
                name,
                columns,
            };
            Change::Relation { id, relation }
        }
        b'I' => {
            let id = rest.u32()?;
            rest.expect(b'N')?;
            let new = rest.row()?;
            Change::Insert { id, new }
        }
        b'U' => {
            let id = rest.u32()?;
            let old = match rest.take(1)? {
                [b'K' | b'O'] => {
                    let old = rest.row()?;
                    rest.expect(b'N')?;
                    Some(old)
                }
                [b'N'] => None,
                _ => return None,
            };
            let new = rest.row()?;
            Change::Update { id, old, new }
        }
        b'D' => {
            let id = rest.u32()?;
            matches!(rest.take(1)?, [b'K' | b'O']).then_some(())?;
            let old = rest.row()?;
            Change::Delete { id, old }
        }
        b'T' => {
            let count = rest.u32()?;
            rest.take(1)?;
            let ids: Option<Vec<u32>> = (0..count).map(|_| rest.u32()).collect();
            Change::Truncate { ids: ids? }
        }
        _ => Change::Other,
    })
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.take(1)? == [byte]).then_some(())
    }

    fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let bytes = self.take(end)?;
        self.take(1)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    fn row(&mut self) -> Option<Row> {
        let count = self.u16()?;
        let mut row = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            row.push(match self.take(1)? {
                [b'n' | b'u'] => None,
                [b't' | b'b'] => {
                    let length = usize::try_from(self.u32()?).ok()?;
                    let bytes = self.take(length)?;
                    Some(String::from_utf8_lossy(bytes).into_owned())
                }
                _ => return None,
            });
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Relation, read};

    #[test]
    fn rows_are_read() {
        let relation = b"R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff";
        let expect = Relation {
            schema: "public".into(),
            name: "t".into(),
            columns: vec![("id".into(), true), ("v".into(), false)],
        };
        assert_eq!(
            read(relation),
            Some(Change::Relation {
                id: 7,
                relation: expect
            })
        );
        let row = b"\0\x02t\0\0\0\x015n";
        let values = vec![Some("5".to_owned()), None];
        let insert = [&b"I\0\0\0\x07N"[..], row].concat();
        assert_eq!(
            read(&insert),
            Some(Change::Insert {
                id: 7,
                new: values.clone()
            })
        );
        let update = [&b"U\0\0\0\x07K"[..], row, b"N", row].concat();
        assert_eq!(
            read(&update),
            Some(Change::Update {
                id: 7,
                old: Some(values.clone()),
                new: values.clone()
            })
        );
        let delete = [&b"D\0\0\0\x07K"[..], row].concat();
        assert_eq!(read(&delete), Some(Change::Delete { id: 7, old: values }));
        assert_eq!(
            read(b"T\0\0\0\x01\0\0\0\0\x07"),
            Some(Change::Truncate { ids: vec![7] })
        );
        assert_eq!(read(b"B123"), Some(Change::Other));
        for cut in 1..update.len() {
            assert_eq!(read(&update[..cut]), None, "{cut}");
        }
    }
}
