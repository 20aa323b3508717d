//! What the tests share: files made up on the spot.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

/// `bytes` gzipped.
pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes `bytes` to `folder/path`, making folders.
pub fn put(folder: &Path, path: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A tetrahedron whose corners lie at the ends of the axes.
pub const TETRAHEDRON: &str = "OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n";

/// A recording of `frames` frames of `points` points each, at (frame, point, 0).
pub fn recording(frames: usize, points: usize) -> String {
    let mut text = String::new();
    for frame in 0..frames {
        for point in 0..points {
            text.push_str(&format!(
                "header: \n  seq: 1\n  frame_id: \"ti_mmwave\"\npoint_id: {point}\nx: {frame}.0\ny: {point}.0\nz: 0.0\n\
                 range: 1.5\nvelocity: 0.25\ndoppler_bin: 8\nbearing: -73.3\nintensity: {}\n---\n",
                10 * frame + point
            ));
        }
    }
    text
}

/// `count` points on a line as text.
pub fn line(count: usize) -> String {
    (0..count).map(|i| format!("{i} 0 1\n")).collect()
}

/// The shared data, or none (said aloud) where it is not there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("OPHIDIAN_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("SKIPPED: {} is not there (set OPHIDIAN_SHARED)\n", path.display()),
    );
    None
}

/// The error of what must fail.
pub fn error<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.to_string(),
    }
}

/// Asserts that a message says all of `parts`.
pub fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}
