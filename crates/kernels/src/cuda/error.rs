//! Why no kernel runs on a GPU, a sentence each.

use std::path::PathBuf;

/// Result of what has to do with CUDA.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can stand between a kernel's source and its run. Work on the CPU goes on after any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// libcuda is not there: no NVIDIA driver is installed.
    #[error("no NVIDIA driver: {reason}; install one, or compute on the CPU")]
    NoDriver {
        /// What the loader said.
        reason: String,
    },
    /// A driver, but no GPU that it may use.
    #[error("the NVIDIA driver finds no GPU (CUDA_VISIBLE_DEVICES may hide it); compute on the CPU")]
    NoDevice,
    /// A device that is not there.
    #[error("there is no GPU {index}: the driver counts {count}, from 0 to {}", count - 1)]
    Index {
        /// Asked for.
        index: usize,
        /// There are.
        count: usize,
    },
    /// A GPU that came before tensor cores took bf16.
    #[error("GPU {index} ({name}) has compute capability {}.{}, expected 8.0 or newer; compute on the CPU", capability / 10, capability % 10)]
    TooOld {
        /// Which one.
        index: usize,
        /// Its name.
        name: String,
        /// Ten times its compute capability.
        capability: u32,
    },
    /// A driver that cannot load what this NVRTC makes.
    #[error(
        "the NVIDIA driver, which knows CUDA up to {}.{}, cannot load what NVRTC of CUDA {}.{} makes; install a newer \
         driver, or set {} to the NVRTC of an older CUDA",
        driver / 1000, driver % 1000 / 10, nvrtc.0, nvrtc.1, super::nvrtc::VARIABLE
    )]
    DriverTooOld {
        /// As the driver gives it: 13000 for 13.0.
        driver: i32,
        /// Major and minor.
        nvrtc: (i32, i32),
    },
    /// No NVRTC in any of the places.
    #[error(
        "NVRTC, which compiles kernels for the GPU, is not found (looked for {}); `pip install nvidia-cuda-nvrtc` \
         brings it, or set {} to its file",
        looked.join(", "), super::nvrtc::VARIABLE
    )]
    NoNvrtc {
        /// Where it was looked for.
        looked: Vec<String>,
    },
    /// A library that is there and does not serve.
    #[error("{} does not serve as {what}: {reason}", path.display())]
    Library {
        /// The file.
        path: PathBuf,
        /// NVRTC or CUDA's driver.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// An architecture that NVRTC cannot compile for.
    #[error(
        "NVRTC {}.{} knows no compute capability {}.{}, only {}; install a newer one or set {}",
        nvrtc.0, nvrtc.1, capability / 10, capability % 10, known(supported), super::nvrtc::VARIABLE
    )]
    Architecture {
        /// Ten times the compute capability.
        capability: u32,
        /// Those it knows.
        supported: Vec<u32>,
        /// Its version.
        nvrtc: (i32, i32),
    },
    /// NVRTC refused a source.
    #[error("NVRTC did not compile {source_name} ({options}): {log}")]
    Compile {
        /// Name of the source.
        source_name: &'static str,
        /// What it was given.
        options: String,
        /// What it said.
        log: String,
    },
    /// The GPU's memory is full.
    #[error("GPU {index} is out of memory; take a smaller batch, or another device")]
    OutOfMemory {
        /// Which one.
        index: usize,
    },
    /// Anything else that a library refused.
    #[error("{function} failed: {text} ({code})")]
    Call {
        /// The function.
        function: &'static str,
        /// Its error code.
        code: i32,
        /// What the library calls it.
        text: String,
    },
}

fn known(capabilities: &[u32]) -> String {
    let shown = capabilities.iter().map(|number| format!("{}.{}", number / 10, number % 10));
    shown.collect::<Vec<_>>().join(", ")
}
