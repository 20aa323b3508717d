//! `cargo xtask setup` against an index on this machine: what a person meets on the first day.

mod index;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use index::Index;
use tempfile::TempDir;

/// A clone of the project and a cache, both empty.
struct Clone {
    folder: TempDir,
    cache: PathBuf,
}

impl Clone {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        // Hides a torch that this machine's python3 may have.
        fs::write(folder.path().join("torch.py"), "").unwrap();
        Self { folder, cache }
    }

    /// Another clone with the same cache.
    fn sibling(&self) -> Self {
        Self { cache: self.cache.clone(), ..Self::new() }
    }

    /// `cargo xtask setup --cpu`, told to use `index`.
    fn setup(&self, index: &str) -> Command {
        let mut command = self.xtask(index);
        command.args(["setup", "--cpu"]);
        command
    }

    /// `cargo xtask`, told to use `index`.
    fn xtask(&self, index: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .env("CARGO_MANIFEST_DIR", self.folder.path().join("xtask"))
            .env("LIBTORCH", self.folder.path().join(".libtorch"))
            .env("OPHIDIAN_CACHE", &self.cache)
            .env("PYTHONPATH", self.folder.path())
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_INDEX_URL", index)
            .env("PIP_RETRIES", "0")
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for unset in ["LIBTORCH_USE_PYTORCH", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "CXX"]
        {
            command.env_remove(unset);
        }
        command
    }

    fn lib(&self, name: &str) -> PathBuf {
        self.folder.path().join(".libtorch/lib").join(name)
    }

    fn part(&self) -> PathBuf {
        self.cache.join("downloads/torch-2.11.0-py3-none-any.whl.part")
    }

    /// Fails unless libtorch is whole and nothing else is left.
    fn assert_whole(&self) {
        let cpu = self.lib(&format!("libtorch_cpu.{}", std::env::consts::DLL_EXTENSION));
        assert_eq!(fs::metadata(&cpu).unwrap().len(), 4 << 20);
        if cfg!(target_os = "linux") {
            assert_eq!(fs::read_to_string(self.lib("libtorch.so")).unwrap(), "INPUT(-ltorch_cpu)\n");
            assert_eq!(fs::read_to_string(self.lib("libcudart.so.13")).unwrap(), "cudart");
            assert!(!self.lib("libtorch_cuda.so").exists());
        }
        assert!(self.folder.path().join(".libtorch/include/torch/headeronly/version.h").exists());
        let mut left: Vec<_> = fs::read_dir(&self.cache)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["downloads", "libtorch-2.11.0-cpu", "lock"]);
        assert_eq!(fs::read_dir(self.cache.join("downloads")).unwrap().count(), 0);
    }
}

/// What it printed; fails unless it succeeded.
fn success(output: Output) -> String {
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");
    printed
}

/// The error line; fails unless it failed with status 1 and one line of error.
fn failure(output: Output) -> String {
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(!printed.contains("Traceback") && !printed.contains("panicked"), "{printed}");
    let errors: Vec<_> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{printed}");
    errors[0].to_owned()
}

fn start() -> Option<Index> {
    let index = Index::start();
    if index.is_none() {
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: there is no python3, with which set-up works");
    }
    index
}

#[test]
fn installs_once() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    success(clone.setup(&index.url).output().unwrap());
    clone.assert_whole();
    let again = success(clone.setup(&index.url).output().unwrap());
    assert_eq!(again.lines().count(), 1, "{again}");
    // A second clone takes it from the cache.
    let sibling = clone.sibling();
    success(sibling.setup(&index.url).output().unwrap());
    sibling.assert_whole();
    assert_eq!(*index.asked.lock().unwrap(), [0]);
}

#[test]
fn goes_on_after_broken_connections() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    index.behaviour.breaks.store(2, SeqCst);
    success(clone.setup(&index.url).output().unwrap());
    clone.assert_whole();
    let asked = index.asked.lock().unwrap().clone();
    assert!(asked.len() == 3 && asked[0] == 0 && asked[0] < asked[1] && asked[1] < asked[2], "{asked:?}");
}

