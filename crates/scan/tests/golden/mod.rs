//! Reading the authors' own tensors.

#![allow(dead_code)] // each test takes what it needs

use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// The golden files whose names start with `prefix`; none, with a visible line, where there are no goldens.
pub fn files(prefix: &str) -> Vec<PathBuf> {
    let shared = std::env::var_os("OPHIDIAN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = shared.join("golden/scan");
    let Ok(found) = std::fs::read_dir(&folder) else {
        // Past the capture of the test harness.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no goldens at {}", folder.display());
        return Vec::new();
    };
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
    let mut files: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).filter(named).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no {prefix}*", folder.display());
    files
}

pub struct Golden(Vec<u8>);

impl Golden {
    pub fn open(path: &Path) -> Golden {
        Golden(std::fs::read(path).unwrap())
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(String::from).collect()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.file().tensor(name).unwrap().shape().to_vec()
    }

    pub fn whole(&self, name: &str) -> Vec<i64> {
        let file = self.file();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::I64, "{name}");
        view.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    pub fn real(&self, name: &str) -> Vec<f32> {
        let file = self.file();
        let view = file.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

/// The number after `mark` in a file's name: 3 of `bits3` in `a_bits3_z5.safetensors`.
pub fn number(path: &Path, mark: &str) -> u32 {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let after = name.rsplit_once(mark).unwrap().1;
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}
