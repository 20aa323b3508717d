//! What the fast scan leaves out, in f64: complex A, constant B and C, f64 inputs.

use ophidian_kernels::scan::wide::{self, Coefficient, CoefficientGrad, Wide, WideBackward};
use tch::{Kind, Tensor};

use super::{
    TorchPool,
    args::{Axes, empty, kernel_error, slice, slice_mut, view, view_mut},
    custom::{CustomOp, Outcome},
    scan::{Inputs, NAME, ScanOp, Sizes, is_complex},
};
use crate::Result;

/// f64, and if the scan is complex, what is complex (or must be) as (re, im) pairs flattened into the last axis.
pub(super) fn real_pairs(tensor: &Tensor, complex: bool) -> Tensor {
    if complex && is_complex(tensor) {
        return tensor.to_kind(Kind::ComplexDouble).view_as_real().flatten(-2, -1);
    }
    tensor.to_kind(Kind::Double)
}

/// The wide scan as a node of the graph.
pub(super) struct WideOp {
    pub scan: ScanOp,
    pub complex: bool,
    /// Whether B and C are constant.
    pub constant: [bool; 2],
}

impl WideOp {
    fn kernel<'a>(&'a self, inputs: &Inputs<'a>) -> Wide<'a> {
        let Sizes { b, l, k, d, g, n } = self.scan.sizes;
        let coefficient = |t: &'a Tensor, constant: bool| {
            if constant {
                Coefficient::Constant(slice(t))
            } else {
                Coefficient::Varying(view(t, Axes::Groups))
            }
        };
        Wide {
            batch: b as usize,
            tokens: l as usize,
            directions: k as usize,
            channels: d as usize,
            groups: g as usize,
            states: n as usize,
            complex: self.complex,
            orders: self.scan.orders.kernel(),
            u: view(inputs.u, Axes::Channels),
            delta: view(inputs.delta, Axes::Channels),
            a: slice(inputs.a),
            b: coefficient(inputs.b, self.constant[0]),
            c: coefficient(inputs.c, self.constant[1]),
            d: inputs.d.map(slice),
            z: inputs.z.map(|z| view(z, Axes::Channels)),
            delta_bias: inputs.delta_bias.map(slice),
            softplus: self.scan.softplus,
            initial_state: inputs.initial_state.map(slice),
        }
    }
}

impl CustomOp for WideOp {
    fn forward(&self, list: &[Tensor], _: bool) -> Result<Outcome> {
        let inputs = self.scan.inputs(list);
        let Sizes { b, k, d, n, .. } = self.scan.sizes;
        let mut y = empty(&self.scan.y_shape(), Kind::Double);
        let shape = if self.complex { vec![b, k, d, n, 2] } else { vec![b, k, d, n] };
        let mut state = empty(&shape, Kind::Double);
        wide::forward(
            &self.kernel(&inputs),
            &view_mut(&mut y, Axes::Channels),
            Some(slice_mut(&mut state)),
            &TorchPool,
        )
        .map_err(kernel_error(NAME))?;
        Ok(Outcome { outputs: vec![self.scan.squeeze(y), state], saved: vec![] })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let inputs = self.scan.inputs(saved);
        let dy = match &grads[0] {
            Some(dy) => self.scan.unsqueeze(dy).contiguous(),
            None => Tensor::zeros(self.scan.y_shape(), (Kind::Double, tch::Device::Cpu)),
        };
        let dfinal = grads[1].as_ref().map(Tensor::contiguous);
        let like = |t: &Tensor| empty(&t.size(), Kind::Double);
        let (mut du, mut ddelta, mut da) = (like(inputs.u), like(inputs.delta), like(inputs.a));
        let (mut db, mut dc) = (like(inputs.b), like(inputs.c));
        let [mut dd, mut dz, mut dbias, mut dinitial] =
            [inputs.d, inputs.z, inputs.delta_bias, inputs.initial_state].map(|t| t.map(like));
        let coefficient = |t, constant| match constant {
            true => CoefficientGrad::Constant(slice_mut(t)),
            false => CoefficientGrad::Varying(view_mut(t, Axes::Groups)),
        };
        let out = WideBackward {
            dy: view(&dy, Axes::Channels),
            dfinal: dfinal.as_ref().map(slice),
            du: view_mut(&mut du, Axes::Channels),
            ddelta: view_mut(&mut ddelta, Axes::Channels),
            dz: dz.as_mut().map(|dz| view_mut(dz, Axes::Channels)),
            db: coefficient(&mut db, self.constant[0]),
            dc: coefficient(&mut dc, self.constant[1]),
            da: slice_mut(&mut da),
            dd: dd.as_mut().map(slice_mut),
            ddelta_bias: dbias.as_mut().map(slice_mut),
            dinitial: dinitial.as_mut().map(slice_mut),
        };
        wide::backward(&self.kernel(&inputs), out, &TorchPool).map_err(kernel_error(NAME))?;
        Ok(self.scan.list([du, ddelta, da, db, dc], [dd, dz, dbias, dinitial]))
    }
}
