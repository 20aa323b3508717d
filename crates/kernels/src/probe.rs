//! How fast this machine is at the two things a kernel cannot do without: the floors that measured times are held
//! against.

use std::{hint::black_box, sync::Mutex, time::Instant};

use crate::{
    Isa, Pool,
    simd::{Simd, dispatch},
};

/// Floating-point operations a second of all threads of `pool` together, in chains of independent fused multiply-adds
/// (two operations each) that never leave the registers.
pub fn flops(isa: Isa, pool: &dyn Pool) -> f64 {
    const ROUNDS: usize = 200_000;
    let threads = pool.threads();
    let seconds = best_of(5, || {
        pool.run(threads, &|_| {
            let rounds = ROUNDS;
            dispatch!(isa, chains(rounds: usize));
        });
    });
    (threads * ROUNDS * CHAINS * isa.lanes() * 2) as f64 / seconds
}

/// Bytes a second read and written (each counted) when all threads of `pool` copy memory that no cache holds.
pub fn bandwidth(pool: &dyn Pool) -> f64 {
    const LEN: usize = 8 << 20;
    let threads = pool.threads();
    let buffers: Vec<_> = (0..threads).map(|_| Mutex::new((vec![1f32; LEN], vec![0f32; LEN]))).collect();
    let seconds = best_of(5, || {
        pool.run(threads, &|i| {
            if let Ok(mut pair) = buffers[i].lock() {
                let (from, to) = &mut *pair;
                to.copy_from_slice(black_box(from));
                black_box(to);
            }
        });
    });
    (threads * LEN * 4 * 2) as f64 / seconds
}

fn best_of(tries: usize, mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..tries).map(time).fold(f64::INFINITY, f64::min)
}

const CHAINS: usize = 12;

#[inline(always)]
unsafe fn chains<S: Simd>(rounds: usize) {
    unsafe {
        let (scale, shift) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
        let mut chains = [S::splat(1.0); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = S::fma(*chain, scale, shift);
            }
        }
        for chain in chains {
            black_box(S::sum(chain));
        }
    }
}
