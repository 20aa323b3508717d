//! CUDA's driver, opened at run time: devices, modules, launches.
//!
//! Memory, streams and the context are the caller's (libtorch's): a device here is its primary context, which libtorch
//! uses too, and a launch goes to the stream it is given. What has no libtorch takes [`super::Memory`].

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

use libloading::Library;

use super::{
    Cache, Card, Error, Launch, Nvrtc, Result, Variant,
    graph::GraphFunctions,
    library::{function, open},
    memory::MemoryFunctions,
};

/// The driver's library.
const NAME: &str = "libcuda.so.1";

pub(super) const WHAT: &str = "CUDA's driver";

/// The oldest compute capability that the sources are written for.
const OLDEST: u32 = 80;

/// Bytes of dynamic shared memory that a kernel may have without asking for more: 48 KiB less what its own, static shared
/// memory may take.
const ALWAYS_SHARED: usize = 32 << 10;

// Numbers of cuda.h.
const OUT_OF_MEMORY: c_int = 2;
const NO_DEVICE: c_int = 100;
const NO_BINARY_FOR_GPU: c_int = 209;
const UNSUPPORTED_PTX: c_int = 222;
const CLOCK: c_int = 13;
const MULTIPROCESSORS: c_int = 16;
const MAJOR: c_int = 75;
const MINOR: c_int = 76;
const SHARED_OPTIN: c_int = 97;
const MAX_DYNAMIC_SHARED: c_int = 8;

pub(super) type Status = c_int;
/// A pointer that only the driver looks into.
pub(super) type Opaque = *mut c_void;

struct Functions {
    init: unsafe extern "C" fn(c_uint) -> Status,
    version: unsafe extern "C" fn(*mut c_int) -> Status,
    count: unsafe extern "C" fn(*mut c_int) -> Status,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status,
    retain: unsafe extern "C" fn(*mut Opaque, c_int) -> Status,
    push: unsafe extern "C" fn(Opaque) -> Status,
    pop: unsafe extern "C" fn(*mut Opaque) -> Status,
    load: unsafe extern "C" fn(*mut Opaque, *const c_void) -> Status,
    unload: unsafe extern "C" fn(Opaque) -> Status,
    kernel: unsafe extern "C" fn(*mut Opaque, Opaque, *const c_char) -> Status,
    set: unsafe extern "C" fn(Opaque, c_int, c_int) -> Status,
    #[allow(clippy::type_complexity)]
    launch: unsafe extern "C" fn(
        Opaque,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        Opaque,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> Status,
    error: unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
}

/// An open driver.
pub struct Driver {
    functions: Functions,
    /// Looked up when they are asked for: libtorch has memory of its own.
    memory: OnceLock<Result<MemoryFunctions>>,
    graphs: OnceLock<Result<GraphFunctions>>,
    version: i32,
    count: usize,
    library: Library,
    path: PathBuf,
}

impl Driver {
    /// The driver of this process, opened once.
    ///
    /// # Errors
    /// There is none, or no GPU.
    pub fn get() -> Result<&'static Driver> {
        static FOUND: OnceLock<Result<Driver>> = OnceLock::new();
        FOUND.get_or_init(|| Driver::at(Path::new(NAME))).as_ref().map_err(Clone::clone)
    }

