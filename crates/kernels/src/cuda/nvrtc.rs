//! NVRTC, CUDA's compiler as a library, opened at run time.

use std::{
    env,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::OnceLock,
};

use libloading::Library;

use super::{
    Driver, Error, Result,
    library::{folders, function, open},
    source::{HEADERS, Variant},
};

/// Names an NVRTC of the user's own: the library's file, or the folder that holds it.
pub const VARIABLE: &str = "OPHIDIAN_NVRTC";

const WHAT: &str = "NVRTC";

/// The library's names, newest first. Older ones lack Blackwell.
const NAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc.so.12"];

type Program = *mut c_void;
type Status = c_int;

/// NVRTC's functions that are used here.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    arch_count: unsafe extern "C" fn(*mut c_int) -> Status,
    archs: unsafe extern "C" fn(*mut c_int) -> Status,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
}

/// An open NVRTC.
pub struct Nvrtc {
    functions: Functions,
    version: (i32, i32),
    supported: Vec<u32>,
    path: PathBuf,
    /// Hold the functions.
    _libraries: Vec<Library>,
}

/// What a compilation yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// Machine code of one architecture, as the driver loads it.
    pub image: Vec<u8>,
    /// Warnings, and the assembler's account of registers and memory.
    pub log: String,
}

impl Nvrtc {
    /// The NVRTC of this process: that of [`VARIABLE`], or the first that is found on the loader's path, beside
    /// libtorch or beside the `python3` in PATH. Looked for once. One that the driver of this process is too old for is
    /// taken only where there is no other.
    ///
    /// # Errors
    /// None is found, or that of [`VARIABLE`] does not serve.
    pub fn get() -> Result<&'static Nvrtc> {
        static FOUND: OnceLock<Result<Nvrtc>> = OnceLock::new();
        let find = || {
            let driver = Driver::get().ok().map(Driver::version);
            match env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
                Some(chosen) => Nvrtc::at(Path::new(&chosen), driver),
                None => Nvrtc::search(folders(), driver),
            }
        };
        FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
    }

    /// The first on the loader's path or in one of `folders` whose machine code a driver of version `driver` (13000 for
    /// 13.0) loads; else the first that serves at all. Without a driver, the latter.
    ///
    /// # Errors
    /// There is none; says where it was looked for.
    pub fn search(folders: impl Iterator<Item = PathBuf>, driver: Option<i32>) -> Result<Nvrtc> {
        let mut looked = vec![format!("{} on the loader's path", NAMES.join(" and "))];
        let mut newer = None;
        for name in NAMES {
            match Nvrtc::open(Path::new(name)) {
                Ok(found) if found.suits(driver) => return Ok(found),
                Ok(found) => newer = newer.or(Some(found)),
                Err(_) => {}
            }
        }
        for folder in folders {
            match Nvrtc::at(&folder, driver) {
                Ok(found) if found.suits(driver) => return Ok(found),
                Ok(found) => newer = newer.or(Some(found)),
                Err(_) => looked.push(folder.display().to_string()),
            }
        }
        newer.ok_or(Error::NoNvrtc { looked })
    }

    /// That of the file `path`; or, in the folder `path`, the newest that suits the driver, else the newest.
    ///
    /// # Errors
    /// It is not there, or does not serve.
    pub fn at(path: &Path, driver: Option<i32>) -> Result<Nvrtc> {
        if !path.is_dir() {
            return Nvrtc::open(path);
        }
        let files = || NAMES.iter().map(|name| path.join(name)).filter(|file| file.is_file());
        let older = || files().skip(1).filter_map(|file| Nvrtc::open(&file).ok()).find(|it| it.suits(driver));
        match files().next().map(|file| Nvrtc::open(&file)) {
            Some(Ok(newest)) if newest.suits(driver) => Ok(newest),
            Some(newest) => older().map_or(newest, Ok),
            None => {
                let reason = format!("the folder holds no {}", NAMES.join(" or "));
                Err(Error::Library { path: path.into(), what: WHAT, reason })
            }
        }
    }

    /// Whether a driver of this version loads what it makes: it does if their major versions are one, or the driver's is
    /// the newer one.
    pub fn suits(&self, driver: Option<i32>) -> bool {
        driver.is_none_or(|driver| self.version.0 <= driver / 1000)
    }

    fn open(path: &Path) -> Result<Nvrtc> {
        // NVRTC opens its builtins by their bare name when it compiles, and a wheel's folder is on no loader's path:
        // once loaded, they are found by that name.
        let mut libraries: Vec<Library> =
            builtins(path).iter().filter_map(|builtins| open(builtins).ok()).collect();
        let library =
            open(path).map_err(|reason| Error::Library { path: path.into(), what: WHAT, reason })?;
        // Safety: the types are those of nvrtc.h, and the libraries are kept.
        let functions = unsafe {
            Functions {
                version: function(&library, path, WHAT, "nvrtcVersion")?,
                arch_count: function(&library, path, WHAT, "nvrtcGetNumSupportedArchs")?,
                archs: function(&library, path, WHAT, "nvrtcGetSupportedArchs")?,
                create: function(&library, path, WHAT, "nvrtcCreateProgram")?,
                destroy: function(&library, path, WHAT, "nvrtcDestroyProgram")?,
                compile: function(&library, path, WHAT, "nvrtcCompileProgram")?,
                log_size: function(&library, path, WHAT, "nvrtcGetProgramLogSize")?,
                log: function(&library, path, WHAT, "nvrtcGetProgramLog")?,
                cubin_size: function(&library, path, WHAT, "nvrtcGetCUBINSize")?,
                cubin: function(&library, path, WHAT, "nvrtcGetCUBIN")?,
                error: function(&library, path, WHAT, "nvrtcGetErrorString")?,
            }
        };
        libraries.push(library);
        let mut nvrtc = Nvrtc {
            functions,
            version: (0, 0),
            supported: Vec::new(),
            path: path.into(),
            _libraries: libraries,
        };
        let mut count = 0;
        // Safety: the places that are written are as large as nvrtc.h asks.
        unsafe {
            let (major, minor) = (&raw mut nvrtc.version.0, &raw mut nvrtc.version.1);
            nvrtc.check("nvrtcVersion", (nvrtc.functions.version)(major, minor))?;
            nvrtc.check("nvrtcGetNumSupportedArchs", (nvrtc.functions.arch_count)(&raw mut count))?;
            let mut archs = vec![0; usize::try_from(count).unwrap_or(0)];
            nvrtc.check("nvrtcGetSupportedArchs", (nvrtc.functions.archs)(archs.as_mut_ptr()))?;
            nvrtc.supported = archs.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect();
        }
        Ok(nvrtc)
    }

    /// Major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Its file, or its name on the loader's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The architecture to compile for, for a card of compute capability `capability` (90 for 9.0): its own, or the
    /// newest of its generation that is older, whose code it runs too.
    ///
    /// # Errors
    /// This NVRTC knows none.
    pub fn architecture(&self, capability: u32) -> Result<u32> {
        let runs = |arch: &u32| *arch <= capability && arch / 10 == capability / 10;
        self.supported.iter().copied().filter(runs).max().ok_or_else(|| Error::Architecture {
            capability,
            supported: self.supported.clone(),
            nvrtc: self.version,
        })
    }

    /// What `variant` is compiled with for architecture `arch` (90 for sm_90).
    pub fn options(variant: &Variant, arch: u32) -> Vec<String> {
        let mut options = vec![
            format!("--gpu-architecture=sm_{arch}"),
            "--std=c++17".into(),
            // Registers and memory of each kernel, in the log.
            "--ptxas-options=-v".into(),
        ];
        options.extend(variant.definitions());
        options
    }

    /// Compiles `variant` for architecture `arch` (90 for sm_90).
    ///
    /// # Errors
    /// The source does not compile; with NVRTC's log.
    pub fn compile(&self, variant: &Variant, arch: u32) -> Result<Cubin> {
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let options = Nvrtc::options(variant, arch);
        let given: Vec<CString> = options.iter().map(|option| text(option)).collect();
        let (source, name) = (text(variant.source.text), text(variant.source.name));
        let headers: Vec<[CString; 2]> =
            HEADERS.iter().map(|(name, body)| [text(body), text(name)]).collect();
        let bodies: Vec<_> = headers.iter().map(|[body, _]| body.as_ptr()).collect();
        let names: Vec<_> = headers.iter().map(|[_, name]| name.as_ptr()).collect();
        let pointers: Vec<_> = given.iter().map(|option| option.as_ptr()).collect();
        let mut program = Handle { nvrtc: self, program: ptr::null_mut() };
        let f = &self.functions;
        // Safety: all texts outlive the calls, and the counts are theirs.
        unsafe {
            let (headers, created) = (names.len() as c_int, &raw mut program.program);
            let status =
                (f.create)(created, source.as_ptr(), name.as_ptr(), headers, bodies.as_ptr(), names.as_ptr());
            self.check("nvrtcCreateProgram", status)?;
            let status = (f.compile)(program.program, pointers.len() as c_int, pointers.as_ptr());
            let log = program.read("nvrtcGetProgramLog", f.log_size, f.log)?;
            let log = String::from_utf8_lossy(&log).trim_matches(['\0', '\n', ' ']).to_owned();
            if status != 0 {
                let told = if log.is_empty() { self.text(status) } else { log };
                let options = options.join(" ");
                return Err(Error::Compile { source_name: variant.source.name, options, log: told });
            }
            let image = program.read("nvrtcGetCUBIN", f.cubin_size, f.cubin)?;
            Ok(Cubin { image, log })
        }
    }

    fn text(&self, status: Status) -> String {
        // Safety: NVRTC returns a text that it keeps.
        let told = unsafe { (self.functions.error)(status) };
        if told.is_null() {
            return "unknown error".into();
        }
        // Safety: as above.
        unsafe { CStr::from_ptr(told) }.to_string_lossy().into_owned()
    }

    fn check(&self, function: &'static str, code: Status) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(Error::Call { function, code, text: self.text(code) }) }
    }
}

/// A program, destroyed when it is not needed any more.
struct Handle<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl Handle<'_> {
    /// What `read` gives, of the size that `size` says.
    unsafe fn read(
        &self,
        name: &'static str,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        read: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>> {
        let mut length = 0;
        // Safety: the program is there, and the place as large as it says.
        unsafe {
            self.nvrtc.check(name, size(self.program, &raw mut length))?;
            let mut bytes = vec![0; length];
            self.nvrtc.check(name, read(self.program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // Safety: made by this NVRTC and not used after.
            unsafe { (self.nvrtc.functions.destroy)(&raw mut self.program) };
        }
    }
}

/// The builtins that lie beside the library.
fn builtins(path: &Path) -> Vec<PathBuf> {
    let entries = path.parent().and_then(|folder| folder.read_dir().ok());
    let files = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is = |file: &PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so"))
    };
    files.filter(is).collect()
}
