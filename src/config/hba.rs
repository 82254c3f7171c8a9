//! Rules of a `pg_hba.conf`: who may connect from where, and how they prove it.
//!
//! Follows `hba.c` of PostgreSQL: the first rule that fits decides, and no rule is a rejection. What
//! only a server can know (roles' members, its own networks) or what pgherd lacks (peer, ldap, gss,
//! maps) is a fault when the file is read, never a rule that quietly does not fit.

use core::net::IpAddr;

use super::fault::ConfigFault;

/// The rules of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hba {
    pub rules: Vec<HbaRule>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaRule {
    /// Counted from 1, for messages and logs.
    pub line: usize,
    pub connection: HbaConnection,
    /// One of them must fit.
    pub databases: Vec<HbaName>,
    /// One of them must fit.
    pub users: Vec<HbaName>,
    /// `None`: any address, and the rules for Unix sockets.
    pub network: Option<Network>,
    pub method: HbaMethod,
}

/// The first word of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaConnection {
    /// Unix sockets.
    Local,
    /// TCP, with or without TLS.
    Host,
    HostSsl,
    HostNoSsl,
}

/// A database or user of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HbaName {
    All,
    /// Of databases: the one named like the user.
    SameUser,
    /// Of databases: physical replication, which never fits here.
    Replication,
    Name(String),
}

/// Addresses that agree with `address` in their first `bits` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
}

/// How the client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaMethod {
    Trust,
    Reject,
    Scram,
    /// md5, or SCRAM where the user has a SCRAM verifier.
    Md5,
    Password,
    Cert,
}

/// What is known of a client when its startup message has come.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// Over a Unix socket.
    pub local: bool,
    pub tls: bool,
    /// `None` over a Unix socket.
    pub address: Option<IpAddr>,
    pub database: &'a str,
    pub user: &'a str,
}

impl Hba {
    /// The method of the first rule that fits; `None` when no rule does, which is a rejection.
    pub fn decide(&self, connection: &ConnectionFacts<'_>) -> Option<HbaMethod> {
        self.rules
            .iter()
            .find(|rule| rule.fits(connection))
            .map(|rule| rule.method)
    }
}

impl HbaRule {
    fn fits(&self, facts: &ConnectionFacts<'_>) -> bool {
        let kind = match self.connection {
            HbaConnection::Local => facts.local,
            HbaConnection::Host => !facts.local,
            HbaConnection::HostSsl => !facts.local && facts.tls,
            HbaConnection::HostNoSsl => !facts.local && !facts.tls,
        };
        let network = match (self.network, facts.address) {
            (None, _) => true,
            (Some(network), Some(address)) => network.contains(address),
            (Some(_), None) => false,
        };
        let fits = |names: &[HbaName], wanted: &str| {
            names.iter().any(|name| match name {
                HbaName::All => true,
                HbaName::SameUser => facts.database == facts.user,
                HbaName::Replication => false,
                HbaName::Name(name) => name == wanted,
            })
        };
        kind && network && fits(&self.databases, facts.database) && fits(&self.users, facts.user)
    }
}

