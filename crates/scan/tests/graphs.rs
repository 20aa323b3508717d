//! Orders of graphs: the authors' own, the definitions written out, and bad input.

use std::sync::Arc;

use ophidian_scan::{Geometry, Graph, Pattern, Plan};
use proptest::prelude::*;

mod golden;

use golden::{Golden, files};

fn plan(pattern: &str, graph: &Graph) -> Plan {
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    let plan = pattern.plan(&Geometry::Graph(Arc::new(graph.clone())));
    plan.unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

fn index(pattern: &str, graph: &Graph) -> Vec<usize> {
    plan(pattern, graph).orders()[0].index().iter().map(|&i| i as usize).collect()
}

fn resets(plan: &Plan) -> Vec<usize> {
    let resets = plan.orders()[0].resets().iter().enumerate();
    resets.filter(|(_, reset)| **reset).map(|(step, _)| step).collect()
}

/// Every order that visits each node once.
const ORDERS: [&str; 11] = [
    "degree",
    "degree(shuffle, seed=5)",
    "degree(noise, seed=6)",
    "eigen",
    "eigen(noise=true, seed=3)",
    "rwse",
    "rwse(steps=5, noise=true)",
    "louvain",
    "louvain(degree)",
    "degree(noise) | buckets",
    "eigen | buckets(2, number)",
];

#[test]
fn degree_orders_are_the_authors() {
    for path in files("graphmamba_degree_order") {
        let (golden, graph) = (Golden::open(&path), Graph::read(&path).unwrap());
        let degrees: Vec<i64> = graph.degrees().iter().map(|&degree| i64::from(degree)).collect();
        assert_eq!(degrees, golden.whole("degree"));
        let found = plan("degree", &graph);
        let order: Vec<i64> = found.orders()[0].index().iter().map(|&i| i64::from(i)).collect();
        assert_eq!(order, golden.whole("perm"), "{}", path.display());
        // The authors' shuffle differs, but at each step stands a node of the same degree.
        for pattern in ["degree(shuffle)", "degree(noise)"] {
            let hybrid = golden.whole("perm_hybrid");
            for (found, authors) in index(pattern, &graph).into_iter().zip(hybrid) {
                assert_eq!(degrees[found], degrees[authors as usize], "{pattern}");
            }
        }
        // A running sum along the order that starts afresh at each graph is the authors' layer with a toy mixer.
        let (x, y, channels) = (golden.real("x"), golden.real("y_toy"), golden.shape("x")[1]);
        let mut sum = vec![0.0; channels];
        for (&token, &reset) in found.orders()[0].index().iter().zip(found.orders()[0].resets()) {
            let row = token as usize * channels..(token as usize + 1) * channels;
            for ((sum, x), y) in sum.iter_mut().zip(&x[row.clone()]).zip(&y[row]) {
                *sum = if reset { 0.0 } else { *sum } + x;
                assert!((*sum - y).abs() < 1e-5, "{}", path.display());
            }
        }
    }
}

#[test]
fn long_random_walks_are_refused() {
    let graph = Graph::new(2, vec![[0, 0], [0, 1], [1, 0]]).unwrap();
    let pattern: Pattern = "rwse(steps=1000000000000)".parse().unwrap();
    let error = pattern.plan(&Geometry::Graph(Arc::new(graph))).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("at most 65536 steps"), "{error}");

    // Six edges from each node to anywhere: a minute would pass before the limit, and a few walks tell.
    let n = 30_000u32;
    let anywhere = |seed: u32| (seed.wrapping_add(1).wrapping_mul(2_654_435_761) >> 8) % n;
    let edges = (0..n).flat_map(|i| (0..6).map(move |j| [i, anywhere(6 * i + j)])).collect();
    let graph = Graph::new(n as usize, edges).unwrap();
    let start = std::time::Instant::now();
    let error = "rwse".parse::<Pattern>().unwrap().plan(&Geometry::Graph(Arc::new(graph))).err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("edges passed"), "{error}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn augmented_sequences_are_the_authors() {
    for path in files("graphmamba_augment_seq") {
        let (golden, graph) = (Golden::open(&path), Graph::read(&path).unwrap());
        let order = graph.augmented(3, 0).unwrap();
        assert_eq!(plan("augment", &graph).orders()[0], order);
        let (expected, mask) = (golden.whole("index"), golden.whole("mask"));
        let read = order.silent().iter().map(|&silent| i64::from(!silent));
        assert_eq!(read.collect::<Vec<_>>(), mask, "{}", path.display());
        let mut start = 0;
        for (step, _) in mask.iter().enumerate().filter(|(_, read)| **read == 1) {
            let own = expected[step];
            let block: Vec<i64> = order.index()[start..=step].iter().map(|&i| i64::from(i)).collect();
            if graph.degrees()[own as usize] <= 3 {
                assert_eq!(block, expected[start..=step], "{}", path.display());
            }
            assert_eq!(block.last(), Some(&own));
            for &neighbour in &block[..block.len() - 1] {
                assert!(graph.edges().contains(&[own as u32, neighbour as u32]));
            }
            start = step + 1;
        }
        let firsts = graph.starts()[1..graph.starts().len() - 1].iter().map(|&node| {
            let visits = |step: &usize| mask[*step] == 1 && expected[*step] == node as i64 - 1;
            (0..mask.len()).find(visits).unwrap() + 1
        });
        let afresh = order.resets().iter().enumerate().filter(|(_, reset)| **reset).map(|(step, _)| step);
        assert_eq!(afresh.collect::<Vec<_>>(), firsts.collect::<Vec<_>>());
    }
}

