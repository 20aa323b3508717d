//! CUDA sources executed on the CPU: compiled as C++ behind `emulate.hpp` (which says what is emulated and what is found),
//! loaded, launched. The compiler is `$CXX`, else `c++`.
#![allow(dead_code, missing_docs)]

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_void},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
};

use libloading::Library;
use ophidian_kernels::cuda::Variant;

/// The order in which threads and blocks are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Turns {
    Forward,
    Backward,
    /// Another one at every pass, from this seed.
    Shuffled(u32),
}

/// What a correct kernel does not depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub turns: Turns,
    /// Asynchronous copies are made when they are waited for, else when they are asked for.
    pub late_copies: bool,
}

/// What exponentials and sums in f32 cost, relative to the sizes of what is summed.
pub const SUMS: f64 = 3e-6;

/// Steps of a chunk and channels of a slab for the authors' problems: short ones have several of both.
pub const GOLDEN_TILING: [usize; 2] = [32, 32];

/// Enough to find a missing barrier.
pub const SCHEDULES: [Schedule; 3] = [
    Schedule { turns: Turns::Forward, late_copies: true },
    Schedule { turns: Turns::Backward, late_copies: false },
    Schedule { turns: Turns::Shuffled(7), late_copies: true },
];

/// Shape of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

type Call = unsafe extern "C" fn(*const c_void);
type Start =
    unsafe extern "C" fn(Call, *const c_void, *const u32, *const u32, usize, u64, i32) -> *const c_char;

/// One source with its macros, compiled and loaded.
pub struct Module {
    library: Library,
}

/// A file of `cuda/` with `macros`, compiled once per process.
pub fn module(file: &str, macros: &[(&str, i64)]) -> Arc<Module> {
    compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda").join(file), macros)
}

/// Source text of a test, compiled once per process.
pub fn module_from(name: &str, source: &str) -> Arc<Module> {
    let path = folder().join(format!("{name}.cu"));
    std::fs::write(&path, source).unwrap();
    compiled(&path, &[])
}

/// Where compiled sources lie while the process runs.
fn folder() -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().into()
}

fn compiled(source: &Path, macros: &[(&str, i64)]) -> Arc<Module> {
    type Cell = Arc<OnceLock<Arc<Module>>>;
    static MODULES: Mutex<Option<HashMap<String, Cell>>> = Mutex::new(None);
    let key = format!("{source:?} {macros:?}");
    let (cell, number) = {
        let mut modules = MODULES.lock().unwrap_or_else(|e| e.into_inner());
        let modules = modules.get_or_insert_default();
        let number = modules.len();
        (modules.entry(key).or_default().clone(), number)
    };
    cell.get_or_init(|| Arc::new(Module::compile(source, macros, number))).clone()
}

