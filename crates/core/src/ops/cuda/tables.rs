//! Visiting orders on a device.

use std::sync::{Mutex, PoisonError};

use ophidian_kernels::{Orders, cuda};
use tch::Tensor;

use super::{Launcher, rows::given};
use crate::{Result, ops::args::kernel_error};

/// Orders where the kernels read them. Made once for each device that they are used on.
#[derive(Debug)]
pub(crate) struct Tables {
    host: cuda::Tables,
    read: Tensor,
    written: Option<Tensor>,
    resets: Option<Tensor>,
    visits: Mutex<Vec<Visits>>,
}

// Safety: the tensors are written before anybody else sees them, and never after.
unsafe impl Sync for Tables {}

/// The steps that visit each token: `cuda::Visits` on a device.
#[derive(Debug)]
pub(super) struct Visits {
    of: [bool; 2],
    pub starts: Tensor,
    pub steps: Tensor,
    pub listed: usize,
    pub groups: usize,
}

impl Visits {
    fn share(&self) -> Visits {
        let [starts, steps] = [&self.starts, &self.steps].map(Tensor::shallow_clone);
        Visits { starts, steps, ..*self }
    }
}

impl Tables {
    /// # Errors
    /// An order that points outside, or no memory.
    pub fn new(
        orders: &Orders,
        [batch, tokens, directions]: [usize; 3],
        launcher: &Launcher,
    ) -> Result<Tables> {
        let host = cuda::Tables::new(orders, batch, tokens, directions).map_err(kernel_error("orders"))?;
        let indices = |values: &[i32]| launcher.put(&Tensor::f_from_slice(values)?);
        Ok(Tables {
            read: indices(&host.read)?,
            written: host.written.as_deref().map(indices).transpose()?,
            resets: host.resets.as_deref().map(|r| launcher.put(&Tensor::f_from_slice(r)?)).transpose()?,
            visits: Mutex::default(),
            host,
        })
    }

    /// What they say, on the host.
    pub fn host(&self) -> &cuda::Tables {
        &self.host
    }

    /// Addresses of `read`, `written` and `resets`.
    pub fn addresses(&self) -> [cuda::Address; 3] {
        [given(Some(&self.read)), given(self.written.as_ref()), given(self.resets.as_ref())]
    }

    /// The steps that write each token, or that read it if not `written`; all directions together if `summed`.
    pub(super) fn visits(&self, written: bool, summed: bool, launcher: &Launcher) -> Result<Visits> {
        let of = [written && self.written.is_some(), summed];
        let mut known = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(visits) = known.iter().find(|visits| visits.of == of) {
            return Ok(visits.share());
        }
        let cuda::Visits { starts, steps, listed, groups } = self.host.visits(written, summed);
        let put = |values: &[i32]| launcher.put(&Tensor::f_from_slice(values)?);
        let visits = Visits { of, starts: put(&starts)?, steps: put(&steps)?, listed, groups };
        known.push(visits.share());
        Ok(visits)
    }
}
