//! A GPU's memory and its clock, for what runs kernels without libtorch: the proof and the benchmarks on a card.
//! Everything here is on the default stream.

use std::{
    ffi::{c_uint, c_void},
    path::Path,
    ptr,
};

use libloading::Library;

use super::{
    Device, Driver, Result,
    driver::{Entered, Opaque, Status, WHAT},
    library::function,
};

/// What the driver has for them.
pub(super) struct MemoryFunctions {
    allocate: unsafe extern "C" fn(*mut u64, usize) -> Status,
    free: unsafe extern "C" fn(u64) -> Status,
    write: unsafe extern "C" fn(u64, *const c_void, usize) -> Status,
    read: unsafe extern "C" fn(*mut c_void, u64, usize) -> Status,
    copy: unsafe extern "C" fn(u64, u64, usize) -> Status,
    fill: unsafe extern "C" fn(u64, u8, usize) -> Status,
    synchronise: unsafe extern "C" fn() -> Status,
    event: unsafe extern "C" fn(*mut Opaque, c_uint) -> Status,
    record: unsafe extern "C" fn(Opaque, Opaque) -> Status,
    elapsed: unsafe extern "C" fn(*mut f32, Opaque, Opaque) -> Status,
    forget: unsafe extern "C" fn(Opaque) -> Status,
}

impl MemoryFunctions {
    pub(super) fn of(library: &Library, path: &Path) -> Result<MemoryFunctions> {
        // Safety: the types are those of cuda.h, and the driver keeps the library.
        unsafe {
            Ok(MemoryFunctions {
                allocate: function(library, path, WHAT, "cuMemAlloc_v2")?,
                free: function(library, path, WHAT, "cuMemFree_v2")?,
                write: function(library, path, WHAT, "cuMemcpyHtoD_v2")?,
                read: function(library, path, WHAT, "cuMemcpyDtoH_v2")?,
                copy: function(library, path, WHAT, "cuMemcpyDtoD_v2")?,
                fill: function(library, path, WHAT, "cuMemsetD8_v2")?,
                synchronise: function(library, path, WHAT, "cuCtxSynchronize")?,
                event: function(library, path, WHAT, "cuEventCreate")?,
                record: function(library, path, WHAT, "cuEventRecord")?,
                // One and the same type: CUDA 13 names the second in its header, older drivers have only the first.
                elapsed: function(library, path, WHAT, "cuEventElapsedTime")
                    .or_else(|_| function(library, path, WHAT, "cuEventElapsedTime_v2"))?,
                forget: function(library, path, WHAT, "cuEventDestroy_v2")?,
            })
        }
    }
}

/// Bytes on a GPU, at a multiple of 256.
pub struct Memory<'d> {
    driver: &'d Driver,
    functions: &'d MemoryFunctions,
    context: Opaque,
    address: u64,
    len: usize,
}

// Safety: as a Device.
unsafe impl Send for Memory<'_> {}
unsafe impl Sync for Memory<'_> {}

