//! What of the cases before one is needed for it to go wrong.

use super::statement::Case;

/// The fewest cases before the last, in their order, with which `fails` still holds: all of them are
/// dropped, or as many as halving finds. `fails` starts anew each time.
pub(super) fn before(cases: &[Case], fails: &mut dyn FnMut(&[Case]) -> bool) -> Option<Vec<Case>> {
    let (last, before) = cases.split_last()?;
    let with = |some: &[Case]| [some, std::slice::from_ref(last)].concat();
    if fails(&with(&[])) {
        return Some(with(&[]));
    }
    if !fails(cases) {
        return None;
    }
    let mut kept = before.to_vec();
    let mut size = kept.len().div_ceil(2);
    let mut left = 60;
    while size > 0 && left > 0 {
        let mut at = 0;
        while at < kept.len() && left > 0 {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            left -= 1;
            if fails(&with(&fewer)) {
                kept = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    Some(with(&kept))
}