/// Up to three graphs with every oddity: edges one way or both, repeated, from a node to itself, none at all.
fn graphs() -> impl Strategy<Value = Graph> {
    let one = (1..14usize).prop_flat_map(|nodes| {
        let edge = (0..nodes as u32, 0..nodes as u32, any::<bool>());
        (Just(nodes), prop::collection::vec(edge, 0..3 * nodes))
    });
    prop::collection::vec(one, 1..4).prop_map(|graphs| {
        let (mut starts, mut edges) = (vec![0], Vec::new());
        for (nodes, found) in graphs {
            let start = starts[starts.len() - 1];
            for (from, to, both) in found {
                let [from, to] = [from, to].map(|node| node + start as u32);
                edges.push([from, to]);
                if both {
                    edges.push([to, from]);
                }
            }
            starts.push(start + nodes);
        }
        Graph::packed(edges, starts).unwrap()
    })
}

/// The adjacency matrix of nodes `range`: of the edges as given, or of the simple undirected graph.
fn matrix(graph: &Graph, range: &std::ops::Range<usize>, simple: bool) -> Vec<Vec<f64>> {
    let mut matrix = vec![vec![0.0; range.len()]; range.len()];
    for edge in graph.edges().iter().map(|edge| edge.map(|node| node as usize)) {
        if range.contains(&edge[0]) {
            let [from, to] = edge.map(|node| node - range.start);
            if simple {
                matrix[from][to] = 1.0;
                matrix[to][from] = 1.0;
            } else {
                matrix[from][to] += 1.0;
            }
        }
    }
    matrix
}

fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let entry = |i: usize, j: usize| (0..b.len()).map(|k| a[i][k] * b[k][j]).sum();
    (0..a.len()).map(|i| (0..a.len()).map(|j| entry(i, j)).collect()).collect()
}

/// True if `order` ascends in `score`, which is known to 7 digits.
fn ascends(order: &[usize], score: impl Fn(usize) -> f64) -> bool {
    order.windows(2).all(|pair| {
        let (a, b) = (score(pair[0]), score(pair[1]));
        a < b + 1e-7 && ((a - b).abs() > 1e-10 || pair[0] < pair[1])
    })
}

