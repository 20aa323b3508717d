//! The Rust side of the one autograd function: an op is a value with a forward and a backward over tensors.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
};

use ophidian_kernels::Pool;
use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, Result, device::of_panic};

/// What a forward leaves.
pub(crate) struct Outcome {
    pub outputs: Vec<Tensor>,
    /// Kept for the backward, behind the inputs.
    pub saved: Vec<Tensor>,
}

/// An op with hand-written derivatives. Runs without a graph being recorded.
pub(crate) trait CustomOp: Send + Sync {
    /// `training` says whether a backward may follow.
    fn forward(&self, inputs: &[Tensor], training: bool) -> Result<Outcome>;

    /// Gradients of the inputs; `saved` holds the inputs and what the forward saved.
    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>>;
}

#[repr(C)]
struct List {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn ophidian_apply(
        op: *mut c_void,
        inputs: *const *const C_tensor,
        count: usize,
        outputs: *mut List,
    ) -> *mut c_char;
    fn ophidian_list_new() -> *mut List;
    fn ophidian_list_free(list: *mut List);
    fn ophidian_list_len(list: *const List) -> usize;
    fn ophidian_list_get(list: *const List, i: usize) -> *const C_tensor;
    fn ophidian_list_push(list: *mut List, tensor: *const C_tensor);
    fn ophidian_broadcast(worker: unsafe extern "C" fn(*const c_void), data: *const c_void);
    fn ophidian_threads() -> usize;
    fn free(pointer: *mut c_void);
}

/// Runs `op` on `inputs` as one node of libtorch's graph.
pub(crate) fn apply(op: impl CustomOp + 'static, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let op: Box<dyn CustomOp> = Box::new(op);
    let op = Box::into_raw(Box::new(op));
    let pointers: Vec<*const C_tensor> = inputs.iter().map(|tensor| tensor.as_ptr()).collect();
    // Safety: the C++ side copies the tensors (shallowly), takes the op over and gives it back to `ophidian_op_drop`.
    unsafe {
        let list = ophidian_list_new();
        let message = ophidian_apply(op.cast(), pointers.as_ptr(), pointers.len(), list);
        let outputs = tensors(list).into_iter().flatten().collect();
        ophidian_list_free(list);
        if message.is_null() {
            return Ok(outputs);
        }
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        free(message.cast());
        Err(Error::invalid(text))
    }
}

/// Shallow copies of a list.
unsafe fn tensors(list: *const List) -> Vec<Option<Tensor>> {
    unsafe {
        (0..ophidian_list_len(list))
            .map(|i| {
                let tensor = ophidian_list_get(list, i);
                (!tensor.is_null()).then(|| Tensor::clone_from_ptr(tensor.cast_mut()))
            })
            .collect()
    }
}

unsafe fn push_all<'a>(list: *mut List, tensors: impl IntoIterator<Item = Option<&'a Tensor>>) {
    for tensor in tensors {
        unsafe { ophidian_list_push(list, tensor.map_or(std::ptr::null(), Tensor::as_ptr)) }
    }
}

/// Runs `body`; an error or a panic becomes a message for the C++ side.
fn guarded(body: impl FnOnce() -> Result<()>) -> *mut c_char {
    let text = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return std::ptr::null_mut(),
        Ok(Err(error)) => error.to_string(),
        Err(payload) => match of_panic(&*payload) {
            Some(error) => error.to_string(),
            None => "internal error: an op panicked".to_string(),
        },
    };
    CString::new(text.replace('\0', " ")).unwrap_or_default().into_raw()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ophidian_op_forward(
    op: *const Box<dyn CustomOp>,
    training: bool,
    inputs: *const List,
    outputs: *mut List,
    saved: *mut List,
) -> *mut c_char {
    guarded(|| unsafe {
        let inputs: Vec<Tensor> = tensors(inputs).into_iter().flatten().collect();
        let outcome = (*op).forward(&inputs, training)?;
        push_all(outputs, outcome.outputs.iter().map(Some));
        push_all(saved, outcome.saved.iter().map(Some));
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ophidian_op_backward(
    op: *const Box<dyn CustomOp>,
    saved: *const List,
    grads: *const List,
    results: *mut List,
) -> *mut c_char {
    guarded(|| unsafe {
        let saved: Vec<Tensor> = tensors(saved).into_iter().flatten().collect();
        let found = (*op).backward(&saved, &tensors(grads))?;
        push_all(results, found.iter().map(Option::as_ref));
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ophidian_op_drop(op: *mut Box<dyn CustomOp>) {
    drop(unsafe { Box::from_raw(op) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ophidian_message_free(message: *mut c_char) {
    drop(unsafe { CString::from_raw(message) });
}

/// libtorch's own thread pool: the kernels share its threads, so no second pool fights it for the cores.
pub struct TorchPool;

impl Pool for TorchPool {
    fn threads(&self) -> usize {
        unsafe { ophidian_threads() }
    }

    fn broadcast(&self, worker: &(dyn Fn() + Sync)) {
        unsafe extern "C" fn call(data: *const c_void) {
            // Safety: `data` is the reference below, alive until the broadcast returns.
            unsafe { (*data.cast::<&(dyn Fn() + Sync)>())() }
        }
        unsafe { ophidian_broadcast(call, std::ptr::from_ref(&worker).cast()) }
    }
}