    /// That of the file `path`.
    ///
    /// # Errors
    /// It is not there, does not serve, or finds no GPU.
    pub fn at(path: &Path) -> Result<Driver> {
        let library = open(path).map_err(|reason| Error::NoDriver { reason })?;
        // Safety: the types are those of cuda.h, and the library is kept.
        let functions = unsafe {
            Functions {
                init: function(&library, path, WHAT, "cuInit")?,
                version: function(&library, path, WHAT, "cuDriverGetVersion")?,
                count: function(&library, path, WHAT, "cuDeviceGetCount")?,
                device: function(&library, path, WHAT, "cuDeviceGet")?,
                name: function(&library, path, WHAT, "cuDeviceGetName")?,
                attribute: function(&library, path, WHAT, "cuDeviceGetAttribute")?,
                retain: function(&library, path, WHAT, "cuDevicePrimaryCtxRetain")?,
                push: function(&library, path, WHAT, "cuCtxPushCurrent_v2")?,
                pop: function(&library, path, WHAT, "cuCtxPopCurrent_v2")?,
                load: function(&library, path, WHAT, "cuModuleLoadData")?,
                unload: function(&library, path, WHAT, "cuModuleUnload")?,
                kernel: function(&library, path, WHAT, "cuModuleGetFunction")?,
                set: function(&library, path, WHAT, "cuFuncSetAttribute")?,
                launch: function(&library, path, WHAT, "cuLaunchKernel")?,
                error: function(&library, path, WHAT, "cuGetErrorString")?,
            }
        };
        let mut driver = Driver {
            functions,
            memory: OnceLock::new(),
            graphs: OnceLock::new(),
            version: 0,
            count: 0,
            library,
            path: path.to_path_buf(),
        };
        let (f, mut count) = (&driver.functions, 0);
        // Safety: the places written to are there.
        unsafe {
            driver.check("cuInit", (f.init)(0))?;
            driver.check("cuDeviceGetCount", (f.count)(&raw mut count))?;
            let mut version = 0;
            driver.check("cuDriverGetVersion", (f.version)(&raw mut version))?;
            driver.version = version;
        }
        driver.count = usize::try_from(count).unwrap_or(0);
        if driver.count == 0 { Err(Error::NoDevice) } else { Ok(driver) }
    }

    /// The functions of memory and events.
    ///
    /// # Errors
    /// The driver lacks one.
    pub(super) fn memory(&self) -> Result<&MemoryFunctions> {
        let find = || MemoryFunctions::of(&self.library, &self.path);
        self.memory.get_or_init(find).as_ref().map_err(Clone::clone)
    }

    /// The functions of streams and graphs.
    ///
    /// # Errors
    /// The driver lacks one.
    pub(super) fn graphs(&self) -> Result<&GraphFunctions> {
        let find = || GraphFunctions::of(&self.library, &self.path);
        self.graphs.get_or_init(find).as_ref().map_err(Clone::clone)
    }

    /// The newest CUDA it knows: 13000 for 13.0.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Number of GPUs.
    pub fn count(&self) -> usize {
        self.count
    }

    /// GPU `index`, with its primary context.
    ///
    /// # Errors
    /// There is no such GPU, it is too old, or its memory is full.
    pub fn device(&self, index: usize) -> Result<Device<'_>> {
        let number = match c_int::try_from(index) {
            Ok(number) if index < self.count => number,
            _ => return Err(Error::Index { index, count: self.count }),
        };
        let (f, mut handle, mut name) = (&self.functions, 0, [0 as c_char; 128]);
        // Safety: the places written to are there, and as large as is said.
        unsafe {
            self.check("cuDeviceGet", (f.device)(&raw mut handle, number))?;
            self.check("cuDeviceGetName", (f.name)(name.as_mut_ptr(), 127, handle))?;
        }
        let attribute = |which| {
            let mut value = 0;
            // Safety: as above.
            self.check("cuDeviceGetAttribute", unsafe { (f.attribute)(&raw mut value, which, handle) })?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let capability = attribute(MAJOR)? * 10 + attribute(MINOR)?;
        // Safety: the driver ended the name with a zero, and the last byte is one.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        if capability < OLDEST {
            return Err(Error::TooOld { index, name, capability });
        }
        let card =
            Card { multiprocessors: attribute(MULTIPROCESSORS)?, shared: attribute(SHARED_OPTIN)? as usize };
        let mut context = ptr::null_mut();
        // Nothing depends on it.
        let clock = attribute(CLOCK).unwrap_or(0);
        // Safety: as above. It stays retained: libtorch keeps its own hold for as long as the process lives, too.
        let status = unsafe { (f.retain)(&raw mut context, handle) };
        self.check_on(index, "cuDevicePrimaryCtxRetain", status)?;
        Ok(Device { driver: self, index, name, capability, card, clock, context })
    }

    pub(super) fn check(&self, function: &'static str, code: Status) -> Result<()> {
        match code {
            0 => Ok(()),
            NO_DEVICE => Err(Error::NoDevice),
            _ => {
                let mut told = ptr::null();
                // Safety: the driver writes a pointer to a text that it keeps, or null.
                let text = unsafe {
                    (self.functions.error)(code, &raw mut told);
                    if told.is_null() {
                        "unknown error".into()
                    } else {
                        CStr::from_ptr(told).to_string_lossy()
                    }
                };
                Err(Error::Call { function, code, text: text.into_owned() })
            }
        }
    }

    pub(super) fn check_on(&self, index: usize, function: &'static str, code: Status) -> Result<()> {
        if code == OUT_OF_MEMORY { Err(Error::OutOfMemory { index }) } else { self.check(function, code) }
    }
}

