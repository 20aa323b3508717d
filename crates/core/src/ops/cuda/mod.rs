//! The ops on a GPU: what the kernels of [`ophidian_kernels::cuda`] are launched with for tensors on a CUDA device.
//!
//! ```text
//! tensors --rows, Tables, Target--> arguments --Launcher--> kernels, on libtorch's current stream
//! ```
//!
//! Outputs and workspace are tensors of libtorch's. Nothing waits for the GPU and nothing reads its memory, so a CUDA graph
//! can capture an op that has run once before: its kernels are then compiled and loaded, and its orders lie on the device.
//!
//! The kernels take rows of one dtype: bf16 or f16 if all of an op's rows are that, else f32; the selective scan's step
//! sizes may be f32 beside the others. Parameters and states are f32.
//!
//! Tests without a GPU run this code too, on tensors of the CPU: see [`emulated`].

mod conv;
mod gpu;
mod norm;
mod rows;
mod scan;
mod ssd;
mod tables;

pub(super) use conv::{conv_op, conv_step};
pub(crate) use gpu::Gpu;
pub(crate) use norm::{Gated, add_norm, gated_norm};
pub(super) use scan::{scan_op, scan_step};
pub(super) use ssd::{ssd_op, ssd_step};
pub(super) use tables::Tables;

use std::{cell::RefCell, ffi::c_void, marker::PhantomData, sync::Arc};

use ophidian_kernels::cuda::{Card, Element, Launch, Variant};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, device::send, torch::records_gradients};

/// What runs the kernels on the tensors of one device.
#[derive(Clone)]
pub(crate) enum Launcher {
    Gpu(&'static Gpu),
    Emulated(Arc<dyn Emulator>),
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Launcher::Gpu(gpu) => write!(f, "GPU {}", gpu.index()),
            Launcher::Emulated(_) => f.write_str("emulator"),
        }
    }
}

