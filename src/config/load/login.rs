//! Reads how clients and servers are told to be who they are: TLS, methods, users.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Loader;
use super::global::pool_mode;
use crate::config::fault::At;
use crate::config::hba::{self, Hba};
use crate::config::keys::global::USER;
use crate::config::read::{Object, items, join};
use crate::config::{
    Auth, AuthMethod, ClientTls, ClientTlsMode, Host, Secret, ServerTls, ServerTlsMode, User,
    connect,
};

impl Loader<'_> {
    fn path(&self, object: &Object<'_>, name: &str) -> Option<PathBuf> {
        object.name(name).map(|path| self.resolve(&path))
    }

    pub(super) fn tls(&self, tls: &Object<'_>) -> ClientTls {
        let modes = [
            ClientTlsMode::Disable,
            ClientTlsMode::Allow,
            ClientTlsMode::Prefer,
            ClientTlsMode::Require,
        ];
        let read = ClientTls {
            mode: tls.choice("mode", &modes).unwrap_or(ClientTlsMode::Prefer),
            certificate: self.path(tls, "certificate"),
            key: self.path(tls, "key"),
            client_ca: self.path(tls, "client_ca"),
        };
        if read.certificate.is_none() {
            if matches!(read.mode, ClientTlsMode::Require) {
                tls.bad(
                    "mode",
                    "\"require\" needs a certificate",
                    "Set tls.certificate and tls.key.",
                );
            }
            for name in ["key", "client_ca"] {
                if tls.has(name) {
                    tls.bad(
                        name,
                        "has no use without a certificate",
                        "Set tls.certificate and tls.key.",
                    );
                }
            }
        } else if read.key.is_none() {
            tls.bad("certificate", "needs its private key", "Set tls.key.");
        }
        read
    }

    pub(super) fn server_tls(&self, tls: &Object<'_>) -> ServerTls {
        let modes = [
            ServerTlsMode::Disable,
            ServerTlsMode::Prefer,
            ServerTlsMode::Require,
            ServerTlsMode::VerifyCa,
            ServerTlsMode::VerifyFull,
        ];
        let mode = tls.choice("mode", &modes).unwrap_or(ServerTlsMode::Prefer);
        let ca = self.path(tls, "ca");
        if ca.is_none() && matches!(mode, ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull) {
            tls.bad(
                "mode",
                "needs the certificates to verify with",
                "Set server_tls.ca.",
            );
        }
        ServerTls { mode, ca }
    }

    pub(super) fn auth(&self, auth: &Object<'_>) -> Auth {
        let methods = [
            AuthMethod::Scram,
            AuthMethod::Md5,
            AuthMethod::Plain,
            AuthMethod::Trust,
            AuthMethod::Cert,
            AuthMethod::Hba,
        ];
        let method = auth.choice("method", &methods).unwrap_or(AuthMethod::Scram);
        let read = Auth {
            method,
            hba: self.path(auth, "hba"),
            rules: self.hba_rules(auth),
            query: auth.name("query"),
            user: auth.name("user"),
        };
        match (method, &read.hba) {
            (AuthMethod::Hba, None) => {
                auth.bad(
                    "method",
                    "\"hba\" needs a file of rules",
                    "Set auth.hba to a pg_hba.conf.",
                );
            }
            (AuthMethod::Hba, Some(_)) | (_, None) => (),
            (_, Some(_)) => {
                auth.bad(
                    "hba",
                    "has no use with this auth.method",
                    "Set auth.method to hba, or remove the file.",
                );
            }
        }
        match (&read.query, &read.user) {
            (Some(_), None) => {
                auth.bad("query", "needs a role that runs it", "Set auth.user.");
            }
            (None, Some(_)) => auth.bad(
                "user",
                "has no use without auth.query",
                "Set auth.query, or remove it.",
            ),
            (Some(query), Some(_)) if !query.contains("$1") => {
                let hint = "Ask for the name in $1, as in SELECT usename, passwd FROM pg_shadow WHERE usename = $1.";
                auth.bad("query", "does not hold $1", hint);
            }
            (Some(_) | None, Some(_) | None) => (),
        }
        read
    }

    /// The rules of the file that `auth.hba` names; its faults carry its own name and lines.
    fn hba_rules(&self, auth: &Object<'_>) -> Hba {
        let Some(path) = self.path(auth, "hba") else {
            return Hba::default();
        };
        match (self.sources.read)(&path) {
            Err(error) => {
                let message = format!("could not read \"{}\": {error}", path.display());
                auth.bad(
                    "hba",
                    message,
                    "Paths are relative to the configuration's folder.",
                );
                Hba::default()
            }
            Ok(text) => {
                let name = path.display().to_string();
                hba::parse(&text, &name).unwrap_or_else(|faults| {
                    let file = self.faults.open(&name);
                    for fault in faults {
                        self.fault(
                            At {
                                file,
                                line: fault.line,
                            },
                            "",
                            fault.message,
                            fault.hint,
                        );
                    }
                    Hba::default()
                })
            }
        }
    }

    pub(super) fn users(&self, root: &Object<'_>) -> BTreeMap<String, User> {
        let mut users = BTreeMap::new();
        let Some(node) = root.node("users") else {
            return users;
        };
        for item in items(node, "users", &self.faults) {
            let user = Object::open(item, &USER, "users".to_owned(), &self.faults);
            let name = user.name("name");
            let user = User {
                name: name.clone().unwrap_or_default(),
                password: secret(&user, "password"),
                comment_hints: user.boolean("comment_hints"),
                tenant: user.name("tenant"),
                pool_mode: pool_mode(&user),
                default_pool_size: user.count_or_none("default_pool_size"),
                max_user_connections: user.count_or_none("max_user_connections"),
            };
            let Some(name) = name else {
                continue;
            };
            if users.insert(name.clone(), user).is_some() {
                let path = join("users", &name);
                self.fault(
                    item.at,
                    &path,
                    format!("user \"{name}\" is given twice"),
                    "Remove one of the two.",
                );
            }
        }
        users
    }
}

/// A password or verifier.
pub(super) fn secret(object: &Object<'_>, name: &str) -> Option<Secret> {
    let secret = Secret::read(&object.name(name)?);
    if let Secret::Scram(verifier) = &secret
        && !is_scram_verifier(verifier)
    {
        let hint = "`pgherd hash-password` makes one: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.";
        object.bad(name, "starts like a SCRAM verifier and is none", hint);
    }
    Some(secret)
}

/// A server's place; faults are told under the key's name.
pub(super) fn server(object: &Object<'_>, name: &str, dbname: &str) -> Option<Host> {
    let scalar = object.scalar(name)?;
    connect::host(&scalar.text, dbname)
        .map_err(|bad| object.bad(name, bad.message, bad.hint))
        .ok()
}

fn is_scram_verifier(text: &str) -> bool {
    let parts = || {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        Some((iterations, [salt, stored, server]))
    };
    let base64 = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'='))
    };
    parts().is_some_and(|(iterations, rest)| {
        iterations.parse::<u32>().is_ok_and(|count| count > 0) && rest.into_iter().all(base64)
    })
}
