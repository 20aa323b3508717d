//! Vim's forward pass as its equations read, on the authors' tensors: sequences are flipped for real, time
//! is a loop, f64. Slow and plain, for the options that no golden covers.

use ophidian_core::tensors::Tensors;
use tch::{Device, Kind, Tensor};

/// What of a config the reference knows.
pub struct Options {
    pub patch: i64,
    pub stride: i64,
    pub depth: i64,
    /// "none", "v1" or "v2".
    pub bimamba: &'static str,
    pub divide: bool,
    pub rms: bool,
    /// "head", "middle", "double" or "none".
    pub class_token: &'static str,
    /// final_pool_type.
    pub pool: &'static str,
    pub pairs: bool,
    pub rope: bool,
    pub rope_residual: bool,
    /// Frames of a patch, if the inputs are clips.
    pub tubelet: Option<i64>,
}

fn norm(w: &Tensors, name: &str, x: &Tensor, rms: bool) -> Tensor {
    let mean = x.mean_dim(-1, true, Kind::Double);
    let x = if rms { x.shallow_clone() } else { x - mean };
    let scaled = &x * (x.square().mean_dim(-1, true, Kind::Double) + 1e-5).rsqrt();
    let out = scaled * &w[&format!("{name}.weight")];
    if rms { out } else { out + &w[&format!("{name}.bias")] }
}

/// Linear map by name; a bias only if there is one.
fn linear(w: &Tensors, name: &str, x: &Tensor) -> Tensor {
    let out = x.matmul(&w[&format!("{name}.weight")].tr());
    match w.get(&format!("{name}.bias")) {
        Some(bias) => out + bias,
        None => out,
    }
}

/// Causal convolution and SiLU over (B, L, D).
fn conv(w: &Tensors, name: &str, x: &Tensor) -> Tensor {
    let weight = w[&format!("{name}.weight")].squeeze_dim(1); // (D, W)
    let (l, taps) = (x.size()[1], weight.size()[1]);
    let padded = x.transpose(1, 2).constant_pad_nd([taps - 1, 0]).transpose(1, 2);
    let mut out = x.zeros_like();
    for tap in 0..taps {
        out += padded.narrow(1, tap, l) * weight.select(1, tap);
    }
    if let Some(bias) = w.get(&format!("{name}.bias")) {
        out += bias;
    }
    out.silu()
}

/// The scan of `u` (B, L, D) with the projections of suffix `s`, decays `a_log` and skip `d`.
fn scan(w: &Tensors, mixer: &str, s: &str, a_log: &str, d: &str, u: &Tensor) -> Tensor {
    let a = -w[&format!("{mixer}.{a_log}")].exp(); // (D, N)
    let n = a.size()[1];
    let projected = u.matmul(&w[&format!("{mixer}.x_proj{s}.weight")].tr());
    let rank = projected.size()[2] - 2 * n;
    let delta = linear(w, &format!("{mixer}.dt_proj{s}"), &projected.narrow(2, 0, rank)).softplus();
    let mut h = Tensor::zeros([u.size()[0], a.size()[0], n], (Kind::Double, Device::Cpu));
    let mut out = vec![];
    for t in 0..u.size()[1] {
        let (dt, ut) = (delta.select(1, t), u.select(1, t));
        let (b, c) =
            (projected.narrow(2, rank, n).select(1, t), projected.narrow(2, rank + n, n).select(1, t));
        h = (dt.unsqueeze(2) * &a).exp() * h + (dt * &ut).unsqueeze(2) * b.unsqueeze(1);
        out.push(
            (&h * c.unsqueeze(1)).sum_dim_intlist(2, false, Kind::Double) + ut * &w[&format!("{mixer}.{d}")],
        );
    }
    Tensor::stack(&out, 1)
}

fn mix(w: &Tensors, mixer: &str, x: &Tensor, o: &Options) -> Tensor {
    let xz = linear(w, &format!("{mixer}.in_proj"), x);
    let parts = xz.chunk(2, 2);
    let (x, z) = (&parts[0], parts[1].silu());
    let flip = |t: &Tensor| t.flip([1]);
    let u = conv(w, &format!("{mixer}.conv1d"), x);
    let forward = scan(w, mixer, "", "A_log", "D", &u) * &z;
    let y = match o.bimamba {
        "v1" => forward + flip(&(scan(w, mixer, "", "A_b_log", "D", &flip(&u)) * flip(&z))),
        "v2" => {
            let u = conv(w, &format!("{mixer}.conv1d_b"), &flip(x));
            let backward = flip(&(scan(w, mixer, "_b", "A_b_log", "D_b", &u) * flip(&z)));
            (forward + backward) / if o.divide { 2.0 } else { 1.0 }
        }
        _ => forward,
    };
    let out = linear(w, &format!("{mixer}.out_proj"), &y);
    match w.get(&format!("{mixer}.gamma")) {
        Some(gamma) => out * gamma,
        None => out,
    }
}

