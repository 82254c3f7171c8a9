//! Writes one statement after another: names, aliases, values as literals or parameters.

use super::schema::{Schema, Table};
use super::value::{Kind, Value};
use crate::random::Random;

/// A value of Bind.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// The type that Parse declares; 0 leaves it to the server.
    pub(crate) oid: u32,
    pub(crate) binary: bool,
    pub(crate) bytes: Option<Vec<u8>>,
}

/// How a statement is sent.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Simple,
    Extended {
        parameters: Vec<Parameter>,
        binary_results: bool,
        /// Prepared under a name and described before it is bound.
        named: bool,
    },
    /// A simple query, and the rows it asks for.
    CopyIn(Vec<u8>),
}

/// One statement of a case.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) sql: String,
    pub(crate) form: Form,
    /// Whether its rows have a total order.
    pub(crate) ordered: bool,
}

impl Step {
    /// A simple query as it stands.
    pub(crate) fn simple(sql: &str) -> Step {
        Step {
            sql: sql.to_owned(),
            form: Form::Simple,
            ordered: true,
        }
    }
}

/// A table where a statement names it.
#[derive(Clone, Debug)]
pub(super) struct Relation<'a> {
    pub(super) table: &'a Table,
    /// As it stands in FROM, with its alias.
    pub(super) from: String,
    /// What its columns are qualified with.
    name: String,
    /// Whether its columns may stand bare.
    bare: bool,
}

#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub(super) random: &'a mut Random,
    pub(super) schema: &'a Schema,
    /// Whether the statement goes by the extended protocol.
    extended: bool,
    parameters: Vec<Parameter>,
    /// Names of the statement's relations.
    names: Vec<String>,
}

/// Begins a parameter in a text that is not ended; its number and a semicolon follow.
const MARK: char = '\u{e000}';

const RESERVED: [&str; 2] = ["user", "select"];

impl<'a> Writer<'a> {
    pub(super) fn new(random: &'a mut Random, schema: &'a Schema) -> Writer<'a> {
        let extended = random.chance(50);
        Writer {
            random,
            schema,
            extended,
            parameters: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Only literals in what is written next.
    pub(super) fn literals_only(&mut self) {
        self.extended = false;
    }

    /// Ends a statement; the next one is begun.
    pub(super) fn step(&mut self, sql: impl AsRef<str>, ordered: bool) -> Step {
        let (sql, parameters) = self.numbered(sql.as_ref());
        let form = if self.extended {
            Form::Extended {
                parameters,
                binary_results: self.random.chance(35),
                named: self.random.chance(30),
            }
        } else {
            Form::Simple
        };
        self.extended = self.random.chance(50);
        self.names.clear();
        let sql = self.disturb(sql);
        Step { sql, form, ordered }
    }

    /// The parameters that made it into the text, in the order in which it names them.
    fn numbered(&mut self, sql: &str) -> (String, Vec<Parameter>) {
        let all = std::mem::take(&mut self.parameters);
        let mut used: Vec<usize> = Vec::new();
        let mut parts = sql.split(MARK);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (index, rest) = part.split_once(';').expect("a mark has its number");
            let index = index.parse().expect("a mark has its number");
            let place = used.iter().position(|it| *it == index);
            let place = place.unwrap_or_else(|| {
                used.push(index);
                used.len() - 1
            });
            text.push('$');
            text.push_str(&(place + 1).to_string());
            text.push_str(rest);
        }
        let parameters = used.into_iter().map(|index| all[index].clone());
        (text, parameters.collect())
    }

    /// Comments and line ends where they mean nothing.
    fn disturb(&mut self, sql: String) -> String {
        if self.random.chance(80) {
            return sql;
        }
        let comment = *self.random.choose(&[
            " /* WHERE k = 1 */ ",
            " -- k = 2\n",
            "\n\t",
            " /* a /* nested */ 'one */ ",
            " /* $1 ; */ ",
        ]);
        let word = *self.random.choose(&[" WHERE ", " FROM ", " AND ", " SET "]);
        sql.replacen(word, &format!("{comment}{}{comment}", word.trim()), 1)
    }

