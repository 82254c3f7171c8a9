//! `session::startup` and `session::auth` with psql, with our own server side, and with liars.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgherd::config::{
    AuthMethod, ClientTls, ClientTlsMode, Host, Secret, ServerTls, ServerTlsMode,
};
use pgherd::server::connect::{ConnectError, Credentials, connect};
use pgherd::session::auth::hash_password;
use pgherd::tls::Tls;

use super::certificates::Certificates;
use super::frontend::{Frontend, Options};

const FAILED: &str = "password authentication failed for user";

pub(crate) fn tls(certificates: &Certificates, mode: ClientTlsMode) -> Tls {
    let client = ClientTls {
        mode,
        certificate: Some(certificates.path("server.crt")),
        key: Some(certificates.path("server.key")),
        client_ca: Some(certificates.path("ca.crt")),
    };
    let server = ServerTls {
        mode: ServerTlsMode::Prefer,
        ca: None,
    };
    Tls::load(&client, &server).expect("the files are good")
}

/// Users whose password is `secret`, in each form it is stored in, and one without any.
pub(crate) fn options(tls: Tls, method: AuthMethod) -> Options {
    let md5 = format!("md5{}", pgherd::server::auth::md5_hex(&[b"secret", b"md5"]));
    Options {
        tls,
        method,
        users: vec![
            ("plain", Some("secret".to_owned())),
            (
                "scram",
                Some(hash_password("secret").expect("random numbers")),
            ),
            ("md5", Some(md5)),
            ("ada", None),
        ],
        queried: None,
        rules: "",
        timeout: Duration::from_secs(20),
        wrong_end_point: false,
    }
}

/// Runs a query by psql; returns its output, be it the answer or the error.
fn psql(frontend: &Frontend, host: Option<&Path>, password: &str, connection: &str) -> String {
    let host = host.map_or_else(
        || "127.0.0.1".to_owned(),
        |folder| folder.display().to_string(),
    );
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-w", "-c", "who am I"])
        .arg(format!(
            "host={host} port={} dbname=db {connection}",
            frontend.port
        ))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PGPASSWORD", password)
        .env("PGOPTIONS", "-c search_path=a\\ b")
        .output()
        .expect("psql runs");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).expect("text")
}

#[track_caller]
fn check(found: &str, expect: &str) {
    assert!(found.contains(expect), "expected {expect:?} in {found:?}");
}

#[test]
fn every_method_takes_the_password_it_can() {
    let certificates = Certificates::make();
    for (method, user, expect) in [
        (AuthMethod::Scram, "plain", Some("password=plain")),
        (AuthMethod::Scram, "scram", Some("password=scram")),
        (AuthMethod::Scram, "md5", None),
        (AuthMethod::Md5, "plain", Some("password=plain")),
        (AuthMethod::Md5, "md5", Some("password=md5")),
        (AuthMethod::Md5, "scram", Some("password=scram")),
        (AuthMethod::Plain, "plain", Some("password=plain")),
        (AuthMethod::Plain, "md5", Some("password=plain")),
        (AuthMethod::Plain, "scram", Some("password=plain")),
        (AuthMethod::Trust, "ada", Some("password=none")),
        (AuthMethod::Trust, "plain", Some("password=plain")),
        (AuthMethod::Trust, "nobody", None),
        (AuthMethod::Scram, "ada", None),
        (AuthMethod::Md5, "ada", None),
        (AuthMethod::Plain, "ada", None),
        (AuthMethod::Scram, "nobody", None),
        (AuthMethod::Md5, "nobody", None),
        (AuthMethod::Plain, "nobody", None),
    ] {
        let frontend = Frontend::start(options(tls(&certificates, ClientTlsMode::Prefer), method));
        for sslmode in ["disable", "require"] {
            let connection = format!("user={user} sslmode={sslmode}");
            let right = psql(&frontend, None, "secret", &connection);
            check(&right, expect.unwrap_or(FAILED));
            if method == AuthMethod::Trust {
                continue;
            }
            let wrong = psql(&frontend, None, "wrong", &connection);
            check(&wrong, FAILED);
            // Nothing tells an unknown user from a wrong password.
            assert_eq!(wrong.matches("FATAL").count(), 1, "{wrong}");
            assert!(
                !wrong.contains("DETAIL") && !wrong.contains("HINT"),
                "{wrong}"
            );
        }
    }
}

