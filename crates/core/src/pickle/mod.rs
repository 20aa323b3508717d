//! Checkpoints as `torch.save` writes them: a zip of a pickle (`data.pkl`) and of the tensors' bytes (`data/<key>`).
//!
//! The pickle is read as data: nothing that it names is looked up or called, so a file from anywhere is safe to open.
//! Objects of classes that are not known (`argparse.Namespace`, numpy numbers, optimisers) stay closed boxes.

mod machine;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use tch::{Kind, Tensor};
use zip::ZipArchive;

use crate::{Error, Result, tensors::Tensors};
use machine::{Id, Machine, Node};

/// First bytes of a file that [`read`] reads.
pub(crate) const MAGIC: [u8; 4] = *b"PK\x03\x04";

/// First bytes of what PyTorch wrote before 1.6: a pickle without a zip around it.
pub(crate) const OLD: [u8; 4] = [0x80, 0x02, 0x8a, 0x0a];

/// Largest pickle that is read, in bytes: those of the largest models have a few megabytes.
const MAX_PICKLE: u64 = 8 << 20;

/// Tensors may share bytes, but not so that they take this many times what the file has.
const MAX_SHARED: u64 = 16;

/// Where the tensors of a model lie within a checkpoint that holds more; the first that is there is taken.
const ENTRIES: [&str; 9] = [
    "model",
    "state_dict",
    "model_state_dict",
    "base_model",
    "module",
    "net",
    "model_ema",
    "state_dict_ema",
    "ema",
];

/// What PyTorch puts before every name of a model that was trained in parallel.
const PARALLEL: &str = "module.";

const STORAGES: [(&str, Kind); 10] = [
    ("FloatStorage", Kind::Float),
    ("DoubleStorage", Kind::Double),
    ("HalfStorage", Kind::Half),
    ("BFloat16Storage", Kind::BFloat16),
    ("LongStorage", Kind::Int64),
    ("IntStorage", Kind::Int),
    ("ShortStorage", Kind::Int16),
    ("CharStorage", Kind::Int8),
    ("ByteStorage", Kind::Uint8),
    ("BoolStorage", Kind::Bool),
];

type Outcome<T> = std::result::Result<T, String>;

/// The tensors of the checkpoint at `path`, onto the CPU: a dict of tensors, or the one under `model`, `state_dict` and
/// the like; `module.` before every name is taken away.
///
/// # Errors
/// [`Error::File`] for a file that is truncated, holds no dict of tensors, or tensors that its bytes do not suffice for.
pub(crate) fn read(path: &Path) -> Result<Tensors> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let size = file.metadata().map_err(|error| Error::file(path, error))?.len();
    tensors(file, size).map_err(|reason| Error::file(path, format!("is no checkpoint of PyTorch: {reason}")))
}

fn tensors(file: File, size: u64) -> Outcome<Tensors> {
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| format!("no whole zip: {error}"))?;
    // The folder within the zip, which has the name that the file had.
    let folder = |name: &str| name.strip_suffix("data.pkl").map(str::to_owned);
    let roots = archive.file_names().filter_map(|name| folder(&name.ok()?));
    let root = roots.min_by_key(String::len).ok_or("the zip holds no data.pkl")?;
    let left = size.saturating_mul(MAX_SHARED);
    let mut archive = Archive { zip: archive, root, size, storages: HashMap::new(), left };
    let order = archive.bytes("byteorder", 16).unwrap_or_default();
    if order.starts_with(b"big") {
        return Err("its numbers are big-endian; load and save it again on another machine".into());
    }
    let pickle = archive.bytes("data.pkl", MAX_PICKLE)?;
    let (machine, top) = Machine::run(&pickle)?;
    let dict = model(&machine, top, 0).ok_or_else(|| {
        format!(
            "no dict of tensors in it, nor one under {}; it holds {}",
            ENTRIES.join(", "),
            describe(&machine, top)
        )
    })?;
    let mut found = Tensors::new();
    for (name, id) in dict {
        let tensor = archive.tensor(&machine, id).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        found.insert(name.to_owned(), tensor);
    }
    if found.keys().all(|name| name.starts_with(PARALLEL)) {
        found = found.into_iter().map(|(name, t)| (name[PARALLEL.len()..].to_owned(), t)).collect();
    }
    Ok(found)
}

/// Names and nodes of the tensors of a model: those of a dict, or of the entry that holds it.
fn model(machine: &Machine, id: Id, depth: usize) -> Option<BTreeMap<&str, Id>> {
    let Node::Dict(items) = machine.get(id) else { return None };
    let named = |(key, value): &(Id, Id)| Some((machine.text(*key)?, parameter(machine, *value, 0)?));
    let tensors: BTreeMap<&str, Id> = items.iter().filter_map(named).collect();
    if !tensors.is_empty() {
        return Some(tensors);
    }
    let entry = |name: &&str| items.iter().rev().find(|(key, _)| machine.text(*key) == Some(*name));
    // An entry within an entry is as deep as published checkpoints go.
    let inner = |(_, value): &(Id, Id)| if depth < 2 { model(machine, *value, depth + 1) } else { None };
    ENTRIES.iter().filter_map(entry).find_map(inner)
}

/// The arguments that a tensor is rebuilt from, where a node is one.
fn parameter(machine: &Machine, id: Id, depth: usize) -> Option<Id> {
    match machine.call(id)? {
        ("torch._utils._rebuild_tensor_v2", args) => Some(args),
        ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", args)
            if depth == 0 =>
        {
            parameter(machine, *machine.items(args)?.first()?, depth + 1)
        }
        _ => None,
    }
}

