// Mamba-2's gated RMS norm (arXiv 2405.21060, section 7.1) over groups of channels, forward and backward:
//
//   norm_before_gate: y = (x rstd w + b) silu(z)       else: v = x silu(z), y = v rstd w + b
//   rstd = 1 / sqrt(mean(x^2 or v^2) + eps)            z and b may be absent
//
// x, y, z and their gradients are `element`; statistics and parameters are f32. A team of `lanes` threads (a power of two
// from 32 to a block) owns a row's group and reads it twice: once from memory, once from the cache.
//
// Floors, for e bytes an element, M = rows times channels:
//   forward   3 e M bytes (x, z, y), 14 M operations
//   backward  5 e M bytes (x, z, dy, dx, dz), 30 M operations
// At most 3 operations a byte in bf16: bandwidth is the floor.
#include "teams.cuh"

struct ForwardArguments {
    const element* x;     // (rows, D)
    const element* z;     // (rows / z_repeat, D), or null
    const float* weight;  // (D)
    const float* bias;    // (D), or null
    element* y;           // (rows, D)
    float* rstd;          // (rows, D / group), or null
    long long x_row, z_row, y_row;
    long long rows;
    int channels, group;
    int z_repeat;         // rows that share a row of z
    int lanes;
    float eps;
    int norm_before_gate;
    int aligned;          // every row and group begins at a multiple of 16 bytes
};

// Grid: (rows by groups) / teams.
KERNEL __launch_bounds__(THREADS, 4) gated_rms_norm_forward(ForwardArguments a) {
    __shared__ float shared[WARPS];
    Team me = team(a.lanes);
    int groups = a.channels / a.group;
    long long unit = (long long)blockIdx.x * me.count + me.index;
    bool there = unit < a.rows * groups;
    long long row = there ? unit / groups : 0;
    int first = there ? (int)(unit % groups) * a.group : 0;
    int size = there ? a.group : 0;
    const element* x = a.x + row * a.x_row + first;
    const element* z = a.z ? a.z + row / a.z_repeat * a.z_row + first : nullptr;
    bool gate_first = z && !a.norm_before_gate, gate_last = z && a.norm_before_gate;
    float v[VECTOR], g[VECTOR];
    float squares = 0.0f;
    for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
        int count = min(VECTOR, size - d);
        bool whole = a.aligned && count == VECTOR;
        load_part(x + d, v, count, whole);
        if (gate_first) load_part(z + d, g, count, whole);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float value = gate_first ? v[i] * silu(g[i]) : v[i];
            squares = fmaf(value, value, squares);
        }
    }
    squares = team_sum(me, squares, shared);
    float rstd = rsqrtf(squares / (float)a.group + a.eps);
    if (there && a.rstd && me.lane == 0) a.rstd[unit] = rstd;
    for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
        int count = min(VECTOR, size - d);
        bool whole = a.aligned && count == VECTOR;
        float weight[VECTOR], bias[VECTOR];
        load_part(x + d, v, count, whole);
        if (z) load_part(z + d, g, count, whole);
        load_floats(a.weight + first + d, weight, count, whole);
        fill(bias, 0.0f);
        if (a.bias) load_floats(a.bias + first + d, bias, count, whole);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float gate = z ? silu(g[i]) : 1.0f;
            float value = gate_first ? v[i] * gate : v[i];
            value = fmaf(value * rstd, weight[i], bias[i]);
            v[i] = gate_last ? value * gate : value;
        }
        store_part(a.y + row * a.y_row + first + d, v, count, whole);
    }
}

struct BackwardArguments {
    const element* x;
    const element* z;
    const float* weight;
    const float* bias;
    const float* rstd;    // (rows, D / group)
    const element* dy;    // (rows, D)
    element* dx;          // (rows, D)
    element* dz;          // (rows, D), or null: one row for each of x
    float* parts;         // (blocks, 2, D): shares of the gradients of weight and bias
    long long x_row, z_row, dy_row, dx_row, dz_row;
    long long rows;
    int channels, group;
    int z_repeat;
    int lanes;
    int norm_before_gate;
    int aligned;
    int roomy;            // whether 8 group bytes of shared memory a team were given; else one team, and `parts` serves
};

