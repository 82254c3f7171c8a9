//! Startup packets byte by byte: direct TLS, protocol 3.2, cancel requests, smuggled and slow bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use pgherd::config::{AuthMethod, ClientTlsMode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::certificates::Certificates;
use super::clients::{options, tls};
use super::frontend::{Frontend, Options};

const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0ada\0\0";
const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";

fn start(method: AuthMethod, certificates: &Certificates) -> Frontend {
    Frontend::start(options(tls(certificates, ClientTlsMode::Prefer), method))
}

fn open(frontend: &Frontend) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", frontend.port)).expect("it listens");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a socket");
    stream
}

/// TLS on a socket, with or without ALPN.
fn encrypt(
    stream: TcpStream,
    certificates: &Certificates,
    alpn: Option<&[u8]>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certificates.path("ca.crt")).expect("a certificate");
    roots.add(ca).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let name = "127.0.0.1".try_into().expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    StreamOwned::new(session, stream)
}

fn send(stream: &mut impl Write, bytes: &[u8]) {
    stream.write_all(bytes).expect("sent");
    stream.flush().expect("sent");
}

fn receive(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("as much as expected");
    bytes
}

/// What comes until the end of the connection, however it ends.
fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn direct_tls_needs_alpn() {
    let certificates = Certificates::make();
    let frontend = start(AuthMethod::Trust, &certificates);
    let mut stream = encrypt(open(&frontend), &certificates, Some(b"postgresql"));
    send(&mut stream, STARTUP);
    assert_eq!(receive(&mut stream, OK.len()), OK);

    let mut stream = encrypt(open(&frontend), &certificates, None);
    send(&mut stream, STARTUP);
    assert_eq!(rest(&mut stream), "");
    frontend.wait_for("without ALPN");

    let mut stream = encrypt(open(&frontend), &certificates, Some(b"http/1.1"));
    assert!(
        stream
            .write_all(STARTUP)
            .and_then(|()| stream.read(&mut [0]))
            .is_err()
    );
}

#[test]
fn encryption_is_negotiated_in_any_order() {
    let certificates = Certificates::make();
    let frontend = start(AuthMethod::Trust, &certificates);
    let mut stream = open(&frontend);
    send(&mut stream, GSS);
    assert_eq!(receive(&mut stream, 1), b"N");
    send(&mut stream, SSL);
    assert_eq!(receive(&mut stream, 1), b"S");
    let mut stream = encrypt(stream, &certificates, None);
    send(&mut stream, GSS);
    assert!(rest(&mut stream).contains("unsupported frontend protocol 1234.5680"));

    let plain = Frontend::start(options(
        tls(&certificates, ClientTlsMode::Disable),
        AuthMethod::Trust,
    ));
    let mut stream = open(&plain);
    send(&mut stream, SSL);
    assert_eq!(receive(&mut stream, 1), b"N");
    send(&mut stream, GSS);
    assert_eq!(receive(&mut stream, 1), b"N");
    send(&mut stream, SSL);
    assert!(rest(&mut stream).contains("unsupported frontend protocol 1234.5679"));
}

#[test]
fn smuggled_bytes_are_refused() {
    let certificates = Certificates::make();
    for request in [SSL, GSS] {
        let frontend = start(AuthMethod::Trust, &certificates);
        let mut stream = open(&frontend);
        send(&mut stream, &[request, STARTUP].concat());
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.contains("08P01"), "{answer}");
        frontend.wait_for("received unencrypted data after encryption request");
    }
}

