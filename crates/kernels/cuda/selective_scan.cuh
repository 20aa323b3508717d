// What the kernels of the selective scan share: their arguments, who works on what, and how rows come in.
//
//   dt = softplus(delta + bias),  h_n = exp(dt A_n) h_n + dt B_n u,  y = (sum_n C_n h_n + D u) silu(z)
//
// along the steps of K orders (`read`: the token of each step, BLANK, or END behind the last step). A blank step reads zeros
// and writes nothing; a reset clears the state before its step. B, C, D, z, bias, initial state as on the CPU.
//
// Macros: D_STATE, N; SPLIT, the threads (a power of two) that share the states of one channel, side by side in a warp;
// THREADS of a block; BLOCKS that a multiprocessor is to hold, which bounds the registers; TILE, the steps whose rows are
// in shared memory together, at most 32; DELTA_F32, 1 if delta and its gradient are f32 whatever the activations are, as a
// mixer leaves them under autocast.
//
// A block owns CHANNELS = THREADS / SPLIT channels of one group of one sample, direction and span of the order. Its threads
// have two roles: (channel, share of the states) in the recurrence, and (step of the tile, channel) where rows are read,
// transformed and written: 32 neighbours then touch CHANNELS channels of a row side by side, whatever the order, and the
// softplus of a step and channel is computed once and not by each share.
#pragma once

#include "common.cuh"

#ifndef D_STATE
#define D_STATE 16
#define SPLIT 4
#define THREADS 128
#define BLOCKS 4
#define TILE 8
#endif

#ifndef DELTA_F32
#define DELTA_F32 0
#endif

#if DELTA_F32
typedef float delta_element;
#else
typedef element delta_element;
#endif

#ifndef BLANK
#define BLANK -1
#define END -2
#endif

#define CHANNELS (THREADS / SPLIT)
// Of a thread; those behind D_STATE have B = C = 0.
#define STATES ((D_STATE + SPLIT - 1) / SPLIT)
#define PADDED (STATES * SPLIT)
// Elements of a tile of rows, or of coefficients, of a thread.
#define ROWS ((TILE * CHANNELS + THREADS - 1) / THREADS)
#define COEFFICIENTS ((TILE * D_STATE + THREADS - 1) / THREADS)

// Rows of either type: (B, L, K, D); (B, L, K, G, N) with a stride from group to group. Strides in elements, but from token
// to token in bytes and 32 bits: an address is then one multiplication and addition.
struct AnyView {
    const void* data;
    long long batch, direction, group;
    int token_bytes;
};

// Of rows of T.
template <class T>
struct View : AnyView {};

// Rows by token, (B, L, K, D); or, where an order visits a token twice or directions share a row, f32 by step, (B, K, T, D),
// to be summed over a token's visits afterwards, in a fixed order.
template <class T>
struct Output {
    T* rows;
    float* steps;
    long long batch, direction;
    int token_bytes;
};

struct Arguments {
    View<element> u;
    View<delta_element> delta;
    View<element> z, b, c, dy;     // z may be null
    const float* a;                // (K, D, N)
    const float* d;                // (K, D), or null
    const float* bias;             // (K, D), or null
    const float* initial;          // (B, K, D, N), or null
    const int* read;               // (K, T) or (B, K, T)
    const int* written;            // likewise: token that each step writes, or BLANK; null: the one that is read
    const unsigned char* resets;   // likewise, or null
    Output<element> y;
    float* final_state;            // (B, K, D, N), or null
    float* checkpoints;            // (B, K, chunks, D, N): the state before each chunk; null if there is one span and no backward
    float* reach;                  // (B, K, spans, D): sum of dt over a span; infinite if a reset cuts it
    // The backward.
    const float* dfinal;           // (B, K, D, N), or null
    float* carry;                  // (B, K, spans, D, N): gradient of the state behind each span
    Output<element> du;
    Output<delta_element> ddelta;
    Output<element> dz;
    float* db_parts;               // (B, K, T, G, parts, N): by step, or by token (L for T) if coefficients_by_token
    float* dc_parts;
    float* da_parts;               // (B, spans, K, D, N)
    float* dd_parts;               // (B, spans, K, D)
    float* dbias_parts;            // (B, spans, K, D)
    float* dinitial;               // (B, K, D, N), or null
    int batch, directions, channels, groups, tokens, steps;
    int per_sample, softplus;
    int chunk, chunks;             // steps between checkpoints, a multiple of TILE; their number
    int spans, span_chunks;        // parts of an order that blocks work on at once; chunks of each
    int parts, strip;              // partial sums of dB and dC a group; blocks of channels that add into one
    int coefficients_by_token;
};

