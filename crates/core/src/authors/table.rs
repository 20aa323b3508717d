//! Every op that can be run by name: what it reads, in which shapes, and its options.

use tch::Tensor;

use super::{
    Call, ops,
    settings::{Means, Setting},
    shapes::Input,
};
use crate::Result;

/// Computes an op: its outputs by name.
type Run = fn(&Call) -> Result<Vec<(&'static str, Tensor)>>;

/// An op.
pub(super) struct Entry {
    /// Name, as the authors call their function.
    pub name: &'static str,
    /// Its inputs, in one or two sets of shapes.
    pub inputs: &'static [&'static [Input]],
    /// The input whose shape tells the sets apart.
    pub told_by: &'static str,
    pub settings: &'static [Setting],
    pub run: Run,
}

const fn input(name: &'static str, shapes: &'static [&'static str]) -> Input {
    Input::new(name, shapes)
}

pub(super) const OPS: [Entry; 7] = [
    Entry {
        name: "selective_scan",
        inputs: &[
            &[
                input("u", &["B D L"]),
                input("delta", &["B D L"]),
                input("A", &["D N"]),
                input("B", &["B N L", "B G N L", "D N"]),
                input("C", &["B N L", "B G N L", "D N"]),
                input("D", &["D"]).optional(),
                input("z", &["B D L"]).optional(),
                input("delta_bias", &["D"]).optional(),
            ],
            // Complex: (re, im) on a last axis of 2, or in turn along the length.
            &[
                input("u", &["B D L"]),
                input("delta", &["B D L"]),
                input("A", &["D N 2"]),
                input("B", &["B N 2L", "B G N 2L", "D N 2"]),
                input("C", &["B N 2L", "B G N 2L", "D N 2"]),
                input("D", &["D"]).optional(),
                input("z", &["B D L"]).optional(),
                input("delta_bias", &["D"]).optional(),
            ],
        ],
        told_by: "A",
        settings: &[
            ("delta_softplus", Means::Flag),
            ("return_last_state", Means::Wants("last_state")),
            ("B", Means::Coefficient),
            ("C", Means::Coefficient),
            ("groups", Means::Groups),
            ("complex_A", Means::Second),
            ("has_D", Means::Has("D")),
            ("has_z", Means::Has("z")),
            ("has_delta_bias", Means::Has("delta_bias")),
            ("batch", Means::Size("B")),
            ("length", Means::Size("L")),
            ("dtype", Means::Dtype),
        ],
        run: ops::scan,
    },
    Entry {
        name: "vmamba_selective_scan",
        // D is K times the channels of a direction, G is K.
        inputs: &[&[
            input("u", &["B D L"]),
            input("delta", &["B D L"]),
            input("A", &["D N"]),
            input("B", &["B N L", "B G N L"]),
            input("C", &["B N L", "B G N L"]),
            input("D", &["D"]).optional(),
            input("delta_bias", &["D"]).optional(),
        ]],
        told_by: "u",
        settings: &[
            ("delta_softplus", Means::Flag),
            ("oflex", Means::Flag),
            ("groups", Means::Groups),
            ("has_D", Means::Has("D")),
            ("has_delta_bias", Means::Has("delta_bias")),
            ("batch", Means::Size("B")),
            ("length", Means::Size("L")),
            ("dtype", Means::Dtype),
        ],
        run: ops::vmamba_scan,
    },
    Entry {
        name: "selective_state_update",
        inputs: &[
            &[
                input("state", &["B P N"]),
                input("x", &["B P"]),
                input("dt", &["B P"]),
                input("A", &["P N"]),
                input("B", &["B N", "B 1 N"]),
                input("C", &["B N", "B 1 N"]),
                input("D", &["P"]).optional(),
                input("z", &["B P"]).optional(),
                input("dt_bias", &["P"]).optional(),
            ],
            &[
                input("state", &["B H P N"]),
                input("x", &["B H P"]),
                input("dt", &["B H P"]),
                input("A", &["H P N"]),
                input("B", &["B N", "B G N"]),
                input("C", &["B N", "B G N"]),
                input("D", &["H P"]).optional(),
                input("z", &["B H P"]).optional(),
                input("dt_bias", &["H P"]).optional(),
            ],
        ],
        told_by: "state",
        settings: &[
            ("dt_softplus", Means::Flag),
            ("heads", Means::Second),
            ("ngroups", Means::Size("G")),
            ("has_D", Means::Has("D")),
            ("has_z", Means::Has("z")),
            ("has_dt_bias", Means::Has("dt_bias")),
            ("batch", Means::Size("B")),
        ],
        run: ops::state_update,
    },
    Entry {
        name: "causal_conv1d",
        inputs: &[&[
            input("x", &["B D L"]),
            input("weight", &["D W"]),
            input("bias", &["D"]).optional(),
            input("initial_states", &["B D W-1"]).optional(),
            input("seq_idx", &["B L"]).optional().whole(),
        ]],
        told_by: "x",
        settings: &[
            ("activation", Means::Activation),
            ("return_final_states", Means::Wants("final_states")),
            ("width", Means::Size("W")),
            ("has_bias", Means::Has("bias")),
            ("has_initial_states", Means::Has("initial_states")),
            ("has_seq_idx", Means::Has("seq_idx")),
            ("batch", Means::Size("B")),
            ("length", Means::Size("L")),
            ("dtype", Means::Dtype),
        ],
        run: ops::conv,
    },
    Entry {
        name: "causal_conv1d_update",
        inputs: &[
            &[
                input("x", &["B D L", "B D"]),
                input("conv_state", &["B D S"]),
                input("weight", &["D W"]),
                input("bias", &["D"]).optional(),
                input("cache_seqlens", &["B"]).optional().whole(),
            ],
            // M caches, and which of them each sample has.
            &[
                input("x", &["B D L", "B D"]),
                input("conv_state", &["M D S"]),
                input("weight", &["D W"]),
                input("bias", &["D"]).optional(),
                input("cache_seqlens", &["B"]).optional().whole(),
                input("conv_state_indices", &["B"]).whole(),
            ],
        ],
        told_by: "conv_state_indices",
        settings: &[
            ("activation", Means::Activation),
            ("width", Means::Size("W")),
            ("state_len", Means::Size("S")),
            ("circular", Means::Has("cache_seqlens")),
            ("has_bias", Means::Has("bias")),
            ("batch", Means::Size("B")),
            ("dtype", Means::Dtype),
        ],
        run: ops::conv_update,
    },
    Entry {
        name: "causal_conv1d_varlen_states",
        inputs: &[&[input("x", &["T D"]), input("cu_seqlens", &["E"]).whole()]],
        told_by: "x",
        settings: &[("state_len", Means::Rows)],
        run: ops::varlen_states,
    },
    Entry {
        name: "mamba_inner",
        inputs: &[&[
            input("A", &["D N"]),
            input("xz", &["B 2D L"]),
            input("conv1d_weight", &["D 1 W"]),
            input("conv1d_bias", &["D"]).optional(),
            input("delta_proj_weight", &["D R"]),
            // R rows of delta, and N each of B and C where they are not given.
            input("x_proj_weight", &["E D"]),
            input("out_proj_weight", &["M D"]),
            input("out_proj_bias", &["M"]).optional(),
            input("B", &["B N L", "B G N L", "D N"]).optional(),
            input("C", &["B N L", "B G N L", "D N"]).optional(),
            input("D", &["D"]).optional(),
            input("delta_bias", &["D"]).optional(),
            input("B_proj_bias", &["N"]).optional(),
            input("C_proj_bias", &["N"]).optional(),
        ]],
        told_by: "A",
        settings: &[
            ("delta_softplus", Means::Flag),
            ("complex_A", Means::Second),
            ("const_B", Means::Has("B")),
            ("const_C", Means::Has("C")),
            ("width", Means::Size("W")),
            ("dt_rank", Means::Size("R")),
            ("has_D", Means::Has("D")),
            ("has_delta_bias", Means::Has("delta_bias")),
            ("batch", Means::Size("B")),
            ("length", Means::Size("L")),
        ],
        run: ops::mamba_inner,
    },
];
