//! `--device`: what the program says where a GPU cannot be used. A driver and an NVRTC that only answer as they are told
//! stand in for the real ones, found where Linux looks for libraries.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const FAKE: &str = r#"
extern "C" {
// libcuda
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int* n) { *n = COUNT; return COUNT ? 0 : 100; }
int cuDeviceGet(int* d, int i) { *d = i; return 0; }
int cuDeviceGetName(char* s, int, int) { const char* n = "Some GPU"; while ((*s++ = *n++)) {} return 0; }
int cuDeviceGetAttribute(int* v, int which, int) {
    *v = which == 75 ? MAJOR : which == 76 ? 0 : which == 16 ? 132 : which == 97 ? 232448 : -1;
    return 0;
}
static int it;
int cuDevicePrimaryCtxRetain(void** c, int) { *c = &it; return 0; }
int cuCtxPushCurrent_v2(void*) { return 0; }
int cuCtxPopCurrent_v2(void** c) { *c = &it; return 0; }
int cuModuleLoadData(void** m, const void*) { *m = &it; return LOAD; }
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** f, void*, const char*) { *f = &it; return 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**) { return 0; }
int cuGetErrorString(int code, const char** s) { *s = code == 100 ? "no CUDA-capable device is detected" : "some error"; return 0; }
// NVRTC
int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
int nvrtcGetNumSupportedArchs(int* n) { *n = 2; return 0; }
int nvrtcGetSupportedArchs(int* archs) { archs[0] = 80; archs[1] = 90; return 0; }
int nvrtcCreateProgram(void** p, const char*, const char*, int, const char* const*, const char* const*) { *p = &it; return 0; }
int nvrtcDestroyProgram(void**) { return 0; }
int nvrtcCompileProgram(void*, int, const char* const*) { return 0; }
int nvrtcGetProgramLogSize(void*, unsigned long* n) { *n = 0; return 0; }
int nvrtcGetProgramLog(void*, char*) { return 0; }
int nvrtcGetCUBINSize(void*, unsigned long* n) { *n = 4; return 0; }
int nvrtcGetCUBIN(void*, char* c) { c[0] = c[1] = c[2] = c[3] = 0; return 0; }
const char* nvrtcGetErrorString(int) { return "some error"; }
}
"#;

/// A machine with a driver and an NVRTC of these numbers.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(told: &[(&str, i32)]) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("fake.cc");
        fs::write(&source, FAKE).unwrap();
        let number = |name: &str, default: i32| {
            told.iter().find(|(known, _)| *known == name).map_or(default, |(_, number)| *number)
        };
        let numbers = [("VERSION", 13000), ("COUNT", 2), ("MAJOR", 9), ("LOAD", 0)];
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        for library in ["libcuda.so.1", "libnvrtc.so.13"] {
            let status = Command::new(&compiler)
                .args(["-shared", "-fPIC", "-o"])
                .arg(folder.path().join(library))
                .arg(&source)
                .args(numbers.iter().map(|(name, default)| format!("-D{name}={}", number(name, *default))))
                .status();
            assert!(status.unwrap_or_else(|error| panic!("{compiler} (a C++ compiler): {error}")).success());
        }
        Machine(folder)
    }

    fn run(&self, nvrtc: &Path, arguments: &[&str]) -> Output {
        let library = self.0.path().to_str().unwrap();
        let more = std::env::var("LD_LIBRARY_PATH").map_or_else(|_| String::new(), |path| format!(":{path}"));
        Command::new(env!("CARGO_BIN_EXE_ophidian"))
            .args(arguments)
            .env("LD_LIBRARY_PATH", format!("{library}{more}"))
            .env("OPHIDIAN_NVRTC", nvrtc)
            .env("OPHIDIAN_CACHE", self.0.path())
            .output()
            .unwrap()
    }

    /// What `ophidian bench op --device DEVICE` says, which must fail with `code` and one sentence.
    fn says(&self, device: &str, code: i32) -> String {
        self.says_with(self.0.path(), device, code)
    }

    fn says_with(&self, nvrtc: &Path, device: &str, code: i32) -> String {
        let shape = ["--shape", "B1,D8,L8", "--runs", "1"];
        let output = self.run(nvrtc, &[&["bench", "op", "ssd", "--device", device][..], &shape].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        said
    }
}

