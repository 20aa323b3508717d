//! Scans whose order the features choose: trees (GrootV, GrootL), DefMamba's path, MambaIRv2's classes.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ophidian_core::{
    Error, keymap,
    mixer::{DeformCompat, DeformablePath, sorted_by_class},
    ops::{Sweep, Trees, tree_scan},
    published::blocks::{Author, deformable_path},
    tensors::{self, Tensors},
};
use ophidian_scan::{Candidates, Geometry, Order, Plan, Published, RootedTree, Shape, published};
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::roundtrip::place;

/// Channels of features that are made up, and classes that they choose among.
const CHANNELS: i64 = 4;

/// The scan named `text`, if it has no order without features.
pub fn find(text: &str) -> Option<&'static Published> {
    let key = |name: &str| name.trim().to_ascii_lowercase().replace('_', "-");
    let named = |scan: &Published| {
        std::iter::once(&scan.name()).chain(scan.aliases()).any(|name| key(name) == key(text))
    };
    published().iter().copied().find(|scan| scan.needs().is_some() && named(scan))
}

/// What the features chose.
struct Chosen {
    /// (B, L): the token that each step visits.
    index: Tensor,
    /// (B, L, D): the tokens in the order of the map, which DefMamba reads at other places than their own.
    tokens: Tensor,
    /// The trees, if the walk is over trees.
    trees: Option<Trees>,
}

impl Chosen {
    /// The walk that was chosen for one sample.
    fn plan(&self, geometry: &Geometry) -> Result<Plan> {
        let index = Vec::<i64>::try_from(self.index.f_view([-1])?)?;
        Ok(Plan::new(vec![Order::from_i64(&index, geometry.tokens()?)?])?)
    }
}

/// What the features x (B, L, D) choose over a map of [rows, columns]; the rest of what `scan` needs is in `file`, or made
/// up where there is none.
fn choose(scan: &Published, x: &Tensor, map: [i64; 2], file: Option<&Tensors>) -> Result<Chosen> {
    let (_, l, d) = x.size3()?;
    let [rows, columns] = map.map(|n| n.max(0) as usize);
    let tokens = x.shallow_clone();
    match scan.name() {
        "grootv/treescan" => walked(tokens, &Candidates::grid(rows, columns)?),
        "grootl/block" => walked(tokens, &Candidates::line(l as usize, l as usize)?),
        "defmamba/deform_path" => {
            let vs = VarStore::new(Device::Cpu);
            let Some(file) = file else {
                tch::manual_seed(0);
                let path = DeformablePath::new(&vs.root(), d, 5, DeformCompat::default())?;
                let found = path.forward(x, map)?;
                return Ok(Chosen { index: found.index, tokens: found.tokens.detach(), trees: None });
            };
            let named = |(name, t): (&String, &Tensor)| {
                Some((name.strip_prefix("param.")?.to_owned(), t.shallow_clone()))
            };
            let parameters: Tensors = file.iter().filter_map(named).collect();
            let options = toml::Table::new();
            let keys = deformable_path(&Author::new(&options, &parameters, &map), "", "");
            let taps = parameters
                .get("conv_offset.conv1.weight")
                .map_or(5, |weight| weight.size().last().copied().unwrap_or(5));
            // The authors' parameters go with what they released.
            let path = DeformablePath::new(&vs.root(), d, taps, DeformCompat { half_cell: true })?;
            let variables = vs.variables();
            keymap::load(&keymap::fitted(&keys, &variables)?, &parameters, &variables)?;
            let found = path.forward(x, map)?;
            Ok(Chosen { index: found.index, tokens: found.tokens.detach(), trees: None })
        }
        _ => {
            let label = match file {
                None => x.f_argmax(2, false)?,
                Some(file) => {
                    let needed = "the tensor `label` (batch, length) is missing: the class that the model chose for each token";
                    file.get("label").ok_or_else(|| Error::invalid(needed))?.shallow_clone()
                }
            };
            if label.size() != x.size()[..2] {
                let (found, expected) = (label.size(), &x.size()[..2]);
                return Err(
                    Error::invalid(format!("`label` has shape {found:?}, expected {expected:?}")).into()
                );
            }
            Ok(Chosen { index: sorted_by_class(&label)?, tokens, trees: None })
        }
    }
}

/// Each sample's tree, breadth first from its root.
fn walked(tokens: Tensor, candidates: &Candidates) -> Result<Chosen> {
    let trees = Trees::spanning(&tokens, candidates)?;
    let nodes = candidates.nodes();
    let mut index = Vec::new();
    let channels = tokens.size3()?.2;
    let features = Vec::<f32>::try_from(tokens.f_contiguous()?.f_view([-1])?)?;
    for (parents, features) in
        trees.parents().chunks(nodes).zip(features.chunks(nodes * channels.max(1) as usize))
    {
        let root = parents.iter().position(|parent| *parent < 0).unwrap_or(0);
        // Children in the order of the edges, as the authors have them.
        let edges = candidates.spanning_tree(&candidates.costs(features, channels as usize)?)?;
        index.extend(RootedTree::new(nodes, &edges, root)?.order.iter().map(|&token| i64::from(token)));
    }
    let index = Tensor::f_from_slice(&index)?.f_view([-1, nodes as i64])?;
    Ok(Chosen { index, tokens, trees: Some(trees) })
}

