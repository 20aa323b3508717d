//! What the CUDA kernels of the SSD (`cuda/ssd*`) are launched with: their macros, grids and arguments. Only arithmetic:
//! nothing here needs a GPU.
//!
//! ```text
//! forward    [states, carry,] forward                                    (the first two if an order is cut into spans)
//! backward   [states_backward, carry_backward,] walk_backward, backward
//! step       step
//! ```
//!
//! Rows go to their tokens if every order visits each token once and directions share none; else each step writes its own
//! row in f32, and a token's rows are summed afterwards. The parts of dA, dD and the bias are summed over (batch, chunks),
//! those of dB and dC over their parts, by [`crate::cuda::sums`].

mod arguments;

pub use arguments::{Arguments, Output, Rows, StepArguments};

use crate::{
    Error, Result,
    cuda::{Card, Element, Pass, Source, Variant, line},
};

/// The forward.
pub static FORWARD: Source = Source {
    name: "ssd_forward.cu",
    text: include_str!("../../../cuda/ssd_forward.cu"),
    kernels: &["ssd_forward", "ssd_states", "ssd_carry"],
};

/// The backward.
pub static BACKWARD: Source = Source {
    name: "ssd_backward.cu",
    text: include_str!("../../../cuda/ssd_backward.cu"),
    kernels: &["ssd_backward", "ssd_walk_backward", "ssd_states_backward", "ssd_carry_backward"],
};

/// One token.
pub static STEP: Source =
    Source { name: "ssd_step.cu", text: include_str!("../../../cuda/ssd_step.cu"), kernels: &["ssd_step"] };

/// Threads of a block of `ssd_step`.
const STEP_THREADS: usize = 128;

/// Threads of a multiprocessor that keep it busy with a walk, as far as registers allow.
const BUSY: usize = 384;

/// Sizes of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// B.
    pub batch: usize,
    /// L.
    pub tokens: usize,
    /// K.
    pub directions: usize,
    /// H.
    pub heads: usize,
    /// P, 1 to 128.
    pub headdim: usize,
    /// G.
    pub groups: usize,
    /// N, 1 to 256.
    pub states: usize,
    /// T.
    pub steps: usize,
}

/// How a block divides its work; see `ssd.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Element type of the activations.
    pub element: Element,
    /// P.
    pub headdim: usize,
    /// N.
    pub states: usize,
    /// Q: 32, 64 or (without a backward) 128.
    pub chunk: usize,
    /// Channels of a slab: whole heads, or a piece of one.
    pub width: usize,
}

