//! The authors' own maps by their published names, over every file that the goldens' manifest lists.

mod golden;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use golden::Golden;
use ophidian_scan::{Geometry, Graph, Merge, Order, Pattern, Plan, Points};
use serde_json::Value;

/// A golden and what the manifest says of it.
struct Entry {
    file: String,
    system: String,
    pattern: String,
    params: Value,
    shape: String,
    golden: Golden,
}

impl Entry {
    fn name(&self) -> String {
        format!("{}/{}", self.system, self.pattern)
    }

    fn size(&self, param: &str) -> usize {
        self.params[param].as_u64().unwrap_or_else(|| panic!("{}: no {param}", self.file)) as usize
    }

    /// Where the tokens of a static scan lie.
    fn geometry(&self) -> Geometry {
        let has = |names: &[&str]| names.iter().all(|name| self.params[name].is_u64());
        if has(&["T", "H", "W"]) {
            let (frames, height, width) = (self.size("T"), self.size("H"), self.size("W"));
            return Geometry::Grid3 { frames, height, width };
        }
        let rectangles =
            [["H", "W"], ["nframes", "tokens_per"], ["nslices", "tokens_per"], ["n", "T"], ["F", "T"]];
        if let Some([height, width]) = rectangles.iter().find(|names| has(&names[..])) {
            return Geometry::Grid2 { height: self.size(height), width: self.size(width) };
        }
        for side in ["N", "n"] {
            if has(&[side]) {
                return Geometry::Grid2 { height: self.size(side), width: self.size(side) };
            }
        }
        let length = self.shape.trim_start_matches('L').split('_').next().unwrap_or_default();
        Geometry::Sequence { len: length.parse().unwrap_or_else(|_| panic!("{}: no geometry", self.file)) }
    }

    /// The rows of an int64 tensor.
    fn rows(&self, tensor: &str) -> Vec<Vec<i64>> {
        let steps = *self.golden.shape(tensor).last().unwrap();
        self.golden.whole(tensor).chunks(steps).map(<[i64]>::to_vec).collect()
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let mut names = self.golden.names();
        names.retain(|name| name.starts_with(prefix));
        names.sort();
        names
    }
}

/// Every golden of the manifest that is there, by system and pattern; none, with a visible line, without goldens.
fn goldens() -> Vec<Entry> {
    let Some(first) = golden::files("").into_iter().next() else { return Vec::new() };
    let folder: PathBuf = first.parent().unwrap().into();
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_string();
    let open = |entry: &Value| {
        let path = folder.join(text(entry, "file"));
        path.is_file().then(|| Entry {
            file: text(entry, "file"),
            system: text(entry, "system"),
            pattern: text(entry, "pattern"),
            params: entry["params"].clone(),
            shape: text(entry, "shape"),
            golden: Golden::open(&path),
        })
    };
    manifest["entries"].as_array().unwrap().iter().filter_map(open).collect()
}

