// The selective scan, backward (see selective_scan.cuh for the equations and the roles of threads).
//
//   g   += dy C            dC += dy h           dB += g dt u          dx = sum_n g B        (x = dt u)
//   w    = g e h_before    dA += w dt           d(dt) = sum_n w A + dx u                     (e = exp(dt A))
//   g    = g e
//
// with g the gradient of the state and dy that of y before the gate. As in the forward, long sequences are cut into spans:
//   1. selective_scan_states_backward  every span but the first, from a zero gradient: the gradient before it, the sum of dt
//   2. selective_scan_carry_backward   the spans in turn, from the last
//   3. selective_scan_backward         every span from the right gradient
//   4. selective_scan_coefficients     sums the parts of dB and dC; those of dA, dD and dbias are sums of columns
//
// A chunk is taken from its checkpoint: forwards once, to keep one state in HELD steps in shared memory; then HELD steps at
// a time from the last, each forwards again with their states and decays in registers, and back. So global memory holds one
// state in `chunk` steps.
//
// dB and dC are sums over channels. A warp folds its channels by shuffles, a block its warps through shared memory, blocks
// are parts that a later kernel adds in a fixed order: no atomics, the same bits every time. A block takes `strip` blocks of
// channels in turn and adds them into one part, which bounds the memory of the parts.
//
// Floors on an H200, as in the forward, in clocks of an SM per (step, channel):
//   bytes        u, delta, z, dy, du, ddelta, dz: 14 in bf16 (0.78), 18 with delta in f32 (1), 28 in f32 (1.6); parts of dB
//                and dC twice 8 N / (CHANNELS strip) bytes (8 more at N = 16: 0.44)
//   exponentials 2 N / 16, and 3 for softplus twice, 2 for silu twice: 2.6 at N = 16
//   arithmetic   (3 + 4 + 8) N, 4 N for the sums over channels, some 120 for the rest: 3.3 at N = 16
//   shuffles     2 N (32 a clock): 1
// The arithmetic is the floor. What is saved: states and decays are not computed a third time (registers), softplus is
// computed by step and channel and not by share of the states.
#include "selective_scan.cuh"

// Tiles of a chunk: chunk = TILE * SUBTILES.
#ifndef SUBTILES
#define SUBTILES 4
#endif

// Steps whose states and decays are in registers, a divisor of TILE.
#define HELD 4

#define WARPS (THREADS / 32)
// Lanes of a warp with the same share of the states: its channels.
#define RUN (32 / SPLIT)
// STATES, to the next power of two.
#define EVEN (STATES <= 1 ? 1 : STATES <= 2 ? 2 : STATES <= 4 ? 4 : 8)

// Dynamic shared memory.
struct Tile {
    float2 input[TILE][CHANNELS];   // dt, u
    float output[3][TILE][CHANNELS];  // dx, sum_n w A log2(e), sum_n C_n h_n
    float dy[TILE][CHANNELS];       // times the gate
    float slope[TILE][CHANNELS];    // of dt in delta
    __align__(16) float b[TILE][PADDED];
    __align__(16) float c[TILE][PADDED];
    float sums[WARPS][TILE][2 * PADDED];       // dB, dC of each warp
    float before[SUBTILES * TILE / HELD][STATES][THREADS];  // one state in HELD steps of the chunk
    Steps steps[2];
};

