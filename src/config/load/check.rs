//! What can be told only of the whole configuration.

use crate::config::hba::HbaMethod;
use crate::config::read::Object;
use crate::config::{AuthMethod, ClientTlsMode, Config, Host, Listen, Secret, ServerTlsMode};

/// Tells what is wrong between sections.
pub(super) fn whole(root: &Object<'_>, config: &Config) {
    logins(root, config);
    verifiers(root, config);
    sslmodes(root, config);
    consistent_reads(root, config);
}

/// Only commits in two phases are seen whole.
fn consistent_reads(root: &Object<'_>, config: &Config) {
    if config.consistent_reads && !config.two_phase {
        root.bad(
            "consistent_reads",
            "needs commits on several shards to be made in two phases",
            "Leave it out, or set cross_shard_writes to two_phase.",
        );
    }
}

/// A SCRAM verifier proves who the client is but cannot log in to a server.
fn verifiers(root: &Object<'_>, config: &Config) {
    let by_verifier = config
        .users
        .values()
        .find(|user| matches!(user.password, Some(Secret::Scram(_))));
    let Some(user) = by_verifier else {
        return;
    };
    let without = config
        .databases
        .values()
        .filter(|database| database.server_user.is_none())
        .map(|database| database.name.as_str())
        .chain(
            config
                .fallback
                .as_ref()
                .filter(|all| all.server_user.is_none())
                .map(|_| "*"),
        );
    for database in without {
        let message = format!(
            "database \"{database}\" has no server_user, and user \"{}\" has a SCRAM verifier, which cannot log in to a server",
            user.name
        );
        let hint =
            "Set server_user and server_password of the database, or give the user's password.";
        root.bad("databases", message, hint);
    }
}

/// Connection strings that verify need certificates to verify with.
fn sslmodes(root: &Object<'_>, config: &Config) {
    if config.server_tls.ca.is_some() {
        return;
    }
    let verifies = |host: &&Host| {
        matches!(
            host.tls,
            Some(ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull)
        )
    };
    let shards = config
        .databases
        .values()
        .flat_map(|database| &database.shards);
    let hosts = shards.flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas));
    let hosts = hosts.chain(config.fallback.as_ref().map(|all| &all.server));
    let hosts = hosts.chain(&config.gather.servers);
    if let Some(host) = hosts.into_iter().find(verifies) {
        let message = format!(
            "the sslmode of \"{}:{}\" needs the certificates to verify with",
            host.host, host.port
        );
        root.bad("databases", message, "Set server_tls.ca.");
    }
}

/// What methods need of TLS and of the users.
fn logins(root: &Object<'_>, config: &Config) {
    if matches!(config.auth.method, AuthMethod::Cert) {
        let auth = root.section("auth");
        if config.tls.client_ca.is_none() {
            auth.bad(
                "method",
                "\"cert\" needs to know who signs client certificates",
                "Set tls.client_ca.",
            );
        }
        if matches!(config.tls.mode, ClientTlsMode::Disable) {
            auth.bad("method", "\"cert\" needs TLS", "Set tls.mode to require.");
        }
    }
    let by_rule = config
        .auth
        .rules
        .rules
        .iter()
        .find(|rule| rule.method == HbaMethod::Cert);
    if let Some(rule) = by_rule
        && config.tls.client_ca.is_none()
    {
        let message = format!(
            "the rule on line {} asks for a certificate that nobody verifies",
            rule.line
        );
        root.section("auth")
            .bad("hba", message, "Set tls.client_ca.");
    }
    if matches!(config.auth.method, AuthMethod::Scram) {
        for user in config.users.values() {
            if matches!(user.password, Some(Secret::Md5(_))) {
                let message = format!(
                    "user \"{}\" has an md5 verifier, which scram-sha-256 cannot use",
                    user.name
                );
                let hint = "Give the password or a SCRAM verifier, or set auth.method to md5.";
                root.bad("users", message, hint);
            }
        }
    }
    if config.http.is_some()
        && config
            .listen
            .iter()
            .any(|listen| matches!(listen, Listen::Tcp(at) if Some(at) == config.http.as_ref()))
    {
        root.bad(
            "http",
            "is also an address of listen",
            "Give it another port.",
        );
    }
}