proptest! {
    #[test]
    fn every_order_is_a_permutation_graph_by_graph(graph in graphs(), at in 0..ORDERS.len()) {
        let found = plan(ORDERS[at], &graph);
        let order = &found.orders()[0];
        prop_assert!(order.is_permutation(), "{}: {}", ORDERS[at], order.summary());
        for sample in graph.samples() {
            prop_assert!(order.index()[sample.clone()].iter().all(|&node| sample.contains(&(node as usize))));
            prop_assert!(sample.start == 0 || order.resets()[sample.start]);
        }
        if !ORDERS[at].contains("buckets") {
            prop_assert_eq!(resets(&found), graph.starts()[1..graph.starts().len() - 1].to_vec());
        }
        prop_assert_eq!(&found, &plan(ORDERS[at], &graph));
    }

    /// A graph by itself and among others; what is random aside.
    #[test]
    fn a_graph_does_not_see_the_others(graph in graphs(), at in 0..4usize) {
        let pattern = ["degree", "eigen", "rwse", "louvain(degree)"][at];
        let all = index(pattern, &graph);
        for sample in graph.samples() {
            let inside = graph.edges().iter().filter(|edge| sample.contains(&(edge[0] as usize)));
            let edges = inside.map(|edge| edge.map(|node| node - sample.start as u32)).collect();
            let alone = Graph::new(sample.len(), edges).unwrap();
            let alone: Vec<usize> = index(pattern, &alone).iter().map(|node| node + sample.start).collect();
            prop_assert_eq!(&all[sample], &alone[..]);
        }
    }

    #[test]
    fn degree_is_a_stable_sort(graph in graphs()) {
        let mut expected: Vec<usize> = (0..graph.nodes()).collect();
        let of = |node: usize| graph.starts().iter().filter(|&&start| start <= node).count();
        let degree = |node: usize| graph.edges().iter().filter(|edge| edge[0] as usize == node).count();
        expected.sort_by_key(|&node| (of(node), degree(node)));
        prop_assert_eq!(index("degree", &graph), expected.clone());
        for pattern in ["degree(shuffle, seed=9)", "degree(noise)"] {
            let found = index(pattern, &graph);
            prop_assert!(found.iter().zip(&expected).all(|(&a, &b)| degree(a) == degree(b)));
        }
    }

    #[test]
    fn walks_return_as_the_matrix_says(graph in graphs(), steps in 1..20usize) {
        let mut returns = vec![0.0; graph.nodes()];
        for sample in graph.samples() {
            let mut step = matrix(&graph, &sample, false);
            for row in &mut step {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= if sum > 0.0 { sum } else { 1.0 });
            }
            let mut power = step.clone();
            for _ in 0..steps {
                for (i, node) in sample.clone().enumerate() {
                    returns[node] += power[i][i];
                }
                power = product(&power, &step);
            }
        }
        let order = index(&format!("rwse(steps={steps})"), &graph);
        for sample in graph.samples() {
            prop_assert!(ascends(&order[sample], |node| -returns[node]), "{returns:?}: {order:?}");
        }
    }

    #[test]
    fn centrality_is_the_leading_eigenvector(graph in graphs()) {
        let mut centrality = vec![0.0; graph.nodes()];
        for sample in graph.samples() {
            let edges = matrix(&graph, &sample, true);
            if edges.iter().flatten().all(|x| *x == 0.0) {
                continue;
            }
            // (A + I)^4096, by squaring, on equal entries.
            let mut power = edges;
            (0..power.len()).for_each(|i| power[i][i] += 1.0);
            for _ in 0..12 {
                power = product(&power, &power);
                let most = power.iter().flatten().fold(0.0f64, |a, &b| a.max(b));
                power.iter_mut().flatten().for_each(|x| *x /= most);
            }
            let x: Vec<f64> = power.iter().map(|row| row.iter().sum()).collect();
            let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let x: Vec<f64> = x.into_iter().map(|x| x / length).collect();
            centrality[sample].copy_from_slice(&x);
        }
        let order = index("eigen", &graph);
        for sample in graph.samples() {
            // Equal to 8 digits is a tie.
            let pairs = order[sample].windows(2).all(|pair| centrality[pair[0]] < centrality[pair[1]] + 1e-7);
            prop_assert!(pairs, "{centrality:?}: {order:?}");
        }
    }

    #[test]
    fn buckets_keep_the_order_within(graph in graphs(), count in 1..5usize, seed in 0..9u32) {
        let (whole, parted) = (index("eigen", &graph), plan(&format!("eigen | buckets({count}, seed={seed})"), &graph));
        let place = |node: i32| whole.iter().position(|&found| found == node as usize).unwrap();
        let order = &parted.orders()[0];
        for t in 1..order.len() {
            prop_assert!(order.resets()[t] || place(order.index()[t - 1]) < place(order.index()[t]));
        }
        prop_assert!(resets(&parted).len() < count * (graph.starts().len() - 1));
        let by_number = plan(&format!("degree | buckets({count}, number)"), &graph);
        let mut bucket = None;
        for (&node, &reset) in by_number.orders()[0].index().iter().zip(by_number.orders()[0].resets()) {
            bucket = if reset { None } else { bucket }.or(Some(node as usize % count));
            prop_assert_eq!(bucket, Some(node as usize % count));
        }
    }

    #[test]
    fn augmented_sequences_read_each_node_once(graph in graphs(), neighbours in 1..5usize, seed in 0..9u64) {
        let order = graph.augmented(neighbours, seed).unwrap();
        let own = order.index().iter().zip(order.silent()).filter(|(_, silent)| !**silent);
        let own: Vec<usize> = own.map(|(i, _)| *i as usize).collect();
        prop_assert_eq!(own, (0..graph.nodes()).collect::<Vec<_>>());
        let expected: usize = graph.degrees().iter().map(|&degree| (degree as usize).min(neighbours) + 1).sum();
        prop_assert_eq!(order.len(), expected);
        let named = index(&format!("augment({neighbours}, seed={seed})"), &graph);
        prop_assert!(named.iter().zip(order.index()).all(|(&a, &b)| a == b as usize));
    }

    /// Clusters stay together, and they are at least as modular as no clusters at all.
    #[test]
    fn louvain_gains_modularity(graph in graphs()) {
        let order = index("louvain(degree)", &graph);
        let clusters = graph.louvain_clusters();
        let mut seen = Vec::new();
        for node in order {
            if seen.last() != Some(&clusters[node]) {
                prop_assert!(!seen.contains(&clusters[node]));
                seen.push(clusters[node]);
            }
        }
        for sample in graph.samples() {
            prop_assert_eq!(&clusters[sample.clone()], &louvain(&graph, &sample)[..]);
            let edges = matrix(&graph, &sample, true);
            let found: Vec<u32> = clusters[sample.clone()].to_vec();
            let single: Vec<u32> = (0..sample.len() as u32).collect();
            let (found, single) = (modularity(&edges, &found), modularity(&edges, &single));
            prop_assert!(found >= single - 1e-9 && found >= -1e-9, "{found} and {single}");
        }
    }
}

