//! Reading configs: typed errors that name the full key, the nearest known key for a misspelt one, and overrides
//! from the command line.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{Error, Result};

/// A key of a table with what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// The key, from the table on: `augment.flip`.
    pub key: String,
    /// Its default as TOML; none for a key that is absent by default.
    pub default: Option<String>,
    /// What it means.
    pub meaning: String,
}

impl KeyDoc {
    /// The keys of a table whose defaults are `defaults`, from their names and documentation (as
    /// [`documented!`](crate::documented) collects them).
    pub fn of<T: serde::Serialize>(defaults: &T, docs: &[(&str, &str)]) -> Vec<KeyDoc> {
        let table = Table::try_from(defaults).unwrap_or_default();
        let key = |(key, meaning): &(&str, &str)| KeyDoc {
            key: (*key).to_owned(),
            default: table.get(*key).map(ToString::to_string),
            meaning: meaning.trim().to_owned(),
        };
        docs.iter().map(key).collect()
    }

    /// The same within the table `prefix`.
    pub fn within(prefix: &str, keys: Vec<KeyDoc>) -> impl Iterator<Item = KeyDoc> {
        keys.into_iter().map(move |key| KeyDoc { key: join(prefix, &key.key), ..key })
    }
}

/// Passes a struct on as it is and collects the documentation of its fields, which must all have some, in `DOCS`: what
/// the source says about a key is what `ophidian config keys` says.
#[macro_export]
macro_rules! documented {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $(#[serde($($serde:tt)*)])* pub $field:ident: $type:ty, )+
        }
    ) => {
        $(#[$meta])*
        pub struct $name { $( $(#[doc = $doc])+ $(#[serde($($serde)*)])* pub $field: $type, )+ }

        impl $name {
            /// Every key with what it means.
            pub const DOCS: &'static [(&'static str, &'static str)] =
                &[ $( (stringify!($field), concat!($($doc),+)), )+ ];
        }
    };
}

/// Reads `table` as a `T`. `path` is where the table stands in the whole config (`"data"`, `""` for the root); errors
/// name keys from the root.
///
/// # Errors
/// [`Error::Config`] for an unknown key (with the nearest known one), a missing key, a wrong type or a value that
/// `T` refuses. `T` must carry `#[serde(deny_unknown_fields)]` for unknown keys to be seen.
pub fn from_table<T: DeserializeOwned>(table: Table, path: &str) -> Result<T> {
    from_rest(table, path, &[])
}

/// Reads `table` as an `A`, which has the keys `shared`, and a `B`, which has all others: what several tables have in
/// common, and what one of them has beside.
///
/// # Errors
/// Those of [`from_table`].
pub fn from_shared<A: DeserializeOwned, B: DeserializeOwned>(
    table: Table,
    path: &str,
    shared: &[&str],
) -> Result<(A, B)> {
    let (common, own) = table.into_iter().partition(|(key, _)| shared.contains(&key.as_str()));
    Ok((from_rest(common, path, &[])?, from_rest(own, path, shared)?))
}

/// `table` with `defaults` where it does not say otherwise.
pub fn with_defaults<'a>(mut table: Table, defaults: impl IntoIterator<Item = (&'a str, Value)>) -> Table {
    for (key, value) in defaults {
        table.entry(key).or_insert(value);
    }
    table
}

/// As [`from_table`], of a table whose keys `others` have been taken out.
fn from_rest<T: DeserializeOwned>(table: Table, path: &str, others: &[&str]) -> Result<T> {
    serde_path_to_error::deserialize(table).map_err(|error| {
        let inner = error.path().to_string();
        let inner = if inner == "." { "" } else { inner.as_str() };
        // Keys of a table within are its own.
        let message = error.inner().message();
        let others = if inner.contains('.') { &[] } else { others };
        Error::Config(explain(&join(path, inner), message, others))
    })
}

/// `value` as the table `path` of a config (`"data"`), with every key.
///
/// # Errors
/// [`Error::Config`] if a value does not fit TOML's numbers.
pub fn to_table(value: &impl serde::Serialize, path: &str) -> Result<Table> {
    Table::try_from(value).map_err(|error| Error::Config(format!("[{path}]: {error}")))
}

/// The names of keys that [`documented!`](crate::documented) has collected.
pub fn names<'a>(docs: &'a [(&'a str, &'a str)]) -> Vec<&'a str> {
    docs.iter().map(|(name, _)| *name).collect()
}

