//! `tree_scan` and `shift` over tensors: what the mixers need beyond scans along orders.

use std::sync::Arc;

use ophidian_kernels::{Isa, shift::Shift, tree as kernel};
use ophidian_scan::Candidates;
use tch::{Kind, Tensor};

use super::{
    Orders, TorchPool,
    args::{Axes, empty, expect_on_cpu, expect_shape, kernel_error, rows, slice, view, view_mut},
    custom::{CustomOp, Outcome, apply},
};
use crate::{Error, Result};

pub use ophidian_kernels::tree::Sweep;

const NAME: &str = "tree_scan";

/// A tree (or several: a forest) over L tokens, static or one per sample. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trees {
    /// The parent of each token, -1 for a root: (L) or (B, L).
    parents: Arc<[i32]>,
    tokens: i64,
}

impl Trees {
    /// One tree for all samples: the parent of each of L tokens, -1 for a root. [`tree_scan`] checks it.
    pub fn new(parents: &[i32]) -> Trees {
        Trees { parents: parents.into(), tokens: parents.len() as i64 }
    }

    /// One tree per sample: parents (B, L).
    ///
    /// # Errors
    /// The parents are no whole number of samples.
    pub fn per_sample(parents: &[i32], tokens: i64) -> Result<Trees> {
        if tokens < 1 || !parents.len().is_multiple_of(tokens as usize) {
            return Err(Error::invalid(format!(
                "{} parents are no whole number of samples of {tokens} tokens",
                parents.len()
            )));
        }
        Ok(Trees { parents: parents.into(), tokens })
    }

    /// The cheapest tree over `candidates` for each sample of `features` (B, L, D). No gradient
    /// flows through the choice.
    ///
    /// # Errors
    /// Features of another number of tokens.
    pub fn spanning(features: &Tensor, candidates: &Candidates) -> Result<Trees> {
        expect_on_cpu("spanning tree", "features", features)?;
        let (b, l, d) = features.size3()?;
        if l != candidates.nodes() as i64 {
            return Err(Error::invalid(format!(
                "a tree over {} tokens was asked for features of {l}",
                candidates.nodes()
            )));
        }
        if b == 0 {
            return Trees::per_sample(&[], l);
        }
        let features = features.detach().to_kind(Kind::Float).contiguous();
        Trees::per_sample(&candidates.parents(slice(&features), d as usize)?, l)
    }

    /// L.
    pub fn tokens(&self) -> i64 {
        self.tokens
    }

    /// The parent of each token, -1 for a root: (L), or (B, L).
    pub fn parents(&self) -> &[i32] {
        &self.parents
    }
}

/// The scan over a tree (GrootV, arXiv 2406.02395, eq. 4): y_i sums, over the tokens j that reach i ([`Sweep`]),
/// input_j times the decays of the edges on the path from j to i. A token's `decay` is that of the edge to its parent;
/// a root's is not read. All are (B, L, D): f32, bf16 and f16 are computed in f32, f64 in f64. Differentiable in `input` and
/// `decay`.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit (named), trees of another number of tokens or samples, a parent that does
/// not exist, or a cycle of parents.
pub fn tree_scan(input: &Tensor, decay: &Tensor, trees: &Trees, sweep: Sweep) -> Result<Tensor> {
    expect_on_cpu(NAME, "input", input)?;
    expect_on_cpu(NAME, "decay", decay)?;
    let shape = input.size();
    let [b, l, d] = shape[..] else {
        return Err(Error::invalid(format!("{NAME}: `input` has shape {shape:?}, expected (B, L, D)")));
    };
    expect_shape(NAME, "decay", decay, &shape)?;
    if trees.tokens != l {
        return Err(Error::invalid(format!(
            "{NAME}: the trees are over {} tokens, `input` has {l}",
            trees.tokens
        )));
    }
    let kind = input.kind();
    let exact = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    let inputs = [input, decay].map(|t| rows(&t.to_kind(exact)));
    let op = TreeOp { sizes: [b, l, d].map(|n| n as usize), trees: trees.clone(), sweep };
    only(apply(op, &inputs.iter().collect::<Vec<_>>())?).map(|y| y.to_kind(kind))
}

fn only(found: Vec<Tensor>) -> Result<Tensor> {
    found.into_iter().next().ok_or_else(|| Error::invalid("internal error: an op lost its output"))
}

/// (B, L, D) as the kernels see it.
fn with_axis(tensor: &Tensor) -> Tensor {
    tensor.unsqueeze(2)
}

struct TreeOp {
    sizes: [usize; 3],
    trees: Trees,
    sweep: Sweep,
}