/// The Louvain method, its gains taken from the modularity of the whole graph, in whole numbers.
fn louvain(graph: &Graph, sample: &std::ops::Range<usize>) -> Vec<u32> {
    let edges = matrix(graph, sample, true);
    let nodes = edges.len();
    let weight = |i: usize, j: usize| edges[i][j] as i64 * if i == j { 2 } else { 1 };
    let strength: Vec<i64> = (0..nodes).map(|i| (0..nodes).map(|j| weight(i, j)).sum()).collect();
    let total: i64 = strength.iter().sum();
    let quality = |cluster: &dyn Fn(usize) -> usize| -> i64 {
        let pairs = (0..nodes).flat_map(|i| (0..nodes).map(move |j| (i, j)));
        let same = pairs.filter(|&(i, j)| cluster(i) == cluster(j));
        same.map(|(i, j)| weight(i, j) * total - strength[i] * strength[j]).sum()
    };
    // Which group each node is in, and which cluster each group.
    let mut group: Vec<usize> = (0..nodes).collect();
    loop {
        let groups = group.iter().max().unwrap() + 1;
        let mut cluster: Vec<usize> = (0..groups).collect();
        loop {
            let before = cluster.clone();
            for moving in 0..groups {
                let near = |&other: &usize| {
                    let inside = |node: usize, of: usize| group[node] == of;
                    (0..nodes).any(|i| {
                        (0..nodes).any(|j| inside(i, moving) && inside(j, other) && edges[i][j] > 0.0)
                    })
                };
                let mut around: Vec<usize> = (0..groups).filter(near).map(|other| cluster[other]).collect();
                around.sort_unstable();
                let with = |to: usize| {
                    quality(&|node| if group[node] == moving { to } else { cluster[group[node]] })
                };
                let mut best = (with(cluster[moving]), cluster[moving]);
                for to in around {
                    let found = with(to);
                    if found > best.0 {
                        best = (found, to);
                    }
                }
                cluster[moving] = best.1;
            }
            if cluster == before {
                break;
            }
        }
        let mut seen: Vec<usize> = Vec::new();
        for &found in &cluster {
            if !seen.contains(&found) {
                seen.push(found);
            }
        }
        let number = |found: usize| seen.iter().position(|&known| known == found).unwrap();
        group.iter_mut().for_each(|group| *group = number(cluster[*group]));
        if seen.len() == groups {
            let first = |of: usize| group.iter().position(|&found| found == of).unwrap();
            return group.iter().map(|&of| (first(of) + sample.start) as u32).collect();
        }
    }
}

