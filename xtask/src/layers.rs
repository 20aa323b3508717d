//! The dependency rule: a crate may depend on crates of lower floors, never on what stands beside or above it.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::cargo;

/// The floors, from the ground up.
const FLOORS: &[&[&str]] = &[
    &["ophidian-scan", "ophidian-kernels"],
    &["ophidian-core"],
    // `train` stands beside the adapters: it reaches them through core's `Adapter` trait alone.
    &[
        "ophidian-text",
        "ophidian-audio",
        "ophidian-vision",
        "ophidian-points",
        "ophidian-series",
        "ophidian-graph",
        "ophidian-train",
    ],
    &["ophidian"],
];

/// Depends on nothing here, and nothing depends on it.
const APART: &str = "xtask";

/// The only crate with C++ in it, but for tests.
const CPP: &str = "ophidian-core";

/// Crates that must not know libtorch.
const WITHOUT_LIBTORCH: &[&str] = FLOORS[0];

/// File name extensions of C++ sources. CUDA's `.cu` is none: it is compiled at run time.
const CPP_SOURCES: &[&str] = &["c", "cc", "cpp", "cxx", "h", "hpp"];

/// What the rule looks at in a package.
pub struct Package {
    name: String,
    /// Of every kind: normal, build and dev.
    dependencies: Vec<String>,
    /// C++ sources in its folder.
    cpp: Vec<String>,
}

/// Checks the workspace.
///
/// # Errors
/// Everything that breaks the rule, a line each.
pub fn check(root: &Path) -> Result<()> {
    let packages = packages(root)?;
    let broken = violations(&packages);
    if !broken.is_empty() {
        bail!("the dependency rule is broken:\n  {}", broken.join("\n  "));
    }
    println!("the dependency rule holds for {} crates", packages.len());
    Ok(())
}

/// The workspace's packages, from `cargo metadata`.
fn packages(root: &Path) -> Result<Vec<Package>> {
    let output = cargo(root)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("cargo metadata cannot be started")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    array(&metadata["packages"])
        .iter()
        .map(|package| {
            let manifest = text(&package["manifest_path"]);
            let folder = Path::new(&manifest).parent().unwrap_or(root);
            let mut cpp = Vec::new();
            cpp_sources(folder, &mut cpp).with_context(|| format!("{} cannot be read", folder.display()))?;
            Ok(Package {
                name: text(&package["name"]),
                dependencies: array(&package["dependencies"]).iter().map(|it| text(&it["name"])).collect(),
                cpp,
            })
        })
        .collect()
}

fn cpp_sources(folder: &Path, found: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            // What only tests compile, they may: the kernels' emulator of CUDA.
            if entry.file_name() != "target" && entry.file_name() != "tests" {
                cpp_sources(&path, found)?;
            }
        } else if path.extension().is_some_and(|it| CPP_SOURCES.iter().any(|known| it == *known)) {
            found.push(path.display().to_string());
        }
    }
    Ok(())
}

/// What breaks the rule, a line each.
fn violations(packages: &[Package]) -> Vec<String> {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    let mut broken = Vec::new();
    for Package { name, dependencies, cpp } in packages {
        if floor(name).is_none() && name != APART {
            broken.push(format!("{name} has no floor; name it in xtask/src/layers.rs"));
        }
        for dependency in dependencies {
            let ours = packages.iter().any(|package| package.name == *dependency);
            if dependency == name {
                continue; // a crate's tests may name the crate itself
            }
            let why = match dependency.as_str() {
                "cc" if name != CPP => format!("only {CPP} compiles C++"),
                "tch" | "torch-sys" if WITHOUT_LIBTORCH.contains(&name.as_str()) => {
                    "the ground floor does without libtorch".to_owned()
                }
                APART => "nothing may".to_owned(),
                _ if ours && name == APART => "it must build in seconds".to_owned(),
                _ if ours && floor(dependency) >= floor(name) => "it does not stand below".to_owned(),
                _ => continue,
            };
            broken.push(format!("{name} depends on {dependency}: {why}"));
        }
        if name != CPP {
            broken.extend(cpp.iter().map(|file| format!("{file}: only {CPP} holds C++")));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|&name| name.to_owned()).collect();
        Package { name: name.to_owned(), dependencies, cpp: vec![] }
    }

    /// The house as it shall be, with `more` depended on by `of`.
    fn house(of: &str, more: &str) -> Vec<String> {
        let mut packages = vec![
            package("ophidian-scan", &["serde"]),
            package("ophidian-kernels", &["rayon"]),
            package("ophidian-core", &["tch", "torch-sys", "cc", "ophidian-scan", "ophidian-kernels"]),
            package("ophidian-vision", &["tch", "ophidian-core", "ophidian-scan"]),
            package("ophidian-train", &["tch", "ophidian-core"]),
            package("ophidian", &["ophidian-core", "ophidian-train", "ophidian-vision"]),
            package("xtask", &["anyhow"]),
        ];
        packages.iter_mut().filter(|it| it.name == of).for_each(|it| it.dependencies.push(more.to_owned()));
        violations(&packages)
    }

    #[test]
    fn holds_for_the_house_as_designed() {
        assert_eq!(house("", ""), Vec::<String>::new());
        // Lower floors may be skipped; a crate's own name is fine.
        assert_eq!(house("ophidian", "ophidian-scan"), Vec::<String>::new());
        assert_eq!(house("ophidian-core", "ophidian-core"), Vec::<String>::new());
    }

    #[test]
    fn catches_every_kind_of_violation() {
        for (of, more) in [
            ("ophidian-scan", "ophidian-core"),    // above
            ("ophidian-kernels", "ophidian-scan"), // beside
            ("ophidian-vision", "ophidian-train"), // beside
            ("ophidian-train", "ophidian-vision"), // beside
            ("ophidian-core", "ophidian"),         // far above
            ("ophidian-scan", "tch"),              // libtorch on the ground floor
            ("ophidian-kernels", "torch-sys"),     // the same
            ("ophidian-vision", "cc"),             // C++ outside core
            ("ophidian-train", "xtask"),           // what stands apart
            ("xtask", "ophidian-scan"),            // the same, the other way
        ] {
            let broken = house(of, more);
            assert_eq!(broken.len(), 1, "{of} -> {more}: {broken:?}");
            assert!(broken[0].starts_with(&format!("{of} depends on {more}: ")), "{broken:?}");
        }
    }

    #[test]
    fn catches_unknown_crates_and_cpp_sources() {
        let mut stray = package("ophidian-weather", &[]);
        stray.cpp.push("crates/weather/src/rain.cpp".to_owned());
        let broken = violations(&[stray]);
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("ophidian-weather has no floor"), "{broken:?}");
        assert!(broken[1].contains("rain.cpp: only ophidian-core holds C++"), "{broken:?}");
    }

    #[test]
    fn holds_for_this_workspace() {
        check(&crate::root().unwrap()).unwrap();
    }
}
