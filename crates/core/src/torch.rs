//! What tch leaves out of libtorch: which one it is, its CUDA library, autocast and the fused AdamW step.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    path::Path,
};

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, Result};

unsafe extern "C" {
    fn ophidian_torch_version() -> *const c_char;
    fn ophidian_torch_path() -> *const c_char;
    fn ophidian_keep_memory(keep: bool);
    fn ophidian_meter_start() -> i64;
    fn ophidian_meter_stop(before: i64) -> i64;
    fn ophidian_gpu_peak(device: i32, reset: bool, bytes: *mut i64) -> bool;
    fn ophidian_open_cuda(name: *const c_char) -> bool;
    fn ophidian_pin(tensor: *mut C_tensor) -> *mut c_char;
    fn ophidian_records_gradients() -> bool;
    fn ophidian_cuda_stream(device: i32, stream: *mut *mut c_void) -> bool;
    fn ophidian_autocast_enter() -> bool;
    fn ophidian_autocast_leave(before: bool);
    fn ophidian_autocast_set(enabled: bool) -> bool;
    fn ophidian_fused_adamw(
        tensors: *const *const C_tensor,
        count: usize,
        options: *const f64,
    ) -> *mut c_char;
    fn free(pointer: *mut c_void);
}

/// libtorch's version, and the file it was loaded from if the system says.
pub fn libtorch() -> (String, Option<String>) {
    // Safety: C strings that live as long as the program, or null.
    let text = |text: *const c_char| {
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    unsafe { (text(ophidian_torch_version()).unwrap_or_default(), text(ophidian_torch_path())) }
}

/// Has the C library keep up to 1 GiB of freed memory, or give every large tensor back to the system at once, which then
/// hands it out again page by page at the next step. A program keeps it, from its start; what measures memory does not.
///
/// What is kept lies on huge pages where the system has them: along a random order every row of a large tensor is on
/// another page, and with pages of 4 KiB their addresses alone cost a scan up to a fifth of its time. Does nothing where the C
/// library is not glibc.
pub fn keep_freed_memory(keep: bool) {
    // Safety: sets two numbers of the allocator, and takes nothing that is in use.
    unsafe { ophidian_keep_memory(keep) }
}

/// Runs `f`, and the most bytes that CPU tensors took meanwhile beyond those before it. It counts the tensors of all
/// threads, and not what is no tensor.
pub fn peak_of_tensors<T>(f: impl FnOnce() -> T) -> (T, u64) {
    // Safety: tensors carry the allocator that frees them.
    let before = unsafe { ophidian_meter_start() };
    let result = f();
    (result, u64::try_from(unsafe { ophidian_meter_stop(before) }).unwrap_or(0))
}

/// Runs `f`, and the most bytes that tensors on GPU `index` took meanwhile, those of before it among them; none if libtorch
/// does not tell.
pub fn peak_of_gpu<T>(index: usize, f: impl FnOnce() -> T) -> (T, Option<u64>) {
    let (index, mut peak) = (i32::try_from(index).unwrap_or(-1), 0);
    // Safety: the place is there.
    unsafe { ophidian_gpu_peak(index, true, &raw mut peak) };
    let result = f();
    let told = unsafe { ophidian_gpu_peak(index, false, &raw mut peak) };
    (result, u64::try_from(peak).ok().filter(|_| told))
}

/// Makes libtorch's CUDA backend available if the libtorch that was found has one, whether or not the program was linked
/// against it. To be called once, before any other use of libtorch; returns whether there is such a library.
pub fn register_cuda() -> bool {
    // macOS has no CUDA; elsewhere the loader looks where it found libtorch itself.
    open_cuda(Path::new("libtorch_cuda.so"))
}

pub(crate) fn open_cuda(library: &Path) -> bool {
    // Safety: a C string.
    CString::new(library.as_os_str().as_encoded_bytes())
        .is_ok_and(|name| unsafe { ophidian_open_cuda(name.as_ptr()) })
}

/// `tensor`, which is on the CPU, in pinned memory. (tch's own function names a device, which libtorch warns of at each call.)
///
/// # Errors
/// No memory, or no GPU.
pub(crate) fn pinned(tensor: &Tensor) -> Result<Tensor> {
    let mut pinned = tensor.f_contiguous()?;
    // Safety: a live tensor of this function's own.
    refusal(unsafe { ophidian_pin(pinned.as_mut_ptr()) }).map(|()| pinned)
}

/// The error of a message of libtorch's, which is freed; none if it is null.
fn refusal(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // Safety: a C string that is this function's to free.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        free(message.cast());
        text
    };
    Err(Error::invalid(text))
}

