// The walk of the state of a slab over the chunks of its order, or of its gradient back over them, in registers.
#pragma once

#include "ssd.cuh"

// How the warps of a walk divide WIDTH x STATES: `ACROSS` of them along the channels, the others along the states.
#if CHANNEL_BLOCKS % 4 == 0 && STRIPS >= 4
#define ACROSS 4
#elif CHANNEL_BLOCKS % 2 == 0
#define ACROSS 2
#else
#define ACROSS 1
#endif
#define ALONG (STRIPS / ACROSS)
#define OWN_CHANNELS (CHANNEL_BLOCKS / ACROSS)
#define OWN_STATES ((STATE_BLOCKS + ALONG - 1) / ALONG)

// A warp's share of the state: the sums of its blocks.
struct State {
    float v[OWN_CHANNELS][OWN_STATES][2][4];
};

DEVICE int own_channel(int i) { return (warp_id() % ACROSS * OWN_CHANNELS + i) * 16; }
// At or behind STATES for a block that is not there.
DEVICE int own_state(int j) { return (warp_id() / ACROSS + j * ALONG) * 16; }

// For every channel of the warp's, to = row(channel), and each(to, n, v0, v1) for the values of states n and n + 1.
template <class Row, class Each>
DEVICE void visit(State& state, Row row, Each each) {
#pragma unroll
    for (int i = 0; i < OWN_CHANNELS; i++)
#pragma unroll
        for (int r = 0; r < 4; r += 2) {
            auto to = row(own_channel(i) + sum_row(r));
#pragma unroll
            for (int j = 0; j < OWN_STATES * 2; j++) {
                int n = own_state(j / 2);
                if (n < STATES) each(to, n + sum_column(j % 2, 0), state.v[i][j / 2][j % 2][r], state.v[i][j / 2][j % 2][r + 1]);
            }
        }
}

// From (B, K, H, P, N), null for zeros.
DEVICE void load_state(const Arguments& a, const Sequence& s, const Slab& slab, const float* from, State& state) {
    visit(state, [&](int channel) {
        long long at = from ? state_at(a, s, slab, channel) : -1;
        return at >= 0 ? from + at : nullptr;
    }, [](const float* row, int n, float& v0, float& v1) {
        v0 = row && n < D_STATE ? row[n] : 0.0f;
        v1 = row && n + 1 < D_STATE ? row[n + 1] : 0.0f;
    });
}

DEVICE void store_state(const Arguments& a, const Sequence& s, const Slab& slab, float* to, State& state) {
    visit(state, [&](int channel) {
        long long at = state_at(a, s, slab, channel);
        return at >= 0 ? to + at : nullptr;
    }, [](float* row, int n, float v0, float v1) {
        if (row) put_two(row + n, v0, v1, D_STATE - n, D_STATE % 2 == 0 && n < D_STATE);
    });
}

// From, and to, a slab of f32.
DEVICE void load_carry(const float* from, State& state) {
    visit(state, [&](int channel) { return from + channel * STATES; }, [](const float* row, int n, float& v0, float& v1) {
        float2 both = *(const float2*)(row + n);
        v0 = both.x, v1 = both.y;
    });
}

DEVICE void store_carry(float* to, State& state) {
    visit(state, [&](int channel) { return to + channel * STATES; },
          [](float* row, int n, float v0, float v1) { *(float2*)(row + n) = make_float2(v0, v1); });
}

DEVICE void post_state(operand* tile, State& state) {
    visit(state, [&](int channel) { return tile + channel * STATE_STRIDE; },
          [](operand* row, int n, float v0, float v1) { put_operands(row + n, v0, v1); });
}

// What a walk works on: dynamic shared memory.
struct Walk {
    operand rows[CHUNK * WIDTH_STRIDE];      // x, or the gradient of y
    operand fed[CHUNK * STATE_STRIDE];       // B, or C: what they feed to
    operand state[WIDTH * STATE_STRIDE];     // before the chunk
    operand asked[CHUNK * STATE_STRIDE];     // C, of the forward
    Decays decays[HEADS];
    Steps steps;
    // What the block works on, for which registers do not suffice.
    Sequence sequence;
    Slab slab;
};

// state = e state + (weights o rows)^T fed.
template <bool backward>
DEVICE void advance(const Walk& w, State& state) {
    // An mma wants the lanes side by side.
    __syncwarp();
#pragma unroll
    for (int i = 0; i < OWN_CHANNELS; i++) {
        float whole = w.decays[own_channel(i) / SEGMENT].whole;
#pragma unroll
        for (int j = 0; j < OWN_STATES; j++)
#pragma unroll
            for (int v = 0; v < 8; v++) state.v[i][j][v / 4][v % 4] = weighted(state.v[i][j][v / 4][v % 4], whole);
    }
#pragma unroll 1
    for (int k = 0; k < CHUNK; k += K_STEP) {
        Left a[OWN_CHANNELS];
#pragma unroll
        for (int i = 0; i < OWN_CHANNELS; i++) {
            const Decays& d = w.decays[own_channel(i) / SEGMENT];
            left_transposed(a[i], w.rows, WIDTH_STRIDE, own_channel(i), k, backward ? d.rise : d.weight);
        }
#pragma unroll
        for (int j = 0; j < OWN_STATES; j++) {
            int n = own_state(j);
            if (n >= STATES) continue;
            Right b[2];
            right_transposed(b, w.fed, STATE_STRIDE, n, k);
#pragma unroll
            for (int i = 0; i < OWN_CHANNELS; i++) {
                multiply(state.v[i][j][0], a[i], b[0]);
                multiply(state.v[i][j][1], a[i], b[1]);
            }
        }
    }
}

