//! The kernels for NVIDIA GPUs: CUDA sources in this crate's `cuda/`, compiled when they are first needed, for the card
//! that is there and the exact problem, and kept on disk.
//!
//! Nothing of CUDA is needed to build. NVRTC (the compiler) and libcuda (the driver) are opened at run time: a machine
//! without them gets an [`Error`] of one sentence, and computes on the CPU.
//!
//! ```text
//! Variant (source + macros)  --Nvrtc-->  Cubin  --Cache-->  disk
//!                                          \---Driver-->  Kernel, launched on a stream of the caller's
//! ```

mod cache;
pub mod conv;
mod driver;
mod error;
mod graph;
mod launch;
mod library;
mod memory;
pub mod norm;
mod nvrtc;
mod orders;
mod resources;
pub mod scan;
mod source;
pub mod sums;

pub use cache::{Cache, Kept, Origin, key};
pub use driver::{Device, Driver, Module};
pub use error::{Error, Result};
pub use graph::{Graph, Stream};
pub(crate) use launch::line;
pub use launch::{Address, Card, Launch, Pass, aligned};
pub use memory::Memory;
pub use nvrtc::{Cubin, Nvrtc, VARIABLE};
pub use orders::{Tables, Visits};
pub use resources::Resources;
pub use source::{CHECKED, Element, HEADERS, Source, Variant};

/// Every variant that the tests compile for every architecture of [`CHECKED`].
pub fn checked() -> Vec<Variant> {
    let mut variants = Vec::new();
    for element in Element::ALL {
        variants.extend((2..=4).filter_map(|taps| conv::variant(element, taps).ok()));
        variants.push(norm::gated(element));
        for layer in [false, true] {
            variants.push(norm::add(element, layer, false));
            if element != Element::F32 {
                variants.push(norm::add(element, layer, true));
            }
        }
        variants.push(sums::variant(element));
    }
    for elements in scan::Elements::ALL {
        // States per channel: VMamba's, Mamba's, and as many as Mamba-2 has.
        for states in [1, 16, 64] {
            let of = [scan::forward, scan::backward, scan::step];
            variants.extend(of.map(|variant| variant(elements, states)));
        }
    }
    variants.extend(crate::ssd::cuda::checked());
    variants
}
