//! A scan of your own, in the op that all models stand on:
//! `cargo run --release --package ophidian-core --example own_scan`

#![allow(clippy::print_stdout)]

use std::{error::Error, sync::Arc};

use ophidian_core::ops::{Merge, Orders, ScanInput, selective_scan};
use ophidian_scan::{Args, Entry, Geometry, Order, Pattern, Plan, Result, Rule, register};
use tch::{Device, Kind, Tensor};

/// The dark squares of a chessboard first, row by row, then the light ones.
fn chessboard(geometry: &Geometry) -> Result<Plan> {
    let (_, height, width) = geometry.sizes();
    let tokens = 0..height * width;
    let (light, dark): (Vec<_>, Vec<_>) = tokens.partition(|token| (token / width + token % width) % 2 == 1);
    let walk = dark.into_iter().chain(light).map(|token| token as i32);
    Plan::new(vec![Order::new(walk.collect(), height * width)?])
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    // From here on `chessboard` is a name like `row`, in code and in configs.
    let make = |_: &Args| Ok(Arc::new(chessboard) as Arc<dyn Rule>);
    register(Entry::curve("chessboard", "dark squares, then light ones", make).on("grid"))?;
    let plan =
        "chessboard | bidirectional".parse::<Pattern>()?.plan(&Geometry::Grid2 { height: 14, width: 14 })?;
    let orders = Orders::new(&plan);

    // Batch, tokens, directions, channels, states. Tensors stay in token order: only the op knows the walk.
    let (b, l, k, d, n) = (2, orders.tokens(), orders.directions(), 64, 16);
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let u = random(&[b, l, d]).set_requires_grad(true);
    let output = selective_scan(&ScanInput {
        u: &u,
        delta: &random(&[b, l, k, d]),
        a: &-random(&[k, d, n]).exp(),
        b: &random(&[b, l, k, n]),
        c: &random(&[b, l, k, n]),
        d: None,
        z: None,
        delta_bias: None,
        delta_softplus: true,
        initial_state: None,
        orders: &orders,
        merge: Merge::Sum,
    })?;
    output.y.square().mean(Kind::Float).backward();
    println!("y {:?}, gradient of u {:?}", output.y.size(), u.grad().size());
    Ok(())
}