/// Where clusters are joined again and again.
#[test]
fn louvain_climbs() {
    for nodes in [12, 31, 40] {
        let ring: Vec<[u32; 2]> = (0..nodes)
            .map(|i| [i, (i * 7 + 1) % nodes])
            .chain((0..nodes).map(|i| [i, (i + 1) % nodes]))
            .collect();
        for edges in [&ring[nodes as usize..], &ring[..]] {
            let graph = both_ways(nodes as usize, edges);
            assert_eq!(graph.louvain_clusters(), louvain(&graph, &(0..nodes as usize)), "{nodes} nodes");
        }
    }
}

/// Newman's modularity of a simple graph; an edge from a node to itself counts twice at the node.
fn modularity(edges: &[Vec<f64>], clusters: &[u32]) -> f64 {
    let weight = |i: usize, j: usize| if i == j { 2.0 * edges[i][i] } else { edges[i][j] };
    let all = 0..edges.len();
    let strength: Vec<f64> = all.clone().map(|i| all.clone().map(|j| weight(i, j)).sum()).collect();
    let total: f64 = strength.iter().sum();
    let pairs = all.clone().flat_map(|i| all.clone().map(move |j| (i, j)));
    let same = pairs.filter(|&(i, j)| clusters[i] == clusters[j]);
    same.map(|(i, j)| weight(i, j) - strength[i] * strength[j] / total.max(1.0)).sum::<f64>() / total.max(1.0)
}

fn both_ways(nodes: usize, edges: &[[u32; 2]]) -> Graph {
    let back = edges.iter().map(|&[from, to]| [to, from]);
    Graph::new(nodes, edges.iter().copied().chain(back).collect()).unwrap()
}

/// Zachary's karate club, 1977.
fn karate() -> Graph {
    let others: [&[u32]; 34] = [
        &[1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31],
        &[2, 3, 7, 13, 17, 19, 21, 30],
        &[3, 7, 8, 9, 13, 27, 28, 32],
        &[7, 12, 13],
        &[6, 10],
        &[6, 10, 16],
        &[16],
        &[],
        &[30, 32, 33],
        &[33],
        &[],
        &[],
        &[],
        &[33],
        &[32, 33],
        &[32, 33],
        &[],
        &[],
        &[32, 33],
        &[33],
        &[32, 33],
        &[],
        &[32, 33],
        &[25, 27, 29, 32, 33],
        &[25, 27, 31],
        &[31],
        &[29, 33],
        &[33],
        &[31, 33],
        &[32, 33],
        &[32, 33],
        &[32, 33],
        &[33],
        &[],
    ];
    let edges = others.iter().enumerate().flat_map(|(i, others)| others.iter().map(move |&j| [i as u32, j]));
    both_ways(34, &edges.collect::<Vec<_>>())
}

#[test]
fn the_karate_club() {
    let club = karate();
    assert_eq!(club.edges().len(), 2 * 78);
    // The published greatest modularity is 0.4198, in four clusters.
    let clusters = club.louvain_clusters();
    let found = modularity(&matrix(&club, &(0..34), true), &clusters);
    assert!(found > 0.41, "{found}");
    // The instructor and the president are the most central, as every account of the data has it; 33 before 0 before
    // 2 and 32 by eigenvector.
    assert_eq!(index("eigen", &club)[30..], [32, 2, 0, 33]);
    assert_eq!(index("degree", &club)[31..], [32, 0, 33]);
    let within = index("louvain(degree)", &club);
    assert!(within.is_sorted_by_key(|&node| (clusters[node], club.degrees()[node], node)));
    // Random: clusters stay together in another order.
    let (a, b) = (index("louvain", &club), index("louvain(seed=1)", &club));
    assert_ne!(a, b);
    let runs =
        |order: &[usize]| order.windows(2).filter(|pair| clusters[pair[0]] != clusters[pair[1]]).count();
    assert_eq!(runs(&a), 3);
    assert_eq!(runs(&b), 3);
    // By degree, and cluster by cluster where degrees are equal, clusters and the nodes of each in random order.
    let (a, b) = (index("degree(ties=cluster)", &club), index("degree(ties=cluster, seed=1)", &club));
    assert_ne!(a, b);
    for order in [&a, &b] {
        assert!(order.is_sorted_by_key(|&node| club.degrees()[node]));
        for alike in order.chunk_by(|&one, &two| club.degrees()[one] == club.degrees()[two]) {
            let mut seen: Vec<u32> = alike.iter().map(|&node| clusters[node]).collect();
            seen.dedup();
            let all: std::collections::BTreeSet<u32> = seen.iter().copied().collect();
            assert_eq!(seen.len(), all.len(), "{alike:?}");
        }
    }
}

