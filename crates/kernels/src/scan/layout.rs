//! How a scan is cut into channel blocks, chunks of steps and tasks. Whatever a sum depends on follows from shapes (and
//! the vector width) alone, never from the number of threads: that is what makes results independent of it.

use std::ops::Range;

use super::{Aligned, Scan};
use crate::{Dtype, Isa, View, orders::Paths, simd::Simd};

/// A vector of channels that share a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// First channel.
    pub channel: usize,
    /// Channels in it, at most the vector width.
    pub width: usize,
    /// Group of B and C it reads.
    pub group: usize,
}

impl Block {
    /// Its channels.
    pub fn channels(&self) -> Range<usize> {
        self.channel..self.channel + self.width
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub lanes: usize,
    pub blocks: Vec<Block>,
    /// Steps between two checkpoints of the state.
    pub chunk: usize,
}

impl Layout {
    pub fn new(scan: &Scan, isa: Isa) -> Self {
        let lanes = isa.lanes();
        let per_group = scan.channels / scan.groups;
        let blocks = (0..scan.groups)
            .flat_map(|group| {
                (0..per_group).step_by(lanes).map(move |start| Block {
                    channel: group * per_group + start,
                    width: lanes.min(per_group - start),
                    group,
                })
            })
            .collect();
        // Checkpoints take N / chunk of an activation's size: the chunk grows with N to keep that below one half
        // (up to N = 128; at 256 steps the scratch of a task ends).
        let chunk = (2 * scan.states.next_power_of_two()).clamp(32, 256);
        Layout { lanes, blocks, chunk }
    }

    /// f32 values of the checkpoints of one order of one sample: chunk, block, state, lane.
    pub fn checkpoint_len(&self, scan: &Scan, paths: &Paths) -> usize {
        paths.longest.div_ceil(self.chunk) * self.blocks.len() * scan.states * self.lanes
    }

    /// (K, D, N) to (K, block, state, lane), times `scale`; zeros in the lanes that have no channel.
    pub fn pack(&self, a: &[f32], channels: usize, states: usize, scale: f32) -> Aligned {
        let per_order = self.blocks.len() * states * self.lanes;
        let mut packed = Aligned::zeros(a.len() / (channels * states).max(1) * per_order);
        for (k, a) in a.chunks_exact((channels * states).max(1)).enumerate() {
            let order = &mut packed[k * per_order..(k + 1) * per_order];
            self.exchange(0..self.blocks.len(), states, |from, to| {
                let value = a[from] * scale;
                // The one NaN that `Simd::decay` keeps.
                order[to] = if value.is_nan() { f32::NAN } else { value };
            });
        }
        packed
    }

    /// Copies (D, N) values of `blocks` into or out of the kernels' layout.
    pub fn exchange(&self, range: Range<usize>, states: usize, mut each: impl FnMut(usize, usize)) {
        for (i, block) in self.blocks[range].iter().enumerate() {
            for n in 0..states {
                for lane in 0..block.width {
                    each((block.channel + lane) * states + n, (i * states + n) * self.lanes + lane);
                }
            }
        }
    }
}

/// `width` values at element `offset`, widened to f32, zeros behind them.
///
/// # Safety
/// The elements lie inside the view.
#[inline(always)]
pub(crate) unsafe fn load_row<S: Simd>(view: &View, offset: usize, width: usize) -> S::V {
    unsafe {
        match view.dtype() {
            Dtype::Bf16 => {
                let p = view.ptr().cast::<u16>().add(offset);
                if width == S::LANES { S::load_bf16(p) } else { S::load_part_bf16(p, width) }
            }
            _ => {
                let p = view.ptr().cast::<f32>().add(offset);
                if width == S::LANES { S::load(p) } else { S::load_part(p, width) }
            }
        }
    }
}
