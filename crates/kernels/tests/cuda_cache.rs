//! The cache of compiled kernels, and the libraries that are not there: nothing here needs a GPU or NVRTC.
#![allow(missing_docs)]

use std::{
    cell::Cell,
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use ophidian_kernels::cuda::{self, Cache, Element, Error, Nvrtc, Origin, Source, Variant, conv, key, norm};

const KEY: &str = "0123";

/// Some machine code.
fn image(seed: u8) -> Vec<u8> {
    (0..100_000u32).map(|i| ((i * 31) >> 3) as u8 ^ seed).collect()
}

/// What the cache gives, and whether it was built for that.
fn get(cache: &Cache) -> (Vec<u8>, Origin, bool) {
    let built = Cell::new(false);
    let kept = cache
        .get(KEY, || {
            built.set(true);
            Ok(image(7))
        })
        .unwrap();
    (kept.image, kept.origin, built.get())
}

fn entries(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_entry_is_built_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(&folder.path().join("deep/in"));
    let (first, origin, built) = get(&cache);
    assert!(matches!(origin, Origin::Compiled) && built && first == image(7));
    let (second, origin, built) = get(&cache);
    assert!(matches!(origin, Origin::Disk) && !built && second == image(7));
    assert_eq!(entries(&folder.path().join("deep/in")), [format!("{KEY}.cubin")]);
}

#[test]
fn a_damaged_entry_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let path = folder.path().join(format!("{KEY}.cubin"));
    get(&cache);
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damages = [
        vec![],
        whole[..10].to_vec(),
        whole[..30].to_vec(),
        whole[..whole.len() / 2].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [whole.as_slice(), b"x"].concat(),
        flipped(0),
        flipped(20),
        flipped(whole.len() / 2),
        flipped(whole.len() - 1),
        b"somebody else's file".to_vec(),
    ];
    for (i, damage) in damages.into_iter().enumerate() {
        fs::write(&path, damage).unwrap();
        let (found, origin, built) = get(&cache);
        assert!(matches!(origin, Origin::Compiled) && built && found == image(7), "damage {i}: {origin:?}");
        assert_eq!(fs::read(&path).unwrap(), whole, "damage {i}");
        assert!(matches!(get(&cache).1, Origin::Disk), "damage {i}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder shall be: no permission of root's passes that.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (found, origin, built) = get(&Cache::at(&file.join("cuda")));
    assert!(matches!(origin, Origin::Unkept(_)) && built && found == image(7), "{origin:?}");
    // A folder where the entry shall be.
    fs::create_dir_all(folder.path().join(format!("{KEY}.cubin/x"))).unwrap();
    let (found, origin, _) = get(&Cache::at(folder.path()));
    assert!(matches!(origin, Origin::Unkept(_)) && found == image(7), "{origin:?}");
    // What was half written is gone.
    assert!(
        entries(folder.path()).iter().all(|name| !name.starts_with(".tmp")),
        "{:?}",
        entries(folder.path())
    );
}

#[test]
fn an_error_of_the_compiler_is_handed_on_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let error = cache.get(KEY, || Err(Error::NoDevice)).unwrap_err();
    assert_eq!(error, Error::NoDevice);
    assert!(entries(folder.path()).is_empty());
    assert!(get(&cache).2);
}

/// Names the folder to a process of `processes_race`.
const FOLDER: &str = "OPHIDIAN_TEST_RACE";

/// Reads, builds and damages one entry many times; every answer must be right.
fn race(folder: &Path, seed: usize) {
    let cache = Cache::at(folder);
    let path = folder.join(format!("{KEY}.cubin"));
    for round in 0..200 {
        assert_eq!(get(&cache).0, image(7), "round {round}");
        if round % 5 == seed % 5 {
            let _ = fs::remove_file(&path);
        }
        if round % 7 == seed % 7 {
            let _ = fs::write(&path, "damaged");
        }
    }
}

#[test]
fn threads_race() {
    let folder = tempfile::tempdir().unwrap();
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (folder, barrier) = (folder.path(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                race(folder, seed);
            });
        }
    });
}

#[test]
fn processes_race() {
    if let Some(folder) = env::var_os(FOLDER) {
        return race(Path::new(&folder), std::process::id() as usize);
    }
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "processes_race"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for child in [start(), start(), start()] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(get(&Cache::at(folder.path())).0, image(7));
    assert_eq!(entries(folder.path()), [format!("{KEY}.cubin")]);
}

static ONE: Source = Source { name: "one.cu", text: "a", kernels: &[] };
static OTHER: Source = Source { name: "one.cu", text: "b", kernels: &[] };

#[test]
fn the_key_holds_all_that_code_depends_on() {
    let variant = |source| Variant { source, macros: vec![("N", 1)] };
    let options = |variant: &Variant, arch| Nvrtc::options(variant, arch);
    let mut keys = vec![
        key(&variant(&ONE), &options(&variant(&ONE), 90), (13, 0), 13000),
        key(&variant(&OTHER), &options(&variant(&ONE), 90), (13, 0), 13000),
        key(&variant(&ONE), &options(&variant(&ONE), 80), (13, 0), 13000),
        key(&variant(&ONE), &options(&variant(&ONE), 90), (13, 1), 13000),
        key(&variant(&ONE), &options(&variant(&ONE), 90), (13, 0), 13010),
        key(&variant(&ONE), &["ab".into(), "c".into()], (13, 0), 13000),
        key(&variant(&ONE), &["a".into(), "bc".into()], (13, 0), 13000),
    ];
    let more = Variant { source: &ONE, macros: vec![("N", 2)] };
    keys.push(key(&more, &options(&more, 90), (13, 0), 13000));
    let again = key(&variant(&ONE), &options(&variant(&ONE), 90), (13, 0), 13000);
    assert_eq!(again, keys[0]);
    assert!(again.len() == 64 && again.bytes().all(|byte| byte.is_ascii_hexdigit()), "{again}");
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn a_missing_nvrtc_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| Nvrtc::at(path, None).map(|_| ()).unwrap_err().to_string();
    let none = folder.path().join("libnvrtc.so");
    assert!(
        said(&none).starts_with(&format!("{} does not serve as NVRTC: ", none.display())),
        "{}",
        said(&none)
    );
    assert!(said(folder.path()).contains("the folder holds no libnvrtc.so.13"), "{}", said(folder.path()));
    fs::write(folder.path().join("libnvrtc.so.13"), "no library").unwrap();
    assert!(said(folder.path()).contains("does not serve as NVRTC"), "{}", said(folder.path()));
    if let Err(error) = Nvrtc::search([folder.path().to_path_buf()].into_iter(), None) {
        let said = error.to_string();
        assert!(matches!(error, Error::NoNvrtc { .. }), "{said}");
        for part in [
            folder.path().to_str().unwrap(),
            "loader's path",
            "pip install nvidia-cuda-nvrtc",
            cuda::VARIABLE,
        ] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }
}

#[test]
fn variants_are_named_by_what_they_are() {
    assert_eq!(conv::variant(Element::Bf16, 4).unwrap().to_string(), "causal_conv1d DTYPE=1 WIDTH=4");
    assert_eq!(norm::add(Element::F32, true, true).to_string(), "add_norm DTYPE=0 LAYER=1 STREAM_F32=0");
    assert!(conv::variant(Element::F32, 1).is_err());
    let mut names: Vec<_> = cuda::checked().iter().map(Variant::to_string).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}
