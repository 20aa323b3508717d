//! From paths to splits and classes: `[split/]class/…/image`.

use std::collections::{BTreeMap, BTreeSet};

/// What a folder or an archive is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `train`, `training`
    Train,
    /// `val`, `valid`, `validation`, `eval`, `dev`
    Validation,
    /// `test`, `testing`, `t10k`
    Test,
}

impl Role {
    /// The role a name stands for.
    pub fn of(name: &str) -> Option<Role> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Role::Train),
            "val" | "valid" | "validation" | "eval" | "dev" => Some(Role::Validation),
            "test" | "testing" | "t10k" => Some(Role::Test),
            _ => None,
        }
    }

    /// The role of the last word of a name that is one (`cifar10-jpg-train` is for training).
    pub fn of_words(name: &str) -> Option<Role> {
        name.split(|c: char| !c.is_ascii_alphanumeric()).rev().find_map(Role::of)
    }
}

/// Splits and classes of a list of paths, as (index into the list, class).
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Class names, sorted.
    pub classes: Vec<String>,
    /// Images to train on, or all where there is no split.
    pub train: Option<Vec<(u32, u32)>>,
    /// Images to evaluate on: validation if there is one, else test.
    pub eval: Option<Vec<(u32, u32)>>,
    /// Test images left alone because there is a validation split.
    pub set_aside: usize,
}

/// Reads splits and classes out of `paths`, each with the role of the archive that it lies in. Folders that hold
/// everything (`dataset/train/cat/1.png`, `dataset/test/…`) are passed over. If `names` is not empty, it lists the
/// classes in their order. `unit` is what a path names: "IMAGE" or "CLIP".
///
/// # Errors
/// What is wrong, naming a path.
pub fn layout(paths: &[(Option<Role>, &str)], names: &[String], unit: &str) -> Result<Layout, String> {
    if paths.is_empty() {
        return Err(format!("holds no {}s", unit.to_ascii_lowercase()));
    }
    if u32::try_from(paths.len()).is_err() {
        return Err(format!(
            "holds {} {}s, more than can be numbered",
            paths.len(),
            unit.to_ascii_lowercase()
        ));
    }
    let mut parts: Vec<Vec<&str>> = paths
        .iter()
        .map(|(_, path)| path.split('/').filter(|part| !matches!(*part, "" | ".")).collect())
        .collect();
    while let Some(first) = common_folder(&parts) {
        if Role::of(first).is_some() {
            break;
        }
        for part in &mut parts {
            part.remove(0);
        }
    }

    let role_of = |part: &Vec<&str>| if part.len() > 1 { Role::of(part[0]) } else { None };
    let roles: BTreeSet<Option<Role>> = parts.iter().map(role_of).collect();
    let in_path = !roles.contains(&None);
    if !in_path && roles.contains(&Some(Role::Train)) && roles.len() > 2 {
        let stray = parts.iter().find(|part| role_of(part).is_none()).map(|part| part.join("/"));
        return Err(format!(
            "has a training and an evaluation split, but `{}` lies in neither; move it, or point `path` and `eval_path` at the splits",
            stray.unwrap_or_default()
        ));
    }

    let mut of_role: BTreeMap<Role, Vec<(u32, &str)>> = BTreeMap::new();
    for ((index, part), (hint, path)) in (0u32..).zip(&parts).zip(paths) {
        let (role, rest) = if in_path { (role_of(part), &part[1..]) } else { (*hint, &part[..]) };
        let [class, _, ..] = rest else {
            return Err(format!(
                "`{path}` lies in no class folder; expected CLASS/{unit} or SPLIT/CLASS/{unit}"
            ));
        };
        of_role.entry(role.unwrap_or(Role::Train)).or_default().push((index, class));
    }

    let classes: Vec<String> = if names.is_empty() {
        let found: BTreeSet<&str> = of_role.values().flatten().map(|(_, class)| *class).collect();
        found.into_iter().map(str::to_owned).collect()
    } else {
        names.to_vec()
    };
    let numbers: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let number = |items: Vec<(u32, &str)>| -> Result<Vec<(u32, u32)>, String> {
        let numbered = |(index, class): (u32, &str)| match numbers.get(class) {
            Some(number) => Ok((index, *number)),
            None => Err(format!(
                "`{}` is of class `{class}`, which is none of the {} in `class_names`",
                paths[index as usize].1,
                names.len()
            )),
        };
        items.into_iter().map(numbered).collect()
    };
    let train = of_role.remove(&Role::Train).map(number).transpose()?;
    let validation = of_role.remove(&Role::Validation).map(number).transpose()?;
    let test = of_role.remove(&Role::Test).map(number).transpose()?;
    let set_aside = if validation.is_some() { test.as_ref().map_or(0, Vec::len) } else { 0 };
    Ok(Layout { classes, train, eval: validation.or(test), set_aside })
}

/// The folder that all paths lie in, if there is one and each path still has a class folder below it.
fn common_folder<'a>(parts: &[Vec<&'a str>]) -> Option<&'a str> {
    let first = *parts.first()?.first()?;
    parts.iter().all(|part| part.len() > 2 && part[0] == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(paths: &[&str]) -> Result<Layout, String> {
        let paths: Vec<_> = paths.iter().map(|path| (None, *path)).collect();
        layout(&paths, &[], "IMAGE")
    }

    #[test]
    fn classes_are_sorted_folders() {
        let found = read(&["dog/1.png", "cat/2.png", "dog/deep/3.png"]).unwrap();
        assert_eq!(found.classes, ["cat", "dog"]);
        assert_eq!(found.train.unwrap(), [(0, 1), (1, 0), (2, 1)]);
        assert!(found.eval.is_none());
    }

    #[test]
    fn splits_are_found_below_a_common_folder() {
        let found = read(&["set/train/b/1.png", "set/Test/a/2.png", "set/train/a/1.png"]).unwrap();
        assert_eq!(found.classes, ["a", "b"]);
        assert_eq!(found.train.unwrap(), [(0, 1), (2, 0)]);
        assert_eq!(found.eval.unwrap(), [(1, 0)]);
    }

    #[test]
    fn validation_goes_before_test() {
        let found = read(&["train/a/1.png", "val/a/2.png", "test/a/3.png", "test/a/4.png"]).unwrap();
        assert_eq!(found.eval.unwrap(), [(1, 0)]);
        assert_eq!(found.set_aside, 2);
    }

    #[test]
    fn a_class_may_be_called_test() {
        let found = read(&["test/1.png", "prod/2.png"]).unwrap();
        assert_eq!(found.classes, ["prod", "test"]);
        assert!(found.eval.is_none());
    }

    #[test]
    fn strays_are_named() {
        assert!(read(&["a/1.png", "2.png"]).unwrap_err().contains("`2.png` lies in no class folder"));
        let stray = read(&["train/a/1.png", "test/a/2.png", "extra/a/3.png"]).unwrap_err();
        assert!(stray.contains("`extra/a/3.png` lies in neither"), "{stray}");
        assert_eq!(read(&[]).unwrap_err(), "holds no images");
    }

    #[test]
    fn an_archive_name_tells_the_split() {
        let paths =
            [(Role::of_words("cifar10-jpg-train"), "a/1.png"), (Role::of_words("x_test.2"), "a/2.png")];
        let found = layout(&paths, &["z".into(), "a".into()], "IMAGE").unwrap();
        assert_eq!(found.train.unwrap(), [(0, 1)]);
        assert_eq!(found.eval.unwrap(), [(1, 1)]);
        assert!(layout(&paths, &["z".into()], "IMAGE").unwrap_err().contains("none of the 1"));
    }
}
