//! `server::connect` against real servers: every method of authentication and every sslmode.

use std::path::Path;
use std::time::Duration;

use pgherd::config::{ClientTls, ClientTlsMode, Host, Secret, ServerTls, ServerTlsMode};
use pgherd::server::connect::{ConnectError, Connected, Credentials, cancel, connect};
use pgherd::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::certificates::Certificates;
use crate::postgres::Cluster;

const TIMEOUT: Duration = Duration::from_secs(20);

const HBA: &str = "
local all all trust
hostssl all tls_only 127.0.0.1/32 trust
hostnossl all plain_only 127.0.0.1/32 trust
host all tls_only,plain_only 127.0.0.1/32 reject
host all app_scram 127.0.0.1/32 scram-sha-256
host all app_md5 127.0.0.1/32 md5
host all app_plain 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
";

/// A server with TLS, or without when there is no certificate.
pub(crate) fn cluster(certificates: &Certificates, pair: Option<&str>) -> Cluster {
    std::fs::write(certificates.path("pg_hba.conf"), HBA).expect("the folder is ours");
    let file = |name: &str| certificates.path(name).display().to_string();
    let mut settings = format!("hba_file = '{}'\n", file("pg_hba.conf"));
    if let Some(pair) = pair {
        let (certificate, key) = (file(&format!("{pair}.crt")), file(&format!("{pair}.key")));
        let lines = [
            "ssl = on",
            "ssl_cert_file = 'CRT'",
            "ssl_key_file = 'KEY'",
            "",
        ];
        let lines = lines.join("\n");
        settings.push_str(&lines.replace("CRT", &certificate).replace("KEY", &key));
    }
    let cluster = Cluster::start(&settings);
    cluster
        .connect("postgres")
        .run("CREATE ROLE tls_only LOGIN; CREATE ROLE plain_only LOGIN");
    cluster
}

/// Our TLS with servers, with a CA or without.
pub(crate) fn tls(mode: ServerTlsMode, ca: Option<&Path>) -> Tls {
    let client = ClientTls {
        mode: ClientTlsMode::Disable,
        certificate: None,
        key: None,
        client_ca: None,
    };
    let server = ServerTls {
        mode,
        ca: ca.map(Path::to_owned),
    };
    Tls::load(&client, &server).expect("the files are good")
}

fn host(name: &str, port: u16) -> Host {
    Host {
        host: name.to_owned(),
        port,
        dbname: "postgres".to_owned(),
        tls: None,
    }
}

fn credentials(user: &str, password: Option<&str>) -> Credentials {
    Credentials {
        user: user.to_owned(),
        password: password.map(Secret::read),
    }
}

/// What came of a connection: `tls`, `plain`, or the code of why there is none.
fn outcome(result: &Result<Connected, ConnectError>) -> String {
    match result {
        Ok(connected) if connected.stream.is_tls() => "tls".to_owned(),
        Ok(_) => "plain".to_owned(),
        Err(ConnectError::Refused { code, .. }) => format!("refused {code}"),
        Err(ConnectError::Fault(fault)) => format!("fault {}", fault.code),
    }
}

#[tokio::test]
async fn every_method_of_authentication_logs_in() {
    let certificates = Certificates::make();
    let cluster = cluster(&certificates, Some("server"));
    // What only md5 takes: the secret of app_md5 as pg_authid has it.
    let secret = cluster
        .connect("postgres")
        .value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app_md5'");
    let verifier = cluster
        .connect("postgres")
        .value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app_scram'");
    for (mode, kind) in [
        (ServerTlsMode::Disable, "plain"),
        (ServerTlsMode::Require, "tls"),
    ] {
        let tls = tls(mode, None);
        for (user, password, expect) in [
            ("app", None, kind),
            ("app_scram", Some("scram-secret"), kind),
            ("app_md5", Some("md5-secret"), kind),
            ("app_md5", Some(secret.as_str()), kind),
            ("app_plain", Some("plain-secret"), kind),
            ("app_scram", Some("wrong"), "refused 28P01"),
            ("app_md5", Some("wrong"), "refused 28P01"),
            ("app_plain", Some("wrong"), "refused 28P01"),
            ("app_scram", None, "fault 28000"),
            ("app_scram", Some(verifier.as_str()), "fault 28000"),
            ("nobody", None, "refused 28000"),
        ] {
            let host = host("127.0.0.1", cluster.port);
            let credentials = credentials(user, password);
            let found = connect(&host, &tls.connector, &credentials, &[], TIMEOUT).await;
            assert_eq!(
                outcome(&found),
                expect,
                "{user} {password:?} {mode:?} {found:?}"
            );
        }
    }
}

