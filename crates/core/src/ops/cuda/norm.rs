//! Norms on a GPU.

use ophidian_kernels::cuda::{
    Element, aligned,
    norm::{self as kernels, Plan},
};
use tch::{Kind, Tensor};

use super::{
    Launcher, element_of, kind_of,
    rows::{fold, int, rows_of, whole},
};
use crate::{
    Error, Result,
    ops::{
        args::{expect_one_device, expect_shape, kernel_error},
        custom::{CustomOp, Outcome, apply},
    },
};

/// Rows (rows, channels) side by side; (…, channels) with one distance between rows stay where they are.
fn flat(tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    let channels = tensor.size().last().copied().unwrap_or(0);
    let rows = tensor.numel() as i64 / channels.max(1);
    Ok(rows_of(&tensor.f_reshape([rows, channels])?, kind))
}

/// Elements from row to row.
fn row(tensor: &Tensor) -> i64 {
    if tensor.size()[0] <= 1 { 0 } else { tensor.stride()[0] }
}

/// Address of rows, and the bytes between them.
fn bytes(tensor: &Tensor) -> [usize; 2] {
    [tensor.data_ptr() as usize, row(tensor) as usize * tensor.kind().elt_size_in_bytes()]
}

fn pointer<T>(tensor: Option<&Tensor>) -> *mut T {
    tensor.map_or(std::ptr::null_mut(), |tensor| tensor.data_ptr().cast())
}

/// Options of a gated RMS norm.
#[derive(Clone, Copy)]
pub(crate) struct Gated {
    pub group: i64,
    pub eps: f64,
    pub norm_before_gate: bool,
}

/// The gated RMS norm of x (…, D) by silu(z), z as x or a row for several rows of x that follow each other: (…, D), in the
/// dtype of the rows.
pub(crate) fn gated_norm(
    launcher: Launcher,
    x: &Tensor,
    z: Option<&Tensor>,
    (weight, bias): (&Tensor, Option<&Tensor>),
    options: Gated,
) -> Result<Tensor> {
    let name = GatedOp::NAME;
    expect_one_device(name, &[("x", Some(x)), ("z", z), ("weight", Some(weight)), ("bias", bias)])?;
    let shape = x.size();
    let channels = &shape[shape.len() - 1..];
    expect_shape(name, "weight", weight, channels)?;
    bias.map_or(Ok(()), |bias| expect_shape(name, "bias", bias, channels))?;
    let element = element_of([x].into_iter().chain(z));
    let kind = kind_of(element);
    let spread = z.map(|z| spread_over(z, &shape)).transpose()?;
    let repeat = spread.as_ref().map_or(1, |(_, repeat)| *repeat);
    let mut list = vec![flat(x, kind)?];
    list.extend(spread.map(|(z, _)| flat(&z, kind)).transpose()?);
    list.extend([weight].into_iter().chain(bias).map(whole));
    let has = [z.is_some(), bias.is_some()];
    let op = GatedOp { launcher, element, options, repeat, has };
    first(apply(op, &list.iter().collect::<Vec<_>>())?)?.f_view(&shape[..]).map_err(Error::from)
}

fn first(found: Vec<Tensor>) -> Result<Tensor> {
    found.into_iter().next().ok_or_else(|| Error::invalid("internal error: an op lost its output"))
}

/// z without an axis before the last that is spread over `shape`, and how often; else spread over all of it.
fn spread_over(z: &Tensor, shape: &[i64]) -> Result<(Tensor, i64)> {
    let size = z.size();
    let (Some(at), true) = (shape.len().checked_sub(2), size.len() == shape.len()) else {
        return Ok((z.f_expand(shape, false)?, 1));
    };
    let differ = |i: &usize| size[*i] != shape[*i];
    if size[at] == 1 && shape[at] > 0 && !(0..shape.len()).any(|i| i != at && differ(&i)) {
        return Ok((z.shallow_clone(), shape[at]));
    }
    Ok((z.f_expand(shape, false)?, 1))
}

