//! Reads the lines of a `pg_hba.conf`, as `next_token` and `parse_hba_line` of PostgreSQL's `hba.c` do.

use core::net::IpAddr;

use super::{Hba, HbaConnection, HbaMethod, HbaName, HbaRule, Network};
use crate::config::fault::ConfigFault;

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
