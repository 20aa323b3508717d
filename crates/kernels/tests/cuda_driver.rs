//! What can go wrong between a kernel and a GPU, with a driver that only says so: a library with libcuda's functions,
//! compiled here, that answers as the test tells it.
#![allow(missing_docs)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    ptr::null_mut,
};

use ophidian_kernels::cuda::{Driver, Error, Launch, Nvrtc, Result};
use tempfile::TempDir;

/// Every number a test may set, by name.
const DEFAULTS: [(&str, i64); 14] = [
    ("INIT", 0),
    ("VERSION", 13000),
    ("COUNT", 2),
    ("MAJOR", 9),
    ("MINOR", 0),
    ("RETAIN", 0),
    ("LOAD", 0),
    ("KERNEL", 0),
    ("SET", 0),
    ("LAUNCH", 0),
    ("SILENT", 0),
    ("ALLOCATE", 0),
    ("COPY", 0),
    ("WAIT", 0),
];

const FAKE: &str = r#"
#include <stdlib.h>
#include <string.h>
typedef unsigned long long address;
extern "C" {
int depth = 0, loaded = 0, launched = 0, seen_shared = 0, seen_value = 0, held = 0, events = 0, now = 0, set = 0;
int cuInit(unsigned) { return INIT; }
int cuDriverGetVersion(int* v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int* n) { *n = COUNT; return 0; }
int cuDeviceGet(int* d, int i) { *d = i + 7; return 0; }
int cuDeviceGetName(char* s, int, int) { const char* n = "Some GPU"; while ((*s++ = *n++)) {} return 0; }
int cuDeviceGetAttribute(int* v, int which, int d) {
    if (d < 7) return 101;
    *v = which == 75 ? MAJOR : which == 76 ? MINOR : which == 16 ? 132 : which == 97 ? 232448 : which == 13 ? 1980000 : -1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void** c, int) { *c = &depth; return RETAIN; }
int cuCtxPushCurrent_v2(void* c) { if (c != &depth) return 201; depth++; return 0; }
int cuCtxPopCurrent_v2(void** c) { *c = &depth; depth--; return 0; }
int cuModuleLoadData(void** m, const void*) { if (depth != 1) return 201; *m = &loaded; loaded += LOAD == 0; return LOAD; }
int cuModuleUnload(void*) { loaded--; return depth == 1 ? 0 : 201; }
int cuModuleGetFunction(void** f, void*, const char*) { *f = &launched; return KERNEL; }
int cuFuncSetAttribute(void*, int which, int bytes) { if (which == 8) seen_shared = bytes, set++; return SET; }
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void** a, void**) {
    if (depth != 1) return 201;
    launched++;
    seen_value = *(int*)a[0];
    return LAUNCH;
}
int cuMemAlloc_v2(address* a, size_t n) {
    if (depth != 1 || n == 0) return 201;
    if (ALLOCATE) return ALLOCATE;
    *a = (address)malloc(n);
    held++;
    return 0;
}
int cuMemFree_v2(address a) { free((void*)a); held--; return depth == 1 ? 0 : 201; }
int cuMemcpyHtoD_v2(address to, const void* from, size_t n) { memcpy((void*)to, from, n); return depth == 1 ? COPY : 201; }
int cuMemcpyDtoH_v2(void* to, address from, size_t n) { memcpy(to, (void*)from, n); return depth == 1 ? COPY : 201; }
int cuMemcpyDtoD_v2(address to, address from, size_t n) { memcpy((void*)to, (void*)from, n); return depth == 1 ? COPY : 201; }
int cuMemsetD8_v2(address to, unsigned char value, size_t n) { memset((void*)to, value, n); return depth == 1 ? 0 : 201; }
int cuCtxSynchronize() { return depth == 1 ? WAIT : 201; }
int cuEventCreate(void** e, unsigned) { *e = new int(0); events++; return depth == 1 ? 0 : 201; }
int cuEventRecord(void* e, void*) { *(int*)e = now += 3; return depth == 1 ? 0 : 201; }
int cuEventElapsedTime(float* ms, void* a, void* b) { *ms = *(int*)b - *(int*)a; return depth == 1 ? 0 : 201; }
int cuEventDestroy_v2(void* e) { delete (int*)e; events--; return depth == 1 ? 0 : 201; }
int cuGetErrorString(int code, const char** s) { *s = SILENT ? 0 : code == 700 ? "an illegal address" : "some error"; return 0; }
}
"#;

/// A driver that behaves as told.
struct Fake {
    folder: TempDir,
}