// What a block works on.
struct Place {
    int b, k, span, group, block;
    int first, last;               // steps
    long long sequence;            // b K + k
};

// Grid: blocks of channels of all groups fastest (they read the same rows), then spans, directions, samples.
DEVICE Place place(const Arguments& a, int blocks_per_group) {
    Place p;
    long long at = blockIdx.x;
    p.block = (int)(at % blocks_per_group);
    at /= blocks_per_group;
    p.group = (int)(at % a.groups);
    at /= a.groups;
    p.span = (int)(at % a.spans);
    p.sequence = at / a.spans;
    p.k = (int)(p.sequence % a.directions);
    p.b = (int)(p.sequence / a.directions);
    p.first = p.span * a.span_chunks * a.chunk;
    p.last = min(a.steps, p.first + a.span_chunks * a.chunk);
    return p;
}

// Some channels of a group: `channel` and the `count` from it on, of CHANNELS.
struct Block {
    int channel, count;
};

DEVICE Block block_of(const Arguments& a, int group, int index) {
    int per_group = a.channels / a.groups;
    Block block;
    block.channel = group * per_group + index * CHANNELS;
    block.count = min(CHANNELS, per_group - index * CHANNELS);
    return block;
}

// Offset of a channel's states in (sequence, D, N).
DEVICE long long states_at(const Arguments& a, long long sequence, int channel) {
    return (sequence * a.channels + channel) * D_STATE;
}

// ---- steps of a tile -----------------------------------------------------------------------------------------------

// Of one step, in a register of thread q < TILE.
struct Step {
    int read, written;
    bool reset;
};

struct Steps {
    int read[TILE], written[TILE];
    u32 resets;                    // a bit each
};

DEVICE Step load_step(const Arguments& a, const Place& p, int t) {
    Step step = {END, BLANK, false};
    if (t < p.first || t >= p.last) return step;
    long long at = (a.per_sample ? p.sequence : p.k) * (long long)a.steps + t;
    step.read = a.read[at];
    step.written = a.written ? a.written[at] : step.read;
    step.reset = a.resets && a.resets[at];
    return step;
}

// By all threads of the first warp; q is the thread's number.
DEVICE void post_step(Steps& to, const Step& step, int q) {
    u32 resets = __ballot_sync(FULL_WARP, q < TILE && step.reset);
    if (q < TILE) {
        to.read[q] = step.read;
        to.written[q] = step.written;
    }
    if (q == 0) to.resets = resets;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

// Step and channel of a thread's element r of a tile; `here` is false behind the end.
struct Spot {
    int q, c;
    bool here;
};

DEVICE Spot spot(int r, const Block& block) {
    int at = (int)threadIdx.x + r * THREADS;
    Spot s;
    s.q = at / CHANNELS;
    s.c = at % CHANNELS;
    s.here = (ROWS * THREADS == TILE * CHANNELS || s.q < TILE) && s.c < block.count;
    return s;
}

// Of the block's sample and direction.
template <class T>
DEVICE const T* base(const View<T>& view, const Place& p) {
    return (const T*)view.data + p.b * view.batch + p.k * view.direction;
}

template <class T>
DEVICE T* row(T* base, int token, int token_bytes) {
    return (T*)((const char*)base + (long long)token * token_bytes);
}

// A thread's elements of a tile of rows, as they lie in memory; zeros for blank steps.
template <class T>
DEVICE void load_rows(T (&to)[ROWS], const View<T>& view, const Place& p, const int (&tokens)[TILE], const Block& block) {
    const T* own = base(view, p) + block.channel + (int)threadIdx.x % CHANNELS;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        Spot s = spot(r, block);
        int token = s.here ? tokens[s.q] : BLANK;
        to[r] = 0;
        if (token >= 0) to[r] = *row(own, token, view.token_bytes);
    }
}

