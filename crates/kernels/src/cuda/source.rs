//! The sources, and what makes a kernel of them.

/// Headers that a source may include.
pub const HEADERS: &[(&str, &str)] = &[
    ("common.cuh", include_str!("../../cuda/common.cuh")),
    ("rows.cuh", include_str!("../../cuda/rows.cuh")),
    ("selective_scan.cuh", include_str!("../../cuda/selective_scan.cuh")),
    ("teams.cuh", include_str!("../../cuda/teams.cuh")),
    ("fragments.cuh", include_str!("../../cuda/fragments.cuh")),
    ("ssd.cuh", include_str!("../../cuda/ssd.cuh")),
    ("ssd_walk.cuh", include_str!("../../cuda/ssd_walk.cuh")),
];

/// A source file of kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its file's name.
    pub name: &'static str,
    /// What stands in it.
    pub text: &'static str,
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

/// A source with everything that is exact to a problem: what one compilation takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The source.
    pub source: &'static Source,
    /// Macros and their values, in a fixed order.
    pub macros: Vec<(&'static str, u32)>,
}

impl Variant {
    /// The macros as a compiler takes them.
    pub fn definitions(&self) -> impl Iterator<Item = String> {
        self.macros.iter().map(|(name, value)| format!("-D{name}={value}"))
    }
}

impl std::fmt::Display for Variant {
    /// As in `norm DTYPE=1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.source.name.trim_end_matches(".cu"))?;
        self.macros.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// Element type of the activations that a kernel reads and writes, by its number in the sources (`DTYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32 = 0,
    /// bfloat16.
    Bf16 = 1,
    /// IEEE half precision.
    F16 = 2,
}

impl Element {
    /// Every one.
    pub const ALL: [Element; 3] = [Element::F32, Element::Bf16, Element::F16];

    /// Bytes of an element.
    pub fn size(self) -> usize {
        if self == Element::F32 { 4 } else { 2 }
    }
}

/// The architectures that every variant is compiled for in the tests: Ampere, Hopper, Blackwell.
pub const CHECKED: [u32; 3] = [80, 90, 100];
