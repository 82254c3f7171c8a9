//! The first packet of a connection, on any bytes.

use pgherd::wire::startup::{MINOR_MAX, PACKET_MAX, Packet, body_length, decode};

/// The bytes behind the length word.
pub fn run(data: &[u8]) {
    if let Some((word, _)) = data.split_first_chunk::<4>()
        && let Ok(length) = body_length(*word)
    {
        assert!((4..=PACKET_MAX).contains(&length));
    }
    let Ok(Packet::Startup(message)) = decode(data) else {
        return;
    };
    assert!(message.minor <= MINOR_MAX);
    assert!(!message.user.is_empty() && !message.database.is_empty());
    assert!(message.unknown_options.is_empty() || message.negotiate);
    // Settings from `options` may have names that mean something else in a packet of their own.
    let is_plain = |name: &str| {
        !matches!(name, "" | "user" | "database" | "options" | "replication")
            && !name.starts_with("_pq_.")
    };
    if !message.parameters.iter().all(|(name, _)| is_plain(name)) {
        return;
    }
    let mut packet = data[..4].to_vec();
    let own = [
        ("user".to_owned(), message.user.clone()),
        ("database".to_owned(), message.database.clone()),
    ];
    for (name, value) in own.iter().chain(&message.parameters) {
        for text in [name, value] {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
    }
    packet.push(0);
    let Ok(Packet::Startup(again)) = decode(&packet) else {
        panic!("what was read is not read again");
    };
    assert_eq!(
        (again.user, again.database, again.parameters),
        (message.user, message.database, message.parameters)
    );
}
