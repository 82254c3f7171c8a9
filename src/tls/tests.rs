//! Loading of files: what is missing or wrong is named.

use super::{Tls, TlsError};
use crate::config::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode};
use std::fs;
use std::path::PathBuf;

const NO_SERVER_TLS: ServerTls = ServerTls {
    mode: ServerTlsMode::Prefer,
    ca: None,
};

fn client(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> ClientTls {
    ClientTls {
        mode: ClientTlsMode::Require,
        certificate,
        key,
        client_ca,
    }
}

#[test]
fn faults_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let first = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let second = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
    fs::write(path("a.crt"), first.cert.pem()).unwrap();
    fs::write(path("a.key"), first.signing_key.serialize_pem()).unwrap();
    fs::write(path("b.key"), second.signing_key.serialize_pem()).unwrap();
    fs::write(path("empty"), "").unwrap();
    let check = |certificate: &str, key: &str, ca: Option<&str>, expect: &[&str]| {
        let client = client(Some(path(certificate)), Some(path(key)), ca.map(path));
        let found = match Tls::load(&client, &NO_SERVER_TLS) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found.is_empty(), expect.is_empty(), "{found}");
        for word in expect {
            assert!(found.contains(word), "{found}");
        }
    };
    check("a.crt", "a.key", Some("a.crt"), &[]);
    check("none", "a.key", None, &["could not read", "none"]);
    check("empty", "a.key", None, &["empty", "no certificate"]);
    check("a.crt", "a.crt", None, &["could not read", "a.crt"]);
    check("a.crt", "b.key", None, &["a.crt", "b.key", "do not serve"]);
    check(
        "a.crt",
        "a.key",
        Some("empty"),
        &["empty", "no certificate"],
    );
}

#[test]
fn modes_need_their_files() {
    let found = Tls::load(&client(None, None, None), &NO_SERVER_TLS).map(|_| ());
    assert_eq!(found, Err(TlsError::NoCertificate));
    let server = ServerTls {
        mode: ServerTlsMode::VerifyFull,
        ca: None,
    };
    let disabled = ClientTls {
        mode: ClientTlsMode::Disable,
        ..client(None, None, None)
    };
    let found = Tls::load(&disabled, &server).map(|_| ());
    assert_eq!(found, Err(TlsError::NoAuthority));
    let tls = Tls::load(&disabled, &NO_SERVER_TLS).unwrap();
    assert!(tls.connector.connector(ServerTlsMode::Disable).is_none());
    assert!(tls.connector.connector(ServerTlsMode::Require).is_some());
    assert!(tls.connector.connector(ServerTlsMode::VerifyCa).is_none());
}