    /// A name as SQL may have it.
    pub(super) fn name(&mut self, name: &str) -> String {
        let simple = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_';
        if name.chars().all(simple) && !RESERVED.contains(&name) {
            return match self.random.below(8) {
                0 => name.to_uppercase(),
                1 => format!("\"{name}\""),
                _ => name.to_owned(),
            };
        }
        format!("\"{name}\"")
    }

    fn table_name(&mut self, table: &Table) -> String {
        let name = self.name(&table.name);
        match table.schema {
            Some(schema) => format!("{schema}.{name}"),
            None if self.random.chance(15) => format!("public.{name}"),
            None => name,
        }
    }

    /// A table in FROM, or the target of a write, under a name of its own.
    pub(super) fn relation(&mut self, table: &'a Table) -> Relation<'a> {
        let written = self.table_name(table);
        let taken = self.names.contains(&table.name);
        if !taken && self.random.chance(45) {
            self.names.push(table.name.clone());
            let name = match self.random.below(8) {
                0 => format!(
                    "{}.{}",
                    table.schema.unwrap_or("public"),
                    self.name(&table.name)
                ),
                _ => self.name(&table.name),
            };
            return Relation {
                table,
                from: written,
                name,
                bare: true,
            };
        }
        let alias = self.alias();
        let word = if self.random.chance(60) { "AS " } else { "" };
        Relation {
            table,
            from: format!("{written} {word}{alias}"),
            name: alias,
            bare: true,
        }
    }

    /// A table in FROM, or now and then its view.
    pub(super) fn source(&mut self, table: &'a Table) -> Relation<'a> {
        if !self.random.chance(15) {
            return self.relation(table);
        }
        let alias = self.alias();
        Relation {
            table,
            from: format!("{} AS {alias}", table.view()),
            name: alias,
            bare: true,
        }
    }

    /// A name that no other relation of the statement has; it may hide a table.
    pub(super) fn alias(&mut self) -> String {
        loop {
            let name = if self.random.chance(30) {
                let schema = self.schema;
                self.random.choose(&schema.tables).name.clone()
            } else {
                (*self
                    .random
                    .choose(&["a1", "b1", "x", "y", "z", "X y", "Alias", "q", "r"]))
                .to_owned()
            };
            if !self.names.contains(&name) {
                self.names.push(name.clone());
                return if name
                    .chars()
                    .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit())
                    && !RESERVED.contains(&name.as_str())
                {
                    name
                } else {
                    format!("\"{name}\"")
                };
            }
        }
    }

    /// A column of a relation.
    pub(super) fn column(&mut self, relation: &Relation<'_>, at: usize) -> String {
        let name = self.name(&relation.table.columns[at].name);
        if relation.bare && self.random.chance(60) {
            name
        } else {
            format!("{}.{name}", relation.name)
        }
    }

    /// The same without a qualifier, as in a column list.
    pub(super) fn own_column(&mut self, table: &Table, at: usize) -> String {
        self.name(&table.columns[at].name)
    }

    /// A value where the place decides its type.
    pub(super) fn value(&mut self, kind: Kind, value: &Value) -> String {
        if !self.extended || self.random.chance(30) {
            return value.literal(kind, self.random);
        }
        let declared = match self.random.below(10) {
            0..=4 => 0,
            5 if kind.is_int() && *value != Value::Null => {
                return self.other_width(kind, value);
            }
            6 if kind == Kind::Text => 1043,
            _ => kind.oid(),
        };
        self.parameter(kind, declared, value)
    }

    fn other_width(&mut self, kind: Kind, value: &Value) -> String {
        let Value::Int(number) = value else {
            return value.literal(kind, self.random);
        };
        let width = if i32::try_from(*number).is_ok() {
            *self.random.choose(&[Kind::Int8, Kind::Int4])
        } else {
            Kind::Int8
        };
        self.parameter(width, width.oid(), value)
    }

    /// A parameter in text without a declared type, or a literal of none.
    pub(super) fn plain_parameter(&mut self, value: &Value) -> String {
        if self.extended {
            let bytes = value.text().map(String::into_bytes);
            return self.push(Parameter {
                oid: 0,
                binary: false,
                bytes,
            });
        }
        let text = value.text().unwrap_or_default();
        format!("'{}'", text.replace('\'', "''"))
    }

    fn parameter(&mut self, kind: Kind, oid: u32, value: &Value) -> String {
        let binary = self.random.chance(40);
        let bytes = if binary {
            value.binary(kind)
        } else {
            value.text().map(String::into_bytes)
        };
        self.push(Parameter { oid, binary, bytes })
    }

    fn push(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        format!("{MARK}{};", self.parameters.len() - 1)
    }

    /// A value whose type is written down.
    pub(super) fn typed(&mut self, kind: Kind, value: &Value) -> String {
        if self.extended && self.random.chance(60) {
            let parameter = self.parameter(kind, kind.oid(), value);
            return format!("{parameter}::{}", kind.name());
        }
        match value.text() {
            None => format!("NULL::{}", kind.name()),
            Some(text) => format!("'{}'::{}", text.replace('\'', "''"), kind.name()),
        }
    }

    /// What may stand behind `= ANY`, in parentheses of its own.
    pub(super) fn array(&mut self, kind: Kind, values: &[Value]) -> String {
        let text = || {
            let elements: Vec<String> = values.iter().map(Value::element).collect();
            format!("{{{}}}", elements.join(","))
        };
        if self.extended && self.random.chance(70) {
            let binary = self.random.chance(50);
            let bytes = if binary {
                array_binary(kind, values)
            } else {
                text().into_bytes()
            };
            let oid = if self.random.chance(60) {
                kind.array_oid()
            } else {
                0
            };
            let bytes = Some(bytes);
            let parameter = self.push(Parameter { oid, binary, bytes });
            return match self.random.below(3) {
                0 => format!("({parameter}::{}[])", kind.name()),
                _ => format!("({parameter})"),
            };
        }
        let quoted = format!("'{}'", text().replace('\'', "''"));
        match self.random.below(4) {
            0 => format!("({quoted})"),
            1 => format!("({quoted}::{}[])", kind.name()),
            _ => {
                let values: Vec<String> = values.iter().map(|it| self.value(kind, it)).collect();
                if values.iter().all(|it| it.starts_with(MARK)) {
                    format!("(ARRAY[{}]::{}[])", values.join(", "), kind.name())
                } else {
                    format!("(ARRAY[{}])", values.join(", "))
                }
            }
        }
    }
}

impl Relation<'_> {
    /// The same among other relations, so that its columns are qualified.
    pub(super) fn qualified(mut self) -> Self {
        self.bare = false;
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// `array_recv`: dimensions, whether there are NULLs, the element type, one dimension, the elements.
fn array_binary(kind: Kind, values: &[Value]) -> Vec<u8> {
    let int = |number: usize| i32::try_from(number).expect("few").to_be_bytes();
    let mut bytes = Vec::new();
    bytes.extend(int(usize::from(!values.is_empty())));
    bytes.extend(int(usize::from(values.contains(&Value::Null))));
    bytes.extend(kind.oid().to_be_bytes());
    if !values.is_empty() {
        bytes.extend(int(values.len()));
        bytes.extend(int(1));
    }
    for value in values {
        match value.binary(kind) {
            None => bytes.extend((-1_i32).to_be_bytes()),
            Some(element) => {
                bytes.extend(int(element.len()));
                bytes.extend(element);
            }
        }
    }
    bytes
}