fn rotate(w: &Tensors, t: &Tensor) -> Tensor {
    let odd = t.size()[1] % 2;
    let rest = t.narrow(1, odd, t.size()[1] - odd);
    let (even, uneven) = (rest.slice(2, 0, None, 2), rest.slice(2, 1, None, 2));
    let turned = Tensor::stack(&[-uneven, even], 3).flatten(2, 3);
    let rotated = &rest * &w["rope.freqs_cos"] + turned * &w["rope.freqs_sin"];
    Tensor::cat(&[t.narrow(1, 0, odd), rotated], 1)
}

/// (features, logits) of images in f64.
pub fn forward(w: &Tensors, o: &Options, images: &Tensor) -> (Tensor, Tensor) {
    let (weight, bias) = (&w["patch_embed.proj.weight"], &w["patch_embed.proj.bias"]);
    let patches = match o.tubelet {
        None => images.conv2d(weight, Some(bias), o.stride, 0, 1, 1).flatten(2, 3).transpose(1, 2),
        Some(tubelet) => {
            // Frame by frame: what a patch of several frames sees is a sum over them. Each has its place and time.
            let at = |t: i64| {
                let frame = |k: i64| {
                    let frame = images.select(2, t * tubelet + k);
                    frame.conv2d(&weight.select(2, k), None::<&Tensor>, o.patch, 0, 1, 1)
                };
                let map = (1..tubelet).fold(frame(0), |sum, k| sum + frame(k));
                map.flatten(2, 3).transpose(1, 2) + bias + w["temporal_pos_embedding"].select(1, t)
            };
            let times: Vec<Tensor> = (0..images.size()[2] / tubelet).map(at).collect();
            Tensor::cat(&times, 1)
        }
    };
    let (b, m, d) = patches.size3().unwrap();
    let token = |name: &str| w[name].expand([b, 1, d], false);
    let (x, read) = match o.class_token {
        "head" => (Tensor::cat(&[token("cls_token"), patches], 1), vec![0]),
        "middle" => {
            let (first, second) = (patches.narrow(1, 0, m / 2), patches.narrow(1, m / 2, m - m / 2));
            (Tensor::cat(&[first, token("cls_token"), second], 1), vec![m / 2])
        }
        "double" => {
            let ends = [token("cls_token_head"), patches, token("cls_token_tail")];
            (Tensor::cat(&ends, 1), vec![0, m + 1])
        }
        _ => (patches, vec![]),
    };
    let mut hidden = match w.get("pos_embed") {
        Some(places) if o.tubelet.is_some() => {
            // The class token's and then those of the patches, again for every time.
            let (token, patches) = (places.narrow(1, 0, 1), places.narrow(1, 1, places.size()[1] - 1));
            let mut all = vec![token];
            all.extend((0..m / patches.size()[1]).map(|_| patches.shallow_clone()));
            x + Tensor::cat(&all, 1)
        }
        Some(positions) => x + positions,
        None => x,
    };
    let mut residual: Option<Tensor> = None;
    let add = |hidden: &Tensor, residual: Option<&Tensor>| match residual {
        Some(residual) => hidden + residual,
        None => hidden.shallow_clone(),
    };
    let block = |i: i64, hidden: &Tensor, residual: Option<&Tensor>| {
        let stream = add(hidden, residual);
        let normed = norm(w, &format!("layers.{i}.norm"), &stream, o.rms);
        (mix(w, &format!("layers.{i}.mixer"), &normed, o), stream)
    };
    let step = if o.pairs { 2 } else { 1 };
    for i in (0..o.depth / step).map(|i| i * step) {
        if o.rope {
            hidden = rotate(w, &hidden);
            residual = residual.map(|r| if o.rope_residual { rotate(w, &r) } else { r });
        }
        let (mut h, mut r) = block(i, &hidden, residual.as_ref());
        if o.pairs {
            let flipped = residual.as_ref().map(|r| r.flip([1]));
            let (other, stream) = block(i + 1, &hidden.flip([1]), flipped.as_ref());
            (h, r) = (h + other.flip([1]), r + stream.flip([1]));
        }
        (hidden, residual) = (h, Some(r));
    }
    let out = norm(w, "norm_f", &add(&hidden, residual.as_ref()), o.rms);
    let features = match (&read[..], o.pool) {
        ([at], _) => out.select(1, *at),
        ([head, tail], _) => (out.select(1, *head) + out.select(1, *tail)) / 2.0,
        (_, "none") => out.select(1, -1),
        (_, "mean") => out.mean_dim(1, false, Kind::Double),
        _ => out,
    };
    let logits =
        if w.contains_key("head.weight") { linear(w, "head", &features) } else { features.shallow_clone() };
    let logits = if read.is_empty() && o.pool == "max" { logits.amax(1, false) } else { logits };
    (features, logits)
}
