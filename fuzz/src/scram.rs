//! The server's side of SCRAM, with a client that sends anything.

use pgherd::wire::scram::{Exchange, NONCE, Verifier};

/// Of the password "pencil".
const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// The first byte chooses the exchange; then the mechanism, the first and the last message, each in a line.
pub fn run(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let mut lines = rest.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (mechanism, first, last) = (line(), line(), line());
    for text in [first, last] {
        let verifier = std::str::from_utf8(text).ok().and_then(Verifier::parse);
        if let Some(verifier) = verifier {
            assert!(Verifier::parse(&verifier.to_string()) == Some(verifier));
        }
    }
    let verifier = Verifier::parse(VERIFIER).expect("it is one");
    let is_doomed = flags & 1 != 0;
    let binding = (flags & 2 != 0).then(|| vec![7; 32]);
    let exchange = Exchange::new(verifier, is_doomed, binding, [1; NONCE]);
    match exchange.first(mechanism, first) {
        Ok((challenge, reply)) => {
            assert!(reply.starts_with("r=") && reply.ends_with(",i=4096"));
            match challenge.last(last) {
                Ok(proof) => assert!(!is_doomed && proof.starts_with("v=")),
                Err(error) => assert!(error.fault().hint.is_some()),
            }
        }
        Err(error) => assert!(error.fault().hint.is_some()),
    }
}