fn plan(pattern: &str, geometry: &Geometry) -> Plan {
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{pattern}: {error}"));
    pattern.plan(geometry).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

fn map(order: &Order) -> Vec<i64> {
    order.index().iter().map(|&i| i64::from(i)).collect()
}

fn maps(plan: &Plan) -> Vec<Vec<i64>> {
    plan.orders().iter().map(map).collect()
}

/// The walk, parted where the state starts afresh.
fn segments(order: &Order) -> Vec<Vec<i64>> {
    let mut parts = vec![Vec::new()];
    for (&token, &reset) in order.index().iter().zip(order.resets()) {
        if reset {
            parts.push(Vec::new());
        }
        parts.last_mut().unwrap().push(i64::from(token));
    }
    parts
}

/// The order that visits tokens by ascending rank, those of one rank by their number.
fn by_rank(ranks: &[i64]) -> Vec<i64> {
    let mut tokens: Vec<i64> = (0..ranks.len() as i64).collect();
    tokens.sort_by_key(|&token| ranks[token as usize]);
    tokens
}

/// Checks a golden; returns the tensors that were compared, none if it holds no map of its name.
fn check(entry: &Entry) -> Vec<String> {
    let (name, mut compared) = (entry.name(), Vec::new());
    let mut same = |tensor: &str, found: Vec<Vec<i64>>, expected: Vec<Vec<i64>>| {
        assert_eq!(found, expected, "{name}: not {tensor} of {}", entry.file);
        compared.push(tensor.to_string());
    };
    match (entry.system.as_str(), entry.pattern.as_str()) {
        ("vim", "clslayout") => {
            for tensor in entry.names("perm_") {
                let mode = tensor.trim_start_matches("perm_");
                let found = maps(&plan(&format!("{name}(class_token={mode})"), &entry.geometry()));
                same(&tensor, found, class_tokens(entry.rows(&tensor)));
            }
        }
        ("aum", "specgrid") => {
            for tensor in entry.names("perm_") {
                let (major, mode) = tensor.trim_start_matches("perm_").split_once('_').unwrap();
                let major = if major == "freqmajor" { "frequency" } else { "time" };
                let pattern = format!("{name}(major={major}, class_token={mode})");
                same(&tensor, maps(&plan(&pattern, &entry.geometry())), class_tokens(entry.rows(&tensor)));
            }
        }
        ("localmamba", "multiscan") => {
            for tensor in entry.names("perm_") {
                let direction = tensor.trim_start_matches("perm_");
                let found = plan(&format!("localmamba/{direction}"), &entry.geometry());
                same(&tensor, maps(&found), entry.rows(&tensor));
                // The way back that the authors use; where theirs does not go back, that of the order that the released code
                // writes along.
                let (reverse, right) = (format!("rev_{direction}"), format!("rev_ok_{direction}"));
                if entry.golden.names().contains(&right) {
                    let written = match (entry.golden.whole(&right) == [1], direction) {
                        (true, _) => found,
                        (false, "v") => plan("column | inverse", &entry.geometry()),
                        (false, _) => plan("column | inverse | reverse", &entry.geometry()),
                    };
                    let back = map(&written.orders()[0].inverse().unwrap());
                    same(&reverse, vec![back], entry.rows(&reverse));
                }
            }
        }
        ("zigma", "zigzag8") => {
            let found = plan(&name, &entry.geometry());
            same("perm", maps(&found), entry.rows("perm"));
            same("inv", maps(&plan(&format!("{name} | inverse"), &entry.geometry())), entry.rows("inv"));
            same("traverse", maps(&plan("zigma/traverse", &entry.geometry())), entry.rows("traverse"));
        }
        ("zigma", "hilbert8") => {
            same("rank_inv", maps(&plan(&name, &entry.geometry())), entry.rows("rank_inv"));
            let released = plan(&format!("{name}(compat=\"released\")"), &entry.geometry());
            same("rank", maps(&released), entry.rows("rank"));
        }
        ("videomambasuite", "timemamba_divided") => {
            let found = plan(&name, &entry.geometry());
            same("time_segments", segments(&found.orders()[0]), entry.rows("time_segments"));
        }
        ("mamband", "alternate3d") => {
            for tensor in entry.names("perm_") {
                let found =
                    plan(&format!("mamband/{}", tensor.trim_start_matches("perm_")), &entry.geometry());
                same(&tensor, maps(&found), entry.rows(&tensor));
            }
            for tensor in entry.names("segments_") {
                let pattern = format!("mamband/{}", tensor.trim_start_matches("segments_"));
                let found = plan(&pattern, &entry.geometry());
                same(&tensor, segments(&found.orders()[0]), entry.rows(&tensor));
            }
            let cycle = ["tlhw_fwd", "tlhw_rev", "tlwh_fwd", "tlwh_rev", "whtl_fwd", "whtl_rev"];
            let cycle = cycle.iter().flat_map(|tensor| entry.rows(&format!("perm_{tensor}"))).collect();
            same("perm", maps(&plan(&name, &entry.geometry())), cycle);
        }
        ("msvmamba", "scans") => {
            for tensor in entry.names("perm_") {
                let scan = tensor.trim_start_matches("perm_");
                same(
                    &tensor,
                    maps(&plan(&format!("msvmamba/{scan}"), &entry.geometry())),
                    entry.rows(&tensor),
                );
            }
        }
        ("quadmamba", "quad_perm") => {
            for tensor in ["quad", "quadquad"] {
                let pattern = format!("quadmamba/{tensor}");
                same(tensor, maps(&plan(&pattern, &entry.geometry())), entry.rows(tensor));
                let back = maps(&plan(&format!("{pattern} | inverse"), &entry.geometry()));
                same(&format!("rev_{tensor}"), back, entry.rows(&format!("rev_{tensor}")));
            }
            let both = ["quad", "quadquad"].iter().flat_map(|tensor| entry.rows(tensor)).collect();
            same("quad and quadquad", maps(&plan(&name, &entry.geometry())), both);
        }
        ("changemamba", "spatiotemporal") => {
            let Geometry::Grid2 { height, width } = entry.geometry() else { panic!("{}", entry.file) };
            let pair = Geometry::Grid3 { frames: 2, height, width };
            for tensor in ["cross", "parallel_w", "stacked"] {
                let found = maps(&plan(&format!("changemamba/{tensor} | direction(0)"), &pair));
                same(tensor, found, vec![entry.golden.whole(tensor)]);
            }
        }
        ("pointmamba", "hilbert2d" | "hilbert3d") => {
            let side = 1 << entry.size("num_bits");
            same("order", maps(&plan(&name, &cube(entry.size("num_dims"), side))), entry.rows("order"));
        }
        ("pointmamba", "hilbert_depth_dependence") => {
            let side = ((entry.golden.whole("coords").len() / 3) as f64).cbrt().round();
            for tensor in entry.names("order_depth") {
                let depth = tensor.trim_start_matches("order_depth");
                let found = plan(&format!("{name}(depth={depth})"), &cube(3, side as usize));
                same(&tensor, maps(&found), entry.rows(&tensor));
            }
        }
        ("voxelmamba", "hilbert2d") => {
            for tensor in ["convert_to_index", "convert_2d"] {
                let found = maps(&plan(&name, &cube(2, 1 << entry.size("bits"))));
                same(tensor, found, vec![by_rank(&entry.golden.whole(tensor))]);
            }
        }
        ("voxelmamba", "hilbert3d") => voxels(entry, &mut same),
        ("pointmamba" | "pcm", "serialize") => serialized(entry, &mut same),
        ("pcm", "codes_full_grid") => {
            let cells = triples(&entry.golden.whole("coords"));
            let points = Geometry::Points(Arc::new(Points::voxels(&cells, vec![0, cells.len()]).unwrap()));
            for tensor in entry.names("code_") {
                let curve = tensor.trim_start_matches("code_").replace('_', "-");
                let ranks = entry.golden.whole(&tensor);
                let found = plan(&released(&format!("pcm/{curve}")), &points);
                same(&tensor, maps(&found), vec![by_rank(&ranks)]);
            }
        }
        ("pointmamba", "order_indicator_concat") => {
            let (centers, pos) = (entry.golden.real("center"), entry.golden.real("pos"));
            let [batch, count, width] = entry.golden.shape("pos")[..] else { panic!("{}", entry.file) };
            let expected = entry.golden.real("pos_sequence");
            for b in 0..batch {
                let xyz = &centers[b * count * 3..(b + 1) * count * 3];
                let xyz = xyz.chunks(3).map(|c| [c[0], c[1], c[2]]).collect();
                let found = plan(&name, &Geometry::Points(Arc::new(Points::new(xyz).unwrap())));
                let walks: Vec<i32> =
                    found.orders().iter().flat_map(|order| order.index().to_vec()).collect();
                for (step, &token) in walks.iter().enumerate() {
                    let (at, from) = ((b * 2 * count + step) * width, (b * count + token as usize) * width);
                    assert_eq!(expected[at..at + width], pos[from..from + width], "{}", entry.file);
                }
            }
            compared.push("pos_sequence".into());
        }
        ("vim", "layerpairs") => compared.push(layer_pairs(entry)),
        ("localmamba", "vssm_merge") => compared.extend(searched_layer(entry)),
        ("graphmamba", "degree_order") => {
            let found = maps(&plan(&name, &graph(entry)));
            same("perm", found, entry.rows("perm"));
        }
        ("graphmamba", "augment_seq") => {
            // Which neighbours stand there is random; where the node itself is read is not.
            let found = plan(&name, &graph(entry));
            let read: Vec<i64> = found.orders()[0].silent().iter().map(|&s| i64::from(!s)).collect();
            assert_eq!(read, entry.golden.whole("mask"), "{}", entry.file);
            compared.push("mask".into());
        }
        _ if entry.golden.names().contains(&"perm".to_string()) && name.parse::<Pattern>().is_ok() => {
            same("perm", maps(&plan(&name, &entry.geometry())), entry.rows("perm"));
        }
        _ => {}
    }
    compared.extend(merged(entry));
    compared
}

/// Pairs of toy layers, r = h + r and h = cumsum(r * w), each along its order; hidden states and residuals of both add up.
fn layer_pairs(entry: &Entry) -> String {
    let (shape, x) = (entry.golden.shape("x"), entry.golden.real("x"));
    let [batch, length, width] = shape[..] else { panic!("{}", entry.file) };
    let plan = plan("vim/layerpairs", &entry.geometry());
    let weights = entry.params["layer_weights"].as_array().unwrap();
    for b in 0..batch {
        for c in 0..width {
            let at = |token: usize| (b * length + token) * width + c;
            let mut hidden: Vec<f64> = (0..length).map(|token| f64::from(x[at(token)])).collect();
            let mut residual = vec![0.0; length];
            for pair in weights.chunks(2) {
                let (mut hiddens, mut residuals) = (vec![0.0; length], vec![0.0; length]);
                for (order, weight) in plan.orders().iter().zip(pair) {
                    let mut state = 0.0;
                    for &token in order.index() {
                        let token = token as usize;
                        let sum = hidden[token] + residual[token];
                        state += sum * weight.as_f64().unwrap();
                        hiddens[token] += state;
                        residuals[token] += sum;
                    }
                }
                (hidden, residual) = (hiddens, residuals);
            }
            for token in 0..length {
                let (found, expected) =
                    (hidden[token] + residual[token], f64::from(entry.golden.real("y")[at(token)]));
                assert!(
                    (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                    "{}: y of token {token}",
                    entry.file
                );
            }
        }
    }
    "y".into()
}

/// A layer of LocalVMamba: each direction, padded at its end to the longest. Its merge is held elsewhere: it has weights.
fn searched_layer(entry: &Entry) -> Vec<String> {
    let words = entry.params["directions"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let name = format!("{}(directions=\"{}\")", entry.name(), words.collect::<Vec<_>>().join(" "));
    let plan = plan(&name, &entry.geometry());
    let lengths: Vec<i64> = plan.orders().iter().map(|order| order.len() as i64).collect();
    assert_eq!(lengths, entry.golden.whole("lengths"), "{}", entry.file);
    let x: Vec<f64> = entry.golden.real("x").iter().map(|&x| f64::from(x)).collect();
    let (shape, xs) = (entry.golden.shape("xs"), entry.golden.real("xs"));
    let [_, directions, channels, longest] = shape[..] else { panic!("{}", entry.file) };
    for (k, scanned) in plan.scanned(&x).unwrap().iter().enumerate() {
        for (row, found) in scanned.chunks(plan.orders()[k].len()).enumerate() {
            let (b, c) = (row / channels, row % channels);
            let expected = &xs[((b * directions + k) * channels + c) * longest..][..longest];
            let padded = found.iter().copied().chain(std::iter::repeat(0.0));
            assert!(padded.zip(expected).all(|(a, &b)| a == f64::from(b)), "{}: xs {k}", entry.file);
        }
    }
    vec!["lengths".into(), "xs".into()]
}

/// -1 for the class tokens, which the goldens number -1 and -2.
fn class_tokens(mut rows: Vec<Vec<i64>>) -> Vec<Vec<i64>> {
    rows.iter_mut().flatten().for_each(|token| *token = (*token).max(-1));
    rows
}

fn cube(axes: usize, side: usize) -> Geometry {
    match axes {
        2 => Geometry::Grid2 { height: side, width: side },
        _ => Geometry::Grid3 { frames: side, height: side, width: side },
    }
}

fn triples(flat: &[i64]) -> Vec<[i64; 3]> {
    flat.chunks(3).map(|c| [c[0], c[1], c[2]]).collect()
}

/// PCM's released traverses are what the goldens hold; the paper's are the default.
fn released(pattern: &str) -> String {
    let parsed: Pattern = pattern.parse().unwrap();
    let deviates = parsed.published().is_some_and(|scan| scan.released().is_some());
    if deviates { format!("{pattern}(compat=released)") } else { pattern.to_string() }
}

/// Called with a tensor's name, our maps and theirs.
type Same<'a> = dyn FnMut(&str, Vec<Vec<i64>>, Vec<Vec<i64>>) + 'a;

/// Points of a batch, by the authors' codes: ties may stand in any order.
fn serialized(entry: &Entry, same: &mut Same) {
    let [batch, count, _] = entry.golden.shape("pos")[..] else { panic!("{}", entry.file) };
    let xyz = entry.golden.real("pos").chunks(3).map(|c| [c[0], c[1], c[2]]).collect();
    let starts = (0..=batch).map(|b| b * count).collect();
    let points = Geometry::Points(Arc::new(Points::packed(xyz, starts).unwrap()));
    for tensor in entry.names("code_") {
        let curve = tensor.trim_start_matches("code_");
        let found = plan(&released(&format!("{}/{}", entry.system, curve.replace('_', "-"))), &points);
        let codes = entry.golden.whole(&tensor);
        same(&tensor, maps(&found), vec![by_rank(&codes)]);
        if entry.golden.whole(&format!("ties_{curve}")) == [0] {
            let order = format!("order_{curve}");
            same(&order, maps(&found), entry.rows(&order));
        }
    }
}

fn voxels(entry: &Entry, same: &mut Same) {
    let (bits, slices) = (entry.size("bits"), entry.size("z_max"));
    let template = Geometry::Grid3 { frames: slices, height: 1 << bits, width: 1 << bits };
    let ranks = entry.golden.whole("template");
    same("template", maps(&plan("voxelmamba/hilbert3d", &template)), vec![by_rank(&ranks)]);
    let rows: Vec<Vec<i64>> = entry.golden.whole("coors").chunks(4).map(<[i64]>::to_vec).collect();
    for tensor in entry.names("order_b") {
        let (batch, shift) = tensor.trim_start_matches("order_b").split_once("_shift").unwrap();
        let batch: i64 = batch.parse().unwrap();
        let cells: Vec<[i64; 3]> =
            rows.iter().filter(|row| row[0] == batch).map(|row| [row[3], row[2], row[1]]).collect();
        let points = Geometry::Points(Arc::new(Points::voxels(&cells, vec![0, cells.len()]).unwrap()));
        let pattern = format!("voxelmamba/hilbert3d(bits={bits}, slices={slices}, shift={shift})");
        same(&tensor, maps(&plan(&pattern, &points)), entry.rows(&tensor));
    }
}

fn graph(entry: &Entry) -> Geometry {
    let ends = entry.golden.whole("edge_index");
    let (from, to) = ends.split_at(ends.len() / 2);
    let edges = from.iter().zip(to).map(|(&a, &b)| [a as u32, b as u32]).collect();
    let batch = entry.golden.whole("batch");
    let mut starts = vec![0];
    starts.extend((1..batch.len()).filter(|&i| batch[i] != batch[i - 1]));
    starts.push(batch.len());
    Geometry::Graph(Arc::new(Graph::packed(edges, starts).unwrap()))
}

/// The scanned and merged tensors of a scan_merge golden; returns those that were compared.
fn merged(entry: &Entry) -> Vec<String> {
    let mut compared = Vec::new();
    let mut check = |name: &str, scan: &str, given: &str, expected: &str| {
        let found = plan(scan, &entry.geometry());
        let parsed: Pattern = scan.parse().unwrap();
        let merge = parsed.published().map_or(Merge::Sum, |scan| scan.merge());
        let ys = entry.golden.real(given);
        let expected = entry.golden.real(expected);
        let channels = entry.golden.shape(given)[2];
        // (B, K, D, …) as K sequences (B, D, T).
        let steps: Vec<usize> = found.orders().iter().map(Order::len).collect();
        let each: usize = steps.iter().map(|steps| channels * steps).sum();
        let mut scanned = vec![Vec::new(); found.directions()];
        for sample in ys.chunks(each) {
            let mut rest = sample;
            for (k, steps) in steps.iter().enumerate() {
                let (direction, others) = rest.split_at(channels * steps);
                scanned[k].extend(direction.iter().map(|&y| f64::from(y)));
                rest = others;
            }
        }
        let merged = merge.merged(&found, &scanned, channels).unwrap();
        for (i, (found, &expected)) in merged.iter().zip(&expected).enumerate() {
            assert!((found - f64::from(expected)).abs() < 1e-5, "{}: {name}[{i}]", entry.file);
        }
        assert_eq!(merged.len(), expected.len(), "{}", entry.file);
        compared.push(name.to_string());
    };
    match (entry.system.as_str(), entry.pattern.as_str()) {
        ("vmamba", "cross2d" | "unidi" | "bidi" | "rot90") => check("y", &entry.name(), "ys", "y"),
        ("efficientvmamba", pattern)
            if pattern.starts_with("es2d_step") && entry.golden.names().contains(&"ys".to_string()) =>
        {
            check("y", &entry.name(), "ys", "y");
        }
        ("msvmamba", "scans") => {
            for tensor in entry.names("y_") {
                let scan = tensor.trim_start_matches("y_");
                check(&tensor, &format!("msvmamba/{scan}"), &format!("ys_{scan}"), &tensor);
            }
        }
        ("groupmamba", "grouped4") => {
            for k in 0..4 {
                let (given, expected) = (format!("ys{}", k + 1), format!("y{}", k + 1));
                check(&expected, &format!("groupmamba/grouped4 | direction({k})"), &given, &expected);
            }
        }
        _ => {}
    }
    let names = entry.golden.names();
    if !["perm", "x", "xs"].iter().all(|name| names.contains(&name.to_string())) {
        return compared;
    }
    // (B, K, C, T) of x (B, C, …).
    let x: Vec<f64> = entry.golden.real("x").iter().map(|&x| f64::from(x)).collect();
    let (shape, xs) = (entry.golden.shape("xs"), entry.golden.real("xs"));
    let scanned = plan(&entry.name(), &entry.geometry()).scanned(&x).unwrap();
    let rows = shape[2] * shape[3];
    for b in 0..shape[0] {
        for (k, scanned) in scanned.iter().enumerate() {
            let expected = &xs[(b * shape[1] + k) * rows..][..rows];
            let found = &scanned[b * rows..][..rows];
            assert!(found.iter().zip(expected).all(|(a, &b)| *a == f64::from(b)), "{}: xs", entry.file);
        }
    }
    compared.push("xs".into());
    compared
}

/// Those whose tensors are made by mixers, or hold random or learned choices: their maps are those of other names.
const NO_MAPS: &[&str] = &[
    "vim/bimambav1",
    "vim/bimambav2",
    "vim/bimambav2div2",
    "vmamba/ss2d_v05",
    "vmamba/ss2d_v051d",
    "vmamba/ss2d_v052d",
    "vmamba/ss2d_v052dc",
    "vmamba/ss2d_v05noz",
    "plainmamba/block",
    "localmamba/multimamba",
    "localmamba/multimamba_cls",
    "efficientvmamba/es2d_ssm",
    "zigma/zigzagN8_block",
    "zigma/video_sst_s",
    "zigma/video_sst_t",
    "vivim/tri_block",
    "segmamba/tri_block",
    "videomambasuite/dbm",
    "mamba3d/bissm_v4",
    "rsmamba/forward",
    "rsmamba/forward_reverse_mean",
    "rsmamba/forward_reverse_gate",
    "rsmamba/forward_reverse_shuffle_gate",
    "rsmamba/forward_reverse_shuffle_mean",
    "hydra/block",
    "hydra/quasiseparable",
    "msvmamba/multiscale_block",
    "groupmamba/layer",
    "spatialmamba/statefusion",
    "spatialmamba/block",
    "quadmamba/block",
];

/// No order without features: the name says which.
const FEATURES: &[&str] = &[
    "defmamba/deform_path",
    "defmamba/block",
    "mambairv2/semantic_sort",
    "grootv/treescan",
    "grootv/block",
    "grootl/block",
];

#[test]
fn published_maps() {
    let mut compared: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for entry in goldens() {
        let (name, tensors) = (entry.name(), check(&entry));
        match name.parse::<Pattern>() {
            Ok(pattern) => assert!(pattern.published().is_some(), "{name}"),
            Err(error) => {
                assert!(FEATURES.contains(&name.as_str()), "{name}: {error}");
                assert!(error.to_string().contains("needs features"), "{name}: {error}");
            }
        }
        let listed = NO_MAPS.contains(&name.as_str()) || FEATURES.contains(&name.as_str());
        assert_eq!(tensors.is_empty(), listed, "{name}: {tensors:?} of {} were compared", entry.file);
        let seen = compared.entry(name).or_default();
        seen.0 += 1;
        seen.1 = tensors;
    }
    // Past the capture of the test harness.
    let mut out = std::io::stderr().lock();
    for (name, (files, tensors)) in compared {
        let what = match tensors.len() {
            0 => "no map".to_string(),
            n if n > 8 => format!("{n} tensors"),
            _ => tensors.join(", "),
        };
        let _ = writeln!(out, "{name}: {files} files, {what}");
    }
}