/// A GPU.
pub struct Device<'d> {
    pub(super) driver: &'d Driver,
    pub(super) index: usize,
    name: String,
    capability: u32,
    card: Card,
    clock: u32,
    pub(super) context: Opaque,
}

// Safety: the driver may be called from any thread; the context is made current around each call.
unsafe impl Send for Device<'_> {}
unsafe impl Sync for Device<'_> {}

impl<'d> Device<'d> {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ten times its compute capability.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// What launches have to know of it.
    pub fn card(&self) -> Card {
        self.card
    }

    /// The highest clock of its multiprocessors in kHz; 0 if the driver does not say.
    pub fn clock(&self) -> u32 {
        self.clock
    }

    /// The kernels of `variant`, from the cache or compiled for this GPU. The caller keeps them: loading takes a while.
    ///
    /// # Errors
    /// NVRTC is missing, knows no such GPU or refuses the source; the driver is older than what NVRTC makes; the GPU's
    /// memory is full.
    pub fn module(&self, variant: &Variant, cache: &Cache) -> Result<Module<'d>> {
        let nvrtc = Nvrtc::get()?;
        self.fits(nvrtc.version())?;
        let arch = nvrtc.architecture(self.capability)?;
        let kept = cache.cubin(nvrtc, variant, arch, self.driver.version)?;
        self.load(&kept.image, variant.source.kernels, nvrtc.version())
    }

    /// Whether the driver loads what an NVRTC of this version makes; see [`Nvrtc::suits`].
    fn fits(&self, nvrtc: (i32, i32)) -> Result<()> {
        if self.driver.version / 1000 < nvrtc.0 {
            return Err(Error::DriverTooOld { driver: self.driver.version, nvrtc });
        }
        Ok(())
    }

    /// The kernels in machine code that an NVRTC of version `nvrtc` made.
    ///
    /// # Errors
    /// The driver cannot load it, it lacks one of `kernels`, or the GPU's memory is full.
    pub fn load(
        &self,
        image: &[u8],
        kernels: &'static [&'static str],
        nvrtc: (i32, i32),
    ) -> Result<Module<'d>> {
        self.fits(nvrtc)?;
        let (f, mut handle) = (&self.driver.functions, ptr::null_mut());
        let _current = self.enter()?;
        // Safety: the image is whole, or the driver says so; its length is in its header.
        match unsafe { (f.load)(&raw mut handle, image.as_ptr().cast()) } {
            // Of the right major version, so what lacks is a newer minor one.
            NO_BINARY_FOR_GPU | UNSUPPORTED_PTX => {
                return Err(Error::DriverTooOld { driver: self.driver.version, nvrtc });
            }
            status => self.driver.check_on(self.index, "cuModuleLoadData", status)?,
        }
        let mut module = Module {
            driver: self.driver,
            context: self.context,
            index: self.index,
            handle,
            kernels: Vec::new(),
        };
        for name in kernels {
            let (text, mut kernel) = (CString::new(*name).unwrap_or_default(), ptr::null_mut());
            // Safety: the module is loaded, and the place is there.
            let status = unsafe { (f.kernel)(&raw mut kernel, handle, text.as_ptr()) };
            self.driver.check("cuModuleGetFunction", status)?;
            module.kernels.push(Kernel { name, handle: kernel, shared: Mutex::new(ALWAYS_SHARED) });
        }
        Ok(module)
    }

    pub(super) fn enter(&self) -> Result<Entered<'d>> {
        Entered::new(self.driver, self.context)
    }
}

