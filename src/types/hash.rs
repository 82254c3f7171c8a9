//! PostgreSQL's own partition hash, so that every placement can be checked in SQL on any server.
//!
//! Follows `src/common/hashfn.c` (`hash_bytes_extended`, `hash_bytes_uint32_extended`: Bob Jenkins'
//! lookup3 with a 64-bit seed) and `partbounds.c` (`compute_partition_hash_value`). All arithmetic
//! wraps. Bytes are read as a little-endian server reads them, which is what every supported
//! platform is.
//!
//! *Invariant:* `row hash mod n` is the remainder that `satisfies_hash_partition` tests.

/// `HASH_PARTITION_SEED` of PostgreSQL's `partition.h`.
pub const PARTITION_SEED: u64 = 0x7A5B_2236_7996_DCFD;

struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: u32, seed: u64) -> State {
        let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
        let mut state = State {
            a: start,
            b: start,
            c: start,
        };
        if seed != 0 {
            state.a = state.a.wrapping_add(high(seed));
            state.b = state.b.wrapping_add(low(seed));
            state.mix();
        }
        state
    }

    fn add(&mut self, words: [u32; 3]) {
        let [a, b, c] = words;
        self.a = self.a.wrapping_add(a);
        self.b = self.b.wrapping_add(b);
        self.c = self.c.wrapping_add(c);
    }

    fn mix(&mut self) {
        let State { a, b, c } = self;
        step(a, c, b, 4);
        step(b, a, c, 6);
        step(c, b, a, 8);
        step(a, c, b, 16);
        step(b, a, c, 19);
        step(c, b, a, 4);
    }

    fn finish(mut self) -> u64 {
        let State { a, b, c } = &mut self;
        last(c, *b, 14);
        last(a, *c, 11);
        last(b, *a, 25);
        last(c, *b, 16);
        last(a, *c, 4);
        last(b, *a, 14);
        last(c, *b, 24);
        (u64::from(self.b) << 32) | u64::from(self.c)
    }
}

fn step(x: &mut u32, y: &mut u32, z: &mut u32, by: u32) {
    *x = x.wrapping_sub(*y) ^ y.rotate_left(by);
    *y = y.wrapping_add(*z);
}

fn last(x: &mut u32, y: u32, by: u32) {
    *x = (*x ^ y).wrapping_sub(y.rotate_left(by));
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

fn high(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or_default()
}

/// `hash_any_extended`: of text, uuid and the digits of a numeric.
pub fn bytes(input: &[u8], seed: u64) -> u64 {
    // Longer inputs than a PostgreSQL value can be (1 GB) wrap, as the C code's int would.
    let length = low(u64::try_from(input.len()).unwrap_or_default());
    let mut state = State::new(length, seed);
    let (chunks, tail) = input.as_chunks::<12>();
    for [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] in chunks {
        state.add([
            u32::from_le_bytes([*a0, *a1, *a2, *a3]),
            u32::from_le_bytes([*b0, *b1, *b2, *b3]),
            u32::from_le_bytes([*c0, *c1, *c2, *c3]),
        ]);
        state.mix();
    }
    // The lowest byte of the last word is kept for the length, so the tail's third word is shifted.
    let mut words = [0_u32; 3];
    for (at, byte) in tail.iter().enumerate() {
        let (word, shift) = match at {
            0..4 => (0, at),
            4..8 => (1, at.wrapping_sub(4)),
            _ => (2, at.wrapping_sub(7)),
        };
        let shift = u32::try_from(shift).unwrap_or_default().wrapping_mul(8);
        if let Some(word) = words.get_mut::<usize>(word) {
            *word |= u32::from(*byte).wrapping_shl(shift);
        }
    }
    state.add(words);
    state.finish()
}

/// `hash_uint32_extended`.
pub fn uint32(value: u32, seed: u64) -> u64 {
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(value);
    state.finish()
}

/// `hashint8extended`, with which int2, int4 and date agree; `timestamp_hash_extended` is the same.
pub fn int(value: i64, seed: u64) -> u64 {
    let bits = value.cast_unsigned();
    let (low, high) = (low(bits), high(bits));
    uint32(low ^ if value >= 0 { high } else { !high }, seed)
}

/// `hash_combine64`: folds the hash of one more key column into that of the row.
pub fn combine(row: u64, column: u64) -> u64 {
    row ^ column
        .wrapping_add(0x49a0_f4dd_15e5_a8e3)
        .wrapping_add(row << 54)
        .wrapping_add(row >> 7)
}

#[cfg(test)]
mod tests {
    use super::{PARTITION_SEED, bytes, combine, int};

    #[test]
    fn agrees_with_published_vectors() {
        let check = |value: i64, expect: i64| {
            assert_eq!(int(value, PARTITION_SEED).cast_signed(), expect, "{value}");
        };
        check(0, -4_403_592_609_991_167_795);
        check(1, 5_968_994_663_651_403_477);
        check(42, 7_363_975_540_656_877_951);
        check(-1, -5_017_072_347_659_237_694);
        let check = |value: &[u8], expect: i64| {
            assert_eq!(bytes(value, PARTITION_SEED).cast_signed(), expect);
        };
        check(b"", -5_700_645_584_453_517_373);
        check(b"a", -6_705_225_459_120_232_837);
        check(b"tenant-42", -6_279_421_137_222_391_794);
        let mut uuid = [0; 16];
        uuid[15] = 1;
        check(&uuid, 5_260_903_147_514_422_602);
    }

    #[test]
    fn agrees_with_real_partitions() {
        for (value, partition) in [
            (-1, 1),
            (0, 0),
            (1, 0),
            (2, 2),
            (42, 2),
            (1_000_000, 3),
            (i64::MAX, 2),
        ] {
            let row = combine(0, int(value, PARTITION_SEED));
            assert_eq!(row % 4, partition, "{value}");
        }
    }

    /// Lines of `function <TAB> value <TAB> hash`, written by PostgreSQL.
    #[test]
    fn agrees_with_goldens() {
        let golden = include_str!("../../tests/golden/placement/hash.txt");
        let mut count = 0;
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let mut parts = line.split('\t');
            let (function, value) = (parts.next().unwrap(), parts.next().unwrap());
            let expect: i64 = parts.next().unwrap().parse().unwrap();
            let hash = match function {
                "hashtextextended" => bytes(value.as_bytes(), PARTITION_SEED),
                "hashint2extended" | "hashint4extended" | "hashint8extended" => {
                    int(value.parse().unwrap(), PARTITION_SEED)
                }
                _ => continue,
            };
            assert_eq!(hash.cast_signed(), expect, "{line}");
            count += 1;
        }
        assert!(count > 100, "{count} vectors");
    }
}
