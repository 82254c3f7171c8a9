//! Points at which a test kills the proxy: `PGHERD_FAILPOINT=point:n` ends the process when the point is passed
//! for the nth time. Only builds with debug assertions have them.

/// Ends the process here if it is to be.
#[cfg(debug_assertions)]
pub fn pass(point: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PGHERD_FAILPOINT").ok()?;
        let (point, count) = text.rsplit_once(':')?;
        Some((point.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && wanted == point
        && PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1) == *count
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub const fn pass(_point: &str) {}