impl Network {
    /// Whether the address is in it. An IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u32| width.saturating_sub(u32::from(self.bits));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(shift(32)).unwrap_or_default() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.checked_shr(shift(128)).unwrap_or_default() == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A message without full stop, and a hint.
type Bad = (String, &'static str);

/// Reads the text of `file`.
///
/// # Errors
/// Every line that is no rule, or is one that cannot be kept.
pub fn parse(text: &str, file: &str) -> Result<Hba, Vec<ConfigFault>> {
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    let mut lines = (1_usize..).zip(text.lines());
    while let Some((line, first)) = lines.next() {
        let mut whole = first.to_owned();
        while let Some(head) = whole.strip_suffix('\\') {
            let next = lines.next().map(|(_, next)| next).unwrap_or_default();
            whole = format!("{head}{next}");
        }
        match fields(&whole).and_then(|fields| rule(line, fields)) {
            Ok(None) => (),
            Ok(Some(rule)) => rules.push(rule),
            Err((message, hint)) => faults.push(ConfigFault {
                file: file.to_owned(),
                line,
                path: String::new(),
                message,
                hint: hint.to_owned(),
            }),
        }
    }
    if faults.is_empty() {
        Ok(Hba { rules })
    } else {
        Err(faults)
    }
}

/// A word, and whether it began with a quote, which takes its special meaning away.
#[derive(Debug)]
struct Token {
    text: String,
    quoted: bool,
}

/// The fields of a line; each is a list, as commas join words.
fn fields(line: &str) -> Result<Vec<Vec<Token>>, Bad> {
    let mut fields: Vec<Vec<Token>> = Vec::new();
    let mut rest = line;
    let mut joins = false;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            return Ok(fields);
        }
        let (token, after) = token(rest)?;
        let comma = after.strip_prefix(',');
        match fields.last_mut() {
            Some(field) if joins => field.push(token),
            _ => fields.push(vec![token]),
        }
        joins = comma.is_some();
        rest = comma.unwrap_or(after);
    }
}

fn token(text: &str) -> Result<(Token, &str), Bad> {
    let quoted = text.starts_with('"');
    let mut inside = false;
    let mut word = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if inside && chars.next_if(|(_, next)| *next == '"').is_some() => word.push('"'),
            '"' => inside = !inside,
            c if !inside && (c.is_whitespace() || c == ',' || c == '#') => {
                return Ok((
                    Token { text: word, quoted },
                    text.get(at..).unwrap_or_default(),
                ));
            }
            c => word.push(c),
        }
    }
    if inside {
        return Err((
            "a quote is not closed".to_owned(),
            "Close it on the same line.",
        ));
    }
    Ok((Token { text: word, quoted }, ""))
}

fn rule(line: usize, fields: Vec<Vec<Token>>) -> Result<Option<HbaRule>, Bad> {
    const FORM: &str =
        "Write TYPE DATABASE USER [ADDRESS] METHOD, as in host all all 10.0.0.0/8 scram-sha-256.";
    let mut fields = fields.into_iter();
    let Some(kind) = fields.next() else {
        return Ok(None);
    };
    let connection = connection(&one(kind)?.text)?;
    let missing = |what: &str| (format!("the {what} is missing"), FORM);
    let names = |field: Vec<Token>, databases| {
        field
            .into_iter()
            .map(|token| name(token, databases))
            .collect::<Result<Vec<_>, Bad>>()
    };
    let databases = names(fields.next().ok_or_else(|| missing("database"))?, true)?;
    let users = names(fields.next().ok_or_else(|| missing("user"))?, false)?;
    let network = if connection == HbaConnection::Local {
        None
    } else {
        let address = one(fields.next().ok_or_else(|| missing("address"))?)?;
        let mut mask = None;
        if !address.text.contains('/') && address.text.parse::<IpAddr>().is_ok() {
            mask = Some(one(fields.next().ok_or_else(|| missing("mask"))?)?);
        }
        network(&address, mask.as_ref())?
    };
    let method = method(&one(fields.next().ok_or_else(|| missing("method"))?)?.text)?;
    if method == HbaMethod::Cert && connection != HbaConnection::HostSsl {
        return Err((
            "the method cert needs a hostssl rule".to_owned(),
            "Start the line with hostssl.",
        ));
    }
    if let Some(option) = fields.next() {
        let words: Vec<String> = option.into_iter().map(|token| token.text).collect();
        return Err(option_fault(&words.join(",")));
    }
    Ok(Some(HbaRule {
        line,
        connection,
        databases,
        users,
        network,
        method,
    }))
}

fn one(field: Vec<Token>) -> Result<Token, Bad> {
    let mut tokens = field.into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Ok(token),
        _ => Err((
            "a list stands where one word must".to_owned(),
            "Write one line for each.",
        )),
    }
}