// With v what is normed, hat = v rstd, n = hat w + b, dn the gradient of n:
//   dv = rstd (dn w - hat mean(dn w hat)), dw = sum dn hat, db = sum dn
// Grid: parts, groups; teams take rows in turns.
KERNEL __launch_bounds__(THREADS, 3) gated_rms_norm_backward(BackwardArguments a) {
    __shared__ float shared[WARPS];
    DYNAMIC_SHARED(dynamic);
    Team me = team(a.lanes);
    int first = (int)blockIdx.y * a.group, step;
    float* sums = team_parts(me, (float*)dynamic, a.parts, a.roomy, a.group, a.channels, first, step);
    for (long long base = (long long)blockIdx.x * me.count; base < a.rows; base += (long long)gridDim.x * me.count) {
        bool there = base + me.index < a.rows;
        long long row = there ? base + me.index : 0;
        int size = there ? a.group : 0;
        const element* x = a.x + row * a.x_row + first;
        const element* z = a.z ? a.z + row / a.z_repeat * a.z_row + first : nullptr;
        const element* dy = a.dy + row * a.dy_row + first;
        bool gate_first = z && !a.norm_before_gate, gate_last = z && a.norm_before_gate;
        float rstd = there ? a.rstd[row * (a.channels / a.group) + blockIdx.y] : 0.0f;
        float v[VECTOR], g[VECTOR], dv[VECTOR], weight[VECTOR], bias[VECTOR];
        float shift = 0.0f;
        for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
            int count = min(VECTOR, size - d);
            bool whole = a.aligned && count == VECTOR;
            load_part(x + d, v, count, whole);
            load_part(dy + d, dv, count, whole);
            if (z) load_part(z + d, g, count, whole);
            load_floats(a.weight + first + d, weight, count, whole);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                float gate = z ? silu(g[i]) : 1.0f;
                float hat = (gate_first ? v[i] * gate : v[i]) * rstd;
                float dn = gate_last ? dv[i] * gate : dv[i];
                shift = fmaf(dn * weight[i], hat, shift);
            }
        }
        shift = team_sum(me, shift, shared) / (float)a.group;
        for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
            int count = min(VECTOR, size - d);
            bool whole = a.aligned && count == VECTOR;
            load_part(x + d, v, count, whole);
            load_part(dy + d, dv, count, whole);
            if (z) load_part(z + d, g, count, whole);
            load_floats(a.weight + first + d, weight, count, whole);
            fill(bias, 0.0f);
            if (a.bias) load_floats(a.bias + first + d, bias, count, whole);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                float s = z ? sigmoid(g[i]) : 1.0f, gate = z ? g[i] * s : 1.0f;
                float hat = (gate_first ? v[i] * gate : v[i]) * rstd;
                float dn = gate_last ? dv[i] * gate : dv[i];
                float normed = rstd * fmaf(-hat, shift, dn * weight[i]);
                float gated = gate_first ? v[i] : fmaf(hat, weight[i], bias[i]);  // what the gate multiplies
                if (i < count) {
                    sums[d + i] = fmaf(dn, hat, sums[d + i]);
                    sums[step + d + i] += dn;
                }
                if (z) g[i] = gated * (gate_first ? normed : dv[i]) * silu_slope(g[i], s);
                v[i] = gate_first ? normed * gate : normed;
            }
            store_part(a.dx + row * a.dx_row + first + d, v, count, whole);
            if (a.dz) store_part(a.dz + row * a.dz_row + first + d, g, count, whole);
        }
    }
    block_parts(me, (const float*)dynamic, a.parts, a.roomy, a.group, a.channels, first);
}
