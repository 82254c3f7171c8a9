//! Values of the generated columns: as text, as binary, and as any literal that PostgreSQL reads.

use crate::random::Random;

/// What a column holds, as far as the generator goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int2,
    Int4,
    Int8,
    /// `text`, `varchar` and `varchar(n)`.
    Text,
    Uuid,
    Date,
    Timestamp,
    Numeric,
    Bool,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Int2 => "smallint",
            Kind::Int4 => "integer",
            Kind::Int8 => "bigint",
            Kind::Text => "text",
            Kind::Uuid => "uuid",
            Kind::Date => "date",
            Kind::Timestamp => "timestamp",
            Kind::Numeric => "numeric",
            Kind::Bool => "boolean",
        }
    }

    pub(super) fn oid(self) -> u32 {
        match self {
            Kind::Int2 => 21,
            Kind::Int4 => 23,
            Kind::Int8 => 20,
            Kind::Text => 25,
            Kind::Uuid => 2950,
            Kind::Date => 1082,
            Kind::Timestamp => 1114,
            Kind::Numeric => 1700,
            Kind::Bool => 16,
        }
    }

    /// The type of arrays of it.
    pub(super) fn array_oid(self) -> u32 {
        match self {
            Kind::Int2 => 1005,
            Kind::Int4 => 1007,
            Kind::Int8 => 1016,
            Kind::Text => 1009,
            Kind::Uuid => 2951,
            Kind::Date => 1182,
            Kind::Timestamp => 1115,
            Kind::Numeric => 1231,
            Kind::Bool => 1000,
        }
    }

    pub(super) fn is_int(self) -> bool {
        matches!(self, Kind::Int2 | Kind::Int4 | Kind::Int8)
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
    Uuid(u128),
    /// Days since 2000-01-01, not before it.
    Date(i32),
    /// Seconds since then.
    Timestamp(i64),
    /// Hundredths.
    Numeric(i64),
    Bool(bool),
}

impl Value {
    /// As its type's input function reads it; `None` is NULL.
    pub(super) fn text(&self) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Int(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Uuid(bits) => hyphenated(*bits),
            Value::Date(days) => date(i64::from(*days)),
            Value::Timestamp(seconds) => {
                let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
                let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
                format!("{} {hour:02}:{minute:02}:{second:02}", date(day))
            }
            Value::Numeric(hundredths) => {
                let sign = if *hundredths < 0 { "-" } else { "" };
                let all = hundredths.unsigned_abs();
                format!("{sign}{}.{:02}", all / 100, all % 100)
            }
            Value::Bool(value) => value.to_string(),
        })
    }

    /// As its type's receive function reads it.
    pub(super) fn binary(&self, kind: Kind) -> Option<Vec<u8>> {
        Some(match self {
            Value::Null => return None,
            Value::Int(number) => {
                let bytes = number.to_be_bytes();
                let width = if kind == Kind::Int2 {
                    2
                } else if kind == Kind::Int4 {
                    4
                } else {
                    8
                };
                bytes[8 - width..].to_vec()
            }
            Value::Text(text) => text.as_bytes().to_vec(),
            Value::Uuid(bits) => bits.to_be_bytes().to_vec(),
            Value::Date(days) => days.to_be_bytes().to_vec(),
            Value::Timestamp(seconds) => (seconds * 1_000_000).to_be_bytes().to_vec(),
            Value::Numeric(hundredths) => numeric(*hundredths),
            Value::Bool(value) => vec![u8::from(*value)],
        })
    }

    /// A literal whose type the place where it stands decides, or that has the right one.
    pub(super) fn literal(&self, kind: Kind, random: &mut Random) -> String {
        let Some(text) = self.text() else {
            return (*random.choose(&["NULL", "null", "(NULL)"])).to_owned();
        };
        if random.chance(55) {
            return self.plain(&text);
        }
        match self {
            Value::Int(number) => int(*number, kind, random),
            Value::Uuid(bits) => uuid(*bits, random),
            Value::Text(_) => strings(&text, random),
            Value::Numeric(_) => match random.below(7) {
                4 => format!("{text}4"),
                5 => format!("'{text}00'"),
                6 => format!("'{text}04'"),
                0 => format!("'{text}'"),
                1 => format!("{text}::numeric"),
                2 => format!("CAST('{text}' AS numeric(12,2))"),
                _ => format!("numeric '{text}'"),
            },
            Value::Date(days) => match random.below(6) {
                0 => format!("date '{text}'"),
                1 => format!("'{text}'::date"),
                2 => format!("CAST('{}' AS date)", text.replace('-', "")),
                3 => format!("(date '{}' + 1)", date(i64::from(*days) - 1)),
                4 => format!("'{}'", text.replace('-', "/")),
                _ => quoted(&text, random),
            },
            Value::Timestamp(_) => match random.below(6) {
                3 => format!("'{text}.4'"),
                4 => format!("'{text}.000'"),
                0 => format!("timestamp '{text}'"),
                1 => format!("'{text}'::timestamp"),
                2 => format!("'{}'", text.replace(' ', "T")),
                _ => quoted(&text, random),
            },
            Value::Null | Value::Bool(_) => self.plain(&text),
        }
    }

    fn plain(&self, text: &str) -> String {
        match self {
            Value::Int(_) | Value::Numeric(_) | Value::Bool(_) | Value::Null => text.to_owned(),
            Value::Text(_) | Value::Uuid(_) | Value::Date(_) | Value::Timestamp(_) => {
                format!("'{}'", text.replace('\'', "''"))
            }
        }
    }

    /// Its text as an element within `'{…}'`.
    pub(super) fn element(&self) -> String {
        match self.text() {
            None => "NULL".to_owned(),
            Some(text) if matches!(self, Value::Text(_) | Value::Timestamp(_)) => {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            }
            Some(text) => text,
        }
    }

    /// A row's field in the text format of COPY.
    pub(super) fn copied(&self) -> String {
        self.text()
            .map_or_else(|| "\\N".to_owned(), |text| text.replace('\\', "\\\\"))
    }
}

