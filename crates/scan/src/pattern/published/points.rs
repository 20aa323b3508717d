//! Points and graphs.

use super::Parameters::{Own, Shared};
use super::{Choice, Published, SEED, Shape, scan};
use crate::Merge;

const POINTS: &[Shape] = &[Shape::Points];
const GRAPH: &[Shape] = &[Shape::Graph];

const GRID: Choice = Choice::Real { name: "grid", default: 0.02 };
const DEPTH: Choice = Choice::Number { name: "depth", least: 0, default: 0 };
const SERIAL: &[Choice] = &[GRID, DEPTH];

const CTS: &str = "traversed axis by axis; the released code sorts by the first axis alone, with a sign";

pub(super) static TABLE: &[Published] = &[
    scan("pointmamba/hilbert", POINTS, "1", "serialize(hilbert, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .noted("cells of a grid; depth=0 takes the bits that the batch needs, so that a cloud's order depends on it"),
    scan("pointmamba/hilbert-trans", POINTS, "1", "serialize(hilbert-trans, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .noted("x and y exchanged"),
    scan(
        "pointmamba/serialize",
        POINTS,
        "2",
        "[serialize(hilbert, grid={grid}, depth={depth}), serialize(hilbert-trans, grid={grid}, depth={depth})]",
    )
    .also(&["pointmamba/order_indicator_concat", "pointmamba/bidirectional"])
    .choices(SERIAL)
    .merged(Merge::Length, Shared)
    .noted("one sequence of both, each scaled and shifted by an indicator of its order"),
    scan("pointmamba/hilbert2d", &[Shape::Grid], "1", "hilbert"),
    scan("pointmamba/hilbert3d", &[Shape::Volume], "1", "hilbert"),
    scan("pointmamba/hilbert_depth_dependence", &[Shape::Volume], "1", "hilbert(bits={depth})").choices(&[DEPTH]),
    scan("voxelmamba/hilbert2d", &[Shape::Grid], "1", "hilbert"),
    scan("voxelmamba/hilbert3d", &[Shape::Volume, Shape::Points], "1", "hilbert")
        .over(Shape::Points, "voxel-hilbert({bits}, slices={slices}, shift={shift})")
        .choices(&[
            Choice::Number { name: "bits", least: 1, default: 9 },
            Choice::Number { name: "slices", least: 0, default: 0 },
            Choice::Number { name: "shift", least: 0, default: 0 },
        ])
        .noted(
            "voxels by their rank in a cube of 2^bits a side, moved by `shift` (the stage); forwards on voxels of half the \
             resolution, backwards on all of them",
        ),
    scan("mamba3d/bissm_v4", &[Shape::Sequence, Shape::Points], "2", "row | repeat(2)")
        .merged(Merge::Sum, Own)
        .deviating_by("`model.compat.mirrored_channels = true`")
        .noted("both walk the patches as they come; the second reads the features in reverse"),
    scan("pcm/xyz", POINTS, "1", "serialize(xyz, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .deviating("serialize(xyz, grid={grid}, depth={depth}, compat=pcm)")
        .noted(CTS),
    scan("pcm/xzy", POINTS, "1", "serialize(xzy, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .deviating("serialize(xzy, grid={grid}, depth={depth}, compat=pcm)")
        .noted(CTS),
    scan("pcm/yxz", POINTS, "1", "serialize(yxz, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .deviating("serialize(yxz, grid={grid}, depth={depth}, compat=pcm)")
        .noted(CTS),
    scan("pcm/yzx", POINTS, "1", "serialize(yzx, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .deviating("serialize(yzx, grid={grid}, depth={depth}, compat=pcm)")
        .noted(CTS),
    scan("pcm/zxy", POINTS, "1", "serialize(zxy, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .deviating("serialize(zxy, grid={grid}, depth={depth}, compat=pcm)")
        .noted(CTS),
    scan("pcm/zyx", POINTS, "1", "serialize(zyx, grid={grid}, depth={depth})")
        .choices(SERIAL)
        .deviating("serialize(zyx, grid={grid}, depth={depth}, compat=pcm)")
        .noted(CTS),
    scan("pcm/z", POINTS, "1", "serialize(z, grid={grid}, depth={depth})").choices(SERIAL),
    scan("pcm/z-trans", POINTS, "1", "serialize(z-trans, grid={grid}, depth={depth})").choices(SERIAL),
    scan("pcm/hilbert", POINTS, "1", "serialize(hilbert, grid={grid}, depth={depth})").choices(SERIAL),
    scan("pcm/hilbert-trans", POINTS, "1", "serialize(hilbert-trans, grid={grid}, depth={depth})").choices(SERIAL),
    scan(
        "pcm/serialize",
        POINTS,
        "9",
        "[serialize(xyz, grid={grid}, depth={depth}), \
         serialize(xzy, grid={grid}, depth={depth}), \
         serialize(yxz, grid={grid}, depth={depth}), \
         serialize(yzx, grid={grid}, depth={depth}), \
         serialize(zxy, grid={grid}, depth={depth}), \
         serialize(zyx, grid={grid}, depth={depth}), \
         serialize(hilbert, grid={grid}, depth={depth}), \
         serialize(z, grid={grid}, depth={depth}), \
         serialize(z-trans, grid={grid}, depth={depth})]",
    )
    .also(&["pcm/codes_full_grid"])
    .choices(SERIAL)
    .per_layer()
    .deviating(
        "[serialize(xyz, grid={grid}, depth={depth}, compat=pcm), \
         serialize(xzy, grid={grid}, depth={depth}, compat=pcm), \
         serialize(yxz, grid={grid}, depth={depth}, compat=pcm), \
         serialize(yzx, grid={grid}, depth={depth}, compat=pcm), \
         serialize(zxy, grid={grid}, depth={depth}, compat=pcm), \
         serialize(zyx, grid={grid}, depth={depth}, compat=pcm), \
         serialize(hilbert, grid={grid}, depth={depth}), \
         serialize(z, grid={grid}, depth={depth}), \
         serialize(z-trans, grid={grid}, depth={depth})]",
    )
    .noted("each layer walks its order both ways"),
    scan("point-mamba/octree", POINTS, "2", "serialize(z, grid={grid}, depth={depth}) | bidirectional")
        .also(&["point-mamba/morton", "octreemamba/octree"])
        .choices(SERIAL)
        .deviating("serialize(z, grid={grid}, depth={depth}, compat=point-mamba-octree) | bidirectional")
        .merged(Merge::Sum, Own)
        .noted("nodes of an octree in Morton order; the released code runs a whole batch as one sequence"),
    scan("graphmamba/degree_order", GRAPH, "1", "degree")
        .also(&["graphmamba/degree"])
        .noted("ascending, so that those with the most edges see all others; beside a message passing network"),
    scan("graphmamba/hybrid_degree", GRAPH, "1", "degree(ties=shuffle, seed={seed})")
        .choices(&[SEED])
        .noted("shuffled first, so that ties are random; evaluation takes the mean of five"),
    scan("graphmamba/hybrid_degree_noise", GRAPH, "1", "degree(ties=noise, seed={seed})")
        .also(&["graphmamba/noise"])
        .choices(&[SEED])
        .noted("noise from 0 to 1 on the degree: the order of the released configurations"),
    scan("graphmamba/hybrid_degree_bucket", GRAPH, "1", "degree(ties=shuffle, seed={seed}) | buckets(by=number)")
        .choices(&[SEED]),
    scan("graphmamba/hybrid_noise", GRAPH, "1", "random(seed={seed}) | buckets(seed={seed})")
        .choices(&[SEED])
        .noted("in buckets, as the code of that name is; the one named Noise_Bucket is random alone"),
    scan("graphmamba/eigen_bucket", GRAPH, "1", "eigen(noise=true, seed={seed}) | buckets(seed={seed})").choices(&[SEED]),
    scan("graphmamba/eigen", GRAPH, "1", "eigen").also(&["graphmamba/eigen_centrality"]),
    scan("graphmamba/hybrid_eigen", GRAPH, "1", "eigen(noise=true, seed={seed})").choices(&[SEED]),
    scan("graphmamba/rwse", GRAPH, "1", "rwse"),
    scan("graphmamba/hybrid_rwse", GRAPH, "1", "rwse(noise=true, seed={seed})").choices(&[SEED]),
    scan("graphmamba/cluster_bucket", GRAPH, "1", "degree(ties=cluster, seed={seed}) | buckets(by=number)")
        .choices(&[SEED])
        .noted("by degree, and cluster by cluster where degrees are equal, as the released code sorts"),
    scan("graphmamba/cluster", GRAPH, "1", "louvain(seed={seed})").also(&["graphmamba/louvain"]).choices(&[SEED]),
    scan("graphmamba/buckets", GRAPH, "1", "degree(ties=noise, seed={seed}) | buckets(seed={seed})")
        .also(&["graphmamba/hybrid_degree_noise_bucket"])
        .choices(&[SEED]),
    scan("graphmamba/permute", GRAPH, "1", "random(seed={seed})")
        .also(&["graphmamba/random", "graphmamba/hybrid", "graphmamba/hybrid_noise_bucket"])
        .choices(&[SEED]),
    scan("graphmamba/augment_seq", GRAPH, "1", "augment(seed={seed})")
        .also(&["graphmamba/augment"])
        .choices(&[SEED])
        .noted("up to three random neighbours, then the node itself, which alone is read out"),
];
