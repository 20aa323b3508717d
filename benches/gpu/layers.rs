//! Shapes of the layers of released models, and the orders that are compared on them.

use crate::common::{Draw, Kind, Table};

/// What a layer scans with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mixer {
    /// Mamba's selective scan: N states a channel.
    Scan,
    /// Mamba-2's SSD: heads of 64 channels, N states, one group.
    Ssd,
}

/// A layer: name, B, side of its grid or 0, L, K, D, N.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    pub name: &'static str,
    pub mixer: Mixer,
    pub batch: usize,
    pub side: usize,
    pub tokens: usize,
    pub directions: usize,
    pub channels: usize,
    pub states: usize,
}

/// The most wanted first: time may run out.
pub fn layers(quick: bool) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut add = |name, mixer, batch, side: usize, tokens, directions, channels, states| {
        layers.push(Layer { name, mixer, batch, side, tokens, directions, channels, states });
    };
    if quick {
        add("quick", Mixer::Scan, 2, 0, 70, 1, 32, 16);
        add("quick-grid", Mixer::Scan, 1, 4, 16, 4, 32, 1);
        add("quick-ssd", Mixer::Ssd, 1, 0, 70, 2, 64, 16);
        return layers;
    }
    add("mamba-2.8b", Mixer::Scan, 8, 0, 2048, 1, 5120, 16);
    add("mamba2-2.7b", Mixer::Ssd, 8, 0, 2048, 1, 5120, 128);
    for (name, side, channels) in
        [("vmamba-t/1", 56, 96), ("vmamba-t/2", 28, 192), ("vmamba-t/3", 14, 384), ("vmamba-t/4", 7, 768)]
    {
        add(name, Mixer::Scan, 64, side, side * side, 4, channels, 1);
    }
    // Patches of 16 and a class token, both directions, at 224 and at 1248 pixels.
    for (name, channels) in [("vim-t", 384), ("vim-s", 768)] {
        add(name, Mixer::Scan, 64, 0, 197, 2, channels, 16);
        add(name, Mixer::Scan, 4, 0, 6085, 2, channels, 16);
    }
    for (batch, tokens) in [(1, 2048), (1, 16384), (1, 65536)] {
        add("mamba2-2.7b", Mixer::Ssd, batch, 0, tokens, 1, 5120, 128);
        add("mamba-2.8b", Mixer::Scan, batch, 0, tokens, 1, 5120, 16);
    }
    for (name, channels) in [("mamba-130m", 1536), ("mamba-1.4b", 4096)] {
        for (batch, tokens) in [(8, 2048), (1, 2048), (1, 16384), (1, 65536)] {
            add(name, Mixer::Scan, batch, 0, tokens, 1, channels, 16);
        }
    }
    // Vim's tokens through the other mixer.
    add("vim-s, ssd", Mixer::Ssd, 64, 0, 197, 2, 768, 64);
    layers
}

/// Orders to compare: the first is the identity.
pub fn orders(layer: Layer) -> Vec<(&'static str, Table)> {
    let Layer { batch, side, tokens, directions, .. } = layer;
    let of = |kind| Table::new(kind, batch, directions, tokens, &mut Draw(7));
    let mut orders = vec![("identity", of(Kind::Identity)), ("random", of(Kind::Permutation))];
    let step = |k: usize, t: usize| {
        let t = if k >= directions / 2 { tokens - 1 - t } else { t };
        // Rows, and in a grid columns, from either end.
        if side > 0 && k % 2 == 1 { t % side * side + t / side } else { t }
    };
    if directions > 1 {
        let table = (0..directions).flat_map(|k| (0..tokens).map(move |t| step(k, t) as i32)).collect();
        let table = Table { table, resets: None, silent: None, steps: tokens, per_sample: false };
        orders.push((if side > 0 { "cross" } else { "bidirectional" }, table));
    }
    orders
}