#[test]
fn starts_over_where_the_server_knows_no_ranges() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    index.behaviour.breaks.store(1, SeqCst);
    index.behaviour.no_ranges.store(true, SeqCst);
    success(clone.setup(&index.url).output().unwrap());
    clone.assert_whole();
    assert_eq!(index.asked.lock().unwrap().len(), 2);
}

#[test]
fn goes_on_after_a_kill() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    index.behaviour.slow.store(true, SeqCst);
    let mut child = clone.setup(&index.url).spawn().unwrap();
    wait_for(&mut child, || fs::metadata(clone.part()).is_ok_and(|part| part.len() > 1 << 20));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!clone.lib("").exists());
    index.behaviour.slow.store(false, SeqCst);
    success(clone.setup(&index.url).output().unwrap());
    clone.assert_whole();
    let asked = index.asked.lock().unwrap().clone();
    assert!(asked.len() == 2 && asked[1] >= 1 << 20, "{asked:?}");
}

fn wait_for(child: &mut Child, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_clones_at_once_download_once() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    let sibling = clone.sibling();
    index.behaviour.slow.store(true, SeqCst);
    let both = [&clone, &sibling].map(|clone| clone.setup(&index.url).spawn().unwrap());
    for child in both {
        success(child.wait_with_output().unwrap());
    }
    clone.assert_whole();
    sibling.assert_whole();
    assert_eq!(*index.asked.lock().unwrap(), [0]);
}

#[test]
fn replaces_a_damaged_part() {
    let Some(index) = start() else { return };
    // One that is too long, too, and one of just the right length cannot be told from a good one but by the hash.
    for length in [100_000, 4 << 20, 9 << 20] {
        let clone = Clone::new();
        fs::create_dir_all(clone.part().parent().unwrap()).unwrap();
        fs::write(clone.part(), vec![7; length]).unwrap();
        success(clone.setup(&index.url).output().unwrap());
        clone.assert_whole();
    }
}

#[test]
fn refuses_what_the_index_did_not_promise() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    index.behaviour.wrong_hash.store(true, SeqCst);
    let error = failure(clone.setup(&index.url).output().unwrap());
    assert!(error.contains("arrived damaged"), "{error}");
    assert!(!clone.part().exists() && !clone.lib("").exists());
}

#[test]
fn says_when_the_index_cannot_be_read() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    // Nobody listens on the discard port.
    let error = failure(clone.setup("http://127.0.0.1:9/simple").output().unwrap());
    assert!(error.contains("index cannot be read") && error.contains("network"), "{error}");
    let error = failure(clone.setup(&index.url.replace("simple", "none")).output().unwrap());
    assert!(error.contains("index cannot be read"), "{error}");
}

#[test]
fn says_when_the_cache_cannot_be_written() {
    let clone = Clone::new();
    let file = clone.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error =
        failure(clone.setup("http://127.0.0.1:9/simple").env("OPHIDIAN_CACHE", &file).output().unwrap());
    assert!(error.contains("OPHIDIAN_CACHE") && error.contains(file.to_str().unwrap()), "{error}");
}

/// A folder that looks like libtorch of `version`.
fn fake_libtorch(folder: &Path, version: &str) {
    fs::create_dir_all(folder.join("lib")).unwrap();
    for name in ["torch", "torch_cpu", "c10"] {
        fs::write(folder.join(format!("lib/lib{name}.{}", std::env::consts::DLL_EXTENSION)), "x").unwrap();
    }
    fs::write(folder.join("build-version"), version).unwrap();
}

#[test]
fn honours_libtorch_and_checks_it() {
    let clone = Clone::new();
    let own = clone.folder.path().join("own");
    let with = |path: &Path| clone.setup("http://127.0.0.1:9/simple").env("LIBTORCH", path).output().unwrap();
    let error = failure(with(&own));
    assert!(error.contains("LIBTORCH is set") && error.contains("there is no"), "{error}");
    fake_libtorch(&own, "2.4.1+cpu\n");
    let error = failure(with(&own));
    assert!(error.contains("holds libtorch 2.4.1, expected 2.11.0"), "{error}");
    fake_libtorch(&own, "2.11.0+cpu\n");
    assert!(success(with(&own)).contains("as the environment says"));
    assert!(!clone.lib("").exists() && !clone.cache.exists());
    let error = failure(with(Path::new("own")));
    assert!(error.contains("expected a path from the root"), "{error}");
}