/// What the top of a checkpoint is, for a message.
fn describe(machine: &Machine, id: Id) -> String {
    match machine.get(id) {
        Node::Dict(items) => {
            let short = |text: &str| text.chars().take(40).collect::<String>();
            let names = items.iter().filter_map(|(key, _)| machine.text(*key).map(short));
            let names: Vec<String> = names.take(12).collect();
            if names.is_empty() { "no named entry".into() } else { names.join(", ") }
        }
        _ => match machine.call(id) {
            Some(("torch._utils._rebuild_tensor_v2", _)) => "one tensor without a name".into(),
            Some((class, _)) => format!("an object of {class}: save its `state_dict()` instead"),
            None => "no dict".into(),
        },
    }
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The folder within the zip.
    root: String,
    /// Bytes of the file.
    size: u64,
    storages: HashMap<String, Tensor>,
    /// Bytes that tensors may still take.
    left: u64,
}

impl Archive {
    /// The bytes of an entry, which PyTorch stores as they are.
    fn bytes(&mut self, name: &str, most: u64) -> Outcome<Vec<u8>> {
        let wrong = |error: zip::result::ZipError| format!("`{name}` cannot be read: {error}");
        let entry = self.zip.by_name(&format!("{}{name}", self.root)).map_err(wrong)?;
        let (size, most) = (entry.size(), most.min(self.size));
        if size > most || entry.compressed_size() != size {
            return Err(format!("`{name}` claims {size} bytes, expected at most {most}, not compressed"));
        }
        let mut bytes = Vec::new();
        entry
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("`{name}` cannot be read: {error}"))?;
        if bytes.len() as u64 != size {
            return Err(format!("`{name}` has {} of {size} bytes", bytes.len()));
        }
        Ok(bytes)
    }

    /// A tensor of `_rebuild_tensor_v2(storage, offset, size, stride, …)`.
    fn tensor(&mut self, machine: &Machine, args: Id) -> Outcome<Tensor> {
        let args = machine.items(args).ok_or("is rebuilt from no tuple")?;
        let [storage, offset, size, stride, ..] = *args else {
            return Err(format!("is rebuilt from {} values, expected at least 4", args.len()));
        };
        let numbers = |id: Id, what: &str| -> Outcome<Vec<i64>> {
            let items = machine.items(id).ok_or_else(|| format!("has a {what} that is no tuple"))?;
            let number = |id: &Id| machine.int(*id).filter(|n| *n >= 0);
            items
                .iter()
                .map(number)
                .collect::<Option<_>>()
                .ok_or_else(|| format!("has a {what} of no numbers"))
        };
        let (size, stride) = (numbers(size, "size")?, numbers(stride, "stride")?);
        let offset = machine.int(offset).filter(|n| *n >= 0).ok_or("has an offset that is no number")?;
        let storage = self.storage(machine, storage)?;
        let held = storage.numel() as i64;
        let count = size.iter().try_fold(1i64, |all, n| all.checked_mul(*n));
        let end = size
            .iter()
            .zip(&stride)
            .try_fold(offset, |end, (n, step)| end.checked_add((n - 1).max(0).checked_mul(*step)?));
        let fits = count.is_some_and(|n| n <= held)
            && size.len() == stride.len()
            && (count == Some(0) || end.is_some_and(|end| end < held));
        if !fits {
            return Err(format!(
                "has size {size:?}, stride {stride:?} and offset {offset}, but its storage holds {held} values"
            ));
        }
        let bytes = count.unwrap_or(0) as u64 * storage.kind().elt_size_in_bytes() as u64;
        let left = self.left.checked_sub(bytes);
        self.left =
            left.ok_or_else(|| format!("is one more of those that share bytes {MAX_SHARED} times over"))?;
        if count == Some(0) {
            return Ok(Tensor::zeros(&size[..], (storage.kind(), storage.device())));
        }
        let tensor =
            storage.f_as_strided(&size[..], &stride[..], offset).map_err(|error| error.to_string())?;
        // One that takes up its storage stays there.
        Ok(if count == Some(held) && tensor.is_contiguous() { tensor } else { tensor.copy() })
    }

    /// All values of a storage: `("storage", type, key, device, count)`.
    fn storage(&mut self, machine: &Machine, id: Id) -> Outcome<Tensor> {
        let Node::Persistent(args) = machine.get(id) else { return Err("has no storage".into()) };
        let args = machine.items(*args).ok_or("has a storage of no tuple")?;
        let [_, class, key, _, count] = *args else {
            return Err(format!("has a storage of {} values, expected 5", args.len()));
        };
        let class = machine.global(class).ok_or("has a storage of no type")?;
        let kind =
            class.strip_prefix("torch.").and_then(|name| STORAGES.iter().find(|(known, _)| *known == name));
        let (_, kind) =
            *kind.ok_or_else(|| format!("has a storage of type {class}, which is not supported"))?;
        let key = machine.text(key).ok_or("has a storage without a name")?.to_owned();
        if let Some(storage) = self.storages.get(&key) {
            return if storage.kind() == kind {
                Ok(storage.shallow_clone())
            } else {
                Err(format!("shares the storage `data/{key}` with a tensor of another type"))
            };
        }
        let count = machine.int(count).filter(|n| *n >= 0).ok_or("has a storage without a size")?;
        let bytes = self.bytes(&format!("data/{key}"), u64::MAX)?;
        let expected = (count as usize).checked_mul(kind.elt_size_in_bytes());
        if expected.is_none_or(|expected| expected > bytes.len()) {
            let found = bytes.len();
            return Err(format!("`data/{key}` has {found} bytes, too few for {count} values of {kind:?}"));
        }
        let storage = Tensor::f_from_data_size(&bytes, &[count], kind).map_err(|error| error.to_string())?;
        self.storages.insert(key, storage.shallow_clone());
        Ok(storage)
    }
}
