//! Large CPU tensors lie on huge pages where the system has them.
#![allow(missing_docs, clippy::print_stderr, clippy::print_stdout)] // it has no harness to say so

use std::path::Path;

use ophidian_core::torch::keep_freed_memory;
use tch::{Device, Kind, Tensor};

/// The flags of the mapping that an address lies in, as proc(5) names them.
fn flags(address: usize) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let holds = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).ok();
        Some((parse(start)?..parse(end)?).contains(&address))
    };
    let flags = maps
        .lines()
        .skip_while(|line| holds(line) != Some(true))
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .unwrap();
    flags.split_whitespace().map(String::from).collect()
}

// Without a harness: its threads have heaps of their own, as no program's main thread has.
fn main() {
    if !cfg!(target_env = "gnu") || !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        eprintln!("SKIPPED: no glibc, or no huge pages");
        return;
    }
    keep_freed_memory(true);
    let tensor = Tensor::zeros([16 << 20], (Kind::Float, Device::Cpu));
    // In its middle: its ends may share a page with others.
    assert!(flags(tensor.data_ptr() as usize + (32 << 20)).contains(&"hg".to_owned()));
    println!("test large_tensors_ask_for_huge_pages ... ok");
}