// Likewise, of B or C.
DEVICE void load_coefficients(element (&to)[COEFFICIENTS], const View<element>& view, const Place& p,
                              const int (&tokens)[TILE]) {
    const element* rows = base(view, p) + p.group * view.group;
#pragma unroll
    for (int r = 0; r < COEFFICIENTS; r++) {
        int at = (int)threadIdx.x + r * THREADS;
        int token = at < TILE * D_STATE ? tokens[at / D_STATE] : BLANK;
        to[r] = 0;
        if (token >= 0) to[r] = row(rows, token, view.token_bytes)[at % D_STATE];
    }
}

DEVICE void post_coefficients(float (&to)[TILE][PADDED], const element (&from)[COEFFICIENTS]) {
#pragma unroll
    for (int r = 0; r < COEFFICIENTS; r++) {
        int at = (int)threadIdx.x + r * THREADS;
        if (at < TILE * D_STATE) to[at / D_STATE][at % D_STATE] = widen(from[r]);
    }
}

// The columns that no state has, once.
DEVICE void clear_padding(float (&to)[TILE][PADDED]) {
#if PADDED > D_STATE
    const int extra = PADDED - D_STATE;
    for (int at = (int)threadIdx.x; at < TILE * extra; at += THREADS) to[at / extra][D_STATE + at % extra] = 0.0f;
#endif
}

// dt, and its slope in delta; 0 for steps that do not happen.
DEVICE float step_size(const Arguments& a, delta_element delta, float bias, bool happens, float& slope) {
    float dt = widen(delta) + bias;
    slope = 1.0f;
    if (a.softplus) dt = softplus(dt, slope);
    return happens ? dt : 0.0f;
}

template <class T>
DEVICE void store(const Arguments& a, const Output<T>& to, const Place& p, int t, int token, int channel, float value) {
    if (token < 0) return;
    if (to.steps) to.steps[(p.sequence * a.steps + t) * a.channels + channel] = value;
    else put(row(to.rows + p.b * to.batch + p.k * to.direction + channel, token, to.token_bytes), value);
}

// ---- states --------------------------------------------------------------------------------------------------------

// A thread's share of a row of PADDED values in shared memory.
DEVICE void load_share(float (&to)[STATES], const float* from) {
    if (STATES % 4 == 0) {
#pragma unroll
        for (int i = 0; i < STATES; i += 4) {
            float4 v = *(const float4*)(from + i);
            to[i] = v.x, to[(i + 1) % STATES] = v.y, to[(i + 2) % STATES] = v.z, to[(i + 3) % STATES] = v.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < STATES; i++) to[i] = from[i];
    }
}

// A thread's share of a channel's N values in global memory, from `from` (null: zeros).
DEVICE void load_states(float (&to)[STATES], const float* from, bool active) {
    int n = (int)threadIdx.x % SPLIT * STATES;
#pragma unroll
    for (int i = 0; i < STATES; i++) to[i] = active && from && n + i < D_STATE ? from[n + i] : 0.0f;
}

DEVICE void store_states(float* to, const float (&from)[STATES], bool active) {
    int n = (int)threadIdx.x % SPLIT * STATES;
#pragma unroll
    for (int i = 0; i < STATES; i++)
        if (active && n + i < D_STATE) to[n + i] = from[i];
}
