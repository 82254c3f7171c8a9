//! Our framing and decoders against pgwire's encoders and decoders, on random valid messages.
//!
//! pgwire gets one exact message at a time: it reads past the end of a frame otherwise.

use bytes::{Bytes, BytesMut};
use pgherd::wire::frame::{FrameError, Piece, Reader, Split, split};
use pgherd::wire::frontend::{self, Target};
use pgwire::messages::copy::{CopyData, CopyDone};
use pgwire::messages::data::DataRow;
use pgwire::messages::extendedquery::{Bind, Close, Describe, Execute, Parse};
use pgwire::messages::response::{CommandComplete, ReadyForQuery, TransactionStatus};
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{DecodeContext, Message, ProtocolVersion};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).expect("it is valid");
    buffer.to_vec()
}

/// pgwire's reading of one whole message.
fn decoded<M: Message>(bytes: &[u8]) -> M {
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    context.awaiting_frontend_ssl = false;
    context.awaiting_frontend_startup = false;
    let mut buffer = BytesMut::from(bytes);
    M::decode(&mut buffer, &context)
        .expect("it is valid")
        .expect("it is whole")
}

fn body(bytes: &[u8]) -> &[u8] {
    match split(bytes, u32::MAX) {
        Ok(Split::Whole(frame, [])) => frame.body,
        other => panic!("not one message: {other:?}"),
    }
}

fn name() -> impl Strategy<Value = Option<String>> {
    option::of("[a-z_ü]{1,12}")
}

fn parse() -> impl Strategy<Value = Parse> {
    (name(), "[ -~é]{0,80}", vec(any::<u32>(), 0..5))
        .prop_map(|(name, query, types)| Parse::new(name, query, types))
}

fn bind() -> impl Strategy<Value = Bind> {
    let value = option::of(vec(any::<u8>(), 0..40).prop_map(Bytes::from));
    let formats = || vec(0_i16..2, 0..4);
    (name(), name(), vec(value, 0..6), 0_usize..3, formats()).prop_flat_map(
        |(portal, statement, values, kind, results)| {
            let count = [0, 1, values.len()][kind];
            vec(0_i16..2, count).prop_map(move |formats| {
                Bind::new(
                    portal.clone(),
                    statement.clone(),
                    formats,
                    values.clone(),
                    results.clone(),
                )
            })
        },
    )
}

fn target() -> impl Strategy<Value = (u8, Option<String>)> {
    (prop_oneof![Just(b'S'), Just(b'P')], name())
}

fn row() -> impl Strategy<Value = DataRow> {
    vec(any::<u8>(), 0..3000).prop_map(|data| DataRow::new(BytesMut::from(&data[..]), 1))
}

/// Any message of either side, as its bytes.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![
        Just(TransactionStatus::Idle),
        Just(TransactionStatus::Transaction),
        Just(TransactionStatus::Error)
    ];
    prop_oneof![
        parse().prop_map(|message| encoded(&message)),
        bind().prop_map(|message| encoded(&message)),
        target().prop_map(|(kind, name)| encoded(&Describe::new(kind, name))),
        target().prop_map(|(kind, name)| encoded(&Close::new(kind, name))),
        (name(), 0_i32..9).prop_map(|(name, rows)| encoded(&Execute::new(name, rows))),
        "[ -~]{0,200}".prop_map(|text| encoded(&Query::new(text))),
        vec(any::<u8>(), 0..500).prop_map(|data| encoded(&CopyData::new(Bytes::from(data)))),
        Just(encoded(&CopyDone::new())),
        row().prop_map(|message| encoded(&message)),
        "[A-Z ]{1,20}".prop_map(|tag| encoded(&CommandComplete::new(tag))),
        status.prop_map(|status| encoded(&ReadyForQuery::new(status))),
        ("[a-z]{1,9}", "[a-z]{0,9}")
            .prop_map(|(name, value)| encoded(&ParameterStatus::new(name, value))),
    ]
}