/// What a login comes to in a mode, with a CA, by a name, at a port, as a user.
async fn login(
    mode: ServerTlsMode,
    ca: Option<&Path>,
    name: &str,
    port: u16,
    user: &str,
) -> String {
    let tls = tls(mode, ca);
    let credentials = credentials(user, None);
    outcome(
        &connect(
            &host(name, port),
            &tls.connector,
            &credentials,
            &[],
            TIMEOUT,
        )
        .await,
    )
}

#[tokio::test]
async fn every_sslmode_does_what_libpq_does() {
    use ServerTlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let certificates = Certificates::make();
    let with_tls = cluster(&certificates, Some("server"));
    let (ca, other) = (certificates.path("ca.crt"), certificates.path("other.crt"));
    let (ca, other) = (Some(ca.as_path()), Some(other.as_path()));
    for (mode, ca, name, expect) in [
        (Disable, None, "127.0.0.1", "plain"),
        (Prefer, None, "127.0.0.1", "tls"),
        (Require, None, "127.0.0.1", "tls"),
        (Require, ca, "127.0.0.1", "tls"),
        (VerifyCa, ca, "localhost", "tls"),
        (VerifyFull, ca, "127.0.0.1", "tls"),
        // The certificate is not for this name.
        (VerifyFull, ca, "localhost", "fault 08001"),
        // Another authority: only `prefer` goes on, without TLS.
        (Prefer, other, "127.0.0.1", "plain"),
        (Require, other, "127.0.0.1", "fault 08001"),
        (VerifyCa, other, "127.0.0.1", "fault 08001"),
        (VerifyFull, other, "127.0.0.1", "fault 08001"),
    ] {
        let found = login(mode, ca, name, with_tls.port, "app").await;
        assert_eq!(found, expect, "{mode:?} {ca:?} {name}");
    }
    // What pg_hba.conf allows.
    for (mode, user, expect) in [
        (Prefer, "plain_only", "plain"),
        (Prefer, "tls_only", "tls"),
        (Require, "plain_only", "refused 28000"),
        (Disable, "tls_only", "refused 28000"),
    ] {
        let found = login(mode, None, "127.0.0.1", with_tls.port, user).await;
        assert_eq!(found, expect, "{mode:?} {user}");
    }
    let without = cluster(&certificates, None);
    for (mode, ca, expect) in [
        (Disable, None, "plain"),
        (Prefer, None, "plain"),
        (Require, None, "fault 08001"),
        (VerifyFull, ca, "fault 08001"),
    ] {
        let found = login(mode, ca, "127.0.0.1", without.port, "app").await;
        assert_eq!(found, expect, "{mode:?}");
    }
}

#[tokio::test]
async fn certificates_as_the_documentation_makes_them_are_verified() {
    let certificates = Certificates::make();
    certificates.make_self_signed("localhost");
    certificates.make_version_one("localhost");
    for (pair, authority) in [("self", "self.crt"), ("v1", "root.crt")] {
        let cluster = cluster(&certificates, Some(pair));
        let ca = certificates.path(authority);
        let wrong = certificates.path("ca.crt");
        for (mode, ca, name, expect) in [
            (ServerTlsMode::VerifyFull, &ca, "localhost", "tls"),
            (ServerTlsMode::VerifyCa, &ca, "127.0.0.1", "tls"),
            (ServerTlsMode::VerifyFull, &ca, "127.0.0.1", "fault 08001"),
            (ServerTlsMode::VerifyCa, &wrong, "localhost", "fault 08001"),
        ] {
            let tls = tls(mode, Some(ca));
            let host = host(name, cluster.port);
            let credentials = credentials("app_scram", Some("scram-secret"));
            let found = connect(&host, &tls.connector, &credentials, &[], TIMEOUT).await;
            assert_eq!(outcome(&found), expect, "{pair} {mode:?} {name} {found:?}");
        }
    }
}