// Reads the rows of the TILE steps from t on: dt, u and B, `forward`; dy and C, `backward`. The other half of `steps`
// may still be in use, nothing else.
template <bool forward, bool backward>
DEVICE void load_tile(const Arguments& a, const Place& p, const Block& block, int t, float bias, Tile& tile, int turn) {
    int tid = (int)threadIdx.x;
    Steps& steps = tile.steps[turn];
    if (tid < 32) post_step(steps, load_step(a, p, tid < TILE ? t + tid : -1), tid);
    __syncthreads();
    delta_element delta[ROWS];
    element u[ROWS], dy[ROWS], z[ROWS], b[COEFFICIENTS], c[COEFFICIENTS];
    load_rows(delta, a.delta, p, steps.read, block);
    if (forward) {
        load_rows(u, a.u, p, steps.read, block);
        load_coefficients(b, a.b, p, steps.read);
    }
    if (backward) {
        load_rows(dy, a.dy, p, steps.written, block);
        if (a.z.data) load_rows(z, a.z, p, steps.written, block);
        load_coefficients(c, a.c, p, steps.read);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        Spot s = spot(r, block);
        if (ROWS * THREADS != TILE * CHANNELS && s.q >= TILE) continue;
        float slope;
        float dt = step_size(a, delta[r], bias, steps.read[s.q] != END, slope);
        tile.input[s.q][s.c] = make_float2(dt, forward ? widen(u[r]) : 0.0f);
        if (!backward) continue;
        tile.slope[s.q][s.c] = slope;
        float gradient = widen(dy[r]);
        if (a.z.data) gradient *= silu(widen(z[r]));
        tile.dy[s.q][s.c] = gradient;
    }
    if (forward) post_coefficients(tile.b, b);
    if (backward) post_coefficients(tile.c, c);
    __syncthreads();
}

// Sums `values` over a run of lanes (see warp_spread_sum), of which this is number `lane`, and puts each sum once.
template <int count, int run, int stride, class Put>
DEVICE void spread(float (&values)[count], int lane, Put put) {
    const int each = count >= run ? count / run : 1, lanes = count >= run ? 1 : run / count;
    warp_spread_sum<count, run, stride>(values);
    if (lane % lanes != 0) return;
#pragma unroll
    for (int i = 0; i < each; i++) put(lane / lanes * each + i, values[i]);
}

// The HELD steps from step `from` of the tile back: `h` is the state before them, `g` the gradient behind them.
DEVICE void walk_back(Tile& tile, int from, u32 resets, const float (&decay)[STATES], const float (&h)[STATES], float (&g)[STATES],
                      float (&da)[STATES]) {
    int tid = (int)threadIdx.x, c = tid / SPLIT, share = tid % SPLIT;
    // States after each step, and the decays of each.
    float states[HELD + 1][STATES], e[HELD][STATES];
#pragma unroll
    for (int i = 0; i < STATES; i++) states[0][i] = h[i];
#pragma unroll
    for (int q = 0; q < HELD; q++) {
        float2 in = tile.input[from + q][c];
        float x = in.x * in.y, b[STATES];
        load_share(b, &tile.b[from + q][share * STATES]);
        bool reset = resets >> (from + q) & 1;
#pragma unroll
        for (int i = 0; i < STATES; i++) {
            e[q][i] = exp2_fast(in.x * decay[i]);
            states[q + 1][i] = reset ? x * b[i] : fmaf(e[q][i], states[q][i], x * b[i]);
        }
    }
#pragma unroll
    for (int q = HELD - 1; q >= 0; q--) {
        float2 in = tile.input[from + q][c];
        float x = in.x * in.y, dy = tile.dy[from + q][c], b[STATES], out[STATES], sums[2 * EVEN];
        load_share(b, &tile.b[from + q][share * STATES]);
        load_share(out, &tile.c[from + q][share * STATES]);
        // dx, sum_n w A, sum_n C_n h_n; and one to make it even.
        float row[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < 2 * EVEN; i++) sums[i] = 0.0f;
#pragma unroll
        for (int i = 0; i < STATES; i++) {
            float total = fmaf(dy, out[i], g[i]);
            sums[i] = total * x;
            sums[EVEN + i] = dy * states[q + 1][i];
            row[0] = fmaf(total, b[i], row[0]);
            row[2] = fmaf(out[i], states[q + 1][i], row[2]);
            g[i] = total * e[q][i];
        }
        if (resets >> (from + q) & 1) {
            // Nothing flows to the step before, nor through the decay.
#pragma unroll
            for (int i = 0; i < STATES; i++) g[i] = 0.0f;
        } else {
#pragma unroll
            for (int i = 0; i < STATES; i++) {
                float w = g[i] * states[q][i];
                row[1] = fmaf(w, decay[i], row[1]);
                da[i] = fmaf(w, in.x, da[i]);
            }
        }
        float* coefficients = tile.sums[warp_id()][from + q];
        spread<2 * EVEN, RUN, SPLIT>(sums, c % RUN, [&](int at, float sum) {
            int state = at % EVEN;
            if (state < STATES) coefficients[at / EVEN * PADDED + share * STATES + state] = sum;
        });
        spread<4, SPLIT, 1>(row, share, [&](int at, float sum) {
            if (at < 3) tile.output[at][from + q][c] = sum;
        });
    }
}