#[test]
fn small_graphs() {
    // A star: the middle is the most central, and all leaves are alike.
    let star = both_ways(5, &[[2, 0], [2, 1], [2, 3], [2, 4]]);
    for pattern in ["degree", "eigen"] {
        assert_eq!(index(pattern, &star), [0, 1, 3, 4, 2]);
    }
    assert_eq!(index("rwse", &star), [2, 0, 1, 3, 4]);
    // Two triangles joined by an edge are two clusters.
    let pair = both_ways(6, &[[0, 2], [2, 4], [4, 0], [1, 3], [3, 5], [5, 1], [0, 1]]);
    assert_eq!(pair.louvain_clusters(), [0, 1, 0, 1, 0, 1]);
    assert_eq!(index("louvain(degree)", &pair), [2, 4, 0, 3, 5, 1]);
    // No edges, one node.
    let none = Graph::new(3, vec![]).unwrap();
    for pattern in ["degree", "eigen", "rwse", "louvain(degree)", "augment"] {
        assert_eq!(index(pattern, &none), [0, 1, 2], "{pattern}");
    }
    let one = Graph::new(1, vec![[0, 0]]).unwrap();
    for pattern in ORDERS {
        assert_eq!(index(pattern, &one), [0]);
    }
    assert_eq!(index("augment", &one), [0, 0]);
    // Self-loops once, repeated edges each time, one-way edges at their source.
    let odd = Graph::new(4, vec![[0, 0], [1, 0], [1, 0], [1, 2]]).unwrap();
    assert_eq!(odd.degrees(), [1, 3, 0, 0]);
    let told = odd.summary().to_string();
    let expected = "4 nodes, 4 edges, 1 node without edges, 1 edge from a node to itself, 1 repeated edge, 3 edges \
                    in one direction only";
    assert_eq!(told, expected);
    let odd: Vec<String> = oddities(odd);
    assert_eq!(
        odd,
        [
            "1 node without edges (the first: node 3)",
            "1 edge from a node to itself (the first: edge 0, of node 0)"
        ]
    );
    let packed = Graph::packed(vec![[0, 1], [4, 3], [4, 4], [3, 3]], vec![0, 3, 6]).unwrap();
    assert_eq!(
        oddities(packed),
        [
            "2 nodes without edges (the first: node 2)",
            "2 edges from a node to itself (the first: edge 2, of node 4)"
        ]
    );
    assert!(oddities(both_ways(3, &[[0, 1], [1, 2]])).is_empty());
}

fn oddities(graph: Graph) -> Vec<String> {
    graph.oddities(&graph.summary()).iter().map(ToString::to_string).collect()
}

#[test]
fn bad_graphs_are_told() {
    let refused =
        |edges: Vec<[u32; 2]>, starts: Vec<usize>| Graph::packed(edges, starts).unwrap_err().to_string();
    assert_eq!(refused(vec![], vec![0]), "the graph has no node");
    assert_eq!(
        refused(vec![[0, 1], [1, 3]], vec![0, 3]),
        "edge 1 is [1, 3], but 3 nodes are numbered 0 to 2"
    );
    assert_eq!(refused(vec![[0, 2]], vec![0, 2, 4]), "edge 0 is [0, 2], from one graph to another");
    assert!(refused(vec![], vec![0, 2, 2]).contains("graph 1 goes from node 2 to node 2"));
    assert!(refused(vec![], vec![0, usize::MAX]).contains("too large"));
    let message = "degree".parse::<Pattern>().unwrap().plan(&"9".parse().unwrap()).unwrap_err().to_string();
    assert!(message.contains("`degree` needs a graph, but the tokens are a sequence of 9"), "{message}");
    for text in ["degree(up)", "rwse(steps=0)", "augment(0)", "buckets(0)"] {
        assert!(text.parse::<Pattern>().is_err(), "{text}");
    }
}