/// Parses the TOML file at `path`.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, [`Error::Config`] with line and column if it is not TOML.
pub fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Config(format!("there is no config file `{}`", path.display()))
        }
        std::io::ErrorKind::InvalidData => Error::Config(format!("{} is not text", path.display())),
        _ => Error::file(path, error),
    })?;
    text.parse::<Table>()
        .map_err(|error| Error::Config(format!("{}: {}", path.display(), error.to_string().trim_end())))
}

/// Applies one override `key.path=value` to `table`. The value is read as TOML (`3`, `0.1`, `true`, `[1, 2]`,
/// `"text"`); what is not TOML is taken as text, so paths and names need no quotes.
///
/// # Errors
/// [`Error::Config`] if there is no `=`, a part of the key is empty or stands for a value and not a table, or a value
/// that opens a quote, list or table does not close it.
pub fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let (key, value) = assignment.split_once('=').ok_or_else(|| {
        Error::Config(format!(
            "`{assignment}` is not an override; expected `key=value`, for example `train.epochs=5`"
        ))
    })?;
    let (key, value) = (key.trim(), value.trim());
    insert(table, key, value_of(key, value)?)
}

/// Puts `value` at `key` (names joined by dots) of `table`, in the place of what is there.
///
/// # Errors
/// [`Error::Config`] if a part of the key is empty or stands for a value and not a table.
pub fn insert(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let parts: Vec<&str> = key.split('.').collect();
    if parts.iter().any(|part| part.trim().is_empty()) {
        return Err(Error::Config(format!(
            "`{key}` is not a key; expected names joined by dots, as in `train.epochs`"
        )));
    }
    let mut at = table;
    for (depth, part) in parts[..parts.len() - 1].iter().enumerate() {
        let entry = at.entry((*part).to_owned()).or_insert_with(|| Value::Table(Table::new()));
        at = match entry {
            Value::Table(inner) => inner,
            _ => {
                let prefix = parts[..=depth].join(".");
                return Err(Error::Config(format!(
                    "`{key}` cannot be set: `{prefix}` is a value, not a table"
                )));
            }
        };
    }
    at.insert(parts[parts.len() - 1].to_owned(), value);
    Ok(())
}

/// The known name nearest to `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + name.len().max(candidate.len()) / 4)
        .map(|(_, candidate)| candidate)
}