/// `n`, counted up to a multiple of 16.
fn padded(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// Channels of a slab of at most `most` (a multiple of 16).
fn width(headdim: usize, heads: usize, most: usize) -> usize {
    let head = padded(headdim);
    if head <= most {
        (most / head).min(heads).max(1) * head
    } else {
        padded(head.div_ceil(head.div_ceil(most)))
    }
}

impl Tiling {
    /// The tiling that a card with `shared` bytes of shared memory a block has room for, of the forward and, if `backward`,
    /// of the backward too: both must have the same, since checkpoints lie as it says.
    ///
    /// The first of: chunks of 64 steps by slabs of 64 channels, 64 by 32, 32 by 64, 32 by 32, 32 by 16. Between chunks a
    /// step costs 2 P N multiply-adds whatever Q is, inside one Q (P + N) / 2; checkpoints take N / Q of an activation.
    ///
    /// # Errors
    /// Sizes that the kernels do not take, or a card with too little shared memory for the last of them.
    pub fn new(element: Element, sizes: &Sizes, shared: usize, backward: bool) -> Result<Tiling> {
        let Sizes { headdim, states, heads, groups, .. } = *sizes;
        for (name, size, most) in [("headdim", headdim, 128), ("d_state", states, 256)] {
            if !(1..=most).contains(&size) {
                return Err(Error::Shape(format!("{name} is {size}; the SSD on a GPU takes 1 to {most}")));
            }
        }
        if groups == 0 || !heads.is_multiple_of(groups) {
            return Err(Error::Shape(format!("{heads} heads do not divide into {groups} groups")));
        }
        let tiling = |(chunk, most)| Tiling {
            element,
            headdim,
            states,
            chunk,
            width: width(headdim, heads / groups, most),
        };
        let fits = |tiling: &Tiling| {
            tiling.walk_shared() <= shared && (!backward || tiling.backward_shared() <= shared)
        };
        let all = [(64, 64), (64, 32), (32, 64), (32, 32), (32, 16)].map(tiling);
        all.into_iter().find(fits).ok_or_else(|| {
            let least = all[all.len() - 1];
            let needed = if backward { least.backward_shared().max(least.walk_shared()) } else { least.walk_shared() };
            Error::Shape(format!(
                "the GPU has {shared} bytes of shared memory a block, the SSD with headdim {headdim} and d_state {states} \
                 needs {needed}"
            ))
        })
    }

    fn macros(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("DTYPE", self.element as u32),
            ("HEADDIM", self.headdim as u32),
            ("D_STATE", self.states as u32),
            ("CHUNK", self.chunk as u32),
            ("WIDTH", self.width as u32),
        ]
    }

    /// The kernels of the forward.
    pub fn forward(&self) -> Variant {
        Variant { source: &FORWARD, macros: self.macros() }
    }

    /// The kernels of the backward.
    pub fn backward(&self) -> Variant {
        Variant { source: &BACKWARD, macros: self.macros() }
    }

    /// Heads of a slab.
    pub fn slab_heads(&self) -> usize {
        (self.width / padded(self.headdim)).max(1)
    }

    /// Slabs of a head; 1 where a slab holds heads.
    pub fn pieces(&self) -> usize {
        if padded(self.headdim) <= self.width { 1 } else { self.headdim.div_ceil(self.width) }
    }

    /// Values of a slab's states.
    pub fn slab_len(&self) -> usize {
        self.width * padded(self.states)
    }

    /// Bytes of a value of a checkpoint: `operand` in `fragments.cuh`.
    pub fn operand(&self) -> usize {
        if self.element == Element::Bf16 { 2 } else { 4 }
    }

    /// Threads of a walk.
    pub fn walkers(&self) -> usize {
        2 * self.chunk
    }

    /// Threads of the kernel of gradients.
    pub fn threads(&self) -> usize {
        4 * self.chunk
    }

    /// Bytes of a tile.
    fn tile(&self, rows: usize, columns: usize) -> usize {
        rows * (columns * self.operand() + 16)
    }

    /// Bytes of `Decays` and `Steps` in `ssd.cuh`.
    fn decays(&self) -> usize {
        self.slab_heads() * 4 * (7 * self.chunk + 1) + 12 * self.chunk
    }

    /// Dynamic shared memory of a walk: `Walk` in `ssd.cuh`.
    pub fn walk_shared(&self) -> usize {
        let states = padded(self.states);
        self.tile(self.chunk, self.width)
            + 2 * self.tile(self.chunk, states)
            + self.tile(self.width, states)
            + self.decays()
            // `Sequence` and `Slab`, and up to 8 bytes before them.
            + 56
    }

    /// Dynamic shared memory of the kernel of gradients: `Gradients` in `ssd_backward.cu`.
    pub fn backward_shared(&self) -> usize {
        let states = padded(self.states);
        let tiles = 2
            * (self.tile(self.chunk, states)
                + self.tile(self.chunk, self.width)
                + self.tile(self.width, states));
        let sums = self.slab_heads() * 4 * ((self.chunk / 16 + 6) * self.chunk + self.threads() / 32);
        tiles + self.tile(self.chunk, self.chunk) + 4 * self.threads() + self.decays() + sums
    }
}

/// How a problem is cut so that the whole card works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Chunks of an order.
    pub chunks: usize,
    /// Parts of an order that blocks walk at once.
    pub spans: usize,
    /// Chunks of each.
    pub span_chunks: usize,
    /// Slabs of a group.
    pub slabs: usize,
    /// Partial sums of dB and dC of a group.
    pub parts: usize,
    /// Slabs that a block of the backward adds into one part.
    pub strip: usize,
}

impl Cut {
    /// For a card. Spans cost a second pass over x, dt and B, of a third of the work: a card that is half full is as fast
    /// without. Parts of dB and dC take at most an activation in f32.
    pub fn new(sizes: &Sizes, tiling: &Tiling, card: Card) -> Cut {
        let processors = card.multiprocessors as usize;
        let per_group = sizes.heads / sizes.groups;
        let slabs = slabs(tiling, per_group);
        let rows = sizes.batch * sizes.directions * sizes.groups;
        let room = processors * BUSY / tiling.walkers();
        let walks = (rows * slabs).max(1);
        let spans = if 2 * walks >= room { 1 } else { room.div_ceil(walks) };
        let blocks = (rows * sizes.steps.div_ceil(tiling.chunk)).max(1);
        let most = (per_group * sizes.headdim / (2 * sizes.states)).max(1);
        Cut::into(sizes, tiling, spans, (2 * processors).div_ceil(blocks).min(most))
    }

    /// Into about `spans` and `parts`.
    pub fn into(sizes: &Sizes, tiling: &Tiling, spans: usize, parts: usize) -> Cut {
        let chunks = sizes.steps.div_ceil(tiling.chunk).max(1);
        let span_chunks = chunks.div_ceil(spans.clamp(1, chunks));
        let slabs = slabs(tiling, sizes.heads / sizes.groups);
        // Pieces of a head stay together.
        let strip = slabs.div_ceil(parts.clamp(1, slabs.max(1))).next_multiple_of(tiling.pieces()).max(1);
        Cut {
            chunks,
            spans: chunks.div_ceil(span_chunks),
            span_chunks,
            slabs,
            parts: slabs.div_ceil(strip),
            strip,
        }
    }

