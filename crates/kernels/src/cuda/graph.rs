//! CUDA graphs: launches that are recorded once and then run by one call. What has no libtorch proves with them that every
//! kernel can be captured.

use std::{
    ffi::{c_int, c_uint, c_void},
    path::Path,
    ptr,
};

use libloading::Library;

use super::{
    Device, Driver, Result,
    driver::{Entered, Opaque, Status, WHAT},
    library::function,
};

// Numbers of cuda.h.
/// A stream that neither waits for the default one nor makes it wait: else nothing could be copied while it records.
const NON_BLOCKING: c_uint = 1;
/// Memory may be taken and modules loaded while a stream records.
const RELAXED: c_int = 2;

/// What the driver has for them.
pub(super) struct GraphFunctions {
    stream: unsafe extern "C" fn(*mut Opaque, c_uint) -> Status,
    drop_stream: unsafe extern "C" fn(Opaque) -> Status,
    begin: unsafe extern "C" fn(Opaque, c_int) -> Status,
    end: unsafe extern "C" fn(Opaque, *mut Opaque) -> Status,
    instantiate: unsafe extern "C" fn(*mut Opaque, Opaque, u64) -> Status,
    launch: unsafe extern "C" fn(Opaque, Opaque) -> Status,
    drop_runnable: unsafe extern "C" fn(Opaque) -> Status,
    drop_graph: unsafe extern "C" fn(Opaque) -> Status,
}

impl GraphFunctions {
    pub(super) fn of(library: &Library, path: &Path) -> Result<GraphFunctions> {
        // Safety: the types are those of cuda.h, and the driver keeps the library.
        unsafe {
            Ok(GraphFunctions {
                stream: function(library, path, WHAT, "cuStreamCreate")?,
                drop_stream: function(library, path, WHAT, "cuStreamDestroy_v2")?,
                begin: function(library, path, WHAT, "cuStreamBeginCapture_v2")?,
                end: function(library, path, WHAT, "cuStreamEndCapture")?,
                instantiate: function(library, path, WHAT, "cuGraphInstantiateWithFlags")?,
                launch: function(library, path, WHAT, "cuGraphLaunch")?,
                drop_runnable: function(library, path, WHAT, "cuGraphExecDestroy")?,
                drop_graph: function(library, path, WHAT, "cuGraphDestroy")?,
            })
        }
    }
}

/// A stream of launches that can be recorded.
pub struct Stream<'d> {
    driver: &'d Driver,
    functions: &'d GraphFunctions,
    context: Opaque,
    handle: Opaque,
}

// Safety: as a Device.
unsafe impl Send for Stream<'_> {}
unsafe impl Sync for Stream<'_> {}

impl<'d> Device<'d> {
    /// A new stream, which does not wait for the default one.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stream(&self) -> Result<Stream<'d>> {
        let (functions, _current) = (self.driver.graphs()?, self.enter()?);
        let mut handle = ptr::null_mut();
        // Safety: the place is there.
        let status = unsafe { (functions.stream)(&raw mut handle, NON_BLOCKING) };
        self.driver.check("cuStreamCreate", status)?;
        Ok(Stream { driver: self.driver, functions, context: self.context, handle })
    }
}

impl<'d> Stream<'d> {
    /// As [`Module::launch`](super::Module::launch) takes it.
    pub fn handle(&self) -> *mut c_void {
        self.handle
    }

    /// From now on launches on this stream are recorded, and do not run.
    ///
    /// # Errors
    /// It records already, or what the driver says.
    pub fn begin(&self) -> Result<()> {
        let _current = Entered::new(self.driver, self.context)?;
        // Safety: a stream of this context.
        self.driver.check("cuStreamBeginCapture", unsafe { (self.functions.begin)(self.handle, RELAXED) })
    }

    /// What was recorded since [`Stream::begin`].
    ///
    /// # Errors
    /// Something was done meanwhile that cannot be recorded, or what the driver says.
    pub fn end(&self) -> Result<Graph<'d>> {
        let _current = Entered::new(self.driver, self.context)?;
        let f = self.functions;
        let mut graph = Graph {
            driver: self.driver,
            functions: f,
            context: self.context,
            recorded: ptr::null_mut(),
            runnable: ptr::null_mut(),
        };
        // Safety: the places are there, and the graph is the one that was just recorded.
        unsafe {
            self.driver.check("cuStreamEndCapture", (f.end)(self.handle, &raw mut graph.recorded))?;
            let status = (f.instantiate)(&raw mut graph.runnable, graph.recorded, 0);
            self.driver.check("cuGraphInstantiate", status)?;
        }
        Ok(graph)
    }

    /// Runs what was recorded, behind what is on this stream, and does not wait.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Safety
    /// The memory that the recorded launches name is still there, and lives until the graph has run.
    pub unsafe fn launch(&self, graph: &Graph) -> Result<()> {
        let _current = Entered::new(self.driver, self.context)?;
        // Safety: by the caller's word.
        let status = unsafe { (self.functions.launch)(graph.runnable, self.handle) };
        self.driver.check("cuGraphLaunch", status)
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Ok(_current) = Entered::new(self.driver, self.context) {
            // Safety: created, and not used after; what is on it still runs.
            unsafe { (self.functions.drop_stream)(self.handle) };
        }
    }
}

/// Launches that were recorded. Not to be dropped before they have run.
pub struct Graph<'d> {
    driver: &'d Driver,
    functions: &'d GraphFunctions,
    context: Opaque,
    recorded: Opaque,
    runnable: Opaque,
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        if let Ok(_current) = Entered::new(self.driver, self.context) {
            // Safety: made by the driver, and not used after.
            unsafe {
                if !self.runnable.is_null() {
                    (self.functions.drop_runnable)(self.runnable);
                }
                if !self.recorded.is_null() {
                    (self.functions.drop_graph)(self.recorded);
                }
            }
        }
    }
}
