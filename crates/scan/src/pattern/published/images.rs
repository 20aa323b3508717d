//! Sequences and images.

use super::Parameters::{Own, Shared, SharedButA};
use super::{ANY, Choice, Published, SEED, Shape, class_token, features, scan};
use crate::Merge;

const GRID: &[Shape] = &[Shape::Grid];
/// Tokens in the order of their numbers: rows of a grid, or a sequence.
const ROWS: &[Shape] = &[Shape::Sequence, Shape::Grid, Shape::Volume];

pub(super) static TABLE: &[Published] = &[
    scan("mamba/causal", ANY, "1", "row").also(&["mamba/mamba1", "mamba/mamba2"]),
    scan("vim/bimambav1", ROWS, "2", "row | bidirectional")
        .merged(Merge::Sum, SharedButA)
        .noted("the convolution runs once, forwards"),
    scan("vim/bimambav2", ROWS, "2", "row | bidirectional")
        .also(&["vim/bidirectional", "vim/bimamba"])
        .merged(Merge::Sum, Own)
        .noted("each branch is gated by its own z"),
    scan("vim/bimambav2div2", ROWS, "2", "row | bidirectional")
        .merged(Merge::Mean, Own)
        .noted("if_divide_out: the sum is halved"),
    scan("vim/layerpairs", ROWS, "2", "row | bidirectional")
        .merged(Merge::Sum, Own)
        .noted("layers 2i and 2i+1 walk forwards and backwards; hidden states and residuals of both are summed"),
    scan("vim/clslayout", ROWS, "1", "row | class_token({class_token})")
        .choices(&[class_token(&["middle", "head", "end", "both", "double", "none"])])
        .noted("the layout alone, -1 for each class token; the mixer walks it both ways"),
    scan("vmamba/cross2d", GRID, "4", "cross")
        .also(&["vmamba/cross", "vmamba/ss2d", "vmamba/ss2d_v05", "vmamba/ss2d_v05noz"])
        .merged(Merge::Sum, Own),
    scan("vmamba/unidi", GRID, "4", "row | repeat(4)")
        .also(&["vmamba/unidirectional", "vmamba/ss2d_v051d"])
        .merged(Merge::Sum, Own),
    scan("vmamba/bidi", GRID, "4", "row | repeat(2) | bidirectional")
        .also(&["vmamba/bidirectional", "vmamba/ss2d_v052d"])
        .merged(Merge::Sum, Own),
    scan("vmamba/rot90", GRID, "4", "row | rotations")
        .merged(Merge::Sum, Own),
    scan("vmamba/cascade2d", GRID, "4", "[row | segment(row) | bidirectional, column | segment(column) | bidirectional]")
        .also(&["vmamba/ss2d_v052dc"])
        .merged(Merge::Sum, Own)
        .deviating_by(
            "`model.written_as = \"[row, row | mirror(rows), column, column | mirror(columns)]\"` beside \
             `model.cascade = 2`, `model.conv = \"grid\"` and an odd `model.d_conv`",
        )
        .noted(
            "two stages with a LayerNorm between (`model.cascade = 2`): rows each by itself, then columns; the released code sums the \
             reversed half without turning it back",
        ),
    scan("plainmamba/continuous4", GRID, "4", "[serpentine | bidirectional, serpentine | transpose | bidirectional]")
        .also(&["plainmamba/continuous", "plainmamba/block"])
        .merged(Merge::Sum, Shared)
        .deviating_by("`model.compat.unordered_coefficients = true` and `model.compat.double_dt_bias = true`")
        .noted("a direction id per step is embedded in B; the released code leaves dt, B and C in row order"),
    scan("localmamba/h", GRID, "1", "row").also(&["localmamba/horizontal"]),
    scan("localmamba/h_flip", GRID, "1", "row | reverse").also(&["localmamba/horizontal_flip"]),
    scan("localmamba/v", GRID, "1", "column")
        .also(&["localmamba/vertical"])
        .deviating_by("`model.written_as = \"column | inverse\"`")
        .noted("the released code puts outputs back right where there are as many rows as columns"),
    scan("localmamba/v_flip", GRID, "1", "column | reverse")
        .also(&["localmamba/vertical_flip"])
        .deviating_by("`model.written_as = \"column | inverse | reverse\"`")
        .noted("the released code puts outputs back right where there are as many rows as columns"),
    scan("localmamba/w#", GRID, "1", "row | window({#})").also(&["localmamba/window#"]),
    scan("localmamba/w#_flip", GRID, "1", "row | window({#}) | reverse").also(&["localmamba/window#_flip"]),
    scan("localmamba/w#_col", GRID, "1", "row | window({#}) | transpose")
        .noted("windows column by column, and so inside; no released model uses it"),
    scan("localmamba/w#_col_flip", GRID, "1", "row | window({#}) | transpose | reverse"),
    scan(
        "localmamba/multiscan",
        GRID,
        "8",
        "[row | bidirectional, column | bidirectional, row | window(2) | bidirectional, row | window(7) | bidirectional]",
    )
    .also(&["localmamba/search"])
    .merged(Merge::Gate, Own)
    .noted("the candidates h, v, w2, w7, each with its flip, weighed by a softmax; a searched layer keeps four"),
    scan(
        "localmamba/vssm_merge",
        GRID,
        "4",
        "[{directions}]",
    )
    .choices(&[Choice::Directions { default: "h v_flip w2 w7_flip" }])
    .merged(Merge::Sum, Own)
    .noted("one searched layer; each times a channel gate before the sum"),
    scan("localmamba/multimamba", GRID, "4", "[row, column | reverse, row | window(2) | bidirectional]")
        .merged(Merge::Sum, Own)
        .deviating_by(
            "`model.written_as = \"[row, column | inverse | reverse, row | window(2) | bidirectional]\"`",
        )
        .noted("one searched layer: h, v_flip, w2, w2_flip; each times a channel gate before the sum"),
    scan(
        "localmamba/multimamba_cls",
        GRID,
        "4",
        "[row | bidirectional, column, row | window(2)] | class_token(middle)",
    )
    .merged(Merge::Sum, Own)
    .noted("h, h_flip, v, w2; -1 also where the class token stands, in the middle of each walk, padding counted"),
    scan(
        "efficientvmamba/es2d_step#",
        GRID,
        "4",
        "row | atrous({#}, compat=four-classes)",
    )
    .also(&["efficientvmamba/step#"])
    .merged(Merge::Interleave, Own)
    .noted("offsets (0,0), (1,0), (0,1), (1,1): a partition of the tokens for step 2 alone; `atrous(3)` has all 9"),
    scan("efficientvmamba/es2d", GRID, "4", "row | atrous(2)")
        .also(&["efficientvmamba/es2d_ssm"])
        .merged(Merge::Interleave, Own),
    scan(
        "zigma/zigzag8",
        GRID,
        "8",
        "[zigzag(0), zigzag(1), zigzag(2), zigzag(3), zigzag(4), zigzag(5), zigzag(6), zigzag(7)]",
    )
    .also(&["zigma/zigzagN8", "zigma/zigzagN8_block", "zigma/zigzag"])
    .per_layer(),
    scan(
        "zigma/hilbert8",
        GRID,
        "8",
        "[gilbert, gilbert | transpose, gilbert | rotate(3), gilbert | rotate(3) | transpose, \
         gilbert | rotate(2), gilbert | rotate(2) | transpose, gilbert | rotate(1), gilbert | rotate(1) | transpose]",
    )
    .also(&["zigma/hilbert", "zigma/gilbert8"])
    .per_layer()
    .deviating(
        "[gilbert, gilbert | transpose, gilbert | rotate(3), gilbert | rotate(3) | transpose, \
         gilbert | rotate(2), gilbert | rotate(2) | transpose, gilbert | rotate(1), gilbert | rotate(1) | transpose] \
         | inverse",
    )
    .noted("the released code gathers with the rank map: the inverse of a Hilbert walk"),
    scan("zigma/traverse", GRID, "2", "serpentine | bidirectional").per_layer(),
    scan("zigma/random", GRID, "1", "random(seed={seed})").choices(&[SEED]),
    scan("rsmamba/forward", ROWS, "1", "row"),
    scan("rsmamba/forward_reverse_mean", ROWS, "2", "row | bidirectional").merged(Merge::Mean, Shared),
    scan("rsmamba/forward_reverse_gate", ROWS, "2", "row | bidirectional")
        .merged(Merge::Gate, Shared)
        .noted("softmax gate over the means of the paths, one number per path and sample"),
    scan(
        "rsmamba/forward_reverse_shuffle_mean",
        ROWS,
        "3",
        "[row | bidirectional, random(seed={seed})]",
    )
    .choices(&[SEED])
    .merged(Merge::Mean, Shared)
    .deviating_by("`seed=sample` in `model.scan`, which draws it anew for every sample")
    .noted("the released code shuffles afresh in every forward pass, evaluation included"),
    scan(
        "rsmamba/forward_reverse_shuffle_gate",
        ROWS,
        "3",
        "[row | bidirectional, random(seed={seed})]",
    )
    .also(&["rsmamba/forward_reverse_shuffle"])
    .choices(&[SEED])
    .merged(Merge::Gate, Shared)
    .deviating_by("`seed=sample` in `model.scan`, which draws it anew for every sample")
    .noted("softmax gate over the means of the paths; the released code shuffles afresh in every forward pass"),
    scan("hydra/quasiseparable", ROWS, "2", "row | bidirectional")
        .also(&["hydra/block"])
        .merged(Merge::Sum, Own)
        .noted("each output is shifted by one step, and a diagonal that depends on the data is added"),
    scan("msvmamba/CrossScan", GRID, "4", "cross")
        .also(&["msvmamba/scans"])
        .merged(Merge::Sum, Own),
    scan("msvmamba/CrossScan2", GRID, "2", "[row, column]").merged(Merge::Sum, Own),
    scan("msvmamba/CrossScan3", GRID, "3", "[row, column, row | reverse]").merged(Merge::Sum, Own),
    scan("msvmamba/ThreeScan", GRID, "3", "[column, row | reverse, column | reverse]").merged(Merge::Sum, Own),
    scan("msvmamba/multiscale", GRID, "1", "row")
        .also(&["msvmamba/multiscale_block", "msvmamba/full"])
        .noted("the branch of full resolution; its output is added to that of msvmamba/half, upsampled"),
    scan("msvmamba/half", GRID, "1", "[row | reverse, column, column | reverse] | concat")
        .merged(Merge::Sum, Shared)
        .noted("the branch of half resolution: one sequence, and the state goes on from one direction to the next"),
    scan("groupmamba/grouped4", GRID, "4", "cross")
        .also(&["groupmamba/layer"])
        .merged(Merge::Channels, Own),
    features(
        "grootv/treescan",
        GRID,
        "features (B, C, H, W): their minimum spanning tree is walked, from the leaves to the root and back (`mixer = \"grootv\"` of a model has it)",
    )
    .also(&["grootv/block"]),
    features(
        "grootl/block",
        &[Shape::Sequence],
        "features (B, L, D): the minimum spanning tree over them is walked from the leaves to the root, beside the chain (`mixer = \"grootl\"` of a model has it)",
    )
    .also(&["grootl/treescan"]),
    scan("spatialmamba/statefusion", GRID, "1", "row")
        .also(&["spatialmamba/block"])
        .noted("the map of states is convolved before the read-out"),
    features(
        "defmamba/deform_path",
        GRID,
        "features (B, C, H, W): tokens are resampled at learned offsets and sorted by a learned key, beside `row | bidirectional` (`mixer = \"defmamba\"` of a model has it)",
    )
    .also(&["defmamba/block"])
    .deviating_by("`model.defmamba.half_cell = true`"),
    scan("quadmamba/quad", GRID, "1", "row | tiles(2, pad=4)")
        .merged(Merge::Alone, Own)
        .noted("2 x 2 quadrants one after another"),
    scan("quadmamba/quadquad", GRID, "1", "row | tiles(4, pad=4)")
        .merged(Merge::Alone, Own)
        .noted("4 x 4 tiles in row order"),
    scan("quadmamba/quad_perm", GRID, "2", "[row | tiles(2, pad=4), row | tiles(4, pad=4)]")
        .also(&["quadmamba/block"])
        .merged(Merge::Interleave, Own)
        .deviating_by("`model.quadmamba.colliding_windows = true` and `model.quadmamba.random_inference = true`")
        .noted("the quadrant that a hard Gumbel choice names takes the second order, all others the first"),
    features(
        "mambairv2/semantic_sort",
        &[Shape::Sequence, Shape::Grid],
        "features (B, L, C): pixels are sorted by their predicted class, and prompts are added to C (`mixer = \"semantic\"` of a model has it)",
    )
    .also(&["mambairv2/assm"])
    .deviating_by("`model.semantic.unsorted_prompts = true` and `model.semantic.random_inference = true`"),
    scan("mambair/cross2d", GRID, "4", "cross").also(&["mambair/cross"]).merged(Merge::Sum, Own),
    scan("s-d-mamba/variates", &[Shape::Sequence], "2", "row | bidirectional")
        .also(&["s-d-mamba/bidirectional", "sdmamba/variates"])
        .merged(Merge::Sum, Own)
        .noted("over the variates of a time series, not over time; two mixers"),
];