/// Whether operations on this thread are recorded for a backward.
pub(crate) fn records_gradients() -> bool {
    // Safety: reads a flag of the thread.
    unsafe { ophidian_records_gradients() }
}

/// The stream on which libtorch runs this thread's work on GPU `index` (null is the default one); none if this libtorch does
/// not tell.
pub(crate) fn cuda_stream(index: usize) -> Option<*mut c_void> {
    let mut stream = std::ptr::null_mut();
    let index = i32::try_from(index).ok()?;
    // Safety: the place is there.
    unsafe { ophidian_cuda_stream(index, &raw mut stream) }.then_some(stream)
}

/// Runs `f`; if `enabled`, with libtorch's autocast to bfloat16: matrix products and convolutions run in
/// bf16, sums that need it (losses, norms) in f32. The ops of [`crate::ops`] keep their state in f32 either way.
pub fn autocast<T>(enabled: bool, f: impl FnOnce() -> T) -> T {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            unsafe { ophidian_autocast_leave(self.0) }
        }
    }
    let _leave = enabled.then(|| Leave(unsafe { ophidian_autocast_enter() }));
    f()
}

/// Runs `f` with autocast off: for what must stay in f32 within [`autocast`].
pub fn full_precision<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            unsafe { ophidian_autocast_set(self.0) };
        }
    }
    let _restore = Restore(unsafe { ophidian_autocast_set(false) });
    f()
}

/// What [`fused_adamw`] updates, parameter by parameter: five lists of equal length.
pub struct AdamWGroup<'a> {
    /// Parameters.
    pub parameters: &'a [Tensor],
    /// Their gradients.
    pub gradients: &'a [Tensor],
    /// First moments, same shapes.
    pub exp_avg: &'a [Tensor],
    /// Second moments, same shapes.
    pub exp_avg_sq: &'a [Tensor],
    /// Steps taken so far, one f32 scalar each; advanced by one here.
    pub steps: &'a [Tensor],
}

/// Hyper-parameters of one AdamW step (Loshchilov & Hutter, arXiv 1711.05101).
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the moments.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
}

/// One AdamW step in place over a whole group, by libtorch's fused kernel.
///
/// # Errors
/// Lists of different lengths, or whatever libtorch refuses (shapes, dtypes, devices that differ).
pub fn fused_adamw(group: &AdamWGroup, options: &AdamW) -> Result<()> {
    let lists = [group.parameters, group.gradients, group.exp_avg, group.exp_avg_sq, group.steps];
    let count = group.parameters.len();
    if lists.iter().any(|list| list.len() != count) {
        let found: Vec<_> = lists.iter().map(|list| list.len()).collect();
        return Err(Error::invalid(format!(
            "fused_adamw: lists of {found:?} tensors, expected equal lengths"
        )));
    }
    if count == 0 {
        return Ok(());
    }
    let pointers: Vec<*const C_tensor> =
        lists.iter().flat_map(|list| list.iter().map(Tensor::as_ptr)).collect();
    let (beta1, beta2) = options.betas;
    let numbers = [options.learning_rate, beta1, beta2, options.weight_decay, options.eps];
    // Safety: five lists of `count` live tensors, five numbers.
    refusal(unsafe { ophidian_fused_adamw(pointers.as_ptr(), count, numbers.as_ptr()) })
}