#[test]
fn channel_binding_binds() {
    let certificates = Certificates::make();
    let tls = tls(&certificates, ClientTlsMode::Prefer);
    let frontend = Frontend::start(options(tls.clone(), AuthMethod::Scram));
    for user in ["plain", "scram"] {
        for (binding, sslmode) in [
            ("require", "require"),
            ("prefer", "require"),
            ("disable", "require"),
            ("prefer", "disable"),
        ] {
            let connection = format!("user={user} channel_binding={binding} sslmode={sslmode}");
            check(&psql(&frontend, None, "secret", &connection), "db tls=");
        }
    }
    let connection = "user=nobody channel_binding=require sslmode=require";
    check(&psql(&frontend, None, "secret", connection), FAILED);
    let relayed = Frontend::start(Options {
        wrong_end_point: true,
        ..options(tls, AuthMethod::Scram)
    });
    let found = psql(&relayed, None, "secret", "user=plain sslmode=require");
    check(&found, "channel binding check failed");
}

#[test]
fn client_tls_modes_are_kept() {
    let certificates = Certificates::make();
    let verify = format!(
        "verify-full sslrootcert={}",
        certificates.path("ca.crt").display()
    );
    for (mode, sslmode, expect) in [
        (ClientTlsMode::Disable, "prefer", "tls=false"),
        (ClientTlsMode::Disable, "require", "does not support SSL"),
        (ClientTlsMode::Allow, "disable", "tls=false"),
        (ClientTlsMode::Allow, "require", "tls=true"),
        (ClientTlsMode::Prefer, "prefer", "tls=true"),
        (ClientTlsMode::Prefer, &verify, "tls=true"),
        (ClientTlsMode::Require, "disable", "connection requires TLS"),
        (ClientTlsMode::Require, "allow", "tls=true"),
        (ClientTlsMode::Require, "require", "tls=true"),
    ] {
        let frontend = Frontend::start(options(tls(&certificates, mode), AuthMethod::Trust));
        let found = psql(&frontend, None, "", &format!("user=ada sslmode={sslmode}"));
        check(&found, expect);
        // A Unix socket has no TLS and needs none.
        let folder = Some(frontend.folder.path());
        let found = psql(&frontend, folder, "", "user=ada sslmode=prefer");
        check(&found, "tls=false local=true");
    }
}

#[test]
fn certificates_stand_for_users() {
    let certificates = Certificates::make();
    let tls = tls(&certificates, ClientTlsMode::Prefer);
    let frontend = Frontend::start(options(tls, AuthMethod::Cert));
    let shown = format!(
        "sslmode=require sslcert={} sslkey={}",
        certificates.path("ada.crt").display(),
        certificates.path("ada.key").display()
    );
    check(
        &psql(&frontend, None, "", &format!("user=ada {shown}")),
        "ada db tls=true",
    );
    let found = psql(&frontend, None, "", &format!("user=plain {shown}"));
    check(
        &found,
        "certificate authentication failed for user \"plain\"",
    );
    let found = psql(&frontend, None, "", "user=ada sslmode=require");
    check(&found, "requires a valid client certificate");
    let found = psql(&frontend, None, "", "user=ada sslmode=disable");
    check(&found, "requires a valid client certificate");
    certificates.make_self_signed("ada");
    let forged = shown
        .replace("ada.crt", "self.crt")
        .replace("ada.key", "self.key");
    let found = psql(&frontend, None, "", &format!("user=ada {forged}"));
    assert!(!found.contains("ada db"), "{found}");
    frontend.wait_for("gone invalid peer certificate");
}

