//! Compiles the C++ seam to libtorch's autograd, and tells dependents where libtorch lies so that what they link
//! finds it at run time.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/torch.cpp");
    // From torch-sys, which found libtorch.
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else {
        panic!("torch-sys did not say where libtorch lies; run `cargo xtask setup` first");
    };
    let lib = PathBuf::from(lib);
    let include =
        env::var("LIBTORCH_INCLUDE").map_or_else(|_| lib.with_file_name(""), PathBuf::from).join("include");
    let mac = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "macos");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file("src/torch.cpp");
    if !mac {
        // libtorch's thread pool is OpenMP's: its header wants the pragma compiled.
        build.flag("-fopenmp");
    }
    build.compile("ophidian_torch");
    println!("cargo:rustc-link-search=native={}", lib.display());
    if !mac {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
        println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    }
    println!("cargo:libtorch_lib={}", lib.display());
}
