//! Checking arguments and handing tensors to kernels.

use ophidian_kernels::{Dtype, Strides, View, ViewMut};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, device::device_name};

/// Fails unless `tensor` has `shape`.
pub(super) fn expect_shape(op: &str, name: &str, tensor: &Tensor, shape: &[i64]) -> Result<()> {
    if tensor.size() != shape {
        return Err(Error::invalid(format!(
            "{op}: `{name}` has shape {:?}, expected {shape:?}",
            tensor.size()
        )));
    }
    Ok(())
}

/// Fails unless `tensor` is on the CPU and of a floating dtype.
pub(super) fn expect_on_cpu(op: &str, name: &str, tensor: &Tensor) -> Result<()> {
    if tensor.device() != Device::Cpu {
        return Err(Error::invalid(format!(
            "{op}: `{name}` is on {}; this op runs on the CPU only: move it with `to_device(Cpu)`",
            device_name(tensor.device())
        )));
    }
    expect_numbers(op, name, tensor, false)
}

/// Fails unless all that is there is on one device, the CPU or a GPU.
pub(super) fn expect_one_device(op: &str, named: &[(&str, Option<&Tensor>)]) -> Result<()> {
    one_device(op, named.iter().filter_map(|(name, tensor)| Some((*name, tensor.as_ref()?.device()))))
}

fn one_device<'a>(op: &str, mut there: impl Iterator<Item = (&'a str, Device)>) -> Result<()> {
    let Some((first, device)) = there.next() else { return Ok(()) };
    if !matches!(device, Device::Cpu | Device::Cuda(_)) {
        return Err(Error::invalid(format!(
            "{op}: `{first}` is on {}; the op runs on the CPU or a GPU",
            device_name(device)
        )));
    }
    match there.find(|(_, other)| *other != device) {
        None => Ok(()),
        Some((name, other)) => Err(Error::invalid(format!(
            "{op}: `{first}` is on {}, but `{name}` on {}: move one of them to the other's device",
            device_name(device),
            device_name(other)
        ))),
    }
}

/// Fails unless `tensor` is of a dtype the ops take: complex if `complex`, else floating.
pub(super) fn expect_numbers(op: &str, name: &str, tensor: &Tensor, complex: bool) -> Result<()> {
    match (tensor.kind(), complex) {
        (Kind::Float | Kind::BFloat16 | Kind::Double | Kind::Half, false) => Ok(()),
        (Kind::ComplexFloat | Kind::ComplexDouble, true) => Ok(()),
        (kind, true) => Err(Error::invalid(format!(
            "{op}: `{name}` has dtype {kind:?}, expected a complex one, as A is complex"
        ))),
        (kind, false) => Err(Error::invalid(format!(
            "{op}: `{name}` has dtype {kind:?}, expected a floating dtype (Float, BFloat16, Half or Double)"
        ))),
    }
}

/// The tensor itself if its last axis is contiguous, else a contiguous copy.
pub(super) fn rows(tensor: &Tensor) -> Tensor {
    let inner = tensor.size().last().copied().unwrap_or(1);
    if inner <= 1 || tensor.stride().last() == Some(&1) {
        tensor.shallow_clone()
    } else {
        tensor.contiguous()
    }
}

/// Axes of a kernel's view that a tensor has, after the batch and the tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Axes {
    /// (B, L, K or 1, width).
    Channels,
    /// (B, L, K or 1, G, width).
    Groups,
}

fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::BFloat16 => Dtype::Bf16,
        Kind::Double => Dtype::F64,
        _ => Dtype::F32,
    }
}

/// Strides of a tensor of the given axes (an axis of length 1 is shared among the directions), and the number of
/// elements from its first to its last.
pub(super) fn strides(tensor: &Tensor, axes: Axes) -> (Strides, usize) {
    let (size, stride) = (tensor.size(), tensor.stride());
    let step = |axis: usize| if size[axis] <= 1 { 0 } else { stride[axis] as usize };
    let group = if axes == Axes::Groups { step(3) } else { 0 };
    let strides = Strides { batch: step(0), token: step(1), direction: step(2), group };
    let empty = size.contains(&0);
    let reach: i64 = size.iter().zip(&stride).map(|(n, s)| (n - 1).max(0) * s).sum();
    (strides, if empty { 0 } else { reach as usize + 1 })
}

/// A kernel's view of an f32, bf16 or f64 CPU tensor with a contiguous last axis.
pub(super) fn view(tensor: &Tensor, axes: Axes) -> View<'_> {
    let (strides, len) = strides(tensor, axes);
    // Safety: `len` elements are reachable from the data pointer, and the tensor is borrowed.
    unsafe { View::from_raw(tensor.data_ptr().cast(), dtype(tensor.kind()), len, strides) }
}

/// A kernel's view of a fresh tensor.
pub(super) fn view_mut(tensor: &mut Tensor, axes: Axes) -> ViewMut<'_> {
    let (strides, len) = strides(tensor, axes);
    // Safety: as above; the tensor is borrowed mutably and was just made, so nothing else reads it.
    unsafe { ViewMut::from_raw(tensor.data_ptr().cast(), dtype(tensor.kind()), len, strides) }
}

/// The values of a contiguous CPU tensor of element type T.
pub(super) fn slice<T>(tensor: &Tensor) -> &[T] {
    debug_assert!(tensor.is_contiguous());
    if tensor.numel() == 0 {
        return &[];
    }
    // Safety: contiguous, borrowed; the callers pair T with the dtype.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// As [`slice`], of a fresh tensor.
pub(super) fn slice_mut<T>(tensor: &mut Tensor) -> &mut [T] {
    if tensor.numel() == 0 {
        return &mut [];
    }
    // Safety: as above.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// An uninitialised tensor on the CPU.
pub(super) fn empty(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::empty(shape, (kind, Device::Cpu))
}

/// The error of a kernel.
pub(super) fn kernel_error(op: &str) -> impl Fn(ophidian_kernels::Error) -> Error + '_ {
    move |error| Error::invalid(format!("{op}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_on_two_devices() {
        let said = |devices: &[(&'static str, Device)]| {
            one_device("op", devices.iter().copied()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let gpu = Device::Cuda;
        assert_eq!(said(&[]), "");
        assert_eq!(said(&[("u", gpu(1)), ("B", gpu(1))]), "");
        assert_eq!(
            said(&[("u", gpu(0)), ("A", gpu(0)), ("B", Device::Cpu)]),
            "op: `u` is on GPU 0, but `B` on the CPU: move one of them to the other's device"
        );
        assert_eq!(
            said(&[("u", gpu(0)), ("A", gpu(1))]),
            "op: `u` is on GPU 0, but `A` on GPU 1: move one of them to the other's device"
        );
        assert_eq!(said(&[("u", Device::Mps)]), "op: `u` is on Mps; the op runs on the CPU or a GPU");
    }
}
