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

/// What the rows of a scan are held in, and their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elements {
    /// u, z, B, C and y.
    pub rows: Element,
    /// delta: as the others, or f32.
    pub delta: Element,
}

impl Elements {
    /// Every one: one type for all, and f32 step sizes beside bf16 and f16.
    pub const ALL: [Elements; 5] = [
        Elements::of(Element::F32),
        Elements::of(Element::Bf16),
        Elements::of(Element::F16),
        Elements { rows: Element::Bf16, delta: Element::F32 },
        Elements { rows: Element::F16, delta: Element::F32 },
    ];

    /// One type for all.
    pub const fn of(element: Element) -> Elements {
        Elements { rows: element, delta: element }
    }

    /// The macros that say so.
    fn macros(self) -> Vec<(&'static str, u32)> {
        let mut macros = vec![("DTYPE", self.rows as u32)];
        if self.delta != self.rows {
            macros.push(("DELTA_F32", 1));
        }
        macros
    }
}

fn variant(source: &'static Source, elements: Elements, tiling: Tiling) -> Variant {
    Variant { source, macros: [elements.macros(), tiling.macros()].concat() }
}

/// The forward for N = `states`.
pub fn forward(elements: Elements, states: usize) -> Variant {
    variant(&FORWARD, elements, Tiling::forward(states))
}

/// The backward for N = `states`.
pub fn backward(elements: Elements, states: usize) -> Variant {
    variant(&BACKWARD, elements, Tiling::backward(states))
}

/// One token for N = `states`.
pub fn step(elements: Elements, states: usize) -> Variant {
    variant(&STEP, elements, Tiling::forward(states))
}
