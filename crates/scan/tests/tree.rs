//! Spanning trees: the authors' own, the definition of a minimum, and what is no tree.
#![allow(missing_docs)]

use std::{collections::BTreeSet, io::Write, path::Path};

use ophidian_scan::{Candidates, RootedTree};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};

/// The goldens of a shape: tensor by name, as f64.
fn golden(shape: &str) -> Option<impl Fn(&str) -> Vec<f64>> {
    let shared = std::env::var_os("OPHIDIAN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), Into::into);
    let path = shared.join(format!("golden/scan/grootv_treescan_{shape}.safetensors"));
    let Ok(bytes) = std::fs::read(&path) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no golden at {}", path.display());
        return None;
    };
    Some(move |name: &str| {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(name).unwrap();
        match view.dtype() {
            Dtype::I64 => view
                .data()
                .chunks_exact(8)
                .map(|c| i64::from_le_bytes(c.try_into().unwrap()) as f64)
                .collect(),
            _ => view
                .data()
                .chunks_exact(4)
                .map(|c| f64::from(f32::from_le_bytes(c.try_into().unwrap())))
                .collect(),
        }
    })
}

#[test]
fn grootv() {
    for (shape, height, width) in [("3x3", 3, 3), ("4x5", 4, 5), ("6x6", 6, 6)] {
        let Some(golden) = golden(shape) else { return };
        let nodes = height * width;
        let candidates = Candidates::grid(height, width).unwrap();
        let x = golden("x");
        let channels = x.len() / 2 / nodes;
        let mut parents = Vec::new();
        for b in 0..2 {
            let part = |name: &str| {
                let all = golden(name);
                all[b * all.len() / 2..(b + 1) * all.len() / 2].to_vec()
            };
            let wide = |edges: &[[u32; 2]]| edges.iter().flatten().map(|i| f64::from(*i)).collect::<Vec<_>>();
            assert_eq!(wide(candidates.edges()), part("edges"), "{shape}");
            let x = part("x");
            let features: Vec<f32> =
                (0..nodes * channels).map(|i| x[i % channels * nodes + i / channels] as f32).collect();
            let costs = candidates.costs(&features, channels).unwrap();
            for (found, want) in costs.iter().zip(part("edge_cost")) {
                assert!((f64::from(*found) - want).abs() < 1e-6, "{shape}: {found} {want}");
            }
            let tree = candidates.spanning_tree(&costs).unwrap();
            assert_eq!(wide(&tree), part("tree"), "{shape}");
            let rooted = RootedTree::new(nodes, &tree, 0).unwrap();
            let order: Vec<f64> = rooted.order.iter().map(|i| f64::from(*i)).collect();
            assert_eq!(order, part("sorted_index"), "{shape}");
            // Siblings in the order of the edges: four places for the children of each, 0 where there is none.
            let place = |node: u32| rooted.order.iter().position(|other| *other == node).unwrap() as f64;
            for (node, children) in rooted.order.iter().zip(part("sorted_child").chunks(4)) {
                let own = tree.iter().flat_map(|&[a, b]| [[a, b], [b, a]]);
                let own =
                    own.filter(|[from, to]| from == node && rooted.parents[*to as usize] == *node as i32);
                let mut own: Vec<f64> = own.map(|[_, to]| place(to)).collect();
                own.resize(4, 0.0);
                assert_eq!(own, children, "{shape}: children of {node}");
            }
            let above: Vec<f64> = part("sorted_parent").iter().map(|at| order[*at as usize]).collect();
            for (node, above) in rooted.order.iter().zip(above).skip(1) {
                assert_eq!(f64::from(rooted.parents[*node as usize]), above, "{shape}");
            }
            assert_eq!(candidates.parents(&features, channels).unwrap(), rooted.parents);
            parents.push(rooted.parents);
        }
        // Both samples at once.
        let features: Vec<f32> = (0..2 * nodes * channels)
            .map(|i| {
                x[i / (nodes * channels) * nodes * channels + i % channels * nodes + i / channels % nodes]
                    as f32
            })
            .collect();
        assert_eq!(candidates.parents(&features, channels).unwrap(), parents.concat());
    }
}

