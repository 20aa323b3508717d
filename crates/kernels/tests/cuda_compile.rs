//! Every CUDA source compiles, with no GPU, for every architecture that is checked, and takes no more of a GPU than
//! `cuda/limits.csv` says. Without NVRTC these tests are skipped, which they say; `cargo xtask ci` brings it.
// The table is what a reader of the checks wants to see.
#![allow(missing_docs, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use ophidian_kernels::cuda::{
    self, CHECKED, Cache, Error, Nvrtc, Origin, Resources, Source, Variant, checked,
};

/// The compiler that the limits hold for: the one that torch brings, and `cargo xtask ci`.
const PINNED: (i32, i32) = (13, 0);

/// Set to `update`: the limits become what is found.
const VARIABLE: &str = "OPHIDIAN_CUDA_LIMITS";

/// None where there is no NVRTC; one that was named and does not serve is a failure.
fn nvrtc() -> Option<&'static Nvrtc> {
    match Nvrtc::get() {
        Ok(found) => Some(found),
        Err(error @ Error::NoNvrtc { .. }) => {
            // Not `eprintln!`, which the test harness keeps to itself.
            let _ = writeln!(io::stderr(), "SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// What a kernel takes, by variant, kernel and architecture.
type Table = BTreeMap<(String, String, u32), Resources>;

/// Compiles every variant for every architecture, by as many threads as the machine has.
fn compile(nvrtc: &Nvrtc) -> Table {
    let variants = checked();
    let jobs: Vec<_> = variants.iter().flat_map(|variant| CHECKED.map(|arch| (variant, arch))).collect();
    let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::new()));
    let worker = || {
        while let Some((variant, arch)) = jobs.get(next.fetch_add(1, Relaxed)) {
            let cubin = nvrtc.compile(variant, *arch).unwrap_or_else(|error| panic!("{error}"));
            assert!(cubin.image.starts_with(b"\x7fELF"), "{variant} for sm_{arch} is no cubin");
            assert!(!cubin.log.contains("warning"), "{variant} for sm_{arch}: {}", cubin.log);
            let kernels = Resources::of_log(&cubin.log);
            let mut found: Vec<_> = kernels.iter().map(|(name, _)| name.as_str()).collect();
            let mut listed = variant.source.kernels.to_vec();
            found.sort_unstable();
            listed.sort_unstable();
            assert_eq!(found, listed, "kernels of {}, and those that its Source lists", variant.source.name);
            let mut table = table.lock().unwrap();
            for (kernel, resources) in kernels {
                table.insert((variant.to_string(), kernel, *arch), resources);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    table.into_inner().unwrap()
}

fn limits_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/limits.csv")
}

fn to_csv(table: &Table) -> String {
    let mut csv = format!("variant,kernel,arch,{}\n", Resources::NAMES.join(","));
    for ((variant, kernel, arch), resources) in table {
        let values = resources.values().map(|value| value.to_string()).join(",");
        let _ = writeln!(csv, "{variant},{kernel},{arch},{values}");
    }
    csv
}

fn from_csv(csv: &str) -> Table {
    let row = |line: &str| {
        let mut parts = line.split(',');
        let mut text = || parts.next().unwrap_or_else(|| panic!("limits.csv: too few values in `{line}`"));
        let key = (text().to_owned(), text().to_owned(), text().parse().unwrap());
        let values =
            [(); 5].map(|()| text().parse().unwrap_or_else(|_| panic!("limits.csv: no number in `{line}`")));
        (key, Resources::from_values(values))
    };
    csv.lines().skip(1).map(row).collect()
}

/// What of `found` breaks `limits`, a line each.
fn broken(found: &Table, limits: &Table) -> Vec<String> {
    let mut broken = Vec::new();
    for (key @ (variant, kernel, arch), resources) in found {
        let Some(limit) = limits.get(key) else {
            broken.push(format!("{kernel} ({variant}, sm_{arch}) has no limits"));
            continue;
        };
        for ((name, value), limit) in Resources::NAMES.iter().zip(resources.values()).zip(limit.values()) {
            if value > limit {
                broken.push(format!("{kernel} ({variant}, sm_{arch}): {name} {value}, limit {limit}"));
            }
        }
    }
    let stale = limits.keys().filter(|key| !found.contains_key(*key));
    broken.extend(stale.map(|(variant, kernel, arch)| format!("{kernel} ({variant}, sm_{arch}) is no more")));
    broken
}

#[test]
fn every_kernel_compiles_within_its_limits() {
    let Some(nvrtc) = nvrtc() else { return };
    let found = compile(nvrtc);
    let (major, minor) = nvrtc.version();
    println!("NVRTC {major}.{minor} ({})", nvrtc.path().display());
    println!(
        "{:<25} {:<38} {:<6} {:>9} {:>12} {:>11} {:>5} {:>6}",
        "kernel",
        "variant",
        "arch",
        Resources::NAMES[0],
        Resources::NAMES[1],
        Resources::NAMES[2],
        Resources::NAMES[3],
        Resources::NAMES[4]
    );
    for ((variant, kernel, arch), resources) in &found {
        println!("{kernel:<25} {variant:<38} sm_{arch:<3} {resources}");
    }
    let file = limits_file();
    if env::var_os(VARIABLE).is_some_and(|value| value == "update") {
        assert_eq!(nvrtc.version(), PINNED, "limits are those of NVRTC {}.{}", PINNED.0, PINNED.1);
        fs::write(&file, to_csv(&found)).unwrap();
        return;
    }
    if nvrtc.version() != PINNED {
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: the limits are those of NVRTC {}.{}; with {major}.{minor} nothing is compared",
            PINNED.0,
            PINNED.1
        );
        return;
    }
    let broken = broken(&found, &from_csv(&fs::read_to_string(&file).unwrap()));
    assert!(
        broken.is_empty(),
        "{} do not hold:\n  {}\nIf that is as it shall be: {VARIABLE}=update cargo xtask ci",
        file.display(),
        broken.join("\n  ")
    );
}

#[test]
fn limits_are_compared() {
    let csv = "variant,kernel,arch,registers,spill stores,spill loads,stack,shared\na X=1,k,80,32,0,0,0,64\n";
    let limits = from_csv(csv);
    assert_eq!(to_csv(&limits), csv);
    let with =
        |values| limits.keys().map(|key| (key.clone(), Resources::from_values(values))).collect::<Table>();
    assert!(broken(&with([31, 0, 0, 0, 64]), &limits).is_empty());
    for (values, what) in
        [([33, 0, 0, 0, 64], "registers 33, limit 32"), ([32, 0, 4, 0, 64], "spill loads 4, limit 0")]
    {
        assert_eq!(broken(&with(values), &limits), [format!("k (a X=1, sm_80): {what}")]);
    }
    assert_eq!(broken(&limits, &Table::new()), ["k (a X=1, sm_80) has no limits"]);
    assert_eq!(broken(&Table::new(), &limits), ["k (a X=1, sm_80) is no more"]);
}

#[test]
fn resources_are_read_from_the_log() {
    let log = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas info    : Function properties for two
ptxas         .     256 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 80 registers, used 0 barriers, 256 bytes cumulative stack size, 364 bytes cmem[0]
ptxas info    : Compile time = 31.922 ms
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 1024 bytes smem, 364 bytes cmem[0]
";
    let found = Resources::of_log(log);
    let expected = [
        ("two".to_owned(), Resources::from_values([80, 8, 12, 256, 0])),
        ("one".to_owned(), Resources::from_values([12, 0, 0, 0, 1024])),
    ];
    assert_eq!(found, expected);
}

static BROKEN: Source =
    Source { name: "broken.cu", text: "KERNEL broken() { does_not_exist(); }", kernels: &["broken"] };

#[test]
fn a_source_that_does_not_compile_says_why() {
    let Some(nvrtc) = nvrtc() else { return };
    let error = nvrtc.compile(&Variant { source: &BROKEN, macros: vec![("N", 3)] }, 90).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Compile { .. }), "{said}");
    for part in ["broken.cu", "-DN=3", "sm_90", "error"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn an_architecture_is_the_cards_or_an_older_one_of_its_generation() {
    let Some(nvrtc) = nvrtc() else { return };
    for (capability, arch) in [(80, 80), (86, 86), (90, 90), (100, 100), (85, 80)] {
        assert_eq!(nvrtc.architecture(capability).unwrap(), arch, "capability {capability}");
    }
    let error = nvrtc.architecture(990).unwrap_err();
    assert!(error.to_string().contains("knows no compute capability 99.0"), "{error}");
}

#[test]
fn the_cache_keeps_what_was_compiled() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let variant = cuda::sums::variant(cuda::Element::F32);
    let first = cache.cubin(nvrtc, &variant, 90, 13000).unwrap();
    assert!(matches!(first.origin, Origin::Compiled), "{:?}", first.origin);
    let second = cache.cubin(nvrtc, &variant, 90, 13000).unwrap();
    assert!(matches!(second.origin, Origin::Disk) && first.image == second.image, "{:?}", second.origin);
    for (arch, driver) in [(80, 13000), (90, 13010)] {
        let other = cache.cubin(nvrtc, &variant, arch, driver).unwrap();
        assert!(matches!(other.origin, Origin::Compiled), "sm_{arch}, driver {driver}: {:?}", other.origin);
    }
}