impl Fake {
    fn new(told: &[(&str, i64)]) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers: HashMap<_, _> = DEFAULTS.into();
        numbers.extend(told.iter().copied());
        let source = folder.path().join("fake.cc");
        fs::write(&source, FAKE).unwrap();
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let status = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-o"])
            .arg(folder.path().join("libcuda.so.1"))
            .arg(&source)
            .args(numbers.iter().map(|(name, value)| format!("-D{name}={value}")))
            .status()
            .unwrap_or_else(|error| panic!("{compiler} (a C++ compiler): {error}"));
        assert!(status.success());
        Fake { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("libcuda.so.1")
    }

    fn driver(&self) -> Result<Driver> {
        Driver::at(&self.path())
    }

    /// A number of the library.
    fn number(&self, name: &str) -> i32 {
        // Safety: the library is the one above.
        unsafe {
            let library = libloading::Library::new(self.path()).unwrap();
            **library.get::<*const i32>(name.as_bytes()).unwrap()
        }
    }
}

const LAUNCH: Launch = Launch { grid: [3, 1, 1], block: [32, 1, 1], shared: 0 };

/// Loads and launches one kernel.
fn run(driver: &Driver, launch: Launch) -> Result<()> {
    let module = driver.device(0)?.load(b"\x7fELF", &["kernel"], (13, 0))?;
    // Safety: no memory is named.
    unsafe { module.launch("kernel", 42i32, launch, null_mut()) }
}

#[test]
fn a_kernel_is_launched() {
    let fake = Fake::new(&[]);
    let driver = fake.driver().unwrap();
    assert_eq!((driver.count(), driver.version()), (2, 13000));
    let device = driver.device(1).unwrap();
    assert_eq!((device.name(), device.capability()), ("Some GPU", 90));
    assert_eq!((device.card().multiprocessors, device.card().shared), (132, 232448));
    run(&driver, LAUNCH).unwrap();
    assert_eq!([fake.number("launched"), fake.number("seen_value"), fake.number("seen_shared")], [1, 42, 0]);
    // More shared memory than a kernel always has is asked for; an empty grid is nothing to launch.
    run(&driver, Launch { shared: 100 << 10, ..LAUNCH }).unwrap();
    run(&driver, Launch { grid: [3, 0, 1], ..LAUNCH }).unwrap();
    assert_eq!([fake.number("launched"), fake.number("seen_shared")], [2, 100 << 10]);
    // Also where it is enough but for what the kernel has of its own.
    run(&driver, Launch { shared: 47 << 10, ..LAUNCH }).unwrap();
    assert_eq!([fake.number("launched"), fake.number("seen_shared")], [3, 47 << 10]);
    // The context that was current before is again, and nothing stays loaded.
    assert_eq!([fake.number("depth"), fake.number("loaded")], [0, 0]);
}

/// The most shared memory of a kernel's launches so far is told once and never lowered: another thread may be about to launch.
#[test]
fn shared_memory_is_asked_for_once() {
    let fake = Fake::new(&[]);
    let driver = fake.driver().unwrap();
    let module = driver.device(0).unwrap().load(b"\x7fELF", &["kernel"], (13, 0)).unwrap();
    for (kib, seen, set) in [(20, 0, 0), (64, 64, 1), (48, 64, 1), (64, 64, 1), (100, 100, 2), (64, 100, 2)] {
        // Safety: no memory is named.
        unsafe { module.launch("kernel", 42i32, Launch { shared: kib << 10, ..LAUNCH }, null_mut()) }
            .unwrap();
        assert_eq!([fake.number("seen_shared"), fake.number("set")], [seen << 10, set], "{kib} KiB");
    }
}

/// What runs without libtorch: memory is taken, filled, copied and given back, and launches are timed.
#[test]
fn memory_and_time() {
    let fake = Fake::new(&[]);
    let driver = fake.driver().unwrap();
    let device = driver.device(0).unwrap();
    assert_eq!(device.clock(), 1_980_000);
    let module = device.load(b"\x7fELF", &["kernel"], (13, 0)).unwrap();
    {
        let (memory, empty) = (device.allocate(10).unwrap(), device.allocate(0).unwrap());
        assert_ne!(memory.address(), empty.address());
        assert_eq!(fake.number("held"), 2);
        memory.fill(0xff).unwrap();
        memory.write(1, &[1, 2, 3]).unwrap();
        memory.copy_within(6, 4).unwrap();
        let mut bytes = [0; 9];
        memory.read(1, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 255, 255, 255, 1, 2, 3]);
        for outside in [9, usize::MAX] {
            let write = || memory.write(outside, &[0, 0]);
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).is_err());
        }
        // Safety: no memory is named.
        let launch = || unsafe { module.launch("kernel", 42i32, LAUNCH, null_mut()) };
        let taken = device.time(|| (0..5).try_for_each(|_| launch())).unwrap();
        assert_eq!((taken, fake.number("launched")), (3.0, 5));
        device.synchronise().unwrap();
    }
    assert_eq!(["held", "events", "depth"].map(|name| fake.number(name)), [0, 0, 0]);
}