/// [rows, columns] of a geometry that `scan` knows.
fn map(scan: &Published, geometry: &Geometry) -> Result<[i64; 2]> {
    if !scan.shapes().contains(&Shape::of(geometry)) {
        let known = scan.geometry();
        let found = geometry.describe();
        return Err(Error::Config(format!(
            "`{}` is over a {known}, but the tokens are {found}",
            scan.name()
        ))
        .into());
    }
    Ok(match geometry {
        Geometry::Grid2 { height, width } => [*height as i64, *width as i64],
        _ => [1, geometry.tokens()? as i64],
    })
}

/// One sample's features from a file.
pub struct Features {
    /// (1, L, C).
    x: Tensor,
    /// Where the tokens lie.
    pub geometry: Geometry,
    /// What else the file holds.
    file: Tensors,
    path: PathBuf,
}

impl Features {
    /// Sample number `sample` of `x` in the file at `path`.
    ///
    /// # Errors
    /// No tensor `x`, one of another shape or dtype, a value that is not finite, or no such sample.
    pub fn read(path: &Path, sample: usize) -> Result<Features> {
        let file = tensors::read(path)?;
        let wrong = |reason: String| anyhow::Error::from(Error::file(path, reason));
        let Some(x) = file.get("x") else {
            let names = file.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("the tensor `x` of features is missing; it holds {names}")));
        };
        let shape = x.size();
        if !x.is_floating_point() || !(3..=5).contains(&shape.len()) || x.numel() == 0 {
            return Err(wrong(format!(
                "`x` is {:?} {shape:?}, expected floats (batch, channels, L) or (batch, channels, H, W), none of them 0",
                x.kind()
            )));
        }
        if sample as i64 >= shape[0] {
            return Err(wrong(format!(
                "there is no sample {sample}: `x` {shape:?} holds 0 to {}",
                shape[0] - 1
            )));
        }
        let x = x.f_to_kind(Kind::Float)?;
        finite("x", &x).map_err(wrong)?;
        let geometry = place(&shape[2..]).map_err(|reason| wrong(format!("`x` is {shape:?}: {reason}")))?;
        let sample = sample as i64;
        let x = x.f_narrow(0, sample, 1)?.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let own = |(name, t): (&String, &Tensor)| {
            // Of the same sample.
            let own = name == "label" && t.dim() > 0 && t.size()[0] == shape[0];
            Ok::<_, anyhow::Error>((
                name.clone(),
                if own { t.f_narrow(0, sample, 1)? } else { t.shallow_clone() },
            ))
        };
        let file = file.iter().map(own).collect::<Result<Tensors>>()?;
        Ok(Features { x, geometry, file, path: path.to_path_buf() })
    }

    /// What a scan reads beside the features, if the file holds anything of it.
    fn rest(&self, scan: &Published) -> Option<&Tensors> {
        let needed = |name: &String| match scan.name() {
            "defmamba/deform_path" => name.starts_with("param."),
            "mambairv2/semantic_sort" => name == "label",
            _ => false,
        };
        self.file.keys().any(needed).then_some(&self.file)
    }
}

/// The walk that features choose, made-up ones, which are always the same, if none are given; and what it is.
pub fn walk(scan: &Published, geometry: &Geometry, given: Option<&Features>) -> Result<(String, Plan)> {
    let map = map(scan, geometry)?;
    let rest = given.and_then(|features| features.rest(scan));
    let made_up = made_up(map)?;
    let x = given.map_or(&made_up, |features| &features.x);
    let chosen = tch::no_grad(|| choose(scan, x, map, rest));
    let chosen = chosen.map_err(|error| match (error.downcast::<Error>(), given) {
        (Ok(error), Some(features)) => error.of_file(&features.path).into(),
        (Ok(error), None) => error.into(),
        (Err(other), _) => other,
    })?;
    let whose = given.map_or("made-up smooth features".to_owned(), |features| {
        format!("the features of {}", features.path.display())
    });
    let what = match (scan.name(), rest.is_some()) {
        ("grootv/treescan" | "grootl/block", _) => {
            format!("the tree of {whose}, breadth first from its root")
        }
        ("defmamba/deform_path", true) => format!("the path that the file's weights choose for {whose}"),
        ("defmamba/deform_path", false) => format!("the path that fresh weights choose for {whose}"),
        (_, true) => format!("tokens by their class in {whose}"),
        (_, false) => format!("tokens by the greatest channel of {whose}"),
    };
    Ok((format!("{} ({what})", scan.name()), chosen.plan(geometry)?))
}