impl Launcher {
    /// Whether it is the same one, and sees the same memory.
    pub fn is(&self, other: &Launcher) -> bool {
        match (self, other) {
            (Launcher::Gpu(one), Launcher::Gpu(other)) => one.index() == other.index(),
            (Launcher::Emulated(one), Launcher::Emulated(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// For tensors on `device`; none on the CPU, which has kernels of its own.
    pub fn of(device: Device) -> Result<Option<Launcher>> {
        match device {
            Device::Cuda(index) => Gpu::at(index).map(|gpu| Some(Launcher::Gpu(gpu))).map_err(refusal),
            _ => Ok(EMULATOR.with_borrow(|emulator| emulator.clone().map(Launcher::Emulated))),
        }
    }

    pub fn device(&self) -> Device {
        match self {
            Launcher::Gpu(gpu) => Device::Cuda(gpu.index()),
            Launcher::Emulated(_) => Device::Cpu,
        }
    }

    pub fn card(&self) -> Card {
        match self {
            Launcher::Gpu(gpu) => gpu.card(),
            Launcher::Emulated(emulator) => emulator.card(),
        }
    }

    /// An uninitialised contiguous tensor.
    pub fn empty(&self, shape: &[i64], kind: Kind) -> Result<Tensor> {
        match self {
            Launcher::Gpu(_) => Ok(Tensor::f_empty(shape, (kind, self.device()))?),
            Launcher::Emulated(emulator) => Ok(emulator.empty(shape, kind)),
        }
    }

    /// The values of a tensor on the CPU, on the device.
    pub fn put(&self, values: &Tensor) -> Result<Tensor> {
        match self {
            Launcher::Gpu(_) => send(values, self.device()),
            Launcher::Emulated(emulator) => {
                let mut placed = emulator.empty(&values.size(), values.kind());
                placed.f_copy_(values)?;
                Ok(placed)
            }
        }
    }

    /// Launches `kernel` of `variant`. `A` is the twin of its one argument, and the addresses in it are of live tensors on
    /// this device.
    pub fn launch<A: Copy>(
        &self,
        variant: &Variant,
        kernel: &'static str,
        arguments: A,
        launch: Launch,
    ) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        match self {
            Launcher::Gpu(gpu) => gpu.launch(variant, kernel, arguments, launch).map_err(refusal),
            Launcher::Emulated(emulator) => emulator
                .launch(variant, kernel, &Argument::new(&arguments), launch)
                .map_err(|reason| Error::invalid(format!("{variant}, {kernel}: {reason}"))),
        }
    }
}

/// Why there is no GPU to launch on.
pub(crate) fn refusal(error: ophidian_kernels::cuda::Error) -> Error {
    Error::invalid(error.to_string())
}

thread_local! {
    static EMULATOR: RefCell<Option<Arc<dyn Emulator>>> = const { RefCell::new(None) };
}

/// What stands in for a GPU within [`emulated`].
pub trait Emulator: Send + Sync {
    /// What launches have to know of the card.
    fn card(&self) -> Card;

    /// An uninitialised contiguous tensor on the CPU.
    fn empty(&self, shape: &[i64], kind: Kind) -> Tensor;

    /// Runs `kernel` of `variant` to its end.
    ///
    /// # Errors
    /// The kernel did what a GPU does not allow.
    fn launch(
        &self,
        variant: &Variant,
        kernel: &str,
        argument: &Argument,
        launch: Launch,
    ) -> std::result::Result<(), String>;
}

/// Runs `f`, in which this thread's ops treat tensors of the CPU as a GPU's: the same code makes the same launches, which
/// `emulator` runs. Backwards of what `f` made do so too, whenever they run.
pub fn emulated<T>(emulator: Arc<dyn Emulator>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<dyn Emulator>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            EMULATOR.set(self.0.take());
        }
    }
    let _restore = Restore(EMULATOR.replace(Some(emulator)));
    f()
}

/// The one argument of a kernel, whatever its type.
pub struct Argument<'a> {
    data: *const c_void,
    call: unsafe fn(*const c_void, *const c_void),
    _alive: PhantomData<&'a ()>,
}

impl<'a> Argument<'a> {
    fn new<A: Copy>(argument: &'a A) -> Self {
        unsafe fn call<A: Copy>(kernel: *const c_void, argument: *const c_void) {
            // Safety: by the word of `Argument::pass`.
            unsafe {
                let kernel: unsafe extern "C" fn(A) = std::mem::transmute(kernel);
                kernel(*argument.cast::<A>());
            }
        }
        Argument { data: std::ptr::from_ref(argument).cast(), call: call::<A>, _alive: PhantomData }
    }

    /// Calls the C function `kernel` with the argument, by value.
    ///
    /// # Safety
    /// It is the function of the kernel that the argument was made for.
    pub unsafe fn pass(&self, kernel: *const c_void) {
        // Safety: by the caller's word; the data is borrowed.
        unsafe { (self.call)(kernel, self.data) }
    }
}

/// The dtype of the rows that the kernels read and write: the widest of `rows`.
pub(super) fn element_of<'a>(rows: impl IntoIterator<Item = &'a Tensor>) -> Element {
    let mut kinds = rows.into_iter().map(Tensor::kind);
    let first = kinds.next();
    match first {
        Some(Kind::BFloat16) if kinds.all(|kind| kind == Kind::BFloat16) => Element::Bf16,
        Some(Kind::Half) if kinds.all(|kind| kind == Kind::Half) => Element::F16,
        _ => Element::F32,
    }
}

pub(super) fn kind_of(element: Element) -> Kind {
    match element {
        Element::F32 => Kind::Float,
        Element::Bf16 => Kind::BFloat16,
        Element::F16 => Kind::Half,
    }
}

/// Whether a backward may come of an op on `tensors`.
pub(super) fn wants_gradient<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    records_gradients() && tensors.into_iter().any(Tensor::requires_grad)
}