/// Reads the right side of an override.
fn value_of(key: &str, text: &str) -> Result<Value> {
    match format!("value = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => match table.remove("value") {
            // A date is always meant as text: no key holds a date.
            Some(Value::Datetime(_)) | None => Ok(Value::String(text.to_owned())),
            Some(value) => Ok(value),
        },
        Err(error) if text.starts_with(['"', '\'', '[', '{']) => {
            Err(Error::Config(format!("`{key}`: `{text}` is not a TOML value: {}", error.message())))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Turns serde's message about `path` into ours; `others` are known keys that serde has not heard of.
fn explain(path: &str, message: &str, others: &[&str]) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    if message.starts_with("unknown field") {
        let (found, known) = quoted.split_first().map_or(("", &[][..]), |(found, known)| (*found, known));
        let known = [others, known].concat();
        let within = if path == found || path.ends_with(&format!(".{found}")) { parent } else { path };
        let hint = match nearest(found, known.iter().copied()) {
            Some(key) => format!("; did you mean `{}`?", join(within, key)),
            None if known.is_empty() => "; no key is expected here".to_owned(),
            None => format!("; known keys here: {}", known.join(", ")),
        };
        return format!("unknown key `{}`{hint}", join(within, found));
    }
    if message.starts_with("missing field") {
        return format!("missing key `{}`", join(path, quoted.first().unwrap_or(&"?")));
    }
    if message.starts_with("unknown variant") {
        let (found, known) = quoted.split_first().map_or(("", &[][..]), |(found, known)| (*found, known));
        let hint = nearest(found, known.iter().copied()).map(|key| format!(" (did you mean \"{key}\"?)"));
        let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
        return format!(
            "`{path}` is \"{found}\", expected one of {}{}",
            known.join(", "),
            hint.unwrap_or_default()
        );
    }
    let message =
        message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: ")).unwrap_or(message);
    if path.is_empty() { message.to_owned() } else { format!("`{path}`: {message}") }
}

/// `a` and `b` joined by a dot, either may be empty.
fn join(a: &str, b: &str) -> String {
    match (a, b) {
        ("", b) => b.to_owned(),
        (a, "") => a.to_owned(),
        (a, b) => format!("{a}.{b}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Root {
        #[serde(default)]
        train: Train,
        #[serde(default)]
        rate: f64,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Train {
        epochs: u32,
        mode: Mode,
    }

    #[derive(Debug, Default, serde::Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Stop,
        Skip,
    }

    fn fails(text: &str) -> String {
        from_table::<Root>(text.parse().unwrap(), "").unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_key_and_the_nearest() {
        assert_eq!(fails("train.epoch = 3"), "unknown key `train.epoch`; did you mean `train.epochs`?");
        assert_eq!(fails("trian.epochs = 3"), "unknown key `trian`; did you mean `train`?");
        assert_eq!(
            fails("train.zzzzzzzz = 3"),
            "unknown key `train.zzzzzzzz`; known keys here: epochs, mode"
        );
        assert_eq!(
            fails("train.mode = 'skp'"),
            "`train.mode` is \"skp\", expected one of \"stop\", \"skip\" (did you mean \"skip\"?)"
        );
        assert_eq!(fails("train.epochs = 'x'"), "`train.epochs`: string \"x\", expected u32");
        assert!(fails("train.epochs = -1").starts_with("`train.epochs`: "), "{}", fails("train.epochs = -1"));
        let error = from_table::<Train>("epoch = 1".parse().unwrap(), "a.b").unwrap_err().to_string();
        assert_eq!(error, "unknown key `a.b.epoch`; did you mean `a.b.epochs`?");
    }

    #[test]
    fn what_tables_share_is_read_apart() {
        let read = |text: &str| {
            from_shared::<Train, Root>(text.parse().unwrap(), "a", &["epochs", "mode"])
                .map_err(|error| error.to_string())
        };
        let (shared, own) = read("epochs = 2\nrate = 0.5").unwrap();
        assert_eq!((shared.epochs, own.rate), (2, 0.5));
        for (text, error) in [
            ("epoch = 2", "unknown key `a.epoch`; did you mean `a.epochs`?"),
            ("raet = 2", "unknown key `a.raet`; did you mean `a.rate`?"),
            ("zzzzzz = 2", "unknown key `a.zzzzzz`; known keys here: epochs, mode, train, rate"),
            ("train.zzzzzz = 2", "unknown key `a.train.zzzzzz`; known keys here: epochs, mode"),
            ("epochs = 'x'", "`a.epochs`: string \"x\", expected u32"),
        ] {
            assert_eq!(read(text).unwrap_err(), error);
        }
    }

    #[test]
    fn overrides_are_typed() {
        let mut table = Table::new();
        for assignment in [
            "train.epochs=3",
            "rate=1",
            "train.mode=skip",
            "data.path=/tmp/a b",
            "x.y=[1, 2]",
            "date=2024-01-02",
        ] {
            set(&mut table, assignment).unwrap();
        }
        assert_eq!(table["train"]["epochs"].as_integer(), Some(3));
        assert_eq!(table["data"]["path"].as_str(), Some("/tmp/a b"));
        assert_eq!(table["x"]["y"].as_array().unwrap().len(), 2);
        assert_eq!(table["date"].as_str(), Some("2024-01-02"));
        for bad in ["train", "=3", "a..b=3", "rate.x=3", "v=[1", "v=\"a"] {
            assert!(matches!(set(&mut table, bad), Err(Error::Config(_))), "{bad}");
        }
        for key in ["data", "x", "date"] {
            table.remove(key);
        }
        let root: Root = from_table(table, "").unwrap();
        assert_eq!((root.train.epochs, root.train.mode, root.rate), (3, Mode::Skip, 1.0));
    }

    #[test]
    fn an_injected_line_stays_a_string() {
        let mut table = Table::new();
        set(&mut table, "a=1\nb=2").unwrap();
        assert_eq!(table["a"].as_str(), Some("1\nb=2"));
        assert_eq!(table.len(), 1);
    }
}
