//! The norms: random problems, their equations in f64, and the launches.

mod add;
mod gated;

use ophidian_kernels::cuda::Element;

use super::rounded;
use crate::common::Draw;

pub use add::{Add, AddOperands, AddRun, add};
pub use gated::{Gated, GatedOperands, GatedRun, gated};

const EPS: f32 = 1e-5;

/// Values large enough for a square to count beside eps, in the element type.
fn draw_rows(draw: &mut Draw, element: Element, n: usize) -> Vec<f32> {
    rounded(element, draw.vec(n, 2.0))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// n = v rstd, and the gradient of v out of that of n: (n, dv).
fn rms(v: &[f64], dn: &[f64], eps: f32) -> (Vec<f64>, Vec<f64>) {
    let count = v.len() as f64;
    let rstd = 1.0 / (v.iter().map(|v| v * v).sum::<f64>() / count + f64::from(eps)).sqrt();
    // d rstd / dv_j = -rstd^3 v_j / count.
    let dot: f64 = v.iter().zip(dn).map(|(v, dn)| v * dn).sum();
    let dv = v.iter().zip(dn).map(|(v, dn)| rstd * dn - rstd.powi(3) / count * dot * v).collect();
    (v.iter().map(|v| v * rstd).collect(), dv)
}

/// The same of the centred row.
fn layer(v: &[f64], dn: &[f64], eps: f32) -> (Vec<f64>, Vec<f64>) {
    let count = v.len() as f64;
    let mean = v.iter().sum::<f64>() / count;
    let (n, dcentred) = rms(&v.iter().map(|v| v - mean).collect::<Vec<_>>(), dn, eps);
    let dmean = dcentred.iter().sum::<f64>() / count;
    (n, dcentred.into_iter().map(|dv| dv - dmean).collect())
}
