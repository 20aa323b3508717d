//! Videos, volumes and pairs of images.

use super::Parameters::{Own, Shared};
use super::{Choice, Published, Shape, class_token, scan};
use crate::Merge;

/// Frames of rows of columns.
const VOLUME: &[Shape] = &[Shape::Volume];
/// Frames of rows of columns, or frames x pixels.
const FRAMES: &[Shape] = &[Shape::Grid, Shape::Volume];

pub(super) static TABLE: &[Published] = &[
    scan("videomamba/spatialfirst", VOLUME, "1", "row | class_token({class_token})")
        .aliases(&["videomamba/spatial"])
        .choices(&[class_token(&["head", "none", "middle", "end", "both"])])
        .merge(Merge::Alone, Own)
        .note("the layout alone, -1 for the class token; the mixer walks it both ways (`| bidirectional`) and sums"),
    scan("videomamba/temporalfirst", VOLUME, "1", "temporal | class_token({class_token})")
        .aliases(&["videomamba/temporal"])
        .choices(&[class_token(&["head", "none", "middle", "end", "both"])])
        .merge(Merge::Alone, Own)
        .note("of the paper; not in the released code"),
    scan("videomamba/spatiotemporal", VOLUME, "2", "[row, temporal] | class_token({class_token})")
        .choices(&[class_token(&["head", "none", "middle", "end", "both"])])
        .merge(Merge::Sum, Own)
        .note("of the paper (v1 walks each half the time, v2 both); not in the released code"),
    scan("vivim/tri", FRAMES, "3", "[row | bidirectional, temporal]")
        .aliases(&["vivim/tri_perm", "vivim/tri_block", "vivim/spatiotemporal"])
        .merge(Merge::Mean, Own),
    scan("segmamba/tri", FRAMES, "3", "[row | bidirectional, temporal]")
        .aliases(&["segmamba/tri_perm", "segmamba/tri_block", "segmamba/tom"])
        .merge(Merge::Sum, Own),
    scan("videomambasuite/dbm", super::ANY, "2", "row | bidirectional")
        .aliases(&["videomambasuite/decomposed"])
        .merge(Merge::Channels, Shared)
        .note("row on one half of the channels, its reverse on the other"),
    scan("videomambasuite/timemamba", VOLUME, "2", "temporal | lines | bidirectional")
        .aliases(&["videomambasuite/timemamba_divided"])
        .merge(Merge::Sum, Own)
        .note("the time line of each patch position is a segment of its own; space is attended, not scanned"),
    scan("videomambasuite/timemamba_lines", &[Shape::Grid], "2", "row | lines | bidirectional")
        .merge(Merge::Sum, Own)
        .note("videomambasuite/timemamba over positions x times, as the authors lay tokens out"),
    scan("mamband/alternate2d", &[Shape::Grid], "4", "[row | bidirectional, column | bidirectional]")
        .aliases(&["mamband/2d"])
        .per_layer(),
    scan(
        "mamband/alternate3d",
        VOLUME,
        "6",
        "[row | bidirectional, column | bidirectional, row | axes(width, height, time) | bidirectional]",
    )
    .aliases(&["mamband/3d"])
    .per_layer()
    .note("factorised layers walk each line or plane of the innermost axes by itself"),
    scan("zigma/video_sst_s", VOLUME, "8", "[zigzag(0), zigzag(1), zigzag(2), zigzag(3), zigzag(4), zigzag(5), zigzag(6), zigzag(7)] | frames(reset=true)")
        .per_layer(),
    scan("zigma/video_sst_t", VOLUME, "1", "temporal | lines").per_layer(),
    scan("changemamba/cross", FRAMES, "4", "cross | changes(interleaved)")
        .choices(&[])
        .merge(Merge::Sum, Own),
    scan("changemamba/parallel", FRAMES, "4", "cross | changes(parallel)").merge(Merge::Sum, Own),
    scan("changemamba/spatiotemporal", FRAMES, "8", "[]").merge(Merge::Sum, Shared),
];
