// What the kernels of Mamba-2's SSD share: arguments, who works on what, tiles, decays, and the walk of a state.
//
//   dt = clamp(softplus(dt + bias)),  S = exp(dt A) S + dt x B^T,  y = (S C + D x) silu(z)
//
// for each head along the steps of K orders (`read`: the token of each step, BLANK, or END behind the last step). S is P x N.
// A blank step decays the state and feeds nothing; a reset clears the state before its step. All as on the CPU.
//
// Steps are taken in chunks of Q (section 6 of arXiv 2405.21060). With L the decays from step s to step q >= s of a chunk
// (0 over a reset), r those from its start, f those to its end, e that of all of it:
//
//   Y = r (C S^T) + (C B^T o L dt) X          S' = e S + (f dt X)^T B
//
// Macros: DTYPE; HEADDIM, P; D_STATE, N; CHUNK, Q (32, 64 or 128); WIDTH, the channels of a slab.
//
// Masks are products with 0. So a NaN of x reaches other steps of its chunk, in its channel and even over a reset, which on
// the CPU it does not; no state takes it over a reset, but one of B or dt it does. The op's doc says so; a mask by selection
// would cost the products' inner loops an instruction an operand.
//
// A slab is what one block carries the state of: whole heads, each padded to a multiple of 16 channels, or, where a head is
// wider than WIDTH, a piece of one. Channels of a head never mix, so a piece is a head of its own but for its sums.
#pragma once

#include "fragments.cuh"

#ifndef HEADDIM
#define HEADDIM 64
#define D_STATE 128
#define CHUNK 64
#define WIDTH 64
#endif

#define HEAD_PADDED ((HEADDIM + 15) / 16 * 16)
#define STATES ((D_STATE + 15) / 16 * 16)
#if HEAD_PADDED <= WIDTH
// Heads of a slab, pieces of a head, channels of either in a slab.
#define HEADS (WIDTH / HEAD_PADDED)
#define PIECES 1
#define SEGMENT HEAD_PADDED
#else
#define HEADS 1
#define PIECES ((HEADDIM + WIDTH - 1) / WIDTH)
#define SEGMENT WIDTH
#endif
// Strips of 16 steps.
#define STRIPS (CHUNK / 16)
// Blocks of 16 channels, of 16 states.
#define CHANNEL_BLOCKS (WIDTH / 16)
#define STATE_BLOCKS (STATES / 16)
// Elements from row to row of a tile.
#define WIDTH_STRIDE (WIDTH + GAP)
#define STATE_STRIDE (STATES + GAP)
#define SLAB (WIDTH * STATES)

// Threads of a walk: a warp for each strip.
#define WALKERS (CHUNK * 2)
// Its blocks on a multiprocessor, as far as registers go: 168 a thread where 64 hold the state and an operand is one.
#ifndef BLOCKS
#define BLOCKS ((DTYPE == 1 && WIDTH * STATES <= 64 * WALKERS ? 384 : 256) / WALKERS)
#endif

// (B, L, K, channels), (B, L, K, G, N), (B, L, K, H); channels, states and heads lie side by side. Strides in elements.
struct View {
    const element* data;
    long long batch, token, direction, group;
};

// Rows by token, (B, L, K, width); or, where an order visits a token twice or directions share a row, f32 by step,
// (B, K, T, width), to be summed over a token's visits afterwards, in a fixed order.
struct Output {
    element* rows;
    float* steps;
    long long batch, token, direction;
};