// Walks a slab's state over the chunks of a span, or its gradient back over them. `each(place...)` is called with the state
// before a chunk (behind it, if `backward`) in w.state, unless `probe`: then only what the span leaves of a zero state is
// wanted, and the decay over it.
//
// Grid: slabs of a group fastest, then groups (they read the same rows), spans, directions, samples.
template <bool backward, bool probe, class Each>
DEVICE void walk(const Arguments& a, Walk& w, Each each) {
    long long at = blockIdx.x;
    int slab_index = (int)(at % a.slabs);
    at /= a.slabs;
    int group = (int)(at % a.groups);
    at /= a.groups;
    int span = (int)(at % a.spans);
    int warp = warp_id(), last = backward ? 0 : a.spans - 1;
    // Nobody asks what the last span leaves.
    if (probe && span == last) return;
    if (threadIdx.x == 0) {
        w.sequence = sequence_of(a, at / a.spans);
        w.slab = slab_of(a, group, slab_index);
    }
    __syncthreads();
    const Sequence& s = w.sequence;
    const Slab& slab = w.slab;

    State state;
    const float* outer = backward ? a.dfinal : a.initial;
    if (!probe && span != (backward ? a.spans - 1 : 0)) {
        load_carry(a.carry + slab_at(a, s, slab, a.spans, backward ? span + 1 : span - 1), state);
    } else {
        load_state(a, s, slab, probe ? nullptr : outer, state);
    }
    float reach = 1.0f;
    int first = span * a.span_chunks, end = min(a.chunks, first + a.span_chunks);
    for (int i = 0; i < end - first; i++) {
        int chunk = backward ? end - 1 - i : first + i;
        if (warp == 0) load_steps(a, s, chunk * CHUNK, w.steps);
        __syncthreads();
        if (backward) {
            load_gradients<WALKERS>(a, w.rows, s, slab, w.steps);
            load_coefficients<WALKERS>(a, w.fed, a.c, s, slab.group, w.steps.read);
        } else {
            load_channels<WALKERS>(a, w.rows, a.x, s, slab, w.steps.read);
            load_coefficients<WALKERS>(a, w.fed, a.b, s, slab.group, w.steps.read);
            if (!probe) load_coefficients<WALKERS>(a, w.asked, a.c, s, slab.group, w.steps.read);
        }
        copy_commit();
        // Heads that are not there do as the last one.
        for (int h = warp; h < HEADS; h += STRIPS)
            find_decays(a, s, slab.head + min(h, slab.count - 1), w.steps, w.decays[h]);
        if (!probe) post_state(w.state, state);
        copy_wait<0>();
        __syncthreads();
        if (!probe) each(s, slab, chunk);
        advance<backward>(w, state);
        if (probe && (int)threadIdx.x < HEADS) reach *= w.decays[threadIdx.x].whole;
        __syncthreads();
    }
    if (probe) {
        store_carry(a.carry + slab_at(a, s, slab, a.spans, span), state);
        if ((int)threadIdx.x < slab.count && slab.piece == 0)
            a.reach[(s.index * a.spans + span) * a.heads + slab.head + threadIdx.x] = reach;
    } else if (span == last) {
        float* to = backward ? a.dinitial : a.final_state;
        if (to) store_state(a, s, slab, to, state);
    }
}

// The spans in turn: what each leaves becomes the state behind it. A thread owns one value of a slab.
// Grid: B K G slabs SLAB / WALKERS.
template <bool backward>
DEVICE void carry_over(const Arguments& a) {
    long long at = (long long)blockIdx.x * WALKERS + threadIdx.x;
    int value = (int)(at % SLAB);
    at /= SLAB;
    Slab slab = slab_of(a, (int)(at / a.slabs % a.groups), (int)(at % a.slabs));
    at /= (long long)a.slabs * a.groups;
    if (at >= (long long)a.batch * a.directions) return;
    Sequence s = sequence_of(a, at);
    int channel = value / STATES, n = value % STATES;
    long long outer = state_at(a, s, slab, channel);
    const float* start = backward ? a.dfinal : a.initial;
    float state = start && outer >= 0 && n < D_STATE ? start[outer + n] : 0.0f;
    int head = slab.head + min(channel / SEGMENT, slab.count - 1);
    for (int i = 0; i < a.spans - 1; i++) {
        int span = backward ? a.spans - 1 - i : i;
        float* left = a.carry + slab_at(a, s, slab, a.spans, span) + value;
        state = fmaf(a.reach[(s.index * a.spans + span) * a.heads + head], state, *left);
        *left = state;
    }
}