fn int(number: i64, kind: Kind, random: &mut Random) -> String {
    match random.below(12) {
        0 => format!("'{number}'"),
        1 => format!("{number}::bigint"),
        2 => format!("CAST({number} AS {})", kind.name()),
        3 => format!("'{number}'::{}", kind.name()),
        4 => format!("{} '{number}'", ["int8", "bigint", "int4"][random.below(3)]),
        5 => format!("({number})"),
        6 => format!("E'{number}'"),
        7 => format!("$${number}$$"),
        8 => format!("({number} + 0)"),
        9 => format!("({} - 1)", number + 1),
        10 => format!("' {number}'::int"),
        _ => format!("{number}::int8::int4"),
    }
}

fn uuid(bits: u128, random: &mut Random) -> String {
    let text = hyphenated(bits);
    match random.below(6) {
        0 => format!("'{}'", text.to_uppercase()),
        1 => format!("'{{{text}}}'"),
        2 => format!("'{}'", text.replace('-', "")),
        3 => format!("'{text}'::uuid"),
        4 => format!("uuid '{text}'"),
        _ => format!("CAST('{text}' AS uuid)"),
    }
}

fn strings(text: &str, random: &mut Random) -> String {
    let plain = format!("'{}'", text.replace('\'', "''"));
    match random.below(10) {
        7 => format!("'{}    '", text.replace('\'', "''")),
        0 => format!("{plain}::text"),
        1 => format!("{plain}::varchar"),
        2 => format!("CAST({plain} AS varchar(40))"),
        3 => format!("text {plain}"),
        4 => format!("({plain} || '')"),
        5 => format!("{plain} COLLATE \"C\""),
        6 => format!("lower({plain})"),
        _ => quoted(text, random),
    }
}

/// A string constant of any notation.
pub(super) fn quoted(text: &str, random: &mut Random) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    match random.below(6) {
        0 => format!("E'{}'", escape(text)),
        1 if !text.contains('$') => format!("$${text}$$"),
        2 if !text.contains('$') => format!("$q${text}$q$"),
        3 if text.is_ascii() && !text.contains(['\\', '\'']) => {
            let mut rest = text.chars();
            match rest.next() {
                Some(first) => format!("U&'\\{:04x}{}'", u32::from(first), rest.as_str()),
                None => "U&''".to_owned(),
            }
        }
        4 if text.len() > 1 && text.is_ascii() && !text.contains('\'') => {
            format!("'{}'\n  '{}'", &text[..1], &text[1..])
        }
        5 => {
            let coded = text.chars().map(|one| match one {
                'a'..='z' => format!("\\x{:02x}", u32::from(one)),
                _ => escape(&one.to_string()),
            });
            format!("e'{}'", coded.collect::<String>())
        }
        _ => format!("'{}'", text.replace('\'', "''")),
    }
}

fn hyphenated(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// The Gregorian date of a day counted from 2000-01-01, not before it.
fn date(day: i64) -> String {
    let (mut year, mut day) = (2000, day);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if day < length {
            break;
        }
        (year, day) = (year + 1, day - length);
    }
    let lengths = [
        31,
        28 + i64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02}", month + 1, day + 1)
}

/// `numeric_recv`: groups of four digits, weight, sign, scale.
fn numeric(hundredths: i64) -> Vec<u8> {
    let all = hundredths.unsigned_abs();
    let mut groups = vec![all % 100 * 100];
    let mut whole = all / 100;
    while whole > 0 {
        groups.push(whole % 10_000);
        whole /= 10_000;
    }
    groups.reverse();
    let words = [groups.len(), groups.len().wrapping_sub(2)];
    let word = |number: u64| {
        u16::try_from(number & 0xffff)
            .expect("16 bits")
            .to_be_bytes()
    };
    let mut bytes = Vec::new();
    for number in words {
        bytes.extend(word(number.try_into().expect("64 bits")));
    }
    bytes.extend(word(if hundredths < 0 { 0x4000 } else { 0 }));
    bytes.extend(word(2));
    for group in groups {
        bytes.extend(word(group));
    }
    bytes
}