struct Arguments {
    View x, dt, z, b, c, dy;       // z may be null
    const float* a;                // (K, H)
    const float* d;                // (K, H P), or (K, H) if d_per_head, or null
    const float* bias;             // (K, H), or null
    const float* initial;          // (B, K, H, P, N), or null
    const int* read;               // (K, T) or (B, K, T)
    const int* written;            // likewise: token that each step writes, or BLANK; null: the one that is read
    const unsigned char* resets;   // likewise, or null
    Output y;
    element* ungated;              // (B, K, T, H P): y before the gate, for the backward; or null
    float* final_state;            // (B, K, H, P, N), or null
    operand* checkpoints;          // (B, K, chunks, G, slabs, WIDTH, STATES): the state before each chunk; or null
    float* carry;                  // (B, K, spans, G, slabs, WIDTH, STATES): what spans leave behind
    float* reach;                  // (B, K, spans, H): the decay over a span
    // The backward.
    const float* dfinal;           // (B, K, H, P, N), or null
    operand* behind;               // as checkpoints: the gradient of the state behind each chunk
    Output dx, ddt, dz;
    float* db_parts;               // (B, K, T, G, parts, N): by step, or by token (L for T) if coefficients_by_token
    float* dc_parts;
    float* da_parts;               // (B, chunks, K, H)
    float* dd_parts;               // (B, chunks, K, H P), or (…, H) if d_per_head; null without D
    float* dbias_parts;            // (B, chunks, K, H), or null
    float* dinitial;               // (B, K, H, P, N), or null
    float low, high;               // limits of dt
    int batch, directions, heads, groups, tokens, steps;
    int per_sample, softplus, d_per_head;
    int aligned;                   // bit 0: rows of channels begin at multiples of 16 bytes, bit 1: those of B and C
    int chunks, spans, span_chunks;
    int slabs;                     // of a group
    int parts, strip;              // partial sums of dB and dC a group; slabs of each
    int coefficients_by_token;
};

// ---- who works on what ---------------------------------------------------------------------------------------------

// Sample and direction.
struct Sequence {
    int b, k;
    long long index;               // b K + k
};

DEVICE Sequence sequence_of(const Arguments& a, long long index) {
    Sequence s;
    s.index = index;
    s.k = (int)(index % a.directions);
    s.b = (int)(index / a.directions);
    return s;
}

struct Slab {
    int group, index;              // of the group
    int head, count;               // its first head; heads of HEADS that there are
    int piece, width;              // first channel within the head, channels of HEADDIM from there on
    int channel;                   // head HEADDIM + piece
};

DEVICE Slab slab_of(const Arguments& a, int group, int index) {
    int per_group = a.heads / a.groups, first = index / PIECES * HEADS;
    Slab s;
    s.group = group;
    s.index = index;
    s.head = group * per_group + first;
    s.count = min(HEADS, per_group - first);
    s.piece = index % PIECES * WIDTH;
    s.width = min(SEGMENT, HEADDIM - s.piece);
    s.channel = s.head * HEADDIM + s.piece;
    return s;
}

// Where a slab's states lie in (B, K, count, G, slabs, WIDTH, STATES).
DEVICE long long slab_at(const Arguments& a, const Sequence& s, const Slab& slab, int count, int i) {
    return (((s.index * count + i) * a.groups + slab.group) * a.slabs + slab.index) * SLAB;
}

// Where a channel's states lie in (B, K, H, P, N); -1 for padding.
DEVICE long long state_at(const Arguments& a, const Sequence& s, const Slab& slab, int channel) {
    int head = channel / SEGMENT, p = channel % SEGMENT;
    if (head >= slab.count || p >= slab.width) return -1;
    return ((s.index * a.heads + slab.head + head) * HEADDIM + slab.piece + p) * D_STATE;
}

// ---- steps of a chunk ----------------------------------------------------------------------------------------------

struct Steps {
    int read[CHUNK], written[CHUNK];
    int resets[CHUNK];             // so far, the step's own included
};

// By a whole warp.
DEVICE void load_steps(const Arguments& a, const Sequence& s, int first, Steps& to) {
    int lane = lane_id(), before = 0;
#pragma unroll
    for (int i = 0; i < CHUNK; i += 32) {
        int q = i + lane, t = first + q;
        long long at = (a.per_sample ? s.index : s.k) * (long long)a.steps + t;
        bool here = t < a.steps;
        to.read[q] = here ? a.read[at] : END;
        to.written[q] = !here ? BLANK : a.written ? a.written[at] : a.read[at];
        u32 marks = __ballot_sync(FULL_WARP, here && a.resets && a.resets[at]);
        to.resets[q] = before + __popc(marks & (0xffffffffu >> (31 - lane)));
        before += __popc(marks);
    }
}

struct Decays {
    float dt[CHUNK], slope[CHUNK];
    float high[CHUNK], low[CHUNK]; // log2 of the decay from the start over the step: a sum that f32 alone cannot hold
    float rise[CHUNK];             // r
    float fall[CHUNK];             // f
    float weight[CHUNK];           // f dt
    float whole;                   // e
};

