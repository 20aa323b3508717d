//! The kernels' CUDA sources compiled as C++ behind the emulator of `crates/kernels/tests/cuda/emulate.hpp`, in place of a
//! GPU. The compiler is `$CXX`, else `c++`.

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_void},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use libloading::Library;
use ophidian_core::ops::cuda::{Argument, Emulator};
use ophidian_kernels::cuda::{Card, Launch, Variant};
use tch::{Device, Kind, Tensor};

type Start = unsafe extern "C" fn(
    unsafe extern "C" fn(*const c_void),
    *const c_void,
    *const u32,
    *const u32,
    usize,
    u64,
    i32,
) -> *const c_char;

/// Hands out memory that may not be touched beyond its end, filled with NaN, and runs kernels in it.
pub struct Emulated {
    card: Card,
    /// The order in which threads take turns: 0, 1, or the seed of a shuffle.
    order: u64,
    memory: Mutex<Vec<(usize, usize)>>,
    /// Kernels that ran, each with its variant.
    launched: Mutex<Vec<[String; 2]>>,
}

impl Emulated {
    /// A card of so many multiprocessors: the more, the more a problem is cut up.
    pub fn new(multiprocessors: u32, order: u64) -> Arc<Emulated> {
        let card = Card { multiprocessors, shared: 227 << 10 };
        Arc::new(Emulated { card, order, memory: Mutex::default(), launched: Mutex::default() })
    }

    /// The values of `tensor` in the emulator's memory.
    pub fn copy(&self, tensor: &Tensor) -> Tensor {
        let mut copy = self.empty(&tensor.size(), tensor.kind());
        copy.copy_(tensor);
        copy
    }

    /// Tensors that were handed out.
    pub fn tensors(&self) -> usize {
        self.memory.lock().unwrap().len()
    }

    /// Whether the kernel `name` ran.
    pub fn ran(&self, name: &str) -> bool {
        !self.variants(name).is_empty()
    }

    /// The variant of each run of the kernel `name`.
    pub fn variants(&self, name: &str) -> Vec<String> {
        let launched = self.launched.lock().unwrap();
        launched.iter().filter(|[kernel, _]| kernel == name).map(|[_, variant]| variant.clone()).collect()
    }
}

impl Emulator for Emulated {
    fn card(&self) -> Card {
        self.card
    }

    fn empty(&self, shape: &[i64], kind: Kind) -> Tensor {
        let bytes = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i].max(1);
        }
        // Safety: the function has this type; the memory is as large as is said and lives as long as the emulator.
        unsafe {
            let library = runtime();
            let allocate =
                library.get::<unsafe extern "C" fn(usize, i32) -> *mut u8>(b"emulate_allocate").unwrap();
            let data = allocate(bytes, 1);
            self.memory.lock().unwrap().push((data as usize, bytes));
            Tensor::from_blob(data, shape, &strides, kind, Device::Cpu)
        }
    }

    fn launch(
        &self,
        variant: &Variant,
        kernel: &str,
        argument: &Argument,
        launch: Launch,
    ) -> Result<(), String> {
        assert!(variant.source.kernels.contains(&kernel), "{kernel}");
        self.launched.lock().unwrap().push([kernel.to_owned(), variant.to_string()]);
        unsafe extern "C" fn call(context: *const c_void) {
            // Safety: the context is the pair below.
            unsafe {
                let (kernel, argument) = &*context.cast::<(*const c_void, &Argument)>();
                argument.pass(*kernel);
            }
        }
        let library = compiled(variant);
        // The emulator's state and its signal handlers are the process's.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // Safety: the symbols have these types, and the kernel takes the argument by the word of the ops.
        unsafe {
            let start = library.get::<Start>(b"emulate_launch").unwrap();
            let kernel = *library.get::<*const c_void>(kernel.as_bytes()).map_err(|e| e.to_string())?;
            let context = (kernel, argument);
            let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
            let error = start(call, (&raw const context).cast(), grid, block, launch.shared, self.order, 1);
            if error.is_null() { Ok(()) } else { Err(CStr::from_ptr(error).to_string_lossy().into_owned()) }
        }
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        for (data, bytes) in self.memory.get_mut().unwrap().drain(..) {
            // Safety: what was allocated.
            unsafe {
                let release = runtime().get::<unsafe extern "C" fn(*mut u8, usize)>(b"emulate_release");
                release.unwrap()(data as *mut u8, bytes);
            }
        }
    }
}

/// The emulator alone, for memory.
fn runtime() -> &'static Library {
    static RUNTIME: OnceLock<Library> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let source = folder().join("runtime.cu");
        std::fs::write(&source, "").unwrap();
        build(&source, &[], "runtime")
    })
}

/// Where compiled sources lie while the process runs.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// A variant, compiled once per process.
fn compiled(variant: &Variant) -> &'static Library {
    type Cell = &'static OnceLock<Library>;
    static LIBRARIES: OnceLock<Mutex<HashMap<String, Cell>>> = OnceLock::new();
    let (key, cell, number) = {
        let mut all = LIBRARIES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        let (key, number) = (variant.to_string(), all.len());
        let cell = *all.entry(key.clone()).or_insert_with(|| Box::leak(Box::default()));
        (key, cell, number)
    };
    cell.get_or_init(|| {
        let name = key.split(' ').next().unwrap_or_default();
        let source = kernels().join("cuda").join(variant.source.name);
        build(&source, &variant.definitions().collect::<Vec<_>>(), &format!("{name}-{number}"))
    })
}

fn kernels() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels"))
}

fn build(source: &Path, macros: &[String], name: &str) -> Library {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let library = folder().join(format!("{name}.so"));
    let mut command = Command::new(&compiler);
    // As the kernels' own tests compile them: no contraction that the source does not ask for.
    command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fno-strict-aliasing"]);
    command.args(["-U_FORTIFY_SOURCE", "-w"]);
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") {
        command.arg("-mfma");
    }
    command.arg("-include").arg(kernels().join("tests/cuda/emulate.hpp"));
    command.arg("-I").arg(kernels().join("cuda")).args(macros);
    command.args(["-x", "c++"]).arg(source).arg("-o").arg(&library);
    let output = command.output().unwrap_or_else(|error| panic!("{compiler} (a C++ compiler): {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} does not compile {source:?} with {macros:?}:\n{said}");
    // Safety: the library has no initialisers.
    unsafe { Library::new(&library) }.unwrap()
}
