//! Finds where a line of the text or CSV format ends, as `CopyReadLineText` does.
//!
//! The first newline decides which of LF, CR and CRLF all lines end with; another one later is an
//! error, as on the server. State is kept between chunks, so no byte is looked at twice.

/// What is wrong, in the server's words.
type Message = &'static str;

/// Scans for the end of each line.
#[derive(Debug)]
pub(super) struct Lines {
    dialect: Dialect,
    ends: Ends,
    /// Lines begun, those inside of quotes counted too.
    line: u64,
    /// No byte of the next line has been seen.
    fresh: bool,
    /// The bytes of the newline that the last line ended with.
    newline: usize,
    state: State,
    /// The line at hand holds `\.`.
    marker: bool,
}

#[derive(Debug)]
enum Dialect {
    Text,
    /// `escape` only where it is another character than `quote`.
    Csv {
        quote: u8,
        escape: Option<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Unknown,
    Lf,
    Cr,
    CrLf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// After a backslash of the text format.
    Backslash,
    /// In CSV quotes; `escaped` after an escape character.
    Quoted {
        escaped: bool,
    },
    /// After a CR that may be half of a CRLF.
    Return,
}

impl Lines {
    pub(super) fn text() -> Lines {
        Lines::new(Dialect::Text)
    }

    pub(super) fn csv(quote: u8, escape: u8) -> Lines {
        Lines::new(Dialect::Csv {
            quote,
            escape: (quote != escape).then_some(escape),
        })
    }

    fn new(dialect: Dialect) -> Lines {
        Lines {
            dialect,
            ends: Ends::Unknown,
            line: 0,
            fresh: true,
            newline: 0,
            state: State::Plain,
            marker: false,
        }
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The length of what of `input` belongs to the line at hand, its newline included; `None`
    /// when its end has not come yet.
    pub(super) fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, Message> {
        if self.fresh {
            self.line = self.line.saturating_add(1);
        }
        let end = self.find_end(input)?;
        self.fresh = end.is_some();
        self.newline = match self.ends {
            Ends::CrLf => 2,
            Ends::Unknown | Ends::Lf | Ends::Cr => 1,
        };
        Ok(end)
    }

    fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, Message> {
        let mut at = 0_usize;
        loop {
            if self.state == State::Plain {
                let rest = input.get(at..).unwrap_or_default();
                match self.skip_plain(rest) {
                    Some(count) => at = at.saturating_add(count),
                    None => return Ok(None),
                }
            }
            let Some(byte) = input.get(at).copied() else {
                return Ok(None);
            };
            let next = at.saturating_add(1);
            match self.state {
                State::Plain => {
                    if self.plain(byte)? {
                        return Ok(Some(next));
                    }
                }
                State::Backslash => {
                    self.marker |= byte == b'.';
                    self.state = State::Plain;
                }
                State::Quoted { escaped } => {
                    let rest = input.get(at..).unwrap_or_default();
                    at = at.saturating_add(self.quoted(rest, escaped));
                    continue;
                }
                State::Return if byte == b'\n' => {
                    self.ends = Ends::CrLf;
                    self.state = State::Plain;
                    return Ok(Some(next));
                }
                State::Return => {
                    self.lone_return()?;
                    return Ok(Some(at));
                }
            }
            at = next;
        }
    }

    /// Ends the last line, which has no newline. The server does not look into a header's quotes.
    pub(super) fn finish(&mut self, is_header: bool) -> Result<(), Message> {
        self.newline = usize::from(self.state == State::Return);
        match self.state {
            State::Quoted { .. } if is_header => Ok(()),
            State::Quoted { .. } => Err("unterminated CSV quoted field"),
            State::Return => self.lone_return(),
            State::Plain | State::Backslash => Ok(()),
        }
    }

    /// Whether the line that just ended is the end-of-copy marker. To be asked once a line.
    pub(super) fn take_marker(&mut self, record: &[u8]) -> Result<bool, Message> {
        let marker = std::mem::take(&mut self.marker);
        let alone = self.content(record) == b"\\.";
        match self.dialect {
            Dialect::Text if marker && !alone => Err("end-of-copy marker is not alone on its line"),
            Dialect::Text | Dialect::Csv { .. } => Ok(alone),
        }
    }

    /// How many bytes mean nothing here.
    fn skip_plain(&self, input: &[u8]) -> Option<usize> {
        match self.dialect {
            Dialect::Text => input
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r' | b'\\')),
            Dialect::Csv { quote, .. } => input
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r') || *byte == quote),
        }
    }

    /// Takes a byte that means something; whether the line ends with it.
    fn plain(&mut self, byte: u8) -> Result<bool, Message> {
        let csv = matches!(self.dialect, Dialect::Csv { .. });
        match (byte, self.ends) {
            (b'\n', Ends::Unknown | Ends::Lf) => {
                self.ends = Ends::Lf;
                Ok(true)
            }
            (b'\n', Ends::Cr | Ends::CrLf) if csv => Err("unquoted newline found in data"),
            (b'\n', Ends::Cr | Ends::CrLf) => Err("literal newline found in data"),
            (b'\r', Ends::Unknown | Ends::CrLf) => {
                self.state = State::Return;
                Ok(false)
            }
            (b'\r', Ends::Cr) => Ok(true),
            (b'\r', Ends::Lf) if csv => Err("unquoted carriage return found in data"),
            (b'\r', Ends::Lf) => Err("literal carriage return found in data"),
            _ => {
                self.state = if csv {
                    State::Quoted { escaped: false }
                } else {
                    State::Backslash
                };
                Ok(false)
            }
        }
    }

    /// A CR that no LF follows.
    fn lone_return(&mut self) -> Result<(), Message> {
        self.state = State::Plain;
        if self.ends == Ends::CrLf {
            return Err(match self.dialect {
                Dialect::Text => "literal carriage return found in data",
                Dialect::Csv { .. } => "unquoted carriage return found in data",
            });
        }
        self.ends = Ends::Cr;
        Ok(())
    }

    /// Takes bytes inside of quotes, up to and with the closing quote if it is there; how many.
    fn quoted(&mut self, input: &[u8], mut escaped: bool) -> usize {
        let Dialect::Csv { quote, escape } = self.dialect else {
            return input.len();
        };
        let newline = if self.ends == Ends::Lf { b'\n' } else { b'\r' };
        for (at, byte) in input.iter().enumerate() {
            if Some(*byte) == escape {
                escaped = !escaped;
            } else if *byte == quote && !escaped {
                self.state = State::Plain;
                return at.saturating_add(1);
            } else {
                escaped = false;
                if *byte == newline {
                    self.line = self.line.saturating_add(1);
                }
            }
        }
        self.state = State::Quoted { escaped };
        input.len()
    }

    /// The line that just ended without its newline.
    pub(super) fn content<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        let end = record.len().saturating_sub(self.newline);
        record.get(..end).unwrap_or_default()
    }
}