impl Module {
    fn compile(source: &Path, macros: &[(&str, i64)], number: usize) -> Module {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let library = folder().join(format!("{number}.so"));
        let mut command = Command::new(&compiler);
        // No contraction: a fused multiply-add is one that the source asks for, on every machine.
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing"]);
        command.args([
            "-U_FORTIFY_SOURCE",
            "-Wall",
            "-Wno-unknown-pragmas",
            "-Wno-unused-function",
            "-Wno-maybe-uninitialized",
        ]);
        if cfg!(target_arch = "x86_64") && fused_multiply_add() {
            command.arg("-mfma");
        }
        command.arg("-include").arg(here.join("tests/cuda/emulate.hpp")).arg("-I").arg(here.join("cuda"));
        command.args(macros.iter().map(|(name, value)| format!("-D{name}={value}")));
        command.args(["-x", "c++"]).arg(source).arg("-o").arg(&library);
        let output = command.output().unwrap_or_else(|error| panic!("{compiler} (a C++ compiler): {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} does not compile {source:?} with {macros:?}:\n{said}");
        assert!(said.is_empty(), "{compiler} warns about {source:?}:\n{said}");
        // Safety: the library has no initialisers.
        Module { library: unsafe { Library::new(&library) }.unwrap() }
    }

    /// Runs `kernel<<<launch>>>(arguments)`.
    ///
    /// # Errors
    /// What the emulator found; see `emulate.hpp`.
    pub fn launch<A: Copy>(
        &self,
        kernel: &str,
        arguments: A,
        launch: Launch,
        schedule: Schedule,
    ) -> Result<(), String> {
        type Kernel<A> = unsafe extern "C" fn(A);
        unsafe extern "C" fn call<A: Copy>(context: *const c_void) {
            // Safety: the context is the pair below; the kernel takes an A by the caller's word.
            unsafe {
                let (kernel, arguments) = &*context.cast::<(Kernel<A>, A)>();
                kernel(*arguments);
            }
        }
        let order = match schedule.turns {
            Turns::Forward => 0,
            Turns::Backward => 1,
            Turns::Shuffled(seed) => u64::from(seed) + 2,
        };
        // The emulator's state and its signal handlers are the process's.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
        // Safety: the symbols have these types.
        unsafe {
            let start = self.library.get::<Start>(b"emulate_launch").unwrap();
            let kernel = *self.library.get::<Kernel<A>>(kernel.as_bytes()).map_err(|e| e.to_string())?;
            let context = (kernel, arguments);
            let error = start(
                call::<A>,
                (&raw const context).cast(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared,
                order,
                schedule.late_copies.into(),
            );
            if error.is_null() { Ok(()) } else { Err(CStr::from_ptr(error).to_string_lossy().into_owned()) }
        }
    }
}

/// Runs a kernel of the crate.
///
/// # Errors
/// What the emulator found.
pub fn launch<A: Copy>(
    variant: &Variant,
    kernel: &str,
    arguments: A,
    launch: ophidian_kernels::cuda::Launch,
    schedule: Schedule,
) -> Result<(), String> {
    let macros: Vec<_> = variant.macros.iter().map(|(name, value)| (*name, i64::from(*value))).collect();
    let shape = Launch { grid: launch.grid, block: launch.block, shared: launch.shared };
    module(variant.source.name, &macros).launch(kernel, arguments, shape, schedule)
}

fn fused_multiply_add() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Memory of the "device": every byte 0xff (NaN) until written; an access behind its end (or before its beginning) is an
/// error of the launch.
pub struct Buffer<T: Copy> {
    data: *mut T,
    len: usize,
}

// Safety: as a Vec.
unsafe impl<T: Copy + Send> Send for Buffer<T> {}

impl<T: Copy> Buffer<T> {
    /// `len` values of NaN; its end is guarded if `at_end`, else its beginning.
    pub fn new(len: usize, at_end: bool) -> Self {
        let data = unsafe {
            let runtime = runtime();
            let allocate =
                runtime.library.get::<unsafe extern "C" fn(usize, i32) -> *mut T>(b"emulate_allocate");
            allocate.unwrap()(len * size_of::<T>(), at_end.into())
        };
        Buffer { data, len }
    }

    /// `len` values of NaN, the end guarded.
    pub fn poisoned(len: usize) -> Self {
        Self::new(len, true)
    }

    pub fn of(values: &[T]) -> Self {
        let mut buffer = Self::poisoned(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    pub fn ptr(&self) -> *mut T {
        self.data
    }

    /// What is in it now.
    pub fn read(&self) -> Vec<T> {
        self.to_vec()
    }
}

impl<T: Copy> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl<T: Copy> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T: Copy> Drop for Buffer<T> {
    fn drop(&mut self) {
        unsafe {
            let runtime = runtime();
            let release = runtime.library.get::<unsafe extern "C" fn(*mut T, usize)>(b"emulate_release");
            release.unwrap()(self.data, self.len * size_of::<T>());
        }
    }
}

fn runtime() -> Arc<Module> {
    static RUNTIME: OnceLock<Arc<Module>> = OnceLock::new();
    RUNTIME.get_or_init(|| module_from("runtime", "")).clone()
}
