//! What framing costs: walking the headers of rows, giving a Bind another name, reading a server's bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pgherd::wire::frame::{self, FrameError, Piece, Reader, Split};
use pgherd::wire::frontend;

/// Bytes read from a socket at once.
const CHUNK: usize = 64 * 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let rows = rows();
    let mut group = criterion.benchmark_group("64 kB of rows");
    group.throughput(Throughput::Bytes(u64::try_from(rows.len()).unwrap()));
    group.bench_function("header walk", |bench| {
        bench.iter(|| {
            let mut rest = black_box(rows.as_slice());
            let mut count = 0_usize;
            while let Ok(Split::Whole(frame, after)) = frame::split(rest, u32::MAX) {
                count += usize::from(frame.tag == b'D');
                rest = after;
            }
            count
        });
    });
    for (name, size) in [
        ("reader, at once", CHUNK),
        ("reader, chunks of 1,400", 1_400),
    ] {
        group.bench_function(name, |bench| {
            let mut out = Vec::with_capacity(CHUNK);
            bench.iter(|| {
                out.clear();
                let mut reader = Reader::default();
                for chunk in black_box(&rows).chunks(size) {
                    let passes = |tag| matches!(tag, b'D' | b'd');
                    reader
                        .feed(chunk, u32::MAX, passes, |piece| {
                            out.extend_from_slice(match piece {
                                Piece::Whole(frame) => frame.bytes,
                                Piece::Start { bytes, .. } | Piece::More { bytes, .. } => bytes,
                            });
                            Ok::<(), FrameError>(())
                        })
                        .unwrap();
                }
                out.len()
            });
        });
    }
    group.finish();
    let bind = bind();
    criterion.bench_function("Bind under another name, six parameters", |bench| {
        let mut out = Vec::with_capacity(256);
        bench.iter(|| {
            out.clear();
            let read = frontend::bind(black_box(&bind)).unwrap();
            let parts = [read.portal, b"\0", b"pgherd_1_2_3\0", read.after_names];
            frame::write(&mut out, b'B', &parts);
            out.len()
        });
    });
    criterion.final_summary();
}

/// Rows of six columns.
fn rows() -> Vec<u8> {
    let mut rows = Vec::new();
    let mut row = vec![0, 6];
    for _ in 0..6 {
        row.extend_from_slice(&8_u32.to_be_bytes());
        row.extend_from_slice(b"12345678");
    }
    while rows.len() + row.len() + frame::HEADER <= CHUNK {
        frame::write(&mut rows, b'D', &[&row]);
    }
    rows
}

/// The body of a Bind with six parameters.
fn bind() -> Vec<u8> {
    let mut body = b"\0statement\0\0\0\0\x06".to_vec();
    for _ in 0..6 {
        body.extend_from_slice(&8_u32.to_be_bytes());
        body.extend_from_slice(b"12345678");
    }
    body.extend_from_slice(b"\0\0");
    body
}