// Asks for the rows of a step: each warp for one of the four kinds. A tile ahead is not on its way in registers here, which
// are full; but it is in the cache.
DEVICE void prefetch_rows(const Arguments& a, const Place& p, const Block& block, const Step& step) {
    int warp = warp_id() % 4, token = warp < 2 ? step.read : step.written;
    const AnyView &u = a.u, &delta = a.delta, &dy = a.dy, &z = a.z;
    const AnyView& view = warp == 0 ? u : warp == 1 ? delta : warp == 2 ? dy : z;
    if (token < 0 || !view.data) return;
    int size = (int)(warp == 1 ? sizeof(delta_element) : sizeof(element));
    long long first = p.b * view.batch + p.k * view.direction + block.channel;
    const char* own = row((const char*)view.data + first * size, token, view.token_bytes);
    prefetch(own);
    prefetch(own + (block.count - 1) * size);
}

// Writes the rows of a tile, adds to the gradients of D and the bias.
DEVICE void finish_rows(const Arguments& a, const Place& p, const Block& block, int t, const Tile& tile, const Steps& steps,
                        float skip, float& dd, float& dbias) {
    element dy[ROWS], z[ROWS];
    if (a.z.data) {
        load_rows(dy, a.dy, p, steps.written, block);
        load_rows(z, a.z, p, steps.written, block);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        Spot s = spot(r, block);
        if (!s.here) continue;
        float2 in = tile.input[s.q][s.c];
        float dx = tile.output[0][s.q][s.c], through_decay = tile.output[1][s.q][s.c] * LN_2, gradient = tile.dy[s.q][s.c];
        float ddelta = fmaf(dx, in.y, through_decay) * tile.slope[s.q][s.c];
        int token = steps.read[s.q], channel = block.channel + s.c;
        // A step that does not happen has no delta.
        dbias += token == END ? 0.0f : ddelta;
        dd = fmaf(gradient, in.y, dd);
        store(a, a.du, p, t + s.q, token, channel, fmaf(dx, in.x, gradient * skip));
        store(a, a.ddelta, p, t + s.q, token, channel, ddelta);
        if (!a.z.data) continue;
        float gate = widen(z[r]), half = sigmoid(gate), y = fmaf(skip, in.y, tile.output[2][s.q][s.c]);
        store(a, a.dz, p, t + s.q, token, channel, widen(dy[r]) * y * half * fmaf(gate, 1.0f - half, 1.0f));
    }
}

// Adds the warps' sums of dB and dC to the block's part.
DEVICE void finish_coefficients(const Arguments& a, const Place& p, int t, const Tile& tile, const Steps& steps, bool first) {
    for (int at = (int)threadIdx.x; at < TILE * 2 * D_STATE; at += THREADS) {
        int q = at / (2 * D_STATE), which = at / D_STATE % 2, n = at % D_STATE, token = steps.read[q];
        if (token < 0) continue;
        float sum = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += tile.sums[warp][q][which * PADDED + n];
        long long rows = a.coefficients_by_token ? a.tokens : a.steps, row = a.coefficients_by_token ? token : t + q;
        long long to = (((p.sequence * rows + row) * a.groups + p.group) * a.parts + p.block) * D_STATE + n;
        float* part = (which ? a.dc_parts : a.db_parts) + to;
        *part = first ? sum : *part + sum;
    }
}

