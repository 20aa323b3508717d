//! `selective_scan` on a GPU: the variants of `cuda/selective_scan*.cu`. Arguments and launches are in
//! [`crate::scan::cuda`].

use super::{Element, Source, Variant};
use crate::scan::cuda::Tiling;

/// The forward.
pub static FORWARD: Source = Source {
    name: "selective_scan_forward.cu",
    text: include_str!("../../cuda/selective_scan_forward.cu"),
    kernels: &["selective_scan_states", "selective_scan_carry", "selective_scan_forward"],
};

/// The backward.
pub static BACKWARD: Source = Source {
    name: "selective_scan_backward.cu",
    text: include_str!("../../cuda/selective_scan_backward.cu"),
    kernels: &["selective_scan_states_backward", "selective_scan_carry_backward", "selective_scan_backward"],
};

/// One token.
pub static STEP: Source = Source {
    name: "selective_scan_step.cu",
    text: include_str!("../../cuda/selective_scan_step.cu"),
    kernels: &["selective_scan_step"],
};

/// The forward for N = `states`.
pub fn forward(element: Element, states: usize) -> Variant {
    Variant { source: &FORWARD, macros: Tiling::forward(states).macros(element as u32) }
}

/// The backward for N = `states`.
pub fn backward(element: Element, states: usize) -> Variant {
    Variant { source: &BACKWARD, macros: Tiling::backward(states).macros(element as u32) }
}

/// One token for N = `states`.
pub fn step(element: Element, states: usize) -> Variant {
    Variant { source: &STEP, macros: Tiling::forward(states).macros(element as u32) }
}