/// What [`walk`] is over made-up features: its order, or the trees of which it is the breadth-first walk and how they are
/// scanned.
pub fn made_up_walk(scan: &Published, geometry: &Geometry) -> Result<(Plan, Option<(Trees, Sweep)>)> {
    let map = map(scan, geometry)?;
    let chosen = tch::no_grad(|| choose(scan, &made_up(map)?, map, None))?;
    Ok((chosen.plan(geometry)?, chosen.trees.map(|trees| (trees, sweep(scan)))))
}

/// How a scan over trees goes.
fn sweep(scan: &Published) -> Sweep {
    if scan.name() == "grootl/block" { Sweep::Up } else { Sweep::UpDown }
}

/// Features over a map of [rows, columns], always the same: (1, L, C).
fn made_up([rows, columns]: [i64; 2]) -> Result<Tensor> {
    // Smooth, as those of images are: waves of another length and way in every channel.
    let wave = |at: i64, channel: i64| {
        let (row, column, channel) = ((at / columns) as f64, (at % columns) as f64, channel as f64);
        ((0.9 + 0.37 * channel) * row + (0.5 + 0.61 * channel) * column + 1.7 * channel).sin() as f32
    };
    let values: Vec<f32> =
        (0..rows * columns).flat_map(|at| (0..CHANNELS).map(move |channel| wave(at, channel))).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view([1, rows * columns, CHANNELS])?)
}

/// Refuses what an order cannot be chosen by: values of the tensor `name` that are not finite.
pub fn finite(name: &str, x: &Tensor) -> std::result::Result<(), String> {
    let found = || -> std::result::Result<_, tch::TchError> {
        let odd = x.f_isfinite()?.f_logical_not()?;
        let count = odd.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        let first = if count > 0 { Vec::<i64>::try_from(odd.f_nonzero()?.f_select(0, 0)?)? } else { vec![] };
        Ok((count, first))
    };
    match found().map_err(|error| error.to_string())? {
        (0, _) => Ok(()),
        (1, at) => Err(format!("`{name}` holds a value that is not finite, at {at:?}")),
        (count, at) => Err(format!("`{name}` holds {count} values that are not finite, the first at {at:?}")),
    }
}

/// x of `file` along the walk that its own features choose, and back: `index` (B, L), `scanned.0` (B, C, L) and `merged`, of
/// x's shape. Trees have `parents` (B, L), and `y`, what they make of `feat` (B, D, L), if the file holds it and
/// `edge_weight` (B, D, L).
pub fn roundtrip(scan: &Published, file: &Tensors, x: &Tensor, path: &Path) -> Result<Tensors> {
    let wrong = |error: Error| error.of_file(path);
    let shape = x.size();
    // MambaIRv2's tokens come before their channels, and `label` says so.
    let last = file.get("label").is_some_and(|label| shape.len() == 3 && label.size() == shape[..2]);
    let (tokens, geometry) = match shape[..] {
        [_, l, _] if last => (x.shallow_clone(), Geometry::Sequence { len: l as usize }),
        [_, _, l] => (x.f_transpose(1, 2)?, Geometry::Sequence { len: l as usize }),
        [_, _, h, w] => {
            (x.f_flatten(2, 3)?.f_transpose(1, 2)?, Geometry::Grid2 { height: h as usize, width: w as usize })
        }
        _ => {
            return Err(wrong(Error::invalid(format!(
                "x is {shape:?}, expected (batch, channels, length) or (batch, channels, rows, columns)"
            )))
            .into());
        }
    };
    let map = map(scan, &geometry)?;
    let chosen = tch::no_grad(|| choose(scan, &tokens.to_kind(Kind::Float), map, Some(file)));
    let chosen = chosen.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => wrong(error).into(),
        Err(other) => other,
    })?;
    let gather = chosen.index.f_unsqueeze(2)?.f_expand_as(&chosen.tokens)?;
    let scanned = chosen.tokens.f_gather(1, &gather, false)?;
    let merged = scanned.f_zeros_like()?.f_scatter(1, &gather, &scanned)?;
    let merged = if last { merged } else { merged.f_transpose(1, 2)? };
    let mut output = Tensors::new();
    output.insert("merged".into(), merged.f_reshape(&shape)?.to_kind(x.kind()));
    output.insert("scanned.0".into(), scanned.f_transpose(1, 2)?.f_contiguous()?.to_kind(x.kind()));
    if let Some(trees) = &chosen.trees {
        let parents: Vec<i64> = trees.parents().iter().map(|&parent| i64::from(parent)).collect();
        output.insert("parents".into(), Tensor::f_from_slice(&parents)?.f_view_as(&chosen.index)?);
        if let (Some(feat), Some(decay)) = (file.get("feat"), file.get("edge_weight")) {
            let rows = |t: &Tensor| t.f_transpose(1, 2).map_err(Error::from);
            let y = rows(feat)
                .and_then(|feat| tree_scan(&feat, &rows(decay)?, trees, sweep(scan)))
                .map_err(wrong)?;
            output.insert("y".into(), y.f_transpose(1, 2)?.f_contiguous()?);
        }
    }
    output.insert("index".into(), chosen.index);
    Ok(output)
}