// Adds a value of each thread over the threads that transform the rows of one channel; the first of them writes it.
DEVICE void finish_parameter(float value, float* to, bool active, float* scratch) {
    int tid = (int)threadIdx.x;
    __syncthreads();
    scratch[tid] = value;
    __syncthreads();
    if (!to || tid >= CHANNELS || !active) return;
    for (int i = 1; i < SPLIT; i++) value += scratch[tid + i * CHANNELS];
    to[tid] = value;
}

KERNEL __launch_bounds__(THREADS, BLOCKS) selective_scan_backward(Arguments a) {
    DYNAMIC_SHARED(shared);
    Tile& tile = *(Tile*)shared;
    Place p = place(a, a.parts);
    int tid = (int)threadIdx.x, c = tid / SPLIT, turn = 0;
    clear_padding(tile.b);
    clear_padding(tile.c);
    for (int strip = 0; strip < a.strip; strip++) {
        Block block = block_of(a, p.group, p.block * a.strip + strip);
        if (block.count <= 0) break;
        bool active = c < block.count;
        int channel = block.channel + (active ? c : 0);
        int row_channel = tid % CHANNELS;
        bool row_active = row_channel < block.count;
        long long parameters = (long long)p.k * a.channels + block.channel;
        float bias = a.bias && row_active ? a.bias[parameters + row_channel] : 0.0f;
        float skip = a.d && row_active ? a.d[parameters + row_channel] : 0.0f;
        float decay[STATES], g[STATES], da[STATES], h[STATES], dd = 0.0f, dbias = 0.0f;
        load_states(decay, a.a + states_at(a, p.k, channel), active);
#pragma unroll
        for (int i = 0; i < STATES; i++) decay[i] *= LOG2_E, da[i] = 0.0f;
        const float* behind = a.dfinal ? a.dfinal + states_at(a, p.sequence, channel) : nullptr;
        if (p.span < a.spans - 1) behind = a.carry + states_at(a, p.sequence * a.spans + p.span, channel);
        load_states(g, behind, active);

        for (int from = p.first + (p.last - 1 - p.first) / a.chunk * a.chunk; from >= p.first && p.first < p.last; from -= a.chunk) {
            load_states(h, a.checkpoints + states_at(a, p.sequence * a.chunks + from / a.chunk, channel), active);
            int tiles = (min(a.chunk, p.last - from) + TILE - 1) / TILE;
            for (int i = 0; i < tiles; i++) {
                load_tile<true, false>(a, p, block, from + i * TILE, bias, tile, turn);
                u32 resets = tile.steps[turn].resets;
#pragma unroll HELD
                for (int q = 0; q < TILE; q++) {
                    if (q % HELD == 0) {
#pragma unroll
                        for (int n = 0; n < STATES; n++) tile.before[(i * TILE + q) / HELD][n][tid] = h[n];
                    }
                    float2 in = tile.input[q][c];
                    float x = in.x * in.y, b[STATES];
                    load_share(b, &tile.b[q][tid % SPLIT * STATES]);
                    bool reset = resets >> q & 1;
#pragma unroll
                    for (int n = 0; n < STATES; n++)
                        h[n] = reset ? x * b[n] : fmaf(exp2_fast(in.x * decay[n]), h[n], x * b[n]);
                }
                turn ^= 1;
            }
            for (int i = tiles - 1; i >= 0; i--) {
                int t = from + i * TILE;
                load_tile<true, true>(a, p, block, t, bias, tile, turn);
                const Steps& steps = tile.steps[turn];
#pragma unroll 1
                for (int q = TILE - HELD; q >= 0; q -= HELD) {
#pragma unroll
                    for (int n = 0; n < STATES; n++) h[n] = tile.before[(i * TILE + q) / HELD][n][tid];
                    walk_back(tile, q, steps.resets, decay, h, g, da);
                }
                __syncthreads();
                // The same tile of the chunk that comes next.
                Step ahead = load_step(a, p, lane_id() < TILE ? t - a.chunk + lane_id() : -1);
                finish_rows(a, p, block, t, tile, steps, skip, dd, dbias);
                finish_coefficients(a, p, t, tile, steps, strip == 0);
                prefetch_rows(a, p, block, ahead);
                turn ^= 1;
            }
        }

        long long part = ((long long)p.b * a.spans + p.span) * a.directions * a.channels + parameters;
        store_states(a.da_parts + (part + (active ? c : 0)) * D_STATE, da, active);
        if (a.dinitial && p.span == 0) store_states(a.dinitial + states_at(a, p.sequence, channel), g, active);
        finish_parameter(dd, a.dd_parts ? a.dd_parts + part : nullptr, row_active, &tile.before[0][0][0]);
        finish_parameter(dbias, a.dbias_parts ? a.dbias_parts + part : nullptr, row_active, &tile.before[0][0][0]);
        __syncthreads();
    }
}