#[test]
fn versions_are_negotiated() {
    let certificates = Certificates::make();
    let frontend = start(AuthMethod::Trust, &certificates);
    // Version, what comes before AuthenticationOk, the length of the secret.
    for (version, negotiation, secret) in [
        (0, None, 4),
        (1, None, 4),
        (2, None, 32),
        (9, Some(b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0".as_slice()), 32),
    ] {
        let mut stream = open(&frontend);
        let mut startup = STARTUP.to_vec();
        startup[7] = version;
        send(&mut stream, &startup);
        let negotiation = negotiation.unwrap_or_default();
        assert_eq!(
            receive(&mut stream, negotiation.len()),
            negotiation,
            "3.{version}"
        );
        assert_eq!(receive(&mut stream, OK.len()), OK);
        loop {
            let head = receive(&mut stream, 5);
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let body = receive(&mut stream, usize::try_from(length).expect("small") - 4);
            if head[0] == b'K' {
                assert_eq!(body.len(), 4 + secret, "3.{version}");
                break;
            }
        }
    }
    let mut stream = open(&frontend);
    send(&mut stream, b"\0\0\0\x08\0\x02\0\0");
    assert!(rest(&mut stream).contains("unsupported frontend protocol 2.0"));
}

#[test]
fn cancel_requests_are_taken_with_and_without_tls() {
    let certificates = Certificates::make();
    let frontend = Frontend::start(options(
        tls(&certificates, ClientTlsMode::Require),
        AuthMethod::Trust,
    ));
    let short = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x05abcd";
    let mut stream = open(&frontend);
    send(&mut stream, short);
    assert_eq!(rest(&mut stream), "");
    frontend.wait_for("cancel 5 4 tls=false");
    let long = [
        b"\0\0\0\x2c\x04\xd2\x16\x2e\0\0\0\x06".as_slice(),
        &[b'x'; 32],
    ]
    .concat();
    let mut stream = open(&frontend);
    send(&mut stream, SSL);
    assert_eq!(receive(&mut stream, 1), b"S");
    let mut stream = encrypt(stream, &certificates, Some(b"postgresql"));
    send(&mut stream, &long);
    // The end is TLS's own, or libpq takes the request for failed.
    assert_eq!(stream.read(&mut [0]).expect("close_notify"), 0);
    frontend.wait_for("cancel 6 32 tls=true");
}

#[test]
fn what_is_no_startup_packet_is_hung_up_on() {
    let certificates = Certificates::make();
    let frontend = start(AuthMethod::Trust, &certificates);
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"\0\0\0\0",
        b"\0\0\0\x07\0\x03\0",
        b"\x16\x03\x01\0\x05hello",
        b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x05",
    ] {
        let mut stream = open(&frontend);
        send(&mut stream, bytes);
        let answer = rest(&mut stream);
        assert!(!answer.starts_with('E'), "{answer}");
    }
}

#[test]
fn the_slow_are_sent_away() {
    let certificates = Certificates::make();
    let frontend = Frontend::start(Options {
        timeout: Duration::from_millis(100),
        ..options(tls(&certificates, ClientTlsMode::Prefer), AuthMethod::Scram)
    });
    let mut silent = open(&frontend);
    let mut half = open(&frontend);
    send(&mut half, &STARTUP[..10]);
    let mut unproven = open(&frontend);
    send(&mut unproven, STARTUP);
    assert_eq!(rest(&mut silent), "");
    assert_eq!(rest(&mut half), "");
    let answer = rest(&mut unproven);
    assert!(answer.contains("57014"), "{answer}");
}

#[test]
fn messages_out_of_place_are_refused() {
    let certificates = Certificates::make();
    let frontend = start(AuthMethod::Plain, &certificates);
    for (message, expect) in [
        (b"Q\0\0\0\x05\0".as_slice(), "expected password response"),
        (b"p\0\0\0\x03", "expected password response"),
        (b"p\x7f\xff\xff\xff", "expected password response"),
        (b"p\0\0\0\x04", "invalid string in message"),
        (b"p\0\0\0\x06\xff\0", "password authentication failed"),
        (b"p\0\0\0\x05\0", "password authentication failed"),
    ] {
        let mut stream = open(&frontend);
        send(&mut stream, STARTUP);
        receive(&mut stream, OK.len());
        send(&mut stream, message);
        let answer = rest(&mut stream);
        assert!(answer.contains(expect), "{answer}");
    }
}
