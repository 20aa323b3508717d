//! One token of the selective scan, in place on a state the caller keeps (decoding).

use super::{Scan, length};
use crate::{Error, Isa, Orders, Pool, Result, ViewMut};

/// Advances `state` (B, K, D, N) by one token: `scan` has `tokens == 1`, its orders and initial state are ignored.
/// Writes y (B, 1, K, D).
///
/// # Errors
/// Shapes that do not fit; nothing is written then.
pub fn selective_scan_step(
    scan: &Scan,
    state: &mut [f32],
    y: ViewMut,
    isa: Isa,
    pool: &dyn Pool,
) -> Result<()> {
    if scan.tokens != 1 {
        return Err(Error::Shape(format!("a step takes 1 token, found {}", scan.tokens)));
    }
    length("state", state, scan.state_len())?;
    let before = state.to_vec();
    let table = vec![0; scan.directions];
    let orders = Orders { table: &table, resets: None, steps: 1, per_sample: false };
    let scan = Scan { orders, initial_state: Some(&before), ..*scan };
    let out = super::Forward { y, final_state: Some(state), checkpoints: None };
    super::forward(&scan, out, isa, pool)
}