#[test]
fn memory_that_fails() {
    let fake = Fake::new(&[("ALLOCATE", 2)]);
    let driver = fake.driver().unwrap();
    let (error, _) = sentence(driver.device(0).unwrap().allocate(10));
    assert_eq!(error, Error::OutOfMemory { index: 0 });
    let fake = Fake::new(&[("COPY", 700), ("WAIT", 700)]);
    let driver = fake.driver().unwrap();
    let device = driver.device(0).unwrap();
    let memory = device.allocate(4).unwrap();
    let (_, said) = sentence(memory.write(0, &[1]));
    assert_eq!(said, "cuMemcpyHtoD failed: an illegal address (700)");
    let (_, said) = sentence(memory.read(0, &mut [1]));
    assert_eq!(said, "cuMemcpyDtoH failed: an illegal address (700)");
    for result in [device.synchronise(), device.time(|| Ok(())).map(|_| ())] {
        assert_eq!(sentence(result).1, "cuCtxSynchronize failed: an illegal address (700)");
    }
    drop(memory);
    assert_eq!(["held", "events", "depth"].map(|name| fake.number(name)), [0, 0, 0]);
}

/// The sentence of an error: one line, no full stop.
fn sentence<T>(result: Result<T>) -> (Error, String) {
    let Err(error) = result else { panic!("it went well") };
    let said = error.to_string();
    assert!(!said.contains('\n') && !said.ends_with('.'), "{said}");
    (error, said)
}

#[test]
fn no_driver() {
    let (error, said) = sentence(Driver::at(Path::new("/nowhere/libcuda.so.1")));
    assert!(matches!(error, Error::NoDriver { .. }) && said.starts_with("no NVIDIA driver: "), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libcuda.so.1");
    let status = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()))
        .args(["-shared", "-fPIC", "-x", "c++", "/dev/null", "-o"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success());
    let (error, said) = sentence(Driver::at(&path));
    assert!(matches!(error, Error::Library { .. }) && said.ends_with("it has no `cuInit`"), "{said}");
}

#[test]
fn no_gpu() {
    for told in [("COUNT", 0), ("INIT", 100)] {
        let (error, said) = sentence(Fake::new(&[told]).driver());
        assert_eq!(error, Error::NoDevice);
        assert!(said.contains("finds no GPU") && said.contains("CPU"), "{said}");
    }
}

#[test]
fn a_gpu_that_does_not_exist() {
    let fake = Fake::new(&[]);
    let driver = fake.driver().unwrap();
    for index in [2, usize::MAX] {
        let (error, said) = sentence(driver.device(index));
        assert_eq!(error, Error::Index { index, count: 2 });
        assert_eq!(said, format!("there is no GPU {index}: the driver counts 2, from 0 to 1"));
    }
}

#[test]
fn a_gpu_that_is_too_old() {
    let fake = Fake::new(&[("MAJOR", 7), ("MINOR", 5)]);
    let (_, said) = sentence(fake.driver().unwrap().device(0));
    assert!(said.starts_with("GPU 0 (Some GPU) has compute capability 7.5, expected 8.0 or newer"), "{said}");
}

#[test]
fn a_driver_older_than_nvrtc() {
    let older = Fake::new(&[("VERSION", 12080)]);
    let unknown = [209, 222].map(|code| Fake::new(&[("LOAD", code)]));
    for (fake, version) in [(&older, 12080), (&unknown[0], 13000), (&unknown[1], 13000)] {
        let (error, said) = sentence(run(&fake.driver().unwrap(), LAUNCH));
        assert_eq!(error, Error::DriverTooOld { driver: version, nvrtc: (13, 0) });
        assert!(said.contains("NVRTC of CUDA 13.0 makes") && said.contains("newer driver"), "{said}");
    }
    assert!(sentence(run(&older.driver().unwrap(), LAUNCH)).1.contains("knows CUDA up to 12.8"));
}

