//! Servers that are none, lie, or never stop: the login ends soon, with a fault, and in bounded memory.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use pgherd::config::{Host, Secret, ServerTlsMode};
use pgherd::server::connect::{ConnectError, Credentials, connect};

use super::servers::tls;

const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// Logs in to a server that does `serve` with each connection; returns the fault.
async fn fault(mode: ServerTlsMode, timeout: Duration, serve: fn(TcpStream)) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let host = Host {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().expect("bound").port(),
        dbname: "d".to_owned(),
        tls: None,
    };
    // Ends with the process: it waits for connections that do not come.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.expect("a connection"));
        }
    });
    let credentials = Credentials {
        user: "u".to_owned(),
        password: Some(Secret::read("pw")),
    };
    let tls = tls(mode, None);
    match connect(&host, &tls.connector, &credentials, &[], timeout).await {
        Err(ConnectError::Fault(fault)) => (fault.code.to_string(), fault.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The fault of a server that answers with these bytes, whatever it is sent, and closes.
macro_rules! answers {
    ($bytes:expr, $code:expr, $text:expr) => {
        let (code, text) = fault(
            ServerTlsMode::Disable,
            Duration::from_secs(20),
            |mut stream| {
                drop(stream.write_all($bytes));
                drop(stream.shutdown(std::net::Shutdown::Write));
                // Until the client has seen it: closing earlier could reset the connection.
                drop(std::io::copy(&mut stream, &mut std::io::sink()));
            },
        )
        .await;
        assert_eq!(code, $code, "{text}");
        assert!(text.contains($text), "{text}");
    };
}

#[tokio::test]
async fn what_is_no_login_is_a_fault() {
    answers!(b"", "08006", "closed the connection");
    answers!(b"R\0\0", "08006", "closed the connection");
    answers!(b"HTTP/1.1 400 Bad Request\r\n\r\n", "08001", "a length of");
    answers!(b"R\0\0\0\x03", "08001", "a length of 3");
    answers!(b"R\x7f\xff\xff\xff", "08001", "a length of");
    answers!(b"R\0\0\0\x04", "08001", "too short");
    answers!(b"D\0\0\0\x06\0\0", "08001", "no place in a login");
    answers!(b"Z\0\0\0\x05I", "08001", "no place in a login");
    answers!(&[OK, OK].concat(), "08001", "no place in a login");
    answers!(
        &[OK, b"Z\0\0\0\x05T"].concat(),
        "08001",
        "no place in a login"
    );
    answers!(
        &[OK, b"Z\0\0\0\x05IZ\0\0\0\x05I"].concat(),
        "08001",
        "more follows"
    );
    answers!(&[OK, b"S\0\0\0\x06xy"].concat(), "08001", "ParameterStatus");
    answers!(&[OK, b"K\0\0\0\x06xy"].concat(), "08001", "BackendKeyData");
    answers!(b"R\0\0\0\x08\0\0\0\x07", "08001", "not supported");
    answers!(b"R\0\0\0\x0a\0\0\0\x0a\0\0", "08001", "no SASL mechanism");
    answers!(
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x08\0\0\0\0",
        "08001",
        "wrong order"
    );
    answers!(
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x0b\0\0\0\x0br=x",
        "08001",
        "SCRAM"
    );
}

#[tokio::test]
async fn endless_notices_end() {
    let (code, text) = fault(
        ServerTlsMode::Disable,
        Duration::from_secs(20),
        |mut stream| {
            let notice = [b"N\0\0\x10\0M".as_slice(), &[b'x'; 4090], b"\0"].concat();
            while stream.write_all(&notice).is_ok() {}
        },
    )
    .await;
    assert_eq!(code, "08001", "{text}");
    assert!(text.contains("too much"), "{text}");
}

#[tokio::test]
async fn silence_ends() {
    for mode in [ServerTlsMode::Disable, ServerTlsMode::Require] {
        let (code, text) = fault(mode, Duration::from_millis(50), |stream| {
            std::mem::forget(stream);
        })
        .await;
        assert_eq!(code, "08001", "{text}");
        assert!(text.contains("in time"), "{text}");
    }
}

#[tokio::test]
async fn tls_is_asked_for_in_earnest() {
    let second = Duration::from_secs(20);
    // An error text in place of S or N could be anyone's.
    let (code, text) = fault(ServerTlsMode::Require, second, |mut stream| {
        drop(stream.write_all(b"E\0\0\0\x20SFATAL\0M go away"));
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    })
    .await;
    assert_eq!(code, "08001", "{text}");
    assert!(text.contains("neither S nor N"), "{text}");
    // Plain bytes behind the S are not taken for the server's.
    let (code, text) = fault(ServerTlsMode::Require, second, |mut stream| {
        drop(stream.write_all(&[b"S", OK].concat()));
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    })
    .await;
    assert_eq!(code, "08001", "{text}");
    assert!(text.contains("handshake failed"), "{text}");
}