/// Loaded kernels of a GPU.
pub struct Module<'d> {
    driver: &'d Driver,
    context: Opaque,
    index: usize,
    handle: Opaque,
    kernels: Vec<Kernel>,
}

/// A kernel, and how many bytes of dynamic shared memory its launches may have by now.
struct Kernel {
    name: &'static str,
    handle: Opaque,
    shared: Mutex<usize>,
}

// Safety: as a Device.
unsafe impl Send for Module<'_> {}
unsafe impl Sync for Module<'_> {}

impl Module<'_> {
    /// Launches `kernel` with its one argument on `stream` (of the device's primary context; null: the default one), and
    /// does not wait. An empty grid does nothing. May be captured in a CUDA graph.
    ///
    /// # Errors
    /// There is no such kernel, or the driver refuses the launch.
    ///
    /// # Safety
    /// `A` is the `#[repr(C)]` twin of the kernel's argument; what its pointers name is on this device, of the shapes
    /// that it gives, and lives until the kernel has run.
    pub unsafe fn launch<A: Copy>(
        &self,
        kernel: &str,
        arguments: A,
        launch: Launch,
        stream: Opaque,
    ) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let Some(Kernel { handle, shared: allowed, .. }) = self.kernels.iter().find(|it| it.name == kernel)
        else {
            let text = format!("there is no kernel `{kernel}`");
            return Err(Error::Call { function: "cuModuleGetFunction", code: 0, text });
        };
        let f = &self.driver.functions;
        let _current = Entered::new(self.driver, self.context)?;
        {
            // The kernel's, not the launch's: were it ever lowered, the launch of another thread could find too little.
            let mut allowed = allowed.lock().unwrap_or_else(PoisonError::into_inner);
            if launch.shared > *allowed {
                let bytes = c_int::try_from(launch.shared).unwrap_or(c_int::MAX);
                // Safety: a kernel of this module.
                let status = unsafe { (f.set)(*handle, MAX_DYNAMIC_SHARED, bytes) };
                self.driver.check("cuFuncSetAttribute", status)?;
                *allowed = launch.shared;
            }
        }
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        let shared = c_uint::try_from(launch.shared).unwrap_or(c_uint::MAX);
        // The driver copies the argument before it returns.
        let mut arguments = [(&raw const arguments).cast_mut().cast::<c_void>()];
        // Safety: by the caller's word.
        let status = unsafe {
            let arguments = arguments.as_mut_ptr();
            (f.launch)(*handle, gx, gy, gz, bx, by, bz, shared, stream, arguments, ptr::null_mut())
        };
        self.driver.check_on(self.index, "cuLaunchKernel", status)
    }
}

impl Drop for Module<'_> {
    fn drop(&mut self) {
        if let Ok(_current) = Entered::new(self.driver, self.context) {
            // Safety: loaded, and not used after. At the process's end the driver may be gone, and refuses.
            unsafe { (self.driver.functions.unload)(self.handle) };
        }
    }
}

/// A context that is current on this thread, until the one before it is again.
pub(super) struct Entered<'d>(&'d Driver);

impl<'d> Entered<'d> {
    pub(super) fn new(driver: &'d Driver, context: Opaque) -> Result<Self> {
        // Safety: a retained primary context.
        driver.check("cuCtxPushCurrent", unsafe { (driver.functions.push)(context) })?;
        Ok(Entered(driver))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut left = ptr::null_mut();
        // Safety: what was pushed.
        unsafe { (self.0.functions.pop)(&raw mut left) };
    }
}