#[test]
fn each_fault_is_one_sentence() {
    let none = Machine::new(&[("COUNT", 0)]).says("cuda", 1);
    assert!(none.contains("the NVIDIA driver finds no GPU"), "{none}");
    let old = Machine::new(&[("MAJOR", 7)]).says("cuda:1", 1);
    assert!(old.contains("GPU 1 (Some GPU) has compute capability 7.0, expected 8.0 or newer"), "{old}");
    let driver = Machine::new(&[("VERSION", 12040)]).says("cuda", 1);
    assert!(driver.contains("knows CUDA up to 12.4, cannot load what NVRTC of CUDA 13.0 makes"), "{driver}");
    let full = Machine::new(&[("LOAD", 2)]).says("cuda", 1);
    assert!(full.contains("GPU 0 is out of memory"), "{full}");

    let machine = Machine::new(&[]);
    // That the user names a GPU that is not there is the command line's fault.
    let index = machine.says("cuda:2", 2);
    assert!(index.contains("there is no GPU 2: the driver counts 2, from 0 to 1"), "{index}");
    let nvrtc = machine.says_with(Path::new("/nowhere/libnvrtc.so.13"), "cuda", 1);
    assert!(nvrtc.contains("/nowhere/libnvrtc.so.13 does not serve as NVRTC"), "{nvrtc}");
    if !tch::Cuda::is_available() && !ophidian_core::torch::register_cuda() {
        let torch = machine.says("cuda", 1);
        assert!(torch.contains("this libtorch computes on the CPU alone"), "{torch}");
    }
}

#[test]
fn a_device_is_spelt_in_one_way() {
    let machine = Machine::new(&[]);
    for device in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
        let output = machine.run(Path::new(""), &["bench", "op", "ssd", "--device", device]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(&format!("the device is \"{device}\", expected cpu, cuda or cuda:N")),
            "{said}"
        );
    }
}

/// The key of a config is held to the same, by every command that reads one.
#[test]
fn the_key_of_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "adapter = 'vision'\n[data]\nformat = 'shapes'\n[train]\ndevice = 'tpu'\n").unwrap();
    let (config, run) = (config.to_str().unwrap(), folder.path().join("run"));
    let run = run.to_str().unwrap();
    let machine = Machine::new(&[("COUNT", 0)]);
    let train = |more: &[&str]| {
        let output = machine.run(Path::new(""), &[&["train", config, "--output", run], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = train(&[]);
    assert!(code == Some(2) && said.contains("train.device") && said.contains("\"tpu\""), "{said}");
    for more in [["--set", "train.device=cuda"], ["--device", "cuda"]] {
        fs::write(config, "adapter = 'vision'\n[data]\nformat = 'shapes'\n").unwrap();
        let (code, said) = train(&more);
        assert!(code == Some(1) && said.contains("the NVIDIA driver finds no GPU"), "{more:?}: {said}");
        assert!(!Path::new(run).exists(), "nothing is begun");
    }
}

#[test]
fn the_doctor_says_what_there_is() {
    let machine = Machine::new(&[]);
    let output = machine.run(machine.0.path(), &["doctor"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    for part in
        ["cuda:0 Some GPU (compute capability 9.0); cuda:1 Some GPU", "CUDA up to 13.0", "NVRTC     13.0, "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = Machine::new(&[("COUNT", 0)]).run(Path::new("/nowhere"), &["doctor"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("none: the NVIDIA driver finds no GPU") && said.contains("/nowhere"), "{said}");
}
