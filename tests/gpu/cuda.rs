//! A GPU in the place of the tests' emulator (`tests/cuda/mod.rs`), by the same names.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::c_void,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use ophidian_kernels::cuda::{Cache, Device, Driver, Launch, Memory, Module, Result, Stream, Variant};

/// How launches are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Not at all: the kernels are only noted, see [`noted`].
    Noted,
    /// Waits for each, so that an error has the name of its kernel.
    Waited,
    /// One behind the other, as an op does.
    Streamed,
    /// Recorded, and run as one CUDA graph before a result is read or memory is given back.
    Captured,
}

/// What a result must not depend on; the third also is a repetition.
pub const SCHEDULES: [Schedule; 4] =
    [Schedule::Waited, Schedule::Streamed, Schedule::Streamed, Schedule::Captured];

/// What exponentials and sums in f32 cost, relative to the sizes of what is summed: tensor cores cut off where a processor
/// rounds, product after product.
pub const SUMS: f64 = 2e-5;

/// Steps of a chunk and channels of a slab for the authors' problems: as the op has them, which finds its kernels compiled then.
pub const GOLDEN_TILING: [usize; 2] = [64, 64];

struct Gpu {
    device: Device<'static>,
    cache: Cache,
    modules: Mutex<HashMap<String, Arc<OnceLock<Result<Module<'static>>>>>>,
    noted: Mutex<Vec<Variant>>,
    recording: Mutex<Recording>,
}

/// What is recorded.
#[derive(Default)]
struct Recording {
    /// Once one was needed.
    stream: Option<Stream<'static>>,
    /// Kernels on it that have not run.
    launches: Vec<String>,
    /// Kernels that have.
    played: BTreeSet<String>,
}

static GPU: OnceLock<Gpu> = OnceLock::new();

/// Takes the first GPU.
///
/// # Errors
/// There is none that serves.
pub fn open() -> Result<&'static Device<'static>> {
    let device = Driver::get()?.device(0)?;
    let gpu = || Gpu {
        device,
        cache: Cache::user(),
        modules: Mutex::default(),
        noted: Mutex::default(),
        recording: Mutex::default(),
    };
    Ok(&GPU.get_or_init(gpu).device)
}

fn gpu() -> &'static Gpu {
    GPU.get().expect("the GPU is opened first")
}

/// The kernels that were noted since the last time, each once.
pub fn noted() -> Vec<Variant> {
    let mut noted = std::mem::take(&mut *gpu().noted.lock().unwrap());
    noted.sort_by_key(ToString::to_string);
    noted.dedup();
    noted
}

/// The kernels of `variant`, compiled once.
///
/// # Errors
/// It does not compile, or not load.
pub fn prepare<R>(variant: &Variant, with: impl FnOnce(&Module) -> Result<R>) -> Result<R> {
    let gpu = gpu();
    let cell = gpu.modules.lock().unwrap().entry(variant.to_string()).or_default().clone();
    match cell.get_or_init(|| gpu.device.module(variant, &gpu.cache)) {
        Ok(module) => with(module),
        Err(error) => Err(error.clone()),
    }
}

/// Runs a kernel of the crate.
///
/// # Errors
/// What the driver says.
pub fn launch<A: Copy>(
    variant: &Variant,
    kernel: &str,
    arguments: A,
    launch: Launch,
    schedule: Schedule,
) -> std::result::Result<(), String> {
    if schedule == Schedule::Noted {
        gpu().noted.lock().unwrap().push(variant.clone());
        return Ok(());
    }
    let launched = prepare(variant, |module| {
        if schedule == Schedule::Captured {
            return record(kernel, |stream| {
                // Safety: as below; what is recorded runs before any of its memory is given back.
                unsafe { module.launch(kernel, arguments, launch, stream) }
            });
        }
        // Safety: the problems give buffers of this GPU, of the shapes that they say, and keep them until results are read.
        unsafe { module.launch(kernel, arguments, launch, std::ptr::null_mut()) }?;
        if schedule == Schedule::Waited { gpu().device.synchronise() } else { Ok(()) }
    });
    launched.map_err(|error| error.to_string())
}

