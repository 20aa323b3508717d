//! A launch on its way from here to the driver: a library in the place of the driver, NVRTC and libtorch's CUDA backend keeps
//! what it is given.

use std::{env, fs, path::Path, process::Command};

use ophidian_kernels::cuda::{Element, Launch, sums};
use tch::Device;

use crate::{
    ops::cuda::Launcher,
    torch::{cuda_stream, open_cuda},
};

const FAKE: &str = r#"
extern "C" {
int loaded = 0, launched = 0, seen_count = 0;
unsigned seen_grid = 0;
void* seen_stream = 0;
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* v) { *v = 13000; return 0; }
int cuDeviceGetCount(int* n) { *n = 2; return 0; }
int cuDeviceGet(int* d, int i) { *d = i; return 0; }
int cuDeviceGetName(char* s, int, int) { s[0] = 'G', s[1] = 0; return 0; }
int cuDeviceGetAttribute(int* v, int which, int) { *v = which == 75 ? 9 : which == 76 ? 0 : which == 16 ? 132 : 232448; return 0; }
int cuDevicePrimaryCtxRetain(void** c, int) { *c = &loaded; return 0; }
int cuCtxPushCurrent_v2(void*) { return 0; }
int cuCtxPopCurrent_v2(void** c) { *c = &loaded; return 0; }
int cuModuleLoadData(void** m, const void*) { *m = &loaded; loaded++; return 0; }
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** f, void*, const char*) { *f = &launched; return 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuLaunchKernel(void*, unsigned gx, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void* stream, void** a, void**) {
    launched++;
    seen_grid = gx;
    seen_stream = stream;
    seen_count = ((int*)((void**)a[0] + 2))[0];
    return 0;
}
int cuGetErrorString(int, const char** s) { *s = "some error"; return 0; }
int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
int nvrtcGetNumSupportedArchs(int* n) { *n = 1; return 0; }
int nvrtcGetSupportedArchs(int* archs) { archs[0] = 90; return 0; }
int nvrtcCreateProgram(void** p, const char*, const char*, int, const char* const*, const char* const*) { *p = &loaded; return 0; }
int nvrtcDestroyProgram(void**) { return 0; }
int nvrtcCompileProgram(void*, int, const char* const*) { return 0; }
int nvrtcGetProgramLogSize(void*, unsigned long* n) { *n = 0; return 0; }
int nvrtcGetProgramLog(void*, char*) { return 0; }
int nvrtcGetCUBINSize(void*, unsigned long* n) { *n = 1; return 0; }
int nvrtcGetCUBIN(void*, char* c) { *c = 0; return 0; }
const char* nvrtcGetErrorString(int) { return "some error"; }
int aoti_torch_get_current_cuda_stream(int device, void** stream) { *stream = (void*)(long)(0x1000 + device); return device > 1; }
}
"#;

/// Set in the process that has the library in its loader's path.
const FOLDER: &str = "OPHIDIAN_TEST_FAKE_CUDA";

#[test]
fn a_launch_reaches_the_driver_on_libtorchs_stream() {
    if let Some(folder) = env::var_os(FOLDER) {
        return within(Path::new(&folder));
    }
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("fake.cc"), folder.path().join("libcuda.so.1"));
    fs::write(&source, FAKE).unwrap();
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".into());
    let built = Command::new(&compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap_or_else(|error| panic!("{compiler} (a C++ compiler): {error}")).success());
    let more = env::var("LD_LIBRARY_PATH").map_or_else(|_| String::new(), |path| format!(":{path}"));
    // The loader's path is read when a process starts.
    let output = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "ops::cuda::gpu::tests::a_launch_reaches_the_driver_on_libtorchs_stream",
            "--nocapture",
        ])
        .env(FOLDER, folder.path())
        .env("LD_LIBRARY_PATH", format!("{}{more}", folder.path().display()))
        .env("OPHIDIAN_NVRTC", &library)
        .env("OPHIDIAN_CACHE", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
}

fn within(folder: &Path) {
    let path = folder.join("libcuda.so.1");
    // Safety: a library of this test's own, with these variables.
    let library = unsafe { libloading::Library::new(&path) }.unwrap();
    let number = |name: &str| unsafe { **library.get::<*const i32>(name.as_bytes()).unwrap() };
    let launch = Launch { grid: [3, 1, 1], block: [256, 1, 1], shared: 0 };
    let arguments = sums::Parts { parts: std::ptr::null(), out: std::ptr::null_mut(), count: 7, columns: 9 };
    let sum = |index: usize, element| {
        let launcher = Launcher::of(Device::Cuda(index)).unwrap().unwrap();
        launcher.launch(&sums::variant(element), "sum_parts", arguments, launch)
    };
    let said = sum(0, Element::F32).unwrap_err().to_string();
    assert!(said.contains("this libtorch does not tell its current stream"), "{said}");
    assert_eq!(number("launched"), 0);

    assert!(open_cuda(&path));
    assert_eq!(cuda_stream(1), Some(0x1001 as *mut _));
    assert_eq!(cuda_stream(2), None);
    for (index, element, loaded) in
        [(0, Element::F32, 1), (1, Element::F32, 2), (1, Element::F32, 2), (1, Element::Bf16, 3)]
    {
        sum(index, element).unwrap();
        // One module for each GPU and problem.
        assert_eq!(number("loaded"), loaded);
        let stream = unsafe { **library.get::<*const usize>(b"seen_stream").unwrap() };
        assert_eq!(stream, 0x1000 + index);
    }
    assert_eq!([number("launched"), number("seen_count"), number("seen_grid")], [4, 7, 3]);
    let none = Launch { grid: [0, 1, 1], ..launch };
    let launcher = Launcher::of(Device::Cuda(0)).unwrap().unwrap();
    launcher.launch(&sums::variant(Element::F32), "sum_parts", arguments, none).unwrap();
    assert_eq!(number("launched"), 4);
}
