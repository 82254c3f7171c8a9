//! The names of transactions over several shards.
//!
//! `pgherd:<deployment>:<database>:<decider>:<32 hex digits>` names the transaction, and is the key of its row
//! in `pgherd.decision`; a number is appended for each of its prepared transactions, since shards may be
//! databases of one server. The digits are a hash: only who knows what was hashed can have the row say
//! *commit* (`pgherd.decide`), although everyone may read the names in `pg_prepared_xacts`.

use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::{Fault, SqlState};

/// Bytes of what stands before the hash; PostgreSQL allows 199 in all.
const PREFIX_MAX: usize = 150;
/// Hex digits of the hash.
const DIGITS: usize = 32;

/// One transaction's name, and what it is the hash of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gid {
    base: String,
    secret: String,
}

/// The beginning of the names of all transactions of a decider.
pub fn prefix(deployment: &str, database: &str, decider: &str) -> String {
    let name = format!("{deployment}:{database}:{decider}");
    if name.len() > PREFIX_MAX {
        return format!("pgherd:{}:", hash(&name));
    }
    format!("pgherd:{name}:")
}

impl Gid {
    /// A name that no other transaction has.
    ///
    /// # Errors
    /// XX000 when the system has no random numbers.
    pub fn new(prefix: &str) -> Result<Gid, Fault> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_none| {
            Fault::error(SqlState::INTERNAL, "the system has no random numbers")
        })?;
        Ok(Gid::of(prefix, &hex(&random)))
    }

    /// The name for a secret.
    pub fn of(prefix: &str, secret: &str) -> Gid {
        Gid {
            base: format!("{prefix}{}", hash(secret)),
            secret: secret.to_owned(),
        }
    }

    /// The key of its row.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What the row is made with.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The name of its prepared transaction number `part`.
    pub fn part(&self, part: usize) -> String {
        format!("{}:{part}", self.base)
    }
}

/// The key of the row that a prepared transaction depends on, if its name begins with `prefix` and is one of
/// ours.
pub fn base<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    let (digits, part) = rest.split_once(':')?;
    let is_ours = digits.len() == DIGITS
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_digit());
    let length = prefix.len().checked_add(DIGITS)?;
    is_ours.then(|| name.get(..length)).flatten()
}

fn hash(text: &str) -> String {
    let mut digits = hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    digits.truncate(DIGITS);
    digits
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    let pair = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::{Gid, base, prefix};

    #[test]
    fn the_name_of_a_part_leads_back_to_the_row() {
        let ours = prefix("herd", "shop", "shard_1");
        let gid = Gid::of(&ours, "secret");
        assert_eq!(base(&gid.part(3), &ours), Some(gid.base()));
        assert!(gid.part(15).len() < 200);
    }

    #[test]
    fn the_hash_is_sha256() {
        let gid = Gid::of("pgherd:a:b:c:", "abc");
        assert_eq!(gid.base(), "pgherd:a:b:c:ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let ours = prefix("herd", "shop", "shard_1");
        let digits = "0123456789abcdef0123456789abcdef";
        for name in [
            format!("pgherd:herd:shop:shard_10:{digits}:1"),
            format!("pgherd:other:shop:shard_1:{digits}:1"),
            format!("{ours}{digits}"),
            format!("{ours}{digits}:"),
            format!("{ours}{digits}:x"),
            format!("{ours}{}:1", &digits[1..]),
            "mine".to_owned(),
        ] {
            assert_eq!(base(&name, &ours), None, "{name}");
        }
    }

    #[test]
    fn long_names_fit() {
        let long = "x".repeat(200);
        let gid = Gid::of(&prefix(&long, &long, &long), "secret");
        assert!(gid.part(65_535).len() < 200);
    }
}
