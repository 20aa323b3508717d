//! Stochastic depth.

use tch::{Kind, Tensor};

/// Drops a residual branch for a whole sample with some probability while training, and scales the branches
/// that stay so that the mean is unchanged (Huang et al., arXiv 1603.09382). Draws from libtorch's generator.
#[derive(Debug, Clone, Copy)]
pub struct DropPath {
    rate: f64,
}

impl DropPath {
    /// Drops with probability `rate`, 0 <= rate < 1.
    pub fn new(rate: f64) -> DropPath {
        DropPath { rate }
    }

    /// (batch, …); the branch itself unless training.
    pub fn forward(&self, branch: Tensor, train: bool) -> Tensor {
        if !train || self.rate <= 0.0 {
            return branch;
        }
        let mut shape = vec![1; branch.dim()];
        shape[0] = branch.size()[0];
        let keep = 1.0 - self.rate;
        let mask = Tensor::rand(shape, (Kind::Float, branch.device())).lt(keep).to_kind(Kind::Float) / keep;
        branch * mask
    }
}
