//! Videos, volumes and pairs of images.

use super::Parameters::{Own, Shared};
use super::{ANY, Published, Shape, class_token, scan};
use crate::Merge;

/// Frames of rows of columns.
const VOLUME: &[Shape] = &[Shape::Volume];
/// Frames of rows of columns, or frames x pixels.
const FRAMES: &[Shape] = &[Shape::Grid, Shape::Volume];

pub(super) static TABLE: &[Published] = &[
    scan("videomamba/spatialfirst", VOLUME, "1", "row | class_token({class_token})")
        .also(&["videomamba/spatial"])
        .choices(&[class_token(&["head", "middle", "end", "both", "double", "none"])])
        .merged(Merge::Alone, Own)
        .noted("the layout alone, -1 for the class token; the mixer walks it both ways (`| bidirectional`) and sums"),
    scan("videomamba/temporalfirst", VOLUME, "1", "temporal | class_token({class_token})")
        .also(&["videomamba/temporal"])
        .choices(&[class_token(&["head", "middle", "end", "both", "double", "none"])])
        .merged(Merge::Alone, Own)
        .noted("of the paper; not in the released code"),
    scan("videomamba/spatiotemporal", VOLUME, "4", "[row, temporal] | class_token({class_token}) | bidirectional")
        .also(&["videomamba/spatiotemporal_v2"])
        .choices(&[class_token(&["head", "middle", "end", "both", "double", "none"])])
        .merged(Merge::Sum, Own)
        .noted("of the paper (all of both); not in the released code"),
    scan("videomamba/spatiotemporal_v1", VOLUME, "2", "[row, temporal | reverse] | class_token({class_token})")
        .choices(&[class_token(&["head", "middle", "end", "both", "double", "none"])])
        .merged(Merge::Sum, Own)
        .noted("of the paper, as we read \"half of both\"; not in the released code"),
    scan("vivim/tri", FRAMES, "3", "[row | bidirectional, temporal]")
        .also(&["vivim/tri_perm", "vivim/tri_block", "vivim/spatiotemporal"])
        .merged(Merge::Mean, Own),
    scan("segmamba/tri", FRAMES, "3", "[row | bidirectional, temporal]")
        .also(&["segmamba/tri_perm", "segmamba/tri_block", "segmamba/tom"])
        .merged(Merge::Sum, Own),
    scan("videomambasuite/dbm", ANY, "2", "row | bidirectional")
        .also(&["videomambasuite/decomposed"])
        .merged(Merge::Channels, Shared)
        .noted("row on one half of the channels, its reverse on the other"),
    scan("videomambasuite/timemamba", FRAMES, "2", "temporal | segment(pixel) | bidirectional")
        .over(Shape::Grid, "row | segment(row) | bidirectional")
        .also(&["videomambasuite/timemamba_divided"])
        .merged(Merge::Sum, Own)
        .noted(
            "the time line of each patch position is a segment of its own (a grid is positions x times, as the authors \
             lay tokens out); space is attended, not scanned",
        ),
    scan("mamband/alternate2d", &[Shape::Grid], "4", "[row | bidirectional, column | bidirectional]")
        .also(&["mamband/2d"])
        .per_layer(),
    scan(
        "mamband/alternate3d",
        VOLUME,
        "6",
        "[axes(thw) | bidirectional, axes(twh) | bidirectional, axes(wht) | bidirectional]",
    )
    .also(&["mamband/3d"])
    .per_layer(),
    scan("mamband/tlhw_fwd", VOLUME, "1", "axes(thw)"),
    scan("mamband/tlhw_rev", VOLUME, "1", "axes(thw) | reverse"),
    scan("mamband/tlwh_fwd", VOLUME, "1", "axes(twh)"),
    scan("mamband/tlwh_rev", VOLUME, "1", "axes(twh) | reverse"),
    scan("mamband/whtl_fwd", VOLUME, "1", "axes(wht)"),
    scan("mamband/whtl_rev", VOLUME, "1", "axes(wht) | reverse"),
    scan("mamband/tlhw_ndim1", VOLUME, "1", "axes(thw) | segment(row)").noted("factorised: each row by itself"),
    scan("mamband/tlhw_ndim2", VOLUME, "1", "axes(thw) | segment(frame)").noted("factorised: each frame by itself"),
    scan("mamband/tlwh_ndim1", VOLUME, "1", "axes(twh) | segment(column)")
        .noted("factorised: each column by itself"),
    scan("mamband/tlwh_ndim2", VOLUME, "1", "axes(twh) | segment(frame)")
        .noted("factorised: each frame by itself, column by column"),
    scan("mamband/whtl_ndim1", VOLUME, "1", "axes(wht) | chunk(1)").noted("factorised: each token by itself"),
    scan("mamband/whtl_ndim2", VOLUME, "1", "axes(wht) | segment(pixel)")
        .noted("factorised: each pixel through time by itself"),
    scan(
        "zigma/video_sst_s",
        VOLUME,
        "8",
        "[zigzag(0), zigzag(1), zigzag(2), zigzag(3), zigzag(4), zigzag(5), zigzag(6), zigzag(7)] | frames(reset=true)",
    )
    .per_layer()
    .noted("the layers over space: each frame by itself"),
    scan("zigma/video_sst_t", VOLUME, "1", "temporal | segment(pixel)")
        .merged(Merge::Alone, Own)
        .deviating_by("`model.written_as = \"temporal | mirror(frames) | segment(pixel)\"`")
        .noted("the layers over time: each pixel by itself; the released code returns their outputs reversed in time"),
    scan("changemamba/cross", VOLUME, "4", "cross | montage(interleaved, 2)")
        .merged(Merge::Sum, Own)
        .noted("two images, 2 x rows x columns: column w of the first before column w of the second"),
    scan("changemamba/parallel_w", VOLUME, "4", "cross | montage(beside, 2)")
        .also(&["changemamba/parallel"])
        .merged(Merge::Sum, Own)
        .noted("two images, 2 x rows x columns: side by side"),
    scan("changemamba/stacked", FRAMES, "4", "cross")
        .also(&["changemamba/sequential"])
        .merged(Merge::Sum, Own)
        .noted("two images stacked on channels are one grid"),
    scan(
        "changemamba/spatiotemporal",
        VOLUME,
        "8",
        "[cross | montage(interleaved, 2), cross | montage(beside, 2)]",
    )
    .merged(Merge::Sum, Own)
    .noted(
        "the orders over two of three arrangements, and their sum; `mixer = \"changemamba\"` of a model has the whole: \
         a block for each of the three (the third over one map of both images' channels) and a 1x1 convolution over what \
         the blocks make",
    ),
];
