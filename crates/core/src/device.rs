//! Where a model runs: the CPU, or a GPU by its number.

use std::{
    any::Any,
    fmt,
    panic::{self, AssertUnwindSafe},
    str::FromStr,
    sync::Once,
};

use ophidian_kernels::cuda::{self, Driver, Element, Nvrtc, sums};
use tch::{Device, Tensor, nn::VarStore};

use crate::{
    Error, Result,
    ops::cuda::{Gpu, refusal},
    torch::{pinned, register_cuda},
};

/// A device as the user names it: `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU of this number, as the driver counts them.
    Gpu(usize),
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Place> {
        let place = match text.split_once(':') {
            None if text == "cpu" => Some(Place::Cpu),
            None if text == "cuda" => Some(Place::Gpu(0)),
            Some(("cuda", index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                index.parse().ok().map(Place::Gpu)
            }
            _ => None,
        };
        place.ok_or_else(|| Error::Config(format!("the device is \"{text}\", expected cpu, cuda or cuda:N")))
    }
}

impl TryFrom<String> for Place {
    type Error = Error;

    fn try_from(text: String) -> Result<Place> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> String {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Gpu(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Place {
    /// The device, made sure of: libtorch has CUDA, the GPU is there and not too old, and a first kernel compiles for it
    /// and loads. So whatever is amiss is said before any work is done.
    ///
    /// # Errors
    /// What is amiss, in one sentence.
    pub fn open(self) -> Result<Device> {
        let Place::Gpu(index) = self else { return Ok(Device::Cpu) };
        let gpu = Gpu::at(index).map_err(|error| match error {
            cuda::Error::Index { .. } => Error::Config(error.to_string()),
            _ => refusal(error),
        })?;
        gpu.module(&sums::variant(Element::F32)).map_err(refusal)?;
        if !register_cuda() {
            return Err(Error::invalid(
                "this libtorch computes on the CPU alone; set LIBTORCH to one with CUDA, or have `cargo xtask setup` \
                 bring it on a machine with an NVIDIA driver",
            ));
        }
        // It counts by itself, through a runtime that may be too new for the driver.
        let count = tch::Cuda::device_count();
        if i64::try_from(index).is_ok_and(|index| index >= count) {
            return Err(Error::invalid(format!(
                "libtorch finds {count} GPUs where the driver counts more than {index}: its CUDA may be newer than the driver"
            )));
        }
        Ok(Device::Cuda(index))
    }
}

/// What `doctor` says of GPUs: what is found of each part that a model on a GPU needs.
pub fn report() -> Vec<(&'static str, String)> {
    let driver = Driver::get();
    let version = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    let torch = match (register_cuda(), tch::Cuda::is_available()) {
        (false, _) => "this libtorch computes on the CPU alone",
        (true, false) => "this libtorch has CUDA, but finds no GPU",
        (true, true) => "this libtorch has CUDA",
    };
    let gpus = match &driver {
        Err(error) => format!("none: {error}"),
        Ok(driver) => {
            let each = (0..driver.count()).map(|index| match Gpu::at(index) {
                Ok(gpu) => format!(
                    "cuda:{index} {} (compute capability {}.{})",
                    gpu.name(),
                    gpu.capability() / 10,
                    gpu.capability() % 10
                ),
                Err(error) => error.to_string(),
            });
            each.collect::<Vec<_>>().join("; ")
        }
    };
    let nvrtc = match Nvrtc::get() {
        Ok(nvrtc) => format!("{}.{}, {}", nvrtc.version().0, nvrtc.version().1, nvrtc.path().display()),
        Err(error) => error.to_string(),
    };
    let mut rows = vec![("GPU", format!("{gpus}; {torch}"))];
    if let Ok(driver) = &driver {
        rows.push(("driver", format!("knows CUDA up to {}", version(driver.version()))));
    }
    rows.push(("NVRTC", nvrtc));
    rows
}

/// A device's name in a sentence.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "the CPU".to_owned(),
        Device::Cuda(index) => format!("GPU {index}"),
        other => format!("{other:?}"),
    }
}

/// Moves the variables of `vs`, and with them the model that was built of them.
///
/// # Errors
/// No memory.
pub fn move_to(vs: &mut VarStore, device: Device) -> Result<()> {
    if vs.device() != device {
        catch_out_of_memory(|| {
            vs.set_device(device);
            Ok(())
        })?;
    }
    Ok(())
}

/// Runs `f`. Where libtorch runs out of a GPU's memory in a function of tch that has no other way than a panic to say so,
/// that is an error.
///
/// # Errors
/// Those of `f`, or no memory.
pub fn catch_out_of_memory<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if of_panic(info.payload()).is_none() {
                before(info);
            }
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|payload| of_panic(&*payload).map_or_else(|| panic::resume_unwind(payload), Err))
}

/// The error that a panic stands for, if it is about memory.
pub(crate) fn of_panic(payload: &(dyn Any + Send)) -> Option<Error> {
    let text =
        payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    out_of_memory(text?).map(Error::Invalid)
}

/// What is to be said of libtorch's message `text`, if it is about a GPU's memory.
pub(crate) fn out_of_memory(text: &str) -> Option<String> {
    let about = &text[text.find("CUDA out of memory")?..];
    let wanted = about.split("Tried to allocate ").nth(1).and_then(|rest| rest.split(". ").next());
    let gpu = about.split("GPU ").nth(1).and_then(|rest| rest.split(' ').next());
    Some(format!(
        "GPU {} is out of memory ({} more were asked for); take a smaller batch, or another device",
        gpu.unwrap_or("?"),
        wanted.unwrap_or("some bytes")
    ))
}

/// `tensor` on `device`. From the CPU to a GPU it goes through pinned memory, and nobody waits for it.
///
/// # Errors
/// No memory.
pub fn send(tensor: &Tensor, device: Device) -> Result<Tensor> {
    if !device.is_cuda() || tensor.device() != Device::Cpu || tensor.numel() == 0 {
        return Ok(tensor.f_to_device(device)?);
    }
    // libtorch keeps the pinned copy until the transfer is done.
    Ok(pinned(tensor)?.f_to_device_(device, tensor.kind(), true, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.11 GiB of which \
                           1.20 GiB is free. Process 7 has 77.90 GiB memory in use.\nException raised from …";
    const TOLD: &str =
        "GPU 1 is out of memory (2.50 GiB more were asked for); take a smaller batch, or another device";

    #[test]
    fn no_memory_is_one_sentence() {
        let error = Error::Torch(tch::TchError::Torch(MESSAGE.to_owned()));
        assert_eq!(error.to_string(), format!("libtorch: {TOLD}"));
        let panicked: Result<()> = catch_out_of_memory(|| panic!("Torch({MESSAGE:?})"));
        assert_eq!(panicked.unwrap_err().to_string(), TOLD);
        assert_eq!(catch_out_of_memory(|| Ok(3)).unwrap(), 3);
        let other = panic::catch_unwind(|| catch_out_of_memory::<()>(|| panic!("something else")));
        assert!(other.is_err(), "no other panic is taken for it");
    }

    #[test]
    fn a_place_is_spelt_in_one_way() {
        for (text, place) in [("cpu", Place::Cpu), ("cuda", Place::Gpu(0)), ("cuda:12", Place::Gpu(12))] {
            assert_eq!(text.parse::<Place>().unwrap(), place);
            assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        }
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cpu:0", "cuda:99999999999999999999"] {
            let said = text.parse::<Place>().unwrap_err().to_string();
            assert_eq!(said, format!("the device is \"{text}\", expected cpu, cuda or cuda:N"));
        }
    }
}