fn connection(word: &str) -> Result<HbaConnection, Bad> {
    match word {
        "local" => Ok(HbaConnection::Local),
        // No client connection is encrypted by GSSAPI here, so this is every one.
        "host" | "hostnogssenc" => Ok(HbaConnection::Host),
        "hostssl" => Ok(HbaConnection::HostSsl),
        "hostnossl" => Ok(HbaConnection::HostNoSsl),
        "include" | "include_if_exists" | "include_dir" => Err((
            format!("\"{word}\" is not supported"),
            "Write all rules into one file.",
        )),
        _ => Err((
            format!("\"{word}\" is no type of connection"),
            "Possible are local, host, hostssl and hostnossl.",
        )),
    }
}

fn name(token: Token, databases: bool) -> Result<HbaName, Bad> {
    if token.quoted {
        return Ok(HbaName::Name(token.text));
    }
    let fault = |hint| Err((format!("\"{}\" is not supported", token.text), hint));
    match token.text.as_str() {
        "all" => Ok(HbaName::All),
        "sameuser" if databases => Ok(HbaName::SameUser),
        "replication" if databases => Ok(HbaName::Replication),
        "samerole" | "samegroup" if databases => {
            fault("Only a server knows the members of a role: name the databases and users.")
        }
        text if text.starts_with('@') => {
            fault("Write the names into this file, separated by commas.")
        }
        text if text.starts_with('+') && !databases => {
            fault("Only a server knows the members of a role: name the users.")
        }
        text if text.starts_with('/') => fault("Name each one: regular expressions are not read."),
        _ => Ok(HbaName::Name(token.text)),
    }
}

fn network(address: &Token, mask: Option<&Token>) -> Result<Option<Network>, Bad> {
    const HINT: &str = "Write an address and bits, as in 10.0.0.0/8 or ::1/128, or all.";
    let text = address.text.as_str();
    match text {
        "all" if !address.quoted => return Ok(None),
        "samehost" | "samenet" => {
            let hint = "Write the network itself, as in 127.0.0.1/32 or 10.0.0.0/8.";
            return Err((format!("\"{text}\" is not supported"), hint));
        }
        _ => (),
    }
    let bad = || (format!("\"{text}\" is no network"), HINT);
    let (own, bits) = match (mask, text.split_once('/')) {
        (Some(mask), _) => {
            let own: IpAddr = text.parse().map_err(|_error| bad())?;
            let mask: IpAddr = mask.text.parse().map_err(|_error| bad())?;
            (own, mask_bits(own, mask).ok_or_else(bad)?)
        }
        (None, Some((own, bits))) => (
            own.parse().map_err(|_error| bad())?,
            bits.parse().map_err(|_error| bad())?,
        ),
        (None, None) => {
            let hint = "Write the address: names are not looked up when a client connects.";
            return Err((format!("\"{text}\" is a host name"), hint));
        }
    };
    let most = if own.is_ipv4() { 32 } else { 128 };
    if bits > most {
        return Err(bad());
    }
    Ok(Some(Network { address: own, bits }))
}

