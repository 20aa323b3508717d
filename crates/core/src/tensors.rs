//! Tensors in safetensors files; checkpoints of PyTorch are read too.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    path::Path,
};

use safetensors::{Dtype, SafeTensors, View};
use tch::{Device, Kind, Tensor};

use crate::{Error, Result, files::write_whole, pickle};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Text that travels with the tensors.
pub type Metadata = HashMap<String, String>;

const KINDS: [(Dtype, Kind); 10] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

/// Reads every tensor of the safetensors file at `path`, onto the CPU; or those of a checkpoint as `torch.save` writes it
/// (`.pth`, `.pt`, `.bin`): a dict of tensors, or the one under `model`, `state_dict` and the like, names without
/// `module.`. No code of a checkpoint is run.
///
/// # Errors
/// [`Error::File`] if the file cannot be read, is truncated, is neither of these, or holds a dtype that libtorch has no
/// tensor for.
pub fn read(path: &Path) -> Result<Tensors> {
    let mut start = [0; 4];
    let known = regular(path)?.read_exact(&mut start).is_ok();
    match start {
        _ if !known => Ok(read_with_metadata(path)?.0),
        pickle::MAGIC => pickle::read(path),
        pickle::OLD => Err(Error::file(
            path,
            "is a checkpoint of PyTorch before 1.6 (no zip): load and save it again with a later one",
        )),
        _ => Ok(read_with_metadata(path)?.0),
    }
}

/// The file at `path`, which is no folder, device or pipe: those might never end.
fn regular(path: &Path) -> Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::file(path, "is not a regular file"));
    }
    File::open(path).map_err(|error| Error::file(path, error))
}

/// As [`read`], with the text that was stored beside the tensors.
///
/// # Errors
/// As [`read`].
pub fn read_with_metadata(path: &Path) -> Result<(Tensors, Metadata)> {
    let mut bytes = Vec::new();
    regular(path)?.read_to_end(&mut bytes).map_err(|error| Error::file(path, error))?;
    let wrong = |error: safetensors::SafeTensorError| {
        let torch = ["pth", "pt", "bin"].map(OsStr::new);
        let or = if path.extension().is_some_and(|end| torch.contains(&end)) {
            "checkpoint of PyTorch or "
        } else {
            ""
        };
        Error::file(path, format!("is not a whole {or}safetensors file of {} bytes: {error}", bytes.len()))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
    let file = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let Some((_, kind)) = KINDS.iter().find(|(dtype, _)| *dtype == view.dtype()) else {
            return Err(Error::file(
                path,
                format!("tensor `{name}` has dtype {:?}, which is not supported", view.dtype()),
            ));
        };
        let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, *kind).map_err(|_| {
            Error::file(path, format!("tensor `{name}` has the impossible shape {:?}", view.shape()))
        })?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Names of the floating or complex tensors with a NaN or an infinity in them, and how many.
pub fn non_finite(tensors: &Tensors) -> Vec<(&str, i64)> {
    let count = |tensor: &Tensor| tensor.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
    let counts = tensors.iter().map(|(name, tensor)| (name.as_str(), count(tensor)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Writes `tensors` to `path`, whole or not at all.
///
/// # Errors
/// [`Error::File`] if the file cannot be written, [`Error::Invalid`] for a dtype that safetensors does not know.
pub fn write(path: &Path, tensors: &Tensors) -> Result<()> {
    write_with_metadata(path, tensors, Metadata::new())
}

/// As [`write`](fn@write), with text beside the tensors.
///
/// # Errors
/// As [`write`](fn@write).
pub fn write_with_metadata(path: &Path, tensors: &Tensors, metadata: Metadata) -> Result<()> {
    let stored: Vec<(&String, Stored)> =
        tensors.iter().map(|(name, tensor)| Ok((name, Stored::new(name, tensor)?))).collect::<Result<_>>()?;
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let bytes = safetensors::serialize(stored, metadata).map_err(|error| Error::file(path, error))?;
    write_whole(path, |file| file.write_all(&bytes))
}

/// A tensor as safetensors wants it.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let kind = tensor.kind();
        let Some((dtype, _)) = KINDS.iter().find(|(_, known)| *known == kind) else {
            return Err(Error::invalid(format!(
                "tensor `{name}` has dtype {kind:?}, which safetensors does not know"
            )));
        };
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Stored { dtype: *dtype, shape: tensor.size().iter().map(|n| *n as usize).collect(), bytes })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