fn recording() -> MutexGuard<'static, Recording> {
    gpu().recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has `launch` recorded on the stream that it is given.
fn record(kernel: &str, launch: impl FnOnce(*mut c_void) -> Result<()>) -> Result<()> {
    let Recording { stream, launches, .. } = &mut *recording();
    let stream = match stream {
        Some(stream) => stream,
        none => none.insert(gpu().device.stream()?),
    };
    if launches.is_empty() {
        stream.begin()?;
    }
    launches.push(kernel.into());
    launch(stream.handle())
}

/// Runs what was recorded, and waits for it.
fn play() -> Result<()> {
    let Recording { stream, launches, played } = &mut *recording();
    let (Some(stream), false) = (stream, launches.is_empty()) else { return Ok(()) };
    let launched = std::mem::take(launches);
    let graph = stream.end()?;
    // What was written to the memory, too, was not waited for.
    gpu().device.synchronise()?;
    // Safety: all memory of this program waits for it.
    unsafe { stream.launch(&graph) }?;
    gpu().device.synchronise()?;
    played.extend(launched);
    Ok(())
}

/// The kernels that have run in graphs.
pub fn captured() -> BTreeSet<String> {
    recording().played.clone()
}

/// Bytes behind a buffer that nothing may write to.
const GUARD: usize = 256;

/// Memory of the GPU: every byte 0xff (NaN) until written.
pub struct Buffer<T: Copy> {
    memory: Memory<'static>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Copy> Buffer<T> {
    /// # Panics
    /// The memory is full; the panic is the driver's sentence.
    pub fn poisoned(len: usize) -> Self {
        let memory = gpu().device.allocate(len * size_of::<T>() + GUARD);
        let memory = memory.and_then(|memory| memory.fill(0xff).map(|()| memory));
        Buffer { memory: memory.unwrap_or_else(|error| panic!("{error}")), len, of: PhantomData }
    }

    pub fn of(values: &[T]) -> Self {
        let buffer = Self::poisoned(values.len());
        // Safety: numbers are bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        buffer.memory.write(0, bytes).unwrap_or_else(|error| panic!("{error}"));
        buffer
    }

    /// `pattern` over and over.
    pub fn repeated(pattern: &[T], len: usize) -> Self {
        let buffer = Self::of(&pattern[..pattern.len().min(len)]);
        if pattern.len() >= len {
            return buffer;
        }
        drop(buffer);
        let buffer = Self::poisoned(len);
        // Safety: as above.
        let bytes =
            unsafe { std::slice::from_raw_parts(pattern.as_ptr().cast::<u8>(), size_of_val(pattern)) };
        let (mut filled, all) = (bytes.len(), len * size_of::<T>());
        let mut done = buffer.memory.write(0, bytes);
        while filled < all && done.is_ok() {
            let more = filled.min(all - filled);
            done = buffer.memory.copy_within(filled, more);
            filled += more;
        }
        done.unwrap_or_else(|error| panic!("{error}"));
        buffer
    }

    pub fn ptr(&self) -> *mut T {
        self.memory.address() as *mut T
    }

    /// What is in it when all that was launched has run.
    ///
    /// # Panics
    /// A kernel failed, or wrote behind its end.
    pub fn read(&self) -> Vec<T> {
        play().unwrap_or_else(|error| panic!("{error}"));
        let size = self.len * size_of::<T>();
        let mut values = Vec::<T>::with_capacity(self.len);
        let mut guard = [0; GUARD];
        // Safety: the vector has that room, and numbers are any bytes.
        let read = unsafe {
            let bytes = std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), size);
            let read = self.memory.read(0, bytes);
            values.set_len(self.len);
            read
        };
        read.and_then(|()| self.memory.read(size, &mut guard)).unwrap_or_else(|error| panic!("{error}"));
        assert!(guard.iter().all(|byte| *byte == 0xff), "a kernel wrote behind the end of a buffer");
        values
    }
}

impl<T: Copy> Drop for Buffer<T> {
    fn drop(&mut self) {
        // What fails here fails again where a result is read.
        let _ = play();
    }
}