/// A folder with NVRTCs that only know their version.
fn nvrtcs(majors: &[i32]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("nvrtc.cc");
    let others = ["CreateProgram", "DestroyProgram", "CompileProgram", "GetProgramLogSize", "GetProgramLog"];
    let others = others.iter().chain(&["GetCUBINSize", "GetCUBIN", "GetErrorString"]);
    let others: String = others.map(|name| format!("int nvrtc{name}() {{ return 1; }}\n")).collect();
    let told = "int nvrtcVersion(int* major, int* minor) { *major = MAJOR; *minor = 0; return 0; }
                int nvrtcGetNumSupportedArchs(int* count) { *count = 0; return 0; }
                int nvrtcGetSupportedArchs(int*) { return 0; }";
    fs::write(&source, format!("extern \"C\" {{\n{told}\n{others}}}")).unwrap();
    for major in majors {
        let status = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()))
            .args(["-shared", "-fPIC", &format!("-DMAJOR={major}"), "-o"])
            .arg(folder.path().join(format!("libnvrtc.so.{major}")))
            .arg(&source)
            .status()
            .unwrap();
        assert!(status.success());
    }
    folder
}

/// The newest NVRTC whose machine code the driver loads; where there is none, the newest, and loading says why not.
#[test]
fn an_nvrtc_that_suits_the_driver() {
    let (both, newer, older) = (nvrtcs(&[12, 13]), nvrtcs(&[13]), nvrtcs(&[12]));
    let major = |found: Result<Nvrtc>| found.unwrap().version().0;
    for (driver, want) in
        [(None, 13), (Some(13000), 13), (Some(14010), 13), (Some(12080), 12), (Some(11080), 13)]
    {
        assert_eq!(major(Nvrtc::at(both.path(), driver)), want, "{driver:?}");
    }
    assert_eq!(major(Nvrtc::at(newer.path(), Some(12080))), 13);
    let search = |driver| {
        let folders = [&newer, &older].map(|folder| folder.path().to_path_buf());
        major(Nvrtc::search(folders.into_iter(), Some(driver)))
    };
    assert_eq!(search(12080), 12, "the first folder has none that suits");
    // Unless the loader's own path has another.
    if is_not_installed("libnvrtc.so.12") {
        assert_eq!([search(13000), search(11080)], [13, 13]);
    }
}

fn is_not_installed(name: &str) -> bool {
    // Safety: NVIDIA's libraries only set themselves up.
    unsafe { libloading::Library::new(name) }.is_err()
}

#[test]
fn out_of_memory() {
    for call in ["RETAIN", "LOAD", "LAUNCH"] {
        let fake = Fake::new(&[(call, 2)]);
        let (error, said) = sentence(run(&fake.driver().unwrap(), LAUNCH));
        assert_eq!(error, Error::OutOfMemory { index: 0 }, "{call}");
        assert!(said.starts_with("GPU 0 is out of memory"), "{said}");
        assert_eq!([fake.number("depth"), fake.number("loaded")], [0, 0], "{call}");
    }
}

#[test]
fn what_the_driver_says_is_handed_on() {
    for (told, function) in [
        ([("INIT", 700), ("SILENT", 0)], "cuInit"),
        ([("KERNEL", 700), ("SILENT", 0)], "cuModuleGetFunction"),
        ([("LAUNCH", 700), ("SILENT", 0)], "cuLaunchKernel"),
        ([("LAUNCH", 701), ("SILENT", 1)], "cuLaunchKernel"),
    ] {
        let fake = Fake::new(&told);
        let (_, said) = sentence(fake.driver().and_then(|driver| run(&driver, LAUNCH)));
        let text = if told[1].1 == 1 { "unknown error (701)" } else { "an illegal address (700)" };
        assert_eq!(said, format!("{function} failed: {text}"));
        assert_eq!([fake.number("depth"), fake.number("loaded")], [0, 0], "{function}");
    }
    let fake = Fake::new(&[("SET", 1)]);
    let (_, said) = sentence(run(&fake.driver().unwrap(), Launch { shared: 64 << 10, ..LAUNCH }));
    assert_eq!(said, "cuFuncSetAttribute failed: some error (1)");
}

#[test]
fn a_kernel_that_does_not_exist() {
    let fake = Fake::new(&[]);
    let driver = fake.driver().unwrap();
    let module = driver.device(0).unwrap().load(b"\x7fELF", &["kernel"], (13, 0)).unwrap();
    // Safety: nothing is launched.
    let (_, said) = sentence(unsafe { module.launch("other", 0i32, LAUNCH, null_mut()) });
    assert!(said.contains("there is no kernel `other`"), "{said}");
}
