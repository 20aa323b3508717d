//! What a compiled kernel takes of a GPU, read from the assembler's account in NVRTC's log.

use std::fmt;

/// Of one kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores because registers ran out.
    pub spill_stores: u32,
    /// Bytes that it loads for that.
    pub spill_loads: u32,
    /// Bytes of a thread's memory that is not registers: arrays that are indexed at run time.
    pub stack: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
}

impl Resources {
    /// The kernels in a log, each with its name.
    pub fn of_log(log: &str) -> Vec<(String, Resources)> {
        let mut found: Vec<(String, Resources)> = Vec::new();
        for line in log.lines() {
            if let Some(rest) = line.split("Compiling entry function '").nth(1) {
                let name = rest.split('\'').next().unwrap_or_default();
                found.push((name.to_owned(), Resources::default()));
            }
            let Some((_, resources)) = found.last_mut() else { continue };
            // A device function that was not inlined has properties of its own: the kernel answers for them.
            for (what, value) in [
                (" bytes stack frame", &mut resources.stack),
                (" bytes spill stores", &mut resources.spill_stores),
                (" bytes spill loads", &mut resources.spill_loads),
                (" registers", &mut resources.registers),
                (" bytes smem", &mut resources.shared),
            ] {
                let Some(at) = line.find(what) else { continue };
                let number = line[..at].rsplit(|c: char| !c.is_ascii_digit()).next();
                *value = number.and_then(|number| number.parse().ok()).unwrap_or(0).max(*value);
            }
        }
        found
    }

    /// Values in the order of the limits' columns.
    pub fn values(&self) -> [u32; 5] {
        [self.registers, self.spill_stores, self.spill_loads, self.stack, self.shared]
    }

    /// From values in that order.
    pub fn from_values([registers, spill_stores, spill_loads, stack, shared]: [u32; 5]) -> Resources {
        Resources { registers, spill_stores, spill_loads, stack, shared }
    }

    /// Names of the values, in that order.
    pub const NAMES: [&'static str; 5] = ["registers", "spill stores", "spill loads", "stack", "shared"];
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [registers, stores, loads, stack, shared] = self.values();
        write!(f, "{registers:>9} {stores:>12} {loads:>11} {stack:>5} {shared:>6}")
    }
}