struct GatedOp {
    launcher: Launcher,
    element: Element,
    options: Gated,
    /// Rows of x that share one of z.
    repeat: i64,
    /// Whether z and the bias are among the inputs, around the weight.
    has: [bool; 2],
}

impl GatedOp {
    const NAME: &'static str = "gated RMS norm";

    /// x, z, weight, bias.
    fn inputs<'a>(
        &self,
        list: &'a [Tensor],
    ) -> (&'a Tensor, Option<&'a Tensor>, &'a Tensor, Option<&'a Tensor>) {
        let after = 1 + usize::from(self.has[0]);
        (
            &list[0],
            list.get(1).filter(|_| self.has[0]),
            &list[after],
            list.get(after + 1).filter(|_| self.has[1]),
        )
    }

    fn count(&self) -> usize {
        2 + self.has.iter().filter(|has| **has).count()
    }

    fn aligned(&self, rows: &[&Tensor], parameters: [Option<&Tensor>; 2], channels: i64) -> i32 {
        let group = self.options.group as usize;
        let lone = if channels as usize > group { group * self.element.size() } else { 0 };
        let all = rows.iter().flat_map(|t| bytes(t));
        let parameters = parameters.into_iter().flatten().map(|t| t.data_ptr() as usize);
        aligned(&all.chain(parameters).chain([lone]).collect::<Vec<_>>())
    }
}

impl CustomOp for GatedOp {
    fn forward(&self, list: &[Tensor], training: bool) -> Result<Outcome> {
        let (x, z, weight, bias) = self.inputs(list);
        let (rows, channels) = x.size2()?;
        let Gated { group, eps, norm_before_gate } = self.options;
        let groups = channels / group;
        let y = self.launcher.empty(&[rows, channels], kind_of(self.element))?;
        let rstd = training.then(|| self.launcher.empty(&[rows, groups], Kind::Float)).transpose()?;
        let plan = Plan::forward(self.element, rows as usize, groups as usize, group as usize)
            .map_err(kernel_error(Self::NAME))?;
        let read: Vec<&Tensor> = [x, &y].into_iter().chain(z).collect();
        let arguments = kernels::GatedForward {
            x: x.data_ptr(),
            z: pointer(z),
            weight: weight.data_ptr().cast(),
            bias: pointer(bias),
            y: y.data_ptr(),
            rstd: pointer(rstd.as_ref()),
            x_row: row(x),
            z_row: z.map_or(0, row),
            y_row: row(&y),
            rows,
            channels: int(Self::NAME, "the number of channels", channels)?,
            group: group as i32,
            z_repeat: int(Self::NAME, "the number of rows that share a gate", self.repeat)?,
            lanes: plan.lanes,
            eps: eps as f32,
            norm_before_gate: norm_before_gate.into(),
            aligned: self.aligned(&read, [Some(weight), bias], channels),
        };
        let variant = kernels::gated(self.element);
        self.launcher.launch(&variant, "gated_rms_norm_forward", arguments, plan.launch)?;
        Ok(Outcome { outputs: vec![y], saved: rstd.into_iter().collect() })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let (x, z, weight, bias) = self.inputs(saved);
        let Some(dy) = &grads[0] else { return Ok(Vec::new()) };
        let (rows, channels) = x.size2()?;
        let (kind, group) = (kind_of(self.element), self.options.group);
        let dy = rows_of(dy, kind);
        let made = || self.launcher.empty(&[rows, channels], kind);
        let (dx, dz) = (made()?, z.map(|_| made()).transpose()?);
        let plan = Plan::backward(
            self.element,
            rows as usize,
            (channels / group) as usize,
            group as usize,
            self.launcher.card(),
        )
        .map_err(kernel_error(Self::NAME))?;
        let parts = self.launcher.empty(&[plan.parts as i64, 2, channels], Kind::Float)?;
        let all: Vec<&Tensor> = [x, &dy, &dx].into_iter().chain(z).chain(&dz).collect();
        let arguments = kernels::GatedBackward {
            x: x.data_ptr(),
            z: pointer(z),
            weight: weight.data_ptr().cast(),
            bias: pointer(bias),
            rstd: saved[self.count()].data_ptr().cast(),
            dy: dy.data_ptr(),
            dx: dx.data_ptr(),
            dz: pointer(dz.as_ref()),
            parts: parts.data_ptr().cast(),
            x_row: row(x),
            z_row: z.map_or(0, row),
            dy_row: row(&dy),
            dx_row: row(&dx),
            dz_row: dz.as_ref().map_or(0, row),
            rows,
            channels: channels as i32,
            group: group as i32,
            z_repeat: self.repeat as i32,
            lanes: plan.lanes,
            norm_before_gate: self.options.norm_before_gate.into(),
            aligned: self.aligned(&all, [Some(weight), bias], channels),
            roomy: plan.roomy,
        };
        let variant = kernels::gated(self.element);
        self.launcher.launch(&variant, "gated_rms_norm_backward", arguments, plan.launch)?;
        let sums = fold(Self::NAME, &self.launcher, self.element, (&parts, plan.parts), &[2, channels])?;
        let dz = match dz {
            Some(dz) if self.repeat > 1 => {
                let shared = dz.f_view([rows / self.repeat, self.repeat, channels])?;
                Some(shared.f_sum_dim_intlist([1i64].as_slice(), false, kind)?)
            }
            dz => dz,
        };
        let dbias = bias.map(|_| sums.f_select(0, 1)).transpose()?;
        let optional = |t: Option<Tensor>| t.map(Some);
        let dweight = Some(sums.f_select(0, 0)?);
        Ok([Some(dx)].into_iter().chain(optional(dz)).chain([dweight]).chain(optional(dbias)).collect())
    }
}