#[tokio::test]
async fn a_login_brings_what_the_server_says_of_itself() {
    let certificates = Certificates::make();
    let cluster = cluster(&certificates, Some("server"));
    let folder = cluster
        .connect("postgres")
        .value("SHOW unix_socket_directories");
    for (name, mode) in [
        (folder.as_str(), ServerTlsMode::Require),
        ("127.0.0.1", ServerTlsMode::Require),
    ] {
        let tls = tls(mode, None);
        let host = host(name, cluster.port);
        let settings = [("application_name", "herd"), ("search_path", "a, b")];
        let connected = connect(
            &host,
            &tls.connector,
            &credentials("app", None),
            &settings,
            TIMEOUT,
        )
        .await
        .expect("the server lets app in");
        // A Unix socket has no TLS, whatever the mode.
        assert_eq!(connected.stream.is_tls(), name == "127.0.0.1");
        let tls = connected.stream.tls_description();
        assert!(tls.is_none_or(|tls| tls.starts_with("TLSv1.3/TLS_")));
        let value = |wanted: &str| {
            let mut parameters = connected.parameters.iter();
            parameters
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("application_name"), Some("herd"));
        assert_eq!(value("server_encoding"), Some("UTF8"));
        let pid = connected.cancel.pid;
        let name = cluster.connect("postgres").value(&format!(
            "SELECT application_name FROM pg_stat_activity WHERE pid = {pid}"
        ));
        assert_eq!(name, "herd");
    }
}

#[tokio::test]
async fn what_runs_is_cancelled() {
    let certificates = Certificates::make();
    let cluster = cluster(&certificates, Some("server"));
    for mode in [ServerTlsMode::Disable, ServerTlsMode::Require] {
        let tls = tls(mode, None);
        let host = host("127.0.0.1", cluster.port);
        let mut connected = connect(
            &host,
            &tls.connector,
            &credentials("app", None),
            &[],
            TIMEOUT,
        )
        .await
        .expect("the server lets app in");
        let query = b"Q\0\0\0\x1aSELECT pg_sleep(1000)\0";
        connected.stream.write_all(query).await.expect("sent");
        connected.stream.flush().await.expect("sent");
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'",
            connected.cancel.pid
        );
        let mut observer = cluster.connect("postgres");
        while observer.value(&running) == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel(&connected.cancel, &tls.connector, TIMEOUT)
            .await
            .expect("the server takes the request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"Z\0\0\0\x05I") {
            let read = connected.stream.read_buf(&mut answer);
            let count = tokio::time::timeout(TIMEOUT, read)
                .await
                .expect("an answer");
            assert_ne!(count.expect("open"), 0);
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("57014"), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_is_relayed_or_named_by_shard() {
    let certificates = Certificates::make();
    let cluster = cluster(&certificates, None);
    let tls = tls(ServerTlsMode::Prefer, None);
    let mut host = host("127.0.0.1", cluster.port);
    host.dbname = "none".to_owned();
    let error = connect(
        &host,
        &tls.connector,
        &credentials("app", None),
        &[],
        TIMEOUT,
    )
    .await
    .expect_err("there is no such database");
    assert_eq!(outcome(&Err(error.clone())), "refused 3D000");
    let fault = error.into_fault("shard_1");
    assert_eq!(fault.code.as_str(), "3D000");
    assert_eq!(
        fault.message,
        "shard \"shard_1\": database \"none\" does not exist"
    );

    drop(cluster);
    host.dbname = "postgres".to_owned();
    let error = connect(
        &host,
        &tls.connector,
        &credentials("app", None),
        &[],
        TIMEOUT,
    )
    .await
    .expect_err("nothing listens");
    let fault = error.into_fault("shard_1");
    assert_eq!(fault.code.as_str(), "08001");
    assert_eq!(
        fault.message,
        "shard \"shard_1\": could not connect to server"
    );
    let detail = fault.detail.expect("where");
    assert!(
        detail.contains(&format!("127.0.0.1:{}", host.port)),
        "{detail}"
    );
}
