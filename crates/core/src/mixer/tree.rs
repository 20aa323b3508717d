//! The mixers whose recurrence runs on a tree that the features choose (MambaTree, Xiao et al. 2024,
//! arXiv 2406.02395): GrootV over images, GrootL over text.

use ophidian_scan::Candidates;
use tch::{Tensor, nn};

use super::{
    Mamba1Config, Mixer,
    shell::{Shell, map_of},
};
use crate::{
    Error, Result,
    layers::{Norm, NormKind},
    ops::{Orders, Sweep, Trees, tree_scan},
    tape,
};

/// GrootV's tree scan: over the cheapest tree that connects a map's tokens to their neighbours (an edge costs exp(-cos)
/// of the two u), every token sums what all others send, decaying along the way. The state is normalised before C reads
/// it.
///
/// A [`Mamba1`](super::Mamba1) of one direction and one state but for its core, with `h_norm` (D) beside; the orders
/// give the map alone.
#[derive(Debug)]
pub struct GrootV {
    shell: Shell,
    h_norm: Norm,
}

impl GrootV {
    /// A fresh mixer.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`], or a `d_state` or `directions` other than 1.
    pub fn new(vs: &nn::Path, config: &Mamba1Config) -> Result<GrootV> {
        one_state("GrootV", config)?;
        let shell = Shell::new(vs, "GrootV", 1, config)?;
        let h_norm = Norm::new(&(vs / "h_norm"), NormKind::Layer, config.d_inner(), config.out_norm_eps);
        Ok(GrootV { shell, h_norm })
    }
}

impl Mixer for GrootV {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        tape::note("the recurrence runs on a tree that the features choose, not along an order");
        let [rows, columns] = map_of(orders)?.map(|n| n.max(0) as usize);
        self.shell.forward(tokens, orders, 1.0, |u| {
            let ssm = &self.shell.ssm;
            let coefficients = ssm.coefficients(&u.f_unsqueeze(2)?)?;
            let [decay, input] = ssm.discretised(u, &coefficients)?; // (B, L, D, 1)
            let trees = Trees::spanning(u, &Candidates::grid(rows, columns)?)?;
            let h = tree_scan(&input.f_squeeze_dim(3)?, &decay.f_squeeze_dim(3)?, &trees, Sweep::UpDown)?;
            ssm.read_out(&self.h_norm.forward(&h)?, u, &coefficients)
        })
    }
}

/// Fails unless a mixer that works on the states has one per channel.
pub(super) fn one_state(name: &str, config: &Mamba1Config) -> Result<()> {
    if config.d_state != 1 {
        return Err(Error::Config(format!("`d_state` is {}, expected 1 for {name}", config.d_state)));
    }
    Ok(())
}

/// What GrootL is told beside a [`Mamba1Config`].
#[derive(Debug, Clone, PartialEq)]
pub struct GrootLConfig {
    /// The Mamba-1 mixer.
    pub mamba: Mamba1Config,
    /// How many tokens at the start (the prompt) may hang below others than the next: up to three on.
    pub context: i64,
    /// Factor of the tree's part.
    pub scale: f64,
}

impl Default for GrootLConfig {
    fn default() -> Self {
        GrootLConfig { mamba: Mamba1Config::default(), context: 0, scale: 0.3 }
    }
}

/// GrootL: the scan along the sequence, and `scale` times one up a tree whose root is the last token. Edges cost
/// exp(-cos) of the two tokens' delta B u. The parameters are those of [`Mamba1`](super::Mamba1) with one direction.
///
/// As published, a tree may hang a token below an earlier one: the tree's part is not strictly causal.
#[derive(Debug)]
pub struct GrootL {
    config: GrootLConfig,
    shell: Shell,
}

impl GrootL {
    /// A fresh mixer.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`], `directions` other than 1, a negative `context` or a `scale` that is not finite.
    pub fn new(vs: &nn::Path, config: &GrootLConfig) -> Result<GrootL> {
        if config.context < 0 || !config.scale.is_finite() {
            return Err(Error::Config(format!(
                "`context` is {} and `scale` {}, expected at least 0 and a finite number",
                config.context, config.scale
            )));
        }
        Ok(GrootL { config: config.clone(), shell: Shell::new(vs, "GrootL", 1, &config.mamba)? })
    }
}

impl Mixer for GrootL {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.shell.forward(tokens, orders, 1.0, |u| {
            tape::note("what comes up the tree is not shown, the scan beside it alone");
            let ssm = &self.shell.ssm;
            let (b, l, d) = u.size3()?;
            let coefficients = ssm.coefficients(&u.f_unsqueeze(2)?)?;
            let chain = ssm.scan(u, &coefficients, None, orders, false)?;
            let [decay, input] = ssm.discretised(u, &coefficients)?; // (B, L, D, N)
            let n = input.size()[3];
            // The edge from token t to its parent decays as the step that follows t does.
            let decay = decay.f_roll([-1], [1])?.f_view([b, l, d * n])?;
            let input = input.f_view([b, l, d * n])?;
            let candidates = Candidates::line(l.max(0) as usize, self.config.context as usize)?;
            let h = tree_scan(&input, &decay, &Trees::spanning(&input, &candidates)?, Sweep::Up)?;
            let h = h.f_view([b, l, d, n])?;
            let tree = h.f_mul(&coefficients.c)?.f_sum_dim_intlist(3, false, h.kind())?; // (B, L, D)
            Ok(chain.f_add(&tree.f_mul_scalar(self.config.scale)?)?)
        })
    }
}