KERNEL __launch_bounds__(THREADS, BLOCKS) selective_scan_states_backward(Arguments a) {
    DYNAMIC_SHARED(shared);
    Tile& tile = *(Tile*)shared;
    Place p = place(a, (a.channels / a.groups + CHANNELS - 1) / CHANNELS);
    if (p.span == 0) return;
    Block block = block_of(a, p.group, p.block);
    int tid = (int)threadIdx.x, c = tid / SPLIT, share = tid % SPLIT, turn = 0;
    bool active = c < block.count;
    int channel = block.channel + (active ? c : 0);
    bool row_active = tid % CHANNELS < block.count;
    float bias = a.bias && row_active ? a.bias[(long long)p.k * a.channels + block.channel + tid % CHANNELS] : 0.0f;
    float decay[STATES], g[STATES], reach = 0.0f;
    load_states(decay, a.a + states_at(a, p.k, channel), active);
#pragma unroll
    for (int i = 0; i < STATES; i++) decay[i] *= LOG2_E, g[i] = 0.0f;
    clear_padding(tile.c);
    for (int t = p.first + (p.last - 1 - p.first) / TILE * TILE; t >= p.first; t -= TILE) {
        load_tile<false, true>(a, p, block, t, bias, tile, turn);
        u32 resets = tile.steps[turn].resets;
#pragma unroll 4
        for (int q = TILE - 1; q >= 0; q--) {
            float dt = tile.input[q][c].x, dy = tile.dy[q][c], out[STATES];
            load_share(out, &tile.c[q][share * STATES]);
            reach += dt;
#pragma unroll
            for (int i = 0; i < STATES; i++) g[i] = fmaf(dy, out[i], g[i]) * exp2_fast(dt * decay[i]);
            if (resets >> q & 1) {
#pragma unroll
                for (int i = 0; i < STATES; i++) g[i] = 0.0f;
                reach = __uint_as_float(0x7f800000u);
            }
        }
        turn ^= 1;
    }
    store_states(a.carry + states_at(a, p.sequence * a.spans + p.span - 1, channel), g, active);
    if (active && share == 0) a.reach[(p.sequence * a.spans + p.span) * a.channels + channel] = reach;
}

// A thread owns one state of one channel. Grid: B K D N / THREADS.
KERNEL __launch_bounds__(THREADS) selective_scan_carry_backward(Arguments a) {
    long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
    long long per_sequence = (long long)a.channels * D_STATE;
    if (at >= (long long)a.batch * a.directions * per_sequence) return;
    long long sequence = at / per_sequence, state = at % per_sequence, channel = state / D_STATE;
    float decay = a.a[sequence % a.directions * per_sequence + state] * LOG2_E;
    float g = a.dfinal ? a.dfinal[at] : 0.0f;
    for (int span = a.spans - 2; span >= 0; span--) {
        float* behind = a.carry + (sequence * a.spans + span) * per_sequence + state;
        float reach = a.reach[(sequence * a.spans + span + 1) * a.channels + channel];
        float kept = reach == __uint_as_float(0x7f800000u) ? 0.0f : exp2_fast(reach * decay);
        g = fmaf(kept, g, *behind);
        *behind = g;
    }
}
