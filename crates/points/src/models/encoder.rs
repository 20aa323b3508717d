//! From groups of points to tokens (PointNet, Qi et al., arXiv 1612.00593, as Point-BERT and PointMamba have it).

use ophidian_core::{
    Result,
    init::Init,
    layers::{BatchNorm, Linear},
};
use tch::{Tensor, nn};

/// A small PointNet over each group: two maps, the maximum over the group beside each point, two maps, the maximum.
pub(super) struct Encoder {
    first: (Linear, BatchNorm, Linear),
    /// (hidden, 2 local): the first half of the columns reads the group's maximum, the second the point.
    weight: Tensor,
    bias: Tensor,
    norm: BatchNorm,
    last: Linear,
}

impl Encoder {
    /// From `channels` a point to `d_model` a group, over `widths` = [hidden, local, hidden] channels.
    pub fn new(vs: &nn::Path, channels: i64, widths: [i64; 3], d_model: i64, init: Init) -> Encoder {
        let [first, local, second] = widths;
        let joint = vs / "second" / 0;
        Encoder {
            first: (
                Linear::new(&(vs / "first" / 0), channels, first, true, init),
                BatchNorm::new(&(vs / "first" / 1), first),
                Linear::new(&(vs / "first" / 3), first, local, true, init),
            ),
            weight: init.parameter(&joint, "weight", &[second, 2 * local]),
            bias: Init::Constant(0.0).parameter(&joint, "bias", &[second]),
            norm: BatchNorm::new(&(vs / "second" / 1), second),
            last: Linear::new(&(vs / "second" / 3), second, d_model, true, init),
        }
    }

    /// (G, M, channels) to (G, d_model).
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, groups: &Tensor, train: bool) -> Result<Tensor> {
        let size = groups.size();
        let [g, m] = [size[0], size[1]];
        let (map, norm, local) = &self.first;
        let points = groups.f_flatten(0, 1)?; // (G M, channels)
        let points = norm.forward(&map.forward(&points)?, train)?.f_relu()?;
        let points = local.forward(&points)?.f_unflatten(0, [g, m])?; // (G, M, local)
        let width = points.size()[2];
        let (whole, own) = (self.weight.f_narrow(1, 0, width)?, self.weight.f_narrow(1, width, width)?);
        // The product with the concatenation, without making one: the maximum's part is the same for all points.
        let global = points.f_amax(1, false)?.f_linear(&whole, Some(&self.bias))?; // (G, hidden)
        let joint = points.f_linear(&own, None::<&Tensor>)?.f_add(&global.f_unsqueeze(1)?)?;
        let joint = self.norm.forward(&joint.f_flatten(0, 1)?, train)?.f_relu()?;
        Ok(self.last.forward(&joint)?.f_unflatten(0, [g, m])?.f_amax(1, false)?)
    }
}