impl<'d> Device<'d> {
    /// `len` bytes of whatever was there.
    ///
    /// # Errors
    /// The GPU's memory is full.
    pub fn allocate(&self, len: usize) -> Result<Memory<'d>> {
        let (functions, _current) = (self.driver.memory()?, self.enter()?);
        let mut address = 0;
        // Safety: the place is there. The driver refuses to allocate nothing.
        let status = unsafe { (functions.allocate)(&raw mut address, len.max(1)) };
        self.driver.check_on(self.index, "cuMemAlloc", status)?;
        Ok(Memory { driver: self.driver, functions, context: self.context, address, len })
    }

    /// Waits until everything that was launched has run.
    ///
    /// # Errors
    /// Something that was launched failed: an address that is not the kernel's, say. The context is lost then.
    pub fn synchronise(&self) -> Result<()> {
        let (functions, _current) = (self.driver.memory()?, self.enter()?);
        // Safety: a context is current.
        self.driver.check("cuCtxSynchronize", unsafe { (functions.synchronise)() })
    }

    /// Milliseconds of GPU time that what `work` launches on the default stream takes.
    ///
    /// # Errors
    /// Those of `work`, and those of [`Device::synchronise`].
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f32> {
        let f = self.driver.memory()?;
        let (before, after) = (Event::new(self)?, Event::new(self)?);
        let record = |event: &Event| {
            let _current = self.enter()?;
            // Safety: an event of this context.
            self.driver.check("cuEventRecord", unsafe { (f.record)(event.handle, ptr::null_mut()) })
        };
        record(&before)?;
        work()?;
        record(&after)?;
        self.synchronise()?;
        let _current = self.enter()?;
        let mut elapsed = 0.0;
        // Safety: both events have happened.
        let status = unsafe { (f.elapsed)(&raw mut elapsed, before.handle, after.handle) };
        self.driver.check("cuEventElapsedTime", status)?;
        Ok(elapsed)
    }
}

impl Memory<'_> {
    /// Where it is on the GPU.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// What the driver says.
    pub fn fill(&self, byte: u8) -> Result<()> {
        // Safety: all of it is this memory's.
        self.within("cuMemsetD8", 0, self.len, |f| unsafe { (f.fill)(self.address, byte, self.len) })
    }

    /// Sets the bytes from `at` on.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// They are not in this memory.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let to = self.address + at as u64;
        // Safety: checked to be within.
        let write = |f: &MemoryFunctions| unsafe { (f.write)(to, bytes.as_ptr().cast(), bytes.len()) };
        self.within("cuMemcpyHtoD", at, bytes.len(), write)
    }

    /// Reads the bytes from `at` on, when all that was launched has run.
    ///
    /// # Errors
    /// What the driver says; also of kernels before it.
    ///
    /// # Panics
    /// They are not in this memory.
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        let from = self.address + at as u64;
        let (to, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        // Safety: checked to be within.
        self.within("cuMemcpyDtoH", at, len, |f| unsafe { (f.read)(to, from, len) })
    }

    /// Copies `len` bytes from the beginning to `to`; the two do not overlap.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// They overlap, or are not in this memory.
    pub fn copy_within(&self, to: usize, len: usize) -> Result<()> {
        assert!(len <= to);
        // Safety: checked to be within.
        let copy = |f: &MemoryFunctions| unsafe { (f.copy)(self.address + to as u64, self.address, len) };
        self.within("cuMemcpyDtoD", to, len, copy)
    }

    fn within(
        &self,
        function: &'static str,
        at: usize,
        len: usize,
        call: impl FnOnce(&MemoryFunctions) -> Status,
    ) -> Result<()> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "{function} outside of the memory");
        if len == 0 {
            return Ok(());
        }
        let _current = Entered::new(self.driver, self.context)?;
        self.driver.check(function, call(self.functions))
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if let Ok(_current) = Entered::new(self.driver, self.context) {
            // Safety: allocated, and not used after; the driver waits for what still uses it.
            unsafe { (self.functions.free)(self.address) };
        }
    }
}

struct Event<'d> {
    driver: &'d Driver,
    functions: &'d MemoryFunctions,
    context: Opaque,
    handle: Opaque,
}

impl<'d> Event<'d> {
    fn new(device: &Device<'d>) -> Result<Event<'d>> {
        let (functions, _current) = (device.driver.memory()?, device.enter()?);
        let mut handle = ptr::null_mut();
        // Safety: the place is there.
        let status = unsafe { (functions.event)(&raw mut handle, 0) };
        device.driver.check("cuEventCreate", status)?;
        Ok(Event { driver: device.driver, functions, context: device.context, handle })
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if let Ok(_current) = Entered::new(self.driver, self.context) {
            // Safety: created, and not used after.
            unsafe { (self.functions.forget)(self.handle) };
        }
    }
}