#[test]
fn names_missing_tools() {
    let clone = Clone::new();
    let tools = clone.folder.path().join("bin");
    fs::create_dir(&tools).unwrap();
    let run = || failure(clone.setup("http://127.0.0.1:9/simple").env("PATH", &tools).output().unwrap());
    assert!(run().contains("no C++ compiler in PATH"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/bin/sh", tools.join("g++")).unwrap();
        assert!(run().contains("set CXX=g++"));
        std::os::unix::fs::symlink("/bin/sh", tools.join("c++")).unwrap();
        assert!(run().contains("no python3 in PATH"));
        std::os::unix::fs::symlink("/bin/sh", tools.join("python3")).unwrap();
        assert!(run().contains("does not run a Python 3"));
    }
}

#[test]
fn leaves_a_real_folder_alone() {
    let clone = Clone::new();
    let folder = clone.folder.path().join(".libtorch");
    fake_libtorch(&folder, "2.1.0\n");
    let error = failure(clone.setup("http://127.0.0.1:9/simple").output().unwrap());
    assert!(error.contains("holds libtorch 2.1.0"), "{error}");
    assert!(folder.join("build-version").exists());
}

#[test]
fn falls_back_on_pips_command_line() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    // A pip whose insides have other names, as a later one may have.
    let hide = "import sys\nif '-c' in getattr(sys, 'orig_argv', []): sys.modules['pip._internal.commands'] = None\n";
    fs::write(clone.folder.path().join("sitecustomize.py"), hide).unwrap();
    let printed = success(clone.setup(&index.url).output().unwrap());
    clone.assert_whole();
    // Python tells its arguments so early since 3.10 only.
    if printed.contains("works otherwise") {
        assert_eq!(*index.asked.lock().unwrap(), [0]);
    }
}

#[test]
fn installs_all_of_torch_where_cuda_is_wished() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    let cuda = || success(clone.xtask(&index.url).args(["setup", "--cuda"]).output().unwrap());
    assert!(cuda().contains("with CUDA"));
    if cfg!(target_os = "linux") {
        assert!(clone.lib("libtorch_cuda.so").exists() && clone.lib("libtorch_python.so").exists());
    }
    assert_eq!(cuda().lines().count(), 1);
    let mut left: Vec<_> =
        fs::read_dir(&clone.cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["libtorch-2.11.0-cuda", "lock"]);
    // Back to the CPU parts, as asked.
    success(clone.setup(&index.url).output().unwrap());
    assert!(!clone.lib("libtorch_cuda.so").exists());
}

#[test]
fn installs_nvrtc_for_the_checks() {
    let Some(index) = start() else { return };
    let clone = Clone::new();
    let nvrtc = |index: &str| {
        let mut command = clone.xtask(index);
        command.args(["setup", "--nvrtc"]).env_remove("OPHIDIAN_NVRTC");
        command
    };
    // Without a network it fails, and says so.
    let error = failure(nvrtc("http://127.0.0.1:9/simple").output().unwrap());
    assert!(error.contains("NVRTC") && error.contains("index cannot be read"), "{error}");
    let output = nvrtc(&index.url).output().unwrap();
    let lib = PathBuf::from(String::from_utf8(output.stdout.clone()).unwrap().trim());
    success(output);
    assert_eq!(lib, clone.cache.join("nvrtc-13.0.88/lib"));
    let mut files: Vec<_> = fs::read_dir(&lib).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]);
    // Once, and none where there is one of the user's own.
    assert_eq!(success(nvrtc("http://127.0.0.1:9/simple").output().unwrap()), "");
    let own = nvrtc("http://127.0.0.1:9/simple").env("OPHIDIAN_NVRTC", "/own").output().unwrap();
    assert_eq!(String::from_utf8(own.stdout.clone()).unwrap(), "/own\n");
    success(own);
}
