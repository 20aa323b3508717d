// The selective scan, forward (see selective_scan.cuh for the equations and the roles of threads).
//
// Long sequences with few samples are cut into spans, so that the whole card works:
//   1. selective_scan_states   every span but the last, from a zero state: the state behind it and the sum of its dt
//   2. selective_scan_carry    the spans in turn: state = exp(A sum dt) state + state of the span, 2 values a state
//   3. selective_scan_forward  every span from the right state: y, checkpoints, final state
// With one span only the third is launched. The host cuts only as far as the card needs: the first pass computes every
// exponential a second time.
//
// Floors on an H200 (132 SMs; 16 exponentials, 128 f32 operations and instructions a clock each; 4.2 TB/s = 18 bytes a
// clock of an SM), in clocks of an SM per (step, channel):
//   bytes        u, delta, z, y: 8 in bf16 (0.44), 10 with delta in f32 (0.56), 16 in f32 (0.88); B and C come from the
//                cache (4 N / D bytes)
//   exponentials N / 16, and 3 for softplus and silu: 1.2 at N = 16
//   arithmetic   4 N, and some 50 for softplus, silu, conversion and addresses: 0.9 at N = 16
// So at N = 16 the exponentials are the floor in both types: the bytes would allow 2.7 times that rate in bf16, 1.35 times
// in f32. At N <= 4 it is the bytes. Hence one exponential a state and step and no second pass unless the card is
// empty; and the rows of the next tile are on their way (in registers) while the recurrence of this one runs, the entries of
// the order one tile further: an order costs other addresses, known in time, and nothing else.
//
// Sums over directions: each writes its own rows, or its own steps in f32, which are then summed by token in a fixed order.
#include "selective_scan.cuh"

struct Tile {
    float2 input[TILE][CHANNELS];  // dt, dt u
    float y[TILE][CHANNELS];       // sum_n C_n h_n
    float direct[TILE][CHANNELS];  // D u
    float gate[TILE][CHANNELS];    // silu(z)
    __align__(16) float b[TILE][PADDED];
    __align__(16) float c[TILE][PADDED];
    Steps steps[3];
};

// What a thread has on its way of a tile.
struct Ahead {
    delta_element delta[ROWS];
    element u[ROWS], z[ROWS], b[COEFFICIENTS], c[COEFFICIENTS];
};

template <bool outputs>
DEVICE void load_ahead(const Arguments& a, const Place& p, const Block& block, const Steps& steps, Ahead& to) {
    load_rows(to.u, a.u, p, steps.read, block);
    load_rows(to.delta, a.delta, p, steps.read, block);
    load_coefficients(to.b, a.b, p, steps.read);
    if (!outputs) return;
    if (a.z.data) load_rows(to.z, a.z, p, steps.read, block);
    load_coefficients(to.c, a.c, p, steps.read);
}

// Steps whose sums over the states are folded together.
#define FOLD (SPLIT < 4 ? SPLIT : 4)

// Sums over the SPLIT shares of FOLD steps: the share j SPLIT / FOLD receives that of step j.
DEVICE float fold_shares(float (&sums)[FOLD]) {
    warp_spread_sum<FOLD, SPLIT, 1>(sums);
    return sums[0];
}

// The step whose sum a share receives; FOLD for none.
DEVICE int folded_step(int share) {
    return share % (SPLIT / FOLD) == 0 ? share / (SPLIT / FOLD) : FOLD;
}

