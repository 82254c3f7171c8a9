//! What is written byte for byte, and read back.

use super::{
    Authentication, Column, Status, authentication, backend_key_data, command_complete, data_row,
    error_fields, fault, negotiate_protocol_version, ready_for_query, row_description,
};
use crate::error::{Fault, SqlState};
use proptest::prelude::{any, proptest};

fn check(write: impl FnOnce(&mut Vec<u8>), expect: &[u8]) {
    let mut out = Vec::new();
    write(&mut out);
    assert_eq!(
        out.escape_ascii().to_string(),
        expect.escape_ascii().to_string()
    );
}

#[test]
fn writes_messages_byte_for_byte() {
    check(|out| ready_for_query(out, Status::Failed), b"Z\0\0\0\x05E");
    check(|out| command_complete(out, "BEGIN"), b"C\0\0\0\nBEGIN\0");
    check(
        |out| backend_key_data(out, 1, &[2; 4]),
        b"K\0\0\0\x0c\0\0\0\x01\x02\x02\x02\x02",
    );
    check(
        |out| data_row(out, [Some(b"a".as_slice()), None].into_iter()),
        b"D\0\0\0\x0f\0\x02\0\0\0\x01a\xff\xff\xff\xff",
    );
    check(
        |out| row_description(out, &[Column::text("n")]),
        b"T\0\0\0\x1a\0\x01n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
    );
    check(
        |out| negotiate_protocol_version(out, 2, &["_pq_.x".to_owned()]),
        b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0",
    );
    check(
        |out| authentication(out, Authentication::Sasl { mechanisms: &["X"] }),
        b"R\0\0\0\x0b\0\0\0\x0aX\0\0",
    );
}

#[test]
fn fields_of_a_fault_are_read_back() {
    let mut out = Vec::new();
    let sent = Fault::fatal(SqlState::INVALID_PASSWORD, "no\0pe").hint("Try again.");
    fault(&mut out, &sent);
    let fields = error_fields(&out[5..]);
    assert_eq!(fields.severity(), "FATAL");
    assert_eq!(fields.code(), "28P01");
    assert_eq!(fields.message(), "no");
    assert_eq!(fields.field(b'H'), Some(b"Try again.".as_slice()));
    assert_eq!(fields.field(b'D'), None);
}

proptest! {
    #[test]
    fn any_error_body_is_read(body: Vec<u8>, letter in any::<u8>()) {
        let fields = error_fields(&body);
        let _ = (fields.field(letter), fields.code().len(), fields.message().len());
    }
}