// Of one head, by a whole warp, whose lanes own CHUNK / 32 steps each.
DEVICE void find_decays(const Arguments& a, const Sequence& s, int head, const Steps& steps, Decays& to) {
    const int each = CHUNK / 32;
    int lane = lane_id();
    long long parameter = (long long)s.k * a.heads + head;
    float bias = a.bias ? a.bias[parameter] : 0.0f;
    double rate = (double)a.a[parameter] * 1.4426950408889634, sums[each], sum = 0.0;
    const element* from = a.dt.data + s.b * a.dt.batch + s.k * a.dt.direction + head;
    float sizes[each];
#pragma unroll
    for (int i = 0; i < each; i++) {
        int q = lane * each + i, token = steps.read[q];
        float dt = token >= 0 ? widen(from[token * a.dt.token]) + bias : bias, slope = 1.0f;
        if (a.softplus) dt = softplus(dt, slope);
        if (dt < a.low || dt > a.high) slope = 0.0f;
        dt = clamp(dt, a.low, a.high);
        if (token == END) dt = 0.0f, slope = 0.0f;
        sizes[i] = dt;
        to.dt[q] = dt;
        to.slope[q] = slope;
        sum += rate * (double)dt;
        sums[i] = sum;
    }
    double before = sum;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        double other = __shfl_up_sync(FULL_WARP, before, by);
        if (lane >= by) before += other;
    }
    double end = __shfl_sync(FULL_WARP, before, 31);
    before -= sum;
    int last = steps.resets[CHUNK - 1];
#pragma unroll
    for (int i = 0; i < each; i++) {
        int q = lane * each + i, resets = steps.resets[q];
        double at = before + sums[i];
        float high = (float)at, fall = resets == last ? exp2_fast((float)(end - at)) : 0.0f;
        to.high[q] = high;
        to.low[q] = (float)(at - (double)high);
        to.rise[q] = resets == 0 ? exp2_fast(high) : 0.0f;
        to.fall[q] = fall;
        to.weight[q] = fall * sizes[i];
    }
    if (lane == 0) to.whole = last == 0 ? exp2_fast((float)end) : 0.0f;
}

// L: the decay from step s to step q; 0 unless s <= q with no reset between.
DEVICE float decay_between(const Decays& d, const Steps& steps, int q, int s) {
    float passed = exp2_fast((d.high[q] - d.high[s]) + (d.low[q] - d.low[s]));
    return s <= q && steps.resets[s] == steps.resets[q] ? passed : 0.0f;
}

// ---- tiles ---------------------------------------------------------------------------------------------------------

// Where rows of a sample and direction begin.
DEVICE const element* base(const View& v, const Sequence& s) {
    return v.data + s.b * v.batch + s.k * v.direction;
}

// A vector of a tile: `count` elements at `from` (null: zeros), `whole` if all are there and aligned. Under way until
// copy_wait.
DEVICE void copy_vector(operand* to, const element* from, int count, bool whole) {
#if DTYPE != 2
    if (from && whole) {
        copy_async(to, from, true);
        return;
    }
#endif
    float v[VECTOR];
    fill(v, 0.0f);
    if (from) load_part(from, v, count, whole);
    store_operands(to, v);
}

// Step, column, and place in the channels (from the slab's first on) of a vector of a tile of channels.
struct Spot {
    int q, column, channel, count;
};

DEVICE Spot spot(const Slab& slab, int i) {
    const int vectors = WIDTH / VECTOR;
    Spot s;
    s.q = i / vectors;
    s.column = i % vectors * VECTOR;
    int head = s.column / SEGMENT, p = s.column % SEGMENT;
    s.channel = head * HEADDIM + p;
    s.count = head < slab.count ? max(0, min(VECTOR, slab.width - p)) : 0;
    return s;
}

// Rows of a slab's channels.
template <int threads>
DEVICE void load_channels(const Arguments& a, operand* tile, const View& view, const Sequence& s, const Slab& slab, const int* tokens) {
    const element* from = base(view, s) + slab.channel;
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < CHUNK * WIDTH / VECTOR; i += threads) {
        Spot at = spot(slab, i);
        int token = tokens[at.q];
        const element* row = token >= 0 && at.count > 0 ? from + token * view.token + at.channel : nullptr;
        copy_vector(tile + at.q * WIDTH_STRIDE + at.column, row, at.count, (a.aligned & 1) && at.count == VECTOR);
    }
}