/// The bits of a mask: ones, then zeros, of the address's own family.
fn mask_bits(address: IpAddr, mask: IpAddr) -> Option<u8> {
    let (ones, zeros, width) = match (address, mask) {
        (IpAddr::V4(_), IpAddr::V4(mask)) => (
            mask.to_bits().leading_ones(),
            mask.to_bits().trailing_zeros(),
            32,
        ),
        (IpAddr::V6(_), IpAddr::V6(mask)) => (
            mask.to_bits().leading_ones(),
            mask.to_bits().trailing_zeros(),
            128,
        ),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    (ones.checked_add(zeros)? == width)
        .then(|| u8::try_from(ones).ok())
        .flatten()
}

fn method(word: &str) -> Result<HbaMethod, Bad> {
    match word {
        "trust" => Ok(HbaMethod::Trust),
        "reject" => Ok(HbaMethod::Reject),
        "scram-sha-256" => Ok(HbaMethod::Scram),
        "md5" => Ok(HbaMethod::Md5),
        "password" => Ok(HbaMethod::Password),
        "cert" => Ok(HbaMethod::Cert),
        _ => Err((
            format!("the method \"{word}\" is not supported"),
            "Possible are trust, reject, scram-sha-256, md5, password and cert.",
        )),
    }
}

fn option_fault(text: &str) -> Bad {
    let hint = if text.starts_with("map=") {
        "Name maps are not read: a certificate's common name must be the user's name."
    } else if text.starts_with("clientcert=") {
        "Set tls.client_ca, which verifies every client certificate, or use the method cert."
    } else {
        "Remove it: no method here takes an option."
    };
    (format!("the option \"{text}\" is not supported"), hint)
}

#[cfg(test)]
mod tests {
    use super::{ConnectionFacts, HbaMethod, parse};

    const FILE: &str = "\
# TYPE DATABASE USER ADDRESS METHOD
local   all             postgres                trust
local   sameuser        all                     md5
local   replication     all                     trust
hostssl shop,\"all\"    \"all\", app  10.0.0.0/8   cert
host    shop            app     10.1.0.0 255.255.0.0  scram-sha-256
hostnossl all           all     0.0.0.0/0       reject
host    all             all     ::1/128 \\
        password
";

    fn check(kind: &str, address: &str, database: &str, user: &str, expect: Option<HbaMethod>) {
        let address = address.parse().ok();
        let (local, tls) = (kind == "local", kind == "tls");
        let facts = ConnectionFacts {
            local,
            tls,
            address,
            database,
            user,
        };
        let hba = parse(FILE, "pg_hba.conf").unwrap();
        assert_eq!(hba.decide(&facts), expect, "{facts:?}");
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        check("local", "", "x", "postgres", Some(HbaMethod::Trust));
        check("local", "", "app", "app", Some(HbaMethod::Md5));
        check("local", "", "replication", "app", None);
        check("tls", "10.9.9.9", "shop", "app", Some(HbaMethod::Cert));
        check("tls", "10.9.9.9", "all", "all", Some(HbaMethod::Cert));
        check("tls", "10.9.9.9", "other", "app", None);
        check("plain", "10.1.2.3", "shop", "app", Some(HbaMethod::Scram));
        check("plain", "10.2.2.3", "shop", "app", Some(HbaMethod::Reject));
        check(
            "plain",
            "::ffff:10.1.2.3",
            "shop",
            "app",
            Some(HbaMethod::Scram),
        );
        check("plain", "::1", "shop", "app", Some(HbaMethod::Password));
        check("plain", "::2", "shop", "app", None);
    }

    #[test]
    fn what_cannot_be_kept_is_told_with_its_line() {
        for bad in [
            "host all all samehost md5",
            "host all all samenet md5",
            "host all +staff ::1/128 md5",
            "host @dbs all ::1/128 md5",
            "host samerole all ::1/128 md5",
            "host all /x ::1/128 md5",
            "local all all peer",
            "host all all ::1/128 cert",
            "hostssl all all ::1/128 cert map=x",
            "hostssl all all all md5 clientcert=verify-full",
            "host all all",
            "host all all 1.2.3.4 md5",
            "host all all 10.0.0.0/33 md5",
            "host all all 1.2.3.4 255.0.255.0 md5",
            "hots all all all md5",
            "host all all db.example.com md5",
            "host all \"x all md5",
            "include other.conf",
            "host,local all all all md5",
        ] {
            let text = format!("# first\n\n{bad}\nlocal all all trust\n");
            let faults = parse(&text, "h").expect_err(bad);
            assert_eq!(
                faults.iter().map(|fault| fault.line).collect::<Vec<_>>(),
                [3],
                "{bad}"
            );
        }
    }
}
