//! Points and graphs.

use super::Published;

pub(super) static TABLE: &[Published] = &[];