// The gradient of y before the gate: dy silu(z).
template <int threads>
DEVICE void load_gradients(const Arguments& a, operand* tile, const Sequence& s, const Slab& slab, const Steps& steps) {
    if (!a.z.data) {
        load_channels<threads>(a, tile, a.dy, s, slab, steps.written);
        return;
    }
    const element* dy = base(a.dy, s) + slab.channel;
    const element* z = base(a.z, s) + slab.channel;
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < CHUNK * WIDTH / VECTOR; i += threads) {
        Spot at = spot(slab, i);
        int token = steps.written[at.q];
        bool whole = (a.aligned & 1) && at.count == VECTOR;
        float v[VECTOR], gate[VECTOR];
        fill(v, 0.0f);
        if (token >= 0 && at.count > 0) {
            load_part(dy + token * a.dy.token + at.channel, v, at.count, whole);
            load_part(z + token * a.z.token + at.channel, gate, at.count, whole);
#pragma unroll
            for (int j = 0; j < VECTOR; j++) v[j] *= silu(gate[j]);
        }
        store_operands(tile + at.q * WIDTH_STRIDE + at.column, v);
    }
}

// Rows of B or C.
template <int threads>
DEVICE void load_coefficients(const Arguments& a, operand* tile, const View& view, const Sequence& s, int group, const int* tokens) {
    const int vectors = STATES / VECTOR;
    const element* from = base(view, s) + group * view.group;
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < CHUNK * vectors; i += threads) {
        int q = i / vectors, n = i % vectors * VECTOR, token = tokens[q], count = min(VECTOR, D_STATE - n);
        const element* row = token >= 0 && count > 0 ? from + token * view.token + n : nullptr;
        copy_vector(tile + q * STATE_STRIDE + n, row, count, (a.aligned & 2) && count == VECTOR);
    }
}

// Two neighbouring values of a row, of `count` that are left; `pair`: both are there, at a multiple of their size.
DEVICE void put_two(float* to, float v0, float v1, int count, bool pair) {
    if (pair) {
        *(float2*)to = make_float2(v0, v1);
        return;
    }
    if (count > 0) to[0] = v0;
    if (count > 1) to[1] = v1;
}

#if DTYPE != 0
DEVICE void put_two(element* to, float v0, float v1, int count, bool pair) {
    if (pair) {
        *(u32*)to = pack(v0, v1);
        return;
    }
    if (count > 0) to[0] = narrow(v0);
    if (count > 1) to[1] = narrow(v1);
}
#endif

DEVICE void get_two(const element* from, float& v0, float& v1, int count, bool pair) {
    if (pair) {
#if DTYPE == 0
        float2 both = *(const float2*)from;
        v0 = both.x, v1 = both.y;
#else
        u32 both = *(const u32*)from;
        v0 = widen((element)both), v1 = widen((element)(both >> 16));
#endif
        return;
    }
    v0 = count > 0 ? widen(from[0]) : 0.0f;
    v1 = count > 1 ? widen(from[1]) : 0.0f;
}

// What D multiplies two neighbouring channels by: the first is channel p of the slab's head number h.
DEVICE void skip_of(const Arguments& a, const Sequence& s, const Slab& slab, int h, int p, float& v0, float& v1) {
    long long parameters = (long long)s.k * a.heads;
    v0 = v1 = 0.0f;
    if (!a.d) return;
    if (a.d_per_head) {
        v0 = v1 = a.d[parameters + slab.head + h];
        return;
    }
    const float* d = a.d + parameters * HEADDIM + slab.channel + h * HEADDIM + p;
    v0 = d[0];
    if (p + 1 < slab.width) v1 = d[1];
}

// A slab's states, which lie as operands side by side.
#define OPERANDS ((int)(16 / sizeof(operand)))

template <int threads>
DEVICE void load_slab(operand* tile, const operand* from) {
    const int vectors = STATES / OPERANDS;
    for (int i = (int)threadIdx.x; i < WIDTH * vectors; i += threads)
        copy_async(tile + i / vectors * STATE_STRIDE + i % vectors * OPERANDS, from + i * OPERANDS, true);
}

template <int threads>
DEVICE void save_slab(operand* to, const operand* tile) {
    const int vectors = STATES / OPERANDS;
    for (int i = (int)threadIdx.x; i < WIDTH * vectors; i += threads)
        *(uint4*)(to + i * OPERANDS) = *(const uint4*)(tile + i / vectors * STATE_STRIDE + i % vectors * OPERANDS);
}
