//! What an order needs beyond the plain one: nothing. No tensor, and in the kernels no scratch of an activation's size.
#![allow(missing_docs)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use ophidian_core::{
    ops::{Merge, Orders, ScanInput, selective_scan},
    torch::peak_of_tensors,
};
use ophidian_scan::{Geometry, Order, Pattern, Plan};
use tch::{Device, Kind, Tensor};

/// The system's allocator, with a count of the bytes that Rust has in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Channels: enough for the scratch of a task to be small beside an activation.
const D: i64 = 256;

/// Most bytes of tensors, and of what Rust allocates, in a forward and backward along `plan` with every argument.
fn peaks(plan: &Plan) -> (u64, usize) {
    let (b, d, n) = (2, D, 16);
    let (l, k) = (plan.tokens() as i64, plan.directions() as i64);
    let given = |size: &[i64]| Tensor::rand(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let (u, z, delta) = (given(&[b, l, 1, d]), given(&[b, l, 1, d]), given(&[b, l, k, d]));
    let (bs, cs) = (given(&[b, l, k, 1, n]), given(&[b, l, k, 1, n]));
    let (a, skip, bias) = (given(&[k, d, n]), given(&[k, d]), given(&[k, d]));
    let orders = Orders::new(plan);
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let ((), tensors) = peak_of_tensors(|| {
        let y = selective_scan(&ScanInput {
            u: &u,
            delta: &delta,
            a: &a,
            b: &bs,
            c: &cs,
            d: Some(&skip),
            z: Some(&z),
            delta_bias: Some(&bias),
            delta_softplus: true,
            initial_state: None,
            orders: &orders,
            merge: Merge::Sum,
        });
        y.unwrap().y.sum(Kind::Float).backward();
    });
    (tensors, PEAK.load(Relaxed) - before)
}

#[test]
fn an_order_needs_no_memory_of_its_own() {
    let (h, w) = (40, 52);
    let activation = 2 * h * w * D as usize * 4;
    for pattern in ["random(seed=1)", "column", "hilbert", "bidirectional", "cross", "zigma/zigzag8"] {
        let plan =
            pattern.parse::<Pattern>().unwrap().plan(&Geometry::Grid2 { height: h, width: w }).unwrap();
        let plain = (0..plan.directions()).map(|_| Order::identity(h * w).unwrap());
        let (plain, along) = (peaks(&Plan::new(plain.collect()).unwrap()), peaks(&plan));
        assert_eq!(along.0, plain.0, "{pattern}: bytes of tensors");
        assert!(
            along.1.abs_diff(plain.1) < activation / 8,
            "{pattern}: {} bytes of scratch, {} left to right, {activation} are an activation",
            along.1,
            plain.1
        );
    }
}