fn text(name: Option<&String>) -> &[u8] {
    name.map_or(b"", |name| name.as_bytes())
}

proptest! {
    #[test]
    fn any_chopping_gives_back_the_messages(
        messages in vec(message(), 1..12),
        sizes in vec(1_usize..400, 1..30),
    ) {
        let stream = messages.concat();
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        let mut whole = Vec::new();
        let mut rest = stream.as_slice();
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = *sizes.next().expect("it goes round");
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            let passes = |tag| matches!(tag, b'D' | b'd');
            let fed = reader.feed(chunk, u32::MAX, passes, |piece| {
                match piece {
                    Piece::Whole(frame) => {
                        whole.push(frame.bytes.to_vec());
                        seen.extend_from_slice(frame.bytes);
                    }
                    Piece::Start { bytes, .. } | Piece::More { bytes, .. } => {
                        seen.extend_from_slice(bytes);
                    }
                }
                Ok::<(), FrameError>(())
            });
            prop_assert!(fed.is_ok());
        }
        prop_assert!(reader.is_between_messages());
        prop_assert_eq!(seen, stream);
        prop_assert!(whole.iter().all(|message| messages.contains(message)));
    }

    #[test]
    fn parse_is_read_alike(message in parse()) {
        let bytes = encoded(&message);
        let theirs: Parse = decoded(&bytes);
        let ours = frontend::parse(body(&bytes)).expect("it is valid");
        prop_assert_eq!(ours.name, text(theirs.name.as_ref()));
        prop_assert_eq!(ours.query, theirs.query.as_bytes());
        prop_assert_eq!(ours.types().collect::<Vec<_>>(), theirs.type_oids);
    }

    #[test]
    fn bind_is_read_alike(message in bind()) {
        let bytes = encoded(&message);
        let theirs: Bind = decoded(&bytes);
        let ours = frontend::bind(body(&bytes)).expect("it is valid");
        prop_assert_eq!(ours.portal, text(theirs.portal_name.as_ref()));
        prop_assert_eq!(ours.statement, text(theirs.statement_name.as_ref()));
        let formats = &theirs.parameter_format_codes;
        let is_binary = |index: usize| match formats.as_slice() {
            [all] => *all == 1,
            each => each.get(index) == Some(&1),
        };
        let expected: Vec<_> = theirs
            .parameters
            .iter()
            .enumerate()
            .map(|(index, value)| (is_binary(index), value.as_deref()))
            .collect();
        prop_assert_eq!(ours.values().collect::<Vec<_>>(), expected);
        let results = &theirs.result_column_format_codes;
        prop_assert_eq!(ours.result_formats().is_text(), results.iter().all(|code| *code == 0));
    }

    #[test]
    fn targets_and_execute_are_read_alike((kind, name) in target(), rows in 0_i32..1000) {
        let expected = |kind, name| match kind {
            b'S' => Target::Statement(name),
            _ => Target::Portal(name),
        };
        let bytes = encoded(&Describe::new(kind, name.clone()));
        let theirs: Describe = decoded(&bytes);
        let name_read = text(theirs.name.as_ref());
        prop_assert_eq!(
            frontend::describe(body(&bytes)),
            Ok(expected(theirs.target_type, name_read))
        );
        let bytes = encoded(&Close::new(kind, name.clone()));
        let theirs: Close = decoded(&bytes);
        let name_read = text(theirs.name.as_ref());
        prop_assert_eq!(
            frontend::close(body(&bytes)),
            Ok(expected(theirs.target_type, name_read))
        );
        let bytes = encoded(&Execute::new(name, rows));
        let theirs: Execute = decoded(&bytes);
        let ours = frontend::execute(body(&bytes)).expect("it is valid");
        prop_assert_eq!(ours.portal, text(theirs.name.as_ref()));
        prop_assert_eq!(ours.max_rows, u32::try_from(theirs.max_rows).expect("positive"));
    }
}
