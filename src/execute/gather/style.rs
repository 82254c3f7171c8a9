//! How a session writes values as text, and in which encoding: what fragments must not depend on.

use crate::sql::quote::quote_literal;

/// The settings of [`Style`], in its order, each in a column.
pub(super) const SETTINGS: &str = "pg_catalog.current_setting('datestyle'), pg_catalog.current_setting('intervalstyle'), \
    pg_catalog.current_setting('extra_float_digits'), pg_catalog.current_setting('client_encoding'), \
    pg_catalog.current_setting('server_encoding')";

/// How many they are.
pub(super) const COUNT: usize = 5;

/// How values are written in text, so that they are read back the same.
pub(super) const PLAIN: [&str; 3] = [
    "SET LOCAL datestyle = 'ISO'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
];

/// A session's settings.
#[derive(Clone, Debug)]
pub(super) struct Style {
    dates: String,
    intervals: String,
    digits: String,
    encoding: String,
    server_encoding: String,
}

impl Style {
    /// Of the values of [`SETTINGS`].
    pub(super) fn of(
        [dates, intervals, digits, encoding, server_encoding]: [String; COUNT],
    ) -> Style {
        Style {
            dates,
            intervals,
            digits,
            encoding,
            server_encoding,
        }
    }

    /// Whether [`PLAIN`] changes nothing of it: a condition that reads a value's text means the same under both.
    pub(super) fn is_plain(&self) -> bool {
        self.reads_back() && self.intervals == "postgres"
    }

    fn reads_back(&self) -> bool {
        self.dates.starts_with("ISO")
            && self.intervals != "sql_standard"
            && self.digits.parse::<i32>().is_ok_and(|digits| digits >= 1)
    }

    /// Brings the styles of values back, where these are not read back alike.
    pub(super) fn restoring(&self) -> Option<String> {
        let styles = [
            ("datestyle", &self.dates),
            ("intervalstyle", &self.intervals),
            ("extra_float_digits", &self.digits),
        ];
        let set = |(name, value): (&str, &String)| {
            let value = quote_literal(value);
            format!("SELECT pg_catalog.set_config('{name}', {value}, true)")
        };
        (!self.reads_back()).then(|| styles.map(set).join(";"))
    }

    /// Whether its encoding need not have all characters that the server's has.
    pub(super) fn is_narrow(&self) -> bool {
        self.encoding != "UTF8" && self.encoding != self.server_encoding
    }

    /// Has rows pass in an encoding that has all characters; `None` where the session's has.
    pub(super) fn widening(&self) -> Option<String> {
        self.is_narrow().then(|| encoding_is(&self.server_encoding))
    }

    /// Takes that back.
    pub(super) fn narrowing(&self) -> Option<String> {
        self.is_narrow().then(|| encoding_is(&self.encoding))
    }
}

fn encoding_is(name: &str) -> String {
    format!("SET LOCAL client_encoding = {}", quote_literal(name))
}

#[cfg(test)]
mod tests {
    use super::Style;

    fn style(settings: [&str; 5]) -> Style {
        Style::of(settings.map(str::to_owned))
    }

    #[test]
    fn what_reads_back_alike_is_left_alone() {
        let plain = style(["ISO, DMY", "postgres", "3", "UTF8", "UTF8"]);
        assert!(plain.is_plain() && plain.restoring().is_none() && plain.widening().is_none());
        let verbose = style(["ISO, MDY", "postgres_verbose", "1", "LATIN1", "LATIN1"]);
        assert!(!verbose.is_plain() && verbose.restoring().is_none() && !verbose.is_narrow());
        for settings in [
            ["SQL, DMY", "postgres", "1", "UTF8", "LATIN1"],
            ["ISO, DMY", "sql_standard", "1", "UTF8", "UTF8"],
            ["ISO, DMY", "postgres", "0", "UTF8", "UTF8"],
        ] {
            let other = style(settings);
            assert!(!other.is_plain() && !other.is_narrow(), "{settings:?}");
            assert!(other.restoring().is_some(), "{settings:?}");
        }
        let narrow = style(["ISO, DMY", "postgres", "1", "LATIN1", "UTF8"]);
        assert_eq!(
            [narrow.widening(), narrow.narrowing()].map(Option::unwrap),
            [
                "SET LOCAL client_encoding = 'UTF8'",
                "SET LOCAL client_encoding = 'LATIN1'"
            ]
        );
    }
}
