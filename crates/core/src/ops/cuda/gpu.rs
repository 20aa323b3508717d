//! A GPU of this process, with the kernels that are loaded on it.

use std::sync::{Arc, Mutex, PoisonError};

use ophidian_kernels::cuda::{Cache, Card, Device, Driver, Error, Launch, Module, Result, Variant};

use crate::torch::cuda_stream;

/// A GPU and its kernels: one module for each problem that was met. Lives as long as the process.
pub(crate) struct Gpu {
    index: usize,
    device: Device<'static>,
    modules: Mutex<Vec<(Variant, Arc<Module<'static>>)>>,
}

impl Gpu {
    /// GPU `index` as the driver, and libtorch, count them.
    ///
    /// # Errors
    /// There is no driver or no such GPU, or it is too old.
    pub fn at(index: usize) -> Result<&'static Gpu> {
        static GPUS: Mutex<Vec<&'static Gpu>> = Mutex::new(Vec::new());
        let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = gpus.iter().find(|gpu| gpu.index == index) {
            return Ok(gpu);
        }
        let device = Driver::get()?.device(index)?;
        let gpu: &Gpu = Box::leak(Box::new(Gpu { index, device, modules: Mutex::default() }));
        gpus.push(gpu);
        Ok(gpu)
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn name(&self) -> &str {
        self.device.name()
    }

    pub fn capability(&self) -> u32 {
        self.device.capability()
    }

    pub fn card(&self) -> Card {
        self.device.card()
    }

    /// The kernels of `variant`. Others that need them wait here until they are compiled, instead of compiling them too.
    pub fn module(&self, variant: &Variant) -> Result<Arc<Module<'static>>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |known: &Variant| known.source.name == variant.source.name && known.macros == variant.macros;
        if let Some((_, module)) = modules.iter().find(|(known, _)| same(known)) {
            return Ok(module.clone());
        }
        let module = Arc::new(self.device.module(variant, &Cache::user())?);
        modules.push((variant.clone(), module.clone()));
        Ok(module)
    }

    /// Launches `kernel` on libtorch's current stream; see [`Launcher::launch`](super::Launcher::launch).
    pub fn launch<A: Copy>(
        &self,
        variant: &Variant,
        kernel: &'static str,
        arguments: A,
        launch: Launch,
    ) -> Result<()> {
        let module = self.module(variant)?;
        let stream = cuda_stream(self.index).ok_or_else(|| Error::Call {
            function: "aoti_torch_get_current_cuda_stream",
            code: -1,
            text:
                "this libtorch does not tell its current stream; use the one that `cargo xtask setup` brings"
                    .into(),
        })?;
        // Safety: the ops give each kernel the twin of its argument, with addresses of tensors on this device. Those that
        // are dropped before the kernel has run go back to libtorch's allocator, which gives them out again on the same
        // stream only, behind the kernel.
        unsafe { module.launch(kernel, arguments, launch, stream) }
    }
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