    /// Values of the checkpoints, and of `behind`, which are `operand` bytes each.
    pub fn checkpoint_len(&self, sizes: &Sizes, tiling: &Tiling) -> usize {
        self.slab_values(sizes, tiling) * self.chunks
    }

    /// Values of `carry`, in f32.
    pub fn carry_len(&self, sizes: &Sizes, tiling: &Tiling) -> usize {
        self.slab_values(sizes, tiling) * self.spans
    }

    fn slab_values(&self, sizes: &Sizes, tiling: &Tiling) -> usize {
        sizes.batch * sizes.directions * sizes.groups * self.slabs * tiling.slab_len()
    }
}

/// Slabs of a group of `heads` heads.
fn slabs(tiling: &Tiling, heads: usize) -> usize {
    heads.div_ceil(tiling.slab_heads()) * tiling.pieces()
}

/// Launches of the forward, in order.
///
/// # Errors
/// Too large for a launch.
pub fn forward(sizes: &Sizes, tiling: &Tiling, cut: &Cut) -> Result<Vec<Pass>> {
    walks(sizes, tiling, cut, ["ssd_states", "ssd_carry", "ssd_forward"])
}

/// Launches of the backward, in order, without the sums of the parts.
///
/// # Errors
/// Too large for a launch.
pub fn backward(sizes: &Sizes, tiling: &Tiling, cut: &Cut) -> Result<Vec<Pass>> {
    let mut passes =
        walks(sizes, tiling, cut, ["ssd_states_backward", "ssd_carry_backward", "ssd_walk_backward"])?;
    let blocks = sizes.batch * sizes.directions * cut.chunks * sizes.groups * cut.parts;
    passes.push(("ssd_backward", line(blocks, tiling.threads(), tiling.backward_shared())?));
    Ok(passes)
}

fn walks(
    sizes: &Sizes,
    tiling: &Tiling,
    cut: &Cut,
    [states, carry, walk]: [&'static str; 3],
) -> Result<Vec<Pass>> {
    let slabs = sizes.batch * sizes.directions * sizes.groups * cut.slabs;
    let walker = line(slabs * cut.spans, tiling.walkers(), tiling.walk_shared())?;
    let mut passes = Vec::new();
    if cut.spans > 1 {
        let blocks = (slabs * tiling.slab_len()).div_ceil(tiling.walkers());
        passes.extend([(states, walker), (carry, line(blocks, tiling.walkers(), 0)?)]);
    }
    passes.push((walk, walker));
    Ok(passes)
}

/// The kernel of one token.
pub fn step_variant(element: Element, headdim: usize, states: usize) -> Variant {
    let macros = vec![("DTYPE", element as u32), ("HEADDIM", headdim as u32), ("D_STATE", states as u32)];
    Variant { source: &STEP, macros }
}

/// The launch of one token.
///
/// # Errors
/// Too large for a launch.
pub fn step(batch: usize, channels: usize, states: usize) -> Result<Pass> {
    let lanes = states.div_ceil(4).next_power_of_two().min(32);
    let mut launch = line(channels.div_ceil(STEP_THREADS / lanes), STEP_THREADS, 0)?;
    launch.grid[1] = batch.min(65535) as u32;
    Ok(("ssd_step", launch))
}

/// Every variant that the tests compile: released sizes, the smallest and largest, heads together and in pieces.
pub fn checked() -> Vec<Variant> {
    let sizes = |heads, headdim, states| Sizes {
        batch: 1,
        tokens: 2048,
        directions: 1,
        heads,
        headdim,
        groups: 1,
        states,
        steps: 2048,
    };
    // Of sm_80 and sm_90.
    let (ampere, hopper) = (163 << 10, 227 << 10);
    let mut variants = Vec::new();
    let mut both = |element, sizes: Sizes, shared| {
        let tiling = Tiling::new(element, &sizes, shared, true);
        variants.extend(tiling.iter().flat_map(|tiling| [tiling.forward(), tiling.backward()]));
    };
    for element in Element::ALL {
        both(element, sizes(80, 64, 128), hopper);
    }
    both(Element::F32, sizes(80, 64, 128), ampere);
    for (heads, headdim, states) in [(24, 64, 64), (8, 16, 16), (8, 128, 128), (8, 64, 256)] {
        both(Element::Bf16, sizes(heads, headdim, states), hopper);
    }
    let long = Tiling { element: Element::Bf16, headdim: 64, states: 128, chunk: 128, width: 64 };
    variants.push(long.forward());
    variants.extend(Element::ALL.map(|element| step_variant(element, 64, 128)));
    variants
}