impl TreeOp {
    fn kernel<'a>(&'a self, input: &'a Tensor, decay: &'a Tensor) -> kernel::Tree<'a> {
        let [batch, nodes, channels] = self.sizes;
        kernel::Tree {
            batch,
            nodes,
            channels,
            parents: &self.trees.parents,
            sweep: self.sweep,
            decay: view(decay, Axes::Channels),
            input: view(input, Axes::Channels),
        }
    }

    fn empty(&self, kind: Kind) -> Tensor {
        let [b, l, d] = self.sizes.map(|n| n as i64);
        empty(&[b, l, 1, d], kind)
    }
}

impl CustomOp for TreeOp {
    fn forward(&self, list: &[Tensor], _training: bool) -> Result<Outcome> {
        let [input, decay] = [0, 1].map(|i| with_axis(&list[i]));
        let mut y = self.empty(input.kind());
        let out = view_mut(&mut y, Axes::Channels);
        kernel::forward(&self.kernel(&input, &decay), &out, Isa::detect(), &TorchPool)
            .map_err(kernel_error(NAME))?;
        Ok(Outcome { outputs: vec![y.squeeze_dim(2)], saved: vec![] })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let [input, decay] = [0, 1].map(|i| with_axis(&saved[i]));
        let Some(dy) = &grads[0] else { return Ok(vec![None, None]) };
        let dy = with_axis(&rows(&dy.to_kind(input.kind())));
        let (mut dinput, mut ddecay) = (self.empty(input.kind()), self.empty(input.kind()));
        let out = kernel::Backward {
            dy: view(&dy, Axes::Channels),
            ddecay: view_mut(&mut ddecay, Axes::Channels),
            dinput: view_mut(&mut dinput, Axes::Channels),
        };
        kernel::backward(&self.kernel(&input, &decay), &out, Isa::detect(), &TorchPool)
            .map_err(kernel_error(NAME))?;
        Ok(vec![Some(dinput.squeeze_dim(2)), Some(ddecay.squeeze_dim(2))])
    }
}

/// What K scans wrote, y (B, L, K, D), moved one step on along their orders and added up: (B, L, D). A token gets what
/// was written at the step before its own; nothing at a first step, where the state starts afresh, or behind a blank
/// (Hydra, arXiv 2407.09941, section 3.2). Differentiable.
///
/// # Errors
/// A shape, dtype or device that does not fit, or orders of another number of tokens, directions or samples.
pub fn shift(y: &Tensor, orders: &Orders) -> Result<Tensor> {
    const NAME: &str = "shift";
    expect_on_cpu(NAME, "y", y)?;
    let shape = y.size();
    let misfit = || {
        Error::invalid(format!(
            "{NAME}: `y` has shape {shape:?}, expected (B, L, K, D) with {} tokens and {} directions of the orders",
            orders.tokens(),
            orders.directions()
        ))
    };
    let [b, l, k, d] = shape[..] else { return Err(misfit()) };
    let own = orders.samples().is_some_and(|samples| samples != b);
    if l != orders.tokens() || k != orders.directions() || own {
        return Err(misfit());
    }
    let kind = y.kind();
    let exact = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    let op = ShiftOp { sizes: [b, l, k, d], orders: orders.clone() };
    only(apply(op, &[&rows(&y.to_kind(exact))])?).map(|out| out.to_kind(kind))
}

struct ShiftOp {
    sizes: [i64; 4],
    orders: Orders,
}

impl ShiftOp {
    fn kernel(&self) -> Shift<'_> {
        let [batch, tokens, directions, channels] = self.sizes.map(|n| n as usize);
        Shift { batch, tokens, directions, channels, orders: self.orders.kernel() }
    }
}

impl CustomOp for ShiftOp {
    fn forward(&self, list: &[Tensor], _training: bool) -> Result<Outcome> {
        let [b, l, _, d] = self.sizes;
        let y = &list[0];
        let mut out = empty(&[b, l, 1, d], y.kind());
        let to = view_mut(&mut out, Axes::Channels);
        ophidian_kernels::shift::forward(
            &self.kernel(),
            &view(y, Axes::Channels),
            &to,
            Isa::detect(),
            &TorchPool,
        )
        .map_err(kernel_error("shift"))?;
        Ok(Outcome { outputs: vec![out.squeeze_dim(2)], saved: vec![] })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let kind = saved[0].kind();
        let Some(dout) = &grads[0] else { return Ok(vec![None]) };
        let dout = with_axis(&rows(&dout.to_kind(kind)));
        let mut dy = empty(&self.sizes, kind);
        let to = view_mut(&mut dy, Axes::Channels);
        ophidian_kernels::shift::backward(
            &self.kernel(),
            &view(&dout, Axes::Channels),
            &to,
            Isa::detect(),
            &TorchPool,
        )
        .map_err(kernel_error("shift"))?;
        Ok(vec![Some(dy)])
    }
}
