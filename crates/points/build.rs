//! Tells the program where libtorch lies, so that it needs no LD_LIBRARY_PATH.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_OPHIDIAN_CORE_LIBTORCH_LIB");
    if let Ok(lib) = std::env::var("DEP_OPHIDIAN_CORE_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