/// A block's residual addition and its norm: x (…, D) onto the f32 stream `residual`, y = norm(x + residual) weight + bias;
/// LayerNorm if there is a bias, else RMS. y in the dtype of x, and the new stream in f32.
pub(crate) fn add_norm(
    launcher: Launcher,
    [x, residual, weight]: [&Tensor; 3],
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<[Tensor; 2]> {
    let named = [("x", Some(x)), ("residual", Some(residual)), ("weight", Some(weight)), ("bias", bias)];
    expect_one_device(AddNormOp::NAME, &named)?;
    let shape = x.size();
    expect_shape(AddNormOp::NAME, "residual", residual, &shape)?;
    expect_shape(AddNormOp::NAME, "weight", weight, &shape[shape.len() - 1..])?;
    let element = element_of([x]);
    let mut list = vec![flat(x, kind_of(element))?, flat(residual, Kind::Float)?, whole(weight)];
    list.extend(bias.map(whole));
    let op = AddNormOp { launcher, element, layer: bias.is_some(), eps };
    let found = apply(op, &list.iter().collect::<Vec<_>>())?;
    let [y, sum] = crate::ops::scan::outputs(found)?;
    Ok([y.f_view(&shape[..])?, sum.f_view(&shape[..])?])
}

struct AddNormOp {
    launcher: Launcher,
    element: Element,
    layer: bool,
    eps: f64,
}

impl AddNormOp {
    const NAME: &'static str = "norm of a residual stream";

    fn variant(&self) -> ophidian_kernels::cuda::Variant {
        kernels::add(self.element, self.layer, true)
    }

    fn aligned(&self, rows: &[&Tensor], parameters: &[&Tensor]) -> i32 {
        let all = rows.iter().flat_map(|t| bytes(t));
        let parameters = parameters.iter().map(|t| t.data_ptr() as usize);
        aligned(&all.chain(parameters).collect::<Vec<_>>())
    }
}

impl CustomOp for AddNormOp {
    fn forward(&self, list: &[Tensor], training: bool) -> Result<Outcome> {
        let (x, residual, weight, bias) = (&list[0], &list[1], &list[2], list.get(3).filter(|_| self.layer));
        let (rows, channels) = x.size2()?;
        let y = self.launcher.empty(&[rows, channels], kind_of(self.element))?;
        let sum = self.launcher.empty(&[rows, channels], Kind::Float)?;
        let kept = || self.launcher.empty(&[rows], Kind::Float);
        let rstd = training.then(kept).transpose()?;
        let mean = (training && self.layer).then(kept).transpose()?;
        let plan = Plan::forward(self.element, rows as usize, 1, channels as usize)
            .map_err(kernel_error(Self::NAME))?;
        let arguments = kernels::AddForward {
            x: x.data_ptr(),
            residual: residual.data_ptr(),
            scale: std::ptr::null(),
            weight: weight.data_ptr().cast(),
            bias: pointer(bias),
            y: y.data_ptr(),
            sum: sum.data_ptr(),
            mean: pointer(mean.as_ref()),
            rstd: pointer(rstd.as_ref()),
            x_row: row(x),
            residual_row: row(residual),
            y_row: row(&y),
            sum_row: row(&sum),
            rows,
            channels: int(Self::NAME, "the number of channels", channels)?,
            lanes: plan.lanes,
            eps: self.eps as f32,
            aligned: self.aligned(&[x, residual, &y, &sum], &list[2..].iter().collect::<Vec<_>>()),
        };
        self.launcher.launch(&self.variant(), "add_norm_forward", arguments, plan.launch)?;
        let mut saved: Vec<Tensor> = rstd.into_iter().chain(mean).collect();
        if training {
            saved.push(sum.shallow_clone());
        }
        Ok(Outcome { outputs: vec![y, sum], saved })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let weight = &saved[2];
        let bias = saved.get(3).filter(|_| self.layer);
        let kept = &saved[3 + usize::from(self.layer)..];
        let (rstd, mean) = (&kept[0], kept.get(1).filter(|_| self.layer));
        let Some(sum) = kept.last() else { return Ok(Vec::new()) };
        let (rows, channels) = sum.size2()?;
        let kind = kind_of(self.element);
        let dy = match &grads[0] {
            Some(dy) => rows_of(dy, kind),
            None => Tensor::f_zeros([rows, channels], (kind, self.launcher.device()))?,
        };
        let dsum = grads[1].as_ref().map(|dsum| rows_of(dsum, Kind::Float));
        let dx = self.launcher.empty(&[rows, channels], kind)?;
        let dresidual = self.launcher.empty(&[rows, channels], Kind::Float)?;
        let plan = Plan::backward(self.element, rows as usize, 1, channels as usize, self.launcher.card())
            .map_err(kernel_error(Self::NAME))?;
        let parts = self.launcher.empty(&[plan.parts as i64, 2, channels], Kind::Float)?;
        let all: Vec<&Tensor> = [sum, &dy, &dx, &dresidual].into_iter().chain(&dsum).collect();
        let arguments = kernels::AddBackward {
            sum: sum.data_ptr(),
            scale: std::ptr::null(),
            weight: weight.data_ptr().cast(),
            mean: pointer(mean),
            rstd: rstd.data_ptr().cast(),
            dy: dy.data_ptr(),
            dsum: pointer(dsum.as_ref()),
            dx: dx.data_ptr(),
            dresidual: dresidual.data_ptr(),
            parts: parts.data_ptr().cast(),
            sum_row: row(sum),
            dy_row: row(&dy),
            dsum_row: dsum.as_ref().map_or(0, row),
            dx_row: row(&dx),
            dresidual_row: row(&dresidual),
            rows,
            channels: channels as i32,
            lanes: plan.lanes,
            aligned: self.aligned(&all, &[weight]),
            roomy: plan.roomy,
        };
        self.launcher.launch(&self.variant(), "add_norm_backward", arguments, plan.launch)?;
        let sums = fold(Self::NAME, &self.launcher, self.element, (&parts, plan.parts), &[2, channels])?;
        let dbias = bias.map(|_| sums.f_select(0, 1)).transpose()?;
        let dweight = sums.f_select(0, 0)?;
        Ok([dx, dresidual, dweight].into_iter().chain(dbias).map(Some).collect())
    }
}