#[test]
fn rules_of_pg_hba_conf_decide() {
    let certificates = Certificates::make();
    let tls = tls(&certificates, ClientTlsMode::Prefer);
    let frontend = Frontend::start(Options {
        rules: "local all ada trust
hostssl all ada 127.0.0.1/32 reject
host db plain 127.0.0.0/8 scram-sha-256
",
        ..options(tls, AuthMethod::Hba)
    });
    let folder = Some(frontend.folder.path());
    check(&psql(&frontend, folder, "", "user=ada"), "local=true");
    let found = psql(&frontend, None, "", "user=ada sslmode=require");
    check(
        &found,
        "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"ada\", database \"db\", TLS encryption",
    );
    let found = psql(&frontend, None, "", "user=ada sslmode=disable");
    check(
        &found,
        "pg_hba.conf has no entry for host \"127.0.0.1\", user \"ada\", database \"db\", no encryption",
    );
    check(&psql(&frontend, None, "secret", "user=plain"), "plain db");
    check(&psql(&frontend, None, "wrong", "user=plain"), FAILED);
    check(
        &psql(&frontend, folder, "secret", "user=plain"),
        "has no entry for host \"[local]\"",
    );
}

#[test]
fn users_are_found_by_query_and_settings_are_kept() {
    let certificates = Certificates::make();
    let tls = tls(&certificates, ClientTlsMode::Prefer);
    let frontend = Frontend::start(Options {
        queried: Some(BTreeMap::from([("eve", "found")])),
        ..options(tls.clone(), AuthMethod::Scram)
    });
    let found = psql(&frontend, None, "found", "user=eve application_name=x");
    check(&found, "eve db");
    check(
        &found,
        r#"[("search_path", "a b"), ("application_name", "x")"#,
    );
    check(&psql(&frontend, None, "wrong", "user=eve"), FAILED);
    check(&psql(&frontend, None, "found", "user=adam"), FAILED);
    check(&psql(&frontend, None, "secret", "user=plain"), "plain db");
    let everyone = Frontend::start(Options {
        users: Vec::new(),
        ..options(tls, AuthMethod::Trust)
    });
    check(&psql(&everyone, None, "", "user=anyone"), "anyone db");
    check(
        &psql(&everyone, None, "", "user=anyone replication=yes"),
        "replication connections",
    );
}

/// Our two sides understand each other: SCRAM with channel binding and all the rest.
#[tokio::test]
async fn a_server_connection_logs_in_to_a_frontend() {
    let certificates = Certificates::make();
    let ca = certificates.path("ca.crt");
    for (method, mode, wrong_end_point, expect) in [
        (AuthMethod::Scram, ServerTlsMode::VerifyFull, false, ""),
        (AuthMethod::Scram, ServerTlsMode::VerifyFull, true, "28000"),
        (AuthMethod::Scram, ServerTlsMode::Disable, false, ""),
        (AuthMethod::Md5, ServerTlsMode::Disable, false, ""),
        (AuthMethod::Plain, ServerTlsMode::Require, false, ""),
    ] {
        let frontend = Frontend::start(Options {
            wrong_end_point,
            ..options(tls(&certificates, ClientTlsMode::Prefer), method)
        });
        let host = Host {
            host: "127.0.0.1".to_owned(),
            port: frontend.port,
            dbname: "db".to_owned(),
            tls: None,
        };
        let credentials = Credentials {
            user: "plain".to_owned(),
            password: Some(Secret::read("secret")),
        };
        let server = super::servers::tls(mode, Some(&ca));
        let timeout = Duration::from_secs(20);
        let found = match connect(&host, &server.connector, &credentials, &[], timeout).await {
            Ok(connected) => {
                assert_eq!(connected.cancel.pid, 7);
                String::new()
            }
            Err(ConnectError::Refused { code, .. }) => code,
            Err(ConnectError::Fault(fault)) => fault.to_string(),
        };
        assert_eq!(found, expect, "{method:?} {mode:?}");
    }
}