// `outputs`: the third pass; else the first.
template <bool outputs>
DEVICE void scan(const Arguments& a, Tile& tile) {
    int per_group = a.channels / a.groups;
    Place p = place(a, (per_group + CHANNELS - 1) / CHANNELS);
    if (!outputs && p.span == a.spans - 1) return;
    Block block = block_of(a, p.group, p.block);
    int tid = (int)threadIdx.x, c = tid / SPLIT, share = tid % SPLIT;
    bool active = c < block.count;
    int channel = block.channel + (active ? c : 0);

    float decay[STATES], h[STATES], reach = 0.0f;
    load_states(decay, a.a + states_at(a, p.k, channel), active);
#pragma unroll
    for (int i = 0; i < STATES; i++) decay[i] *= LOG2_E;
    const float* from = nullptr;
    if (p.span == 0) from = a.initial ? a.initial + states_at(a, p.sequence, channel) : nullptr;
    else if (outputs) from = a.checkpoints + states_at(a, p.sequence * a.chunks + p.span * a.span_chunks, channel);
    load_states(h, from, active);

    // Of the channel whose rows this thread transforms: always the same.
    int row_channel = tid % CHANNELS;
    bool row_active = row_channel < block.count;
    long long parameter = (long long)p.k * a.channels + block.channel + row_channel;
    float bias = a.bias && row_active ? a.bias[parameter] : 0.0f;
    float skip = a.d && row_active ? a.d[parameter] : 0.0f;

    clear_padding(tile.b);
    clear_padding(tile.c);
    if (tid < 32)
        for (int i = 0; i < 2; i++) post_step(tile.steps[i], load_step(a, p, tid < TILE ? p.first + i * TILE + tid : -1), tid);
    __syncthreads();
    Ahead ahead;
    load_ahead<outputs>(a, p, block, tile.steps[0], ahead);

    int turn = 0, folded = folded_step(share);
    for (int start = p.first; start < p.last; start += TILE) {
        const Steps& steps = tile.steps[turn];
        int next = turn == 2 ? 0 : turn + 1, after = next == 2 ? 0 : next + 1;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            Spot s = spot(r, block);
            if (ROWS * THREADS != TILE * CHANNELS && s.q >= TILE) continue;
            float slope, u = widen(ahead.u[r]);
            float dt = step_size(a, ahead.delta[r], bias, steps.read[s.q] != END, slope);
            tile.input[s.q][s.c] = make_float2(dt, dt * u);
            if (!outputs) continue;
            tile.direct[s.q][s.c] = skip * u;
            if (a.z.data) tile.gate[s.q][s.c] = silu(widen(ahead.z[r]));
        }
        post_coefficients(tile.b, ahead.b);
        if (outputs) post_coefficients(tile.c, ahead.c);
        __syncthreads();
        Step later = {END, BLANK, false};
        if (tid < TILE) later = load_step(a, p, start + 2 * TILE + tid);
        if (start + TILE < p.last) load_ahead<outputs>(a, p, block, tile.steps[next], ahead);

        if (outputs && a.checkpoints && start % a.chunk == 0)
            store_states(a.checkpoints + states_at(a, p.sequence * a.chunks + start / a.chunk, channel), h, active);
        u32 resets = steps.resets;
#pragma unroll(4 / FOLD)
        for (int q0 = 0; q0 < TILE; q0 += FOLD) {
            float sums[FOLD];
#pragma unroll
            for (int j = 0; j < FOLD; j++) {
                int q = q0 + j;
                float2 in = tile.input[q][c];
                if (resets >> q & 1) {
#pragma unroll
                    for (int i = 0; i < STATES; i++) h[i] = 0.0f;
                    reach = __uint_as_float(0x7f800000u);
                }
                if (!outputs) reach += in.x;
                float b[STATES], out[STATES];
                load_share(b, &tile.b[q][share * STATES]);
                if (outputs) load_share(out, &tile.c[q][share * STATES]);
                sums[j] = 0.0f;
#pragma unroll
                for (int i = 0; i < STATES; i++) {
                    h[i] = fmaf(exp2_fast(in.x * decay[i]), h[i], in.y * b[i]);
                    if (outputs) sums[j] = fmaf(h[i], out[i], sums[j]);
                }
            }
            if (outputs) {
                float sum = fold_shares(sums);
                if (folded < FOLD) tile.y[q0 + folded][c] = sum;
            }
        }
        if (tid < 32) post_step(tile.steps[after], later, tid);
        __syncthreads();
        if (outputs) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                Spot s = spot(r, block);
                if (!s.here) continue;
                float y = tile.y[s.q][s.c] + tile.direct[s.q][s.c];
                if (a.z.data) y *= tile.gate[s.q][s.c];
                store(a, a.y, p, start + s.q, steps.written[s.q], block.channel + s.c, y);
            }
        }
        turn = next;
    }

    if (!outputs) {
        store_states(a.checkpoints + states_at(a, p.sequence * a.chunks + (p.span + 1) * a.span_chunks, channel), h, active);
        if (active && share == 0) a.reach[(p.sequence * a.spans + p.span) * a.channels + channel] = reach;
    } else if (a.final_state && p.span == a.spans - 1) {
        store_states(a.final_state + states_at(a, p.sequence, channel), h, active);
    }
}

KERNEL __launch_bounds__(THREADS, BLOCKS) selective_scan_states(Arguments a) {
    __shared__ Tile tile;
    scan<false>(a, tile);
}

KERNEL __launch_bounds__(THREADS, BLOCKS) selective_scan_forward(Arguments a) {
    __shared__ Tile tile;
    scan<true>(a, tile);
}

// A thread owns one state of one channel. Grid: B K D N / THREADS.
KERNEL __launch_bounds__(THREADS) selective_scan_carry(Arguments a) {
    long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
    long long per_sequence = (long long)a.channels * D_STATE;
    if (at >= (long long)a.batch * a.directions * per_sequence) return;
    long long sequence = at / per_sequence, state = at % per_sequence, channel = state / D_STATE;
    float decay = a.a[sequence % a.directions * per_sequence + state] * LOG2_E, h = 0.0f;
    for (int span = 1; span < a.spans; span++) {
        float* before = a.checkpoints + (sequence * a.chunks + (long long)span * a.span_chunks) * per_sequence + state;
        float reach = a.reach[(sequence * a.spans + span - 1) * a.channels + channel];
        // The first span began with the initial state.
        float kept = span == 1 || reach == __uint_as_float(0x7f800000u) ? 0.0f : exp2_fast(reach * decay);
        h = fmaf(kept, h, *before);
        *before = h;
    }
}
