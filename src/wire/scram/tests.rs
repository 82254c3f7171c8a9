//! SCRAM against RFC 7677's vectors, against postgres-protocol's client, and against liars.

use super::{Exchange, ITERATIONS, ScramError, Verifier, hash_password, mechanisms};
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::proptest;

const PLAIN: &[u8] = b"SCRAM-SHA-256";
const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";

fn exchange(binding: Option<&[u8]>) -> Exchange {
    // Few iterations: the client's side is slow without optimisation.
    let iterations = NonZeroU32::new(16).unwrap();
    let verifier = Verifier::derive("pencil", b"salt", iterations);
    Exchange::new(verifier, false, binding.map(<[u8]>::to_vec), [7; 18])
}

/// Runs a whole exchange with a client that knows `password`; whether both sides are content.
fn run(
    exchange: Exchange,
    mechanism: &[u8],
    password: &str,
    client: ChannelBinding,
) -> Result<bool, ScramError> {
    let mut client = ScramSha256::new(password.as_bytes(), client);
    let (challenge, reply) = exchange.first(mechanism, client.message())?;
    client.update(reply.as_bytes()).unwrap();
    let last = challenge.last(client.message())?;
    Ok(client.finish(last.as_bytes()).is_ok())
}

/// RFC 7677 §3. Its server nonce is not of our making, so the challenge is put together by hand.
#[test]
fn rfc_7677_vectors_hold() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
    let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let challenge = super::Challenge {
        verifier: Verifier::derive("pencil", &salt, ITERATIONS),
        is_doomed: false,
        channel: "biws".to_owned(),
        nonce: nonce.to_owned(),
        signed: format!("{bare},r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"),
    };
    let proof = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let last = challenge.last(proof.as_bytes());
    assert_eq!(
        last.unwrap(),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

#[test]
fn a_client_with_the_password_is_let_in() {
    let ok = Ok(true);
    assert_eq!(
        run(
            exchange(None),
            PLAIN,
            "pencil",
            ChannelBinding::unsupported()
        ),
        ok
    );
    assert_eq!(
        run(
            exchange(None),
            PLAIN,
            "pencil",
            ChannelBinding::unrequested()
        ),
        ok
    );
    assert_eq!(
        run(
            exchange(Some(b"d")),
            PLAIN,
            "pencil",
            ChannelBinding::unsupported()
        ),
        ok
    );
    let bound = ChannelBinding::tls_server_end_point(b"d".to_vec());
    assert_eq!(run(exchange(Some(b"d")), PLUS, "pencil", bound), ok);
}

#[test]
fn a_client_without_it_is_not() {
    let wrong = Err(ScramError::WrongProof);
    assert_eq!(
        run(exchange(None), PLAIN, "pen", ChannelBinding::unsupported()),
        wrong
    );
    let doomed = Exchange::new(
        Verifier::derive("pencil", b"s", ITERATIONS),
        true,
        None,
        [0; 18],
    );
    assert_eq!(
        run(doomed, PLAIN, "pencil", ChannelBinding::unsupported()),
        wrong
    );
    let mock = Exchange::new(Verifier::mock("u", b"secret"), true, None, [0; 18]);
    assert_eq!(
        run(mock, PLAIN, "pencil", ChannelBinding::unsupported()),
        wrong
    );
}

#[test]
fn downgrades_and_relays_are_seen() {
    let offered = || exchange(Some(b"d"));
    let check = |found, expect| assert_eq!(found, Err(expect));
    check(
        run(offered(), PLAIN, "pencil", ChannelBinding::unrequested()),
        ScramError::Downgrade,
    );
    let relayed = ChannelBinding::tls_server_end_point(b"other".to_vec());
    check(
        run(offered(), PLUS, "pencil", relayed),
        ScramError::BindingMismatch,
    );
    let bound = || ChannelBinding::tls_server_end_point(b"d".to_vec());
    check(
        run(exchange(None), PLUS, "pencil", bound()),
        ScramError::Mechanism,
    );
    check(
        run(offered(), PLAIN, "pencil", bound()),
        ScramError::Malformed("unexpected channel binding data"),
    );
    check(
        run(offered(), PLUS, "pencil", ChannelBinding::unsupported()),
        ScramError::Malformed("no channel binding data"),
    );
}

#[test]
fn first_messages_are_checked() {
    let check = |message: &str, expect| {
        let found = exchange(Some(b"d"))
            .first(PLAIN, message.as_bytes())
            .map(|_| ());
        assert_eq!(found, Err(expect), "{message}");
    };
    check("", ScramError::Malformed("no header"));
    check("n,a=x,n=,r=abc", ScramError::AuthorizationIdentity);
    check("n,,m=x,n=,r=abc", ScramError::Extension);
    check("n,,n=,r=", ScramError::Nonce);
    check("n,,n=,r=a c", ScramError::Nonce);
    check("n,,r=abc", ScramError::Malformed("attribute expected"));
    check(
        "q,,n=,r=abc",
        ScramError::Malformed("unknown channel binding flag"),
    );
    let unique = exchange(Some(b"d"))
        .first(PLUS, b"p=tls-unique,,n=,r=abc")
        .map(|_| ());
    assert_eq!(unique, Err(ScramError::BindingType));
}

#[test]
fn a_changed_nonce_is_refused() {
    let (challenge, _) = exchange(None).first(PLAIN, b"n,,n=,r=abc").unwrap();
    let proof = STANDARD.encode([0; 32]);
    let found = challenge.last(format!("c=biws,r=abc,p={proof}").as_bytes());
    assert_eq!(found, Err(ScramError::Nonce));
}

#[test]
fn verifiers_are_written_as_in_pg_authid() {
    let text = hash_password("pencil", b"0123456789abcdef", ITERATIONS);
    let verifier = Verifier::parse(&text).unwrap();
    assert_eq!(verifier.to_string(), text);
    assert!(verifier.is_of("pencil"));
    assert!(!verifier.is_of("pen"));
    // SASLprep: a soft hyphen is mapped to nothing, a no-break space to a space.
    assert!(Verifier::derive("a\u{ad}b\u{a0}c", b"s", ITERATIONS).is_of("ab c"));
    for wrong in [
        "",
        "SCRAM-SHA-256$0:c2FsdA==$YQ==:YQ==",
        "SCRAM-SHA-256$1:!$a:b",
    ] {
        assert_eq!(Verifier::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_mock_is_steady_and_differs_between_users() {
    assert_eq!(Verifier::mock("a", b"s"), Verifier::mock("a", b"s"));
    assert_ne!(Verifier::mock("a", b"s"), Verifier::mock("b", b"s"));
    assert_eq!(Verifier::mock("a", b"s").salt, super::salt_for("a", b"s"));
    assert_eq!(mechanisms(true), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
}

/// `message` with the byte at `at` replaced; `None` when that changes nothing.
fn changed(message: &[u8], at: usize, byte: u8) -> Option<Vec<u8>> {
    let mut changed = message.to_vec();
    let place = changed.get_mut(at)?;
    if *place == byte {
        return None;
    }
    *place = byte;
    Some(changed)
}

proptest! {
    #[test]
    fn a_changed_message_never_passes(at in 0..100_usize, byte in 0x20..0x7f_u8, is_bound: bool) {
        let (binding, mechanism, client) = if is_bound {
            let digest = b"d".to_vec();
            (Some(b"d".as_slice()), PLUS, ChannelBinding::tls_server_end_point(digest))
        } else {
            (None, PLAIN, ChannelBinding::unsupported())
        };
        let mut client = ScramSha256::new(b"pencil", client);
        let first = client.message().to_vec();
        let (challenge, reply) = exchange(binding).first(mechanism, &first).unwrap();
        client.update(reply.as_bytes()).unwrap();
        if let Some(last) = changed(client.message(), at, byte) {
            assert!(challenge.last(&last).is_err());
        }
        // The proof of a first message that arrived changed is over another exchange.
        if let Some(first) = changed(&first, at, byte)
            && let Ok((challenge, _)) = exchange(binding).first(mechanism, &first)
        {
            assert!(challenge.last(client.message()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(first: Vec<u8>, last: Vec<u8>, text: String) {
        for mechanism in [PLAIN, PLUS] {
            drop(Exchange::new(Verifier::mock("u", b"s"), true, Some(vec![1]), [0; 18]).first(mechanism, &first));
        }
        let (challenge, _) = Exchange::new(Verifier::mock("u", b"s"), true, None, [0; 18])
            .first(PLAIN, b"n,,n=,r=abc")
            .unwrap();
        assert!(challenge.last(&last).is_err());
        drop(Verifier::parse(&text));
    }
}
