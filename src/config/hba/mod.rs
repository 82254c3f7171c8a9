//! Rules of a `pg_hba.conf`: who may connect from where, and how they prove it.
//!
//! Follows `hba.c` of PostgreSQL: the first rule that fits decides, and no rule is a rejection. What
//! only a server can know (roles' members, its own networks) or what pgherd lacks (peer, ldap, gss,
//! maps) is a fault when the file is read, never a rule that quietly does not fit.

mod read;

use core::net::IpAddr;

pub use read::parse;

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