fn reaches(nodes: usize, edges: &[[u32; 2]]) -> bool {
    let mut seen = BTreeSet::from([0u32]);
    while let Some([a, b]) = edges.iter().find(|[a, b]| seen.contains(a) != seen.contains(b)) {
        seen.extend([*a, *b]);
    }
    seen.len() == nodes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A spanning tree is minimal if no edge outside it is cheaper than any edge on the path that it closes.
    #[test]
    fn trees_are_minimal(height in 1..6usize, width in 1..6usize, costs in prop::collection::vec(0..9u8, 60)) {
        let candidates = Candidates::grid(height, width).unwrap();
        let costs: Vec<f32> = costs[..candidates.edges().len()].iter().map(|c| f32::from(*c)).collect();
        let tree = candidates.spanning_tree(&costs).unwrap();
        let nodes = height * width;
        prop_assert_eq!(tree.len(), nodes - 1);
        prop_assert!(reaches(nodes, &tree));
        let cost = |edge: &[u32; 2]| costs[candidates.edges().iter().position(|e| e == edge).unwrap()];
        for (edge, outside) in candidates.edges().iter().zip(&costs) {
            for (i, inside) in tree.iter().enumerate() {
                let mut swapped = tree.clone();
                swapped[i] = *edge;
                if reaches(nodes, &swapped) {
                    prop_assert!(cost(inside) <= *outside);
                }
            }
        }
    }

    #[test]
    fn parents_lead_to_the_root(len in 1..40usize, context in 0..45usize, seed in any::<u64>()) {
        let candidates = Candidates::line(len, context).unwrap();
        let features: Vec<f32> =
            (0..2 * len * 3).map(|i| ((seed >> (i % 50)) as u8 as f32) - 128.0).collect();
        let parents = candidates.parents(&features, 3).unwrap();
        prop_assert_eq!(parents.len(), 2 * len);
        for tree in parents.chunks(len) {
            for start in 0..len {
                let mut node = start;
                for _ in 0..len {
                    node = usize::try_from(tree[node]).unwrap_or(node);
                }
                prop_assert_eq!((node, tree[node]), (len - 1, -1));
            }
        }
    }
}

#[test]
fn a_line_of_context() {
    let edges = Candidates::line(6, 4).unwrap();
    let want = [[5, 4], [4, 3], [3, 2], [3, 1], [3, 0], [2, 1], [2, 0], [1, 0]];
    assert_eq!(edges.edges(), want);
    for context in 0..3 {
        assert_eq!(Candidates::line(4, context).unwrap().edges(), [[3, 2], [2, 1], [1, 0]]);
    }
    assert_eq!(Candidates::line(3, 9).unwrap().edges(), [[2, 1], [2, 0], [1, 0]]);
    // The plain line is a chain up to the last token.
    assert_eq!(Candidates::line(3, 0).unwrap().parents(&[1.0; 3], 1).unwrap(), [1, 2, -1]);
    assert!(Candidates::line(0, 0).is_err());
    assert!(Candidates::line(1, 1).unwrap().edges().is_empty());
}

#[test]
fn ties_and_nan_go_by_the_order_of_the_edges() {
    let candidates = Candidates::grid(2, 2).unwrap();
    let first = candidates.parents(&[1.0; 4], 1).unwrap();
    assert_eq!(
        candidates.spanning_tree(&[f32::NAN; 4]).unwrap(),
        candidates.spanning_tree(&[1.0; 4]).unwrap()
    );
    assert_eq!(candidates.parents(&[f32::NAN; 4], 1).unwrap(), first);
    // A NaN loses to any number.
    let tree = candidates.spanning_tree(&[f32::NAN, 3.0, 3.0, 3.0]).unwrap();
    assert!(!tree.contains(&candidates.edges()[0]));
    // Zeros and infinities make a tree too.
    for odd in [0.0, f32::INFINITY] {
        assert_eq!(candidates.parents(&[odd; 4], 1).unwrap().len(), 4);
    }
}

#[test]
fn what_is_no_tree_is_refused() {
    let message = |found: ophidian_scan::Result<RootedTree>| found.unwrap_err().to_string();
    assert!(message(RootedTree::new(3, &[[0, 1]], 0)).contains("3 tokens need 2"));
    assert!(message(RootedTree::new(2, &[[0, 2]], 0)).contains("token 2 does not exist"));
    assert!(message(RootedTree::new(2, &[[0, u32::MAX]], 0)).contains("does not exist"));
    assert!(message(RootedTree::new(4, &[[0, 1], [1, 0], [2, 3]], 0)).contains("reach 2 of 4"));
    assert!(message(RootedTree::new(2, &[[0, 1]], 2)).contains("root below 2"));
    assert!(Candidates::new(0, vec![]).is_err());
    assert!(Candidates::new(2, vec![[0, 2]]).unwrap_err().to_string().contains("edge 0 is [0, 2]"));
    assert!(Candidates::grid(0, 5).is_err() && Candidates::grid(usize::MAX, 2).is_err());
    let apart = Candidates::new(3, vec![[0, 1]]).unwrap();
    assert!(apart.spanning_tree(&[1.0]).unwrap_err().to_string().contains("2 parts"));
    assert!(apart.spanning_tree(&[]).unwrap_err().to_string().contains("0 costs for 1 edges"));
    assert!(apart.costs(&[1.0; 4], 2).unwrap_err().to_string().contains("4 features for 3 tokens"));
    assert!(Candidates::grid(2, 2).unwrap().parents(&[1.0; 6], 1).is_err());
    assert!(Candidates::grid(2, 2).unwrap().parents(&[], 0).is_err());
}
