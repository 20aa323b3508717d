// The SSD, backward (see ssd.cuh for the equations, slabs and chunks). With G = C B^T, S the state before a chunk, S' the
// gradient of the state behind it and dY that of y before the gate:
//
//   M  = dY X^T o L                             (q, s), q >= s
//   dX = dt (f B S'^T + (G o L)^T dY) + D dY    dC = r (dY S) + (M dt) B            summed over the heads of a group
//   dS = e S' + (r dY)^T C                      dB = f dt (X S') + (M dt)^T C       likewise
//
// and the gradients of dt and A from sums of what already stands there (step_gradients).
//   1. ssd_states_backward, ssd_carry_backward   if the order is cut into spans, as in the forward
//   2. ssd_walk_backward    the spans from their ends: S' behind each chunk, to memory
//   3. ssd_backward         every chunk for itself: all gradients
//   4. ssd_coefficients     sums the parts of dB and dC; those of dA, dD and dbias are sums of columns (sums.cu)
//
// In the third a block owns a chunk and takes some slabs of a group in turn. B, C and G are made once for all of them, dB,
// dC and the gradient of G stay in registers over all of them: the products with N that do not know the head are done once.
// Blocks that share a group leave parts, which are added in a fixed order: no atomics, the same bits every time. The sums
// over pairs of steps that cancel (received and given) are both made of the same f32 products.
//
// Floors on an H200, as in the forward, for a layer of mamba2-2.7b at 2,048 tokens of one sample in bf16:
//   bytes    x, dy, z, dx, dz 105 MB: 25 us
//   flops    multiply-adds of a step and head at Q = 64: dS, dX, dB and dC through the states N P = 8,192 each, M and dX
//            5/8 Q P = 2,560 each; in all 12.4 Gflop: 13 us, by mma.sync 19 us
// What the design costs beside them: y before the gate 21 MB, instead of two products that make it again; checkpoints 42 MB
// and S' twice 42 MB; dy and z once more for the walk, 42 MB; with 8 to 10 heads to a block 8 to 10 parts of dB and dC twice
// 2.1 MB each, written and read, 34 to 42 MB. In all 290 MB, 69 us. One block fits a multiprocessor (registers: B C^T, dB,
// dC and the scores' gradient take 112 of 224), so that its loads are not hidden behind another's products: the first
// thing to measure. Nothing of this is measured.
#include "ssd_walk.cuh"

// Threads of the kernel of gradients: two warps for each strip of 16 steps, its sides, which share its blocks in turn.
#define THREADS (CHUNK * 4)
#define SIDE_STRIPS ((STRIPS + 1) / 2)
#define SIDE_STATES ((STATE_BLOCKS + 1) / 2)
// Blocks of states whose product with a head is made at once.
#define AT_ONCE (SIDE_STATES < 2 ? SIDE_STATES : 2)

// What a chunk's sums over a head's channels and states are made of; each has an owner, a lane of some warp.
struct Sums {
    float received[STRIPS][CHUNK]; // sum over s in a strip of P(q, s) = M o C B^T o L dt
    float given[2][CHUNK];         // sum over q of P(q, s) / dt, by side
    float before[2][CHUNK];        // r C . (dY S)
    float behind[2][CHUNK];        // f B . (X S')
    float across[THREADS / 32];    // S . S', by warp
};

struct Gradients {
    operand b[CHUNK * STATE_STRIDE];
    operand c[CHUNK * STATE_STRIDE];
    operand x[CHUNK * WIDTH_STRIDE];
    operand dy[CHUNK * WIDTH_STRIDE];        // before the gate
    operand before[WIDTH * STATE_STRIDE];    // S
    operand behind[WIDTH * STATE_STRIDE];    // S'
    operand dscores[CHUNK * (CHUNK + GAP)];  // (s, q)
    float shares[THREADS];
    Decays decays[HEADS];
    Sums sums[HEADS];
    Steps steps;
};

template <int count>
DEVICE void clear(float (&v)[count][2][4]) {
#pragma unroll
    for (int i = 0; i < count * 8; i++) v[i / 8][i / 4 % 2][i % 4] = 0.0f;
}

// Sums over the 4 lanes that hold a row of a block; the first of them adds it to its place.
DEVICE void add_to_row(float* row, float value, bool first) {
    value = warp_sum<4>(value);
    if (lane_id() % 4 == 0) *row = first ? value : *row + value;
}

// dz = dy (y before the gate) silu'(z).
DEVICE void gate_gradients(const Arguments& a, const Gradients& w, const Sequence& s, const Slab& slab, int chunk) {
    const element* dy = base(a.dy, s) + slab.channel;
    const element* z = base(a.z, s) + slab.channel;
    for (int i = (int)threadIdx.x; i < CHUNK * WIDTH / VECTOR; i += THREADS) {
        Spot at = spot(slab, i);
        int read = w.steps.read[at.q], written = w.steps.written[at.q];
        if (read < 0 || at.count <= 0) continue;
        bool whole = (a.aligned & 1) && at.count == VECTOR;
        long long step = (s.index * a.steps + chunk * CHUNK + at.q) * a.heads * HEADDIM + slab.channel + at.channel;
        float v[VECTOR], gate[VECTOR], y[VECTOR];
        fill(v, 0.0f);
        if (written >= 0) {
            load_part(dy + written * a.dy.token + at.channel, v, at.count, whole);
            load_part(z + read * a.z.token + at.channel, gate, at.count, whole);
            load_part(a.ungated + step, y, at.count, whole);
#pragma unroll
            for (int j = 0; j < VECTOR; j++) v[j] *= y[j] * silu_slope(gate[j], sigmoid(gate[j]));
        }
        if (a.dz.steps) store_floats(a.dz.steps + step, v, at.count, whole);
        else store_part(a.dz.rows + s.b * a.dz.batch + s.k * a.dz.direction + read * a.dz.token + slab.channel + at.channel, v, at.count, whole);
    }
}

// M = dY X^T o L of a strip of steps s and its side's steps q: into the gradient of the scores C B^T, and the sums of P.
DEVICE void score_gradients(Gradients& w, int h, int strip, int side, const float (&scores)[STRIPS][2][4],
                            float (&dscores)[SIDE_STRIPS][2][4], bool first) {
    const Decays& d = w.decays[h];
    Sums& sums = w.sums[h];
    int s0 = strip * 16;
    float given[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < STRIPS; i++) {
        if (i % 2 != side || i < strip) continue;
        float received[4] = {0.0f, 0.0f, 0.0f, 0.0f}, m[1][2][4];
        clear(m);
#pragma unroll 1
        for (int k = 0; k < SEGMENT; k += K_STEP) {
            Left x;
            Right dy[2];
            left(x, w.x, WIDTH_STRIDE, s0, h * SEGMENT + k);
            right(dy, w.dy, WIDTH_STRIDE, i * 16, h * SEGMENT + k);
            multiply(m[0][0], x, dy[0]);
            multiply(m[0][1], x, dy[1]);
        }
#pragma unroll
        for (int v = 0; v < 8; v++) {
            int from = s0 + sum_row(v % 4), to = i * 16 + sum_column(v / 4, v % 4);
            float passed = m[0][v / 4][v % 4] * decay_between(d, w.steps, to, from), dt = d.dt[from];
            float p = passed * scores[i][v / 4][v % 4];
            dscores[i / 2][v / 4][v % 4] = fmaf(passed, dt, dscores[i / 2][v / 4][v % 4]);
            given[v % 4 / 2] += p;
            received[v / 4 * 2 + v % 2] = fmaf(p, dt, received[v / 4 * 2 + v % 2]);
        }
        // Over the 8 lanes that hold a column: lane l receives the value l / 8.
        warp_spread_sum<4, 8, 4>(received);
        int lane = lane_id(), value = lane / 8;
        float* to = &sums.received[strip][i * 16 + sum_column(value / 2, value % 2)];
        if (lane / 4 % 2 == 0) *to = first ? received[0] : *to + received[0];
        __syncwarp();  // the products of the next strip are the whole warp's
    }
#pragma unroll
    for (int row = 0; row < 2; row++) add_to_row(&sums.given[side][s0 + sum_row(row * 2)], given[row], first);
}

// dX = dt (f B S'^T + (C B^T o L)^T dY) + D dY of a strip, the side's blocks of channels.
DEVICE void input_gradients(const Arguments& a, const Gradients& w, const Sequence& s, const Slab& slab, int chunk, int h, int strip,
                            int side, const float (&scores)[STRIPS][2][4]) {
    const int blocks = SEGMENT / 16, own = (blocks + 1) / 2;
    const Decays& d = w.decays[h];
    // Blocks of the slab are the sides' in turn.
    int begin = (h * blocks + side) % 2, s0 = strip * 16;
    if (begin >= blocks) return;
    float dx[own][2][4];
    clear(dx);
#pragma unroll 1
    for (int k = 0; k < STATES; k += K_STEP) {
        Left b;
        left(b, w.b, STATE_STRIDE, s0, k);
#pragma unroll
        for (int i = 0; i < own; i++) {
            int block = begin + i * 2;
            if (block >= blocks) continue;
            Right state[2];
            right(state, w.behind, STATE_STRIDE, h * SEGMENT + block * 16, k);
            multiply(dx[i][0], b, state[0]);
            multiply(dx[i][1], b, state[1]);
        }
    }
#pragma unroll
    for (int i = 0; i < own * 8; i++) dx[i / 8][i / 4 % 2][i % 4] *= d.fall[s0 + sum_row(i % 4)];
#pragma unroll
    for (int j = 0; j < STRIPS; j++) {
        if (j < strip) continue;
        float masked[2][4];
#pragma unroll
        for (int v = 0; v < 8; v++) {
            int from = s0 + sum_row(v % 4), to = j * 16 + sum_column(v / 4, v % 4);
            masked[v / 4][v % 4] = scores[j][v / 4][v % 4] * decay_between(d, w.steps, to, from);
        }
        Left m[K_STEPS];
        left_of_sums(m, masked);
#pragma unroll
        for (int i = 0; i < own; i++) {
            int block = begin + i * 2;
            if (block < blocks) multiply_sums(dx[i], m, w.dy, WIDTH_STRIDE, h * SEGMENT + block * 16, j * 16);
        }
    }
    bool paired = HEADDIM % 2 == 0 && (a.aligned & 1);
#pragma unroll
    for (int r = 0; r < 4; r += 2) {
        int q = s0 + sum_row(r), read = w.steps.read[q];
        if (read < 0) continue;
        float dt = d.dt[q];
        int head = slab.channel + h * HEADDIM;
        float* by_step = a.dx.steps + (s.index * a.steps + chunk * CHUNK + q) * a.heads * HEADDIM + head;
        element* by_token = a.dx.rows + s.b * a.dx.batch + s.k * a.dx.direction + read * a.dx.token + head;
#pragma unroll
        for (int i = 0; i < own * 2; i++) {
            int block = begin + i / 2 * 2, p = block * 16 + sum_column(i % 2, 0), count = block < blocks ? slab.width - p : 0;
            if (count <= 0) continue;
            const operand* dy = &w.dy[q * WIDTH_STRIDE + h * SEGMENT + p];
            float skip0, skip1;
            skip_of(a, s, slab, h, p, skip0, skip1);
            float v0 = fmaf(dt, dx[i / 2][i % 2][r], skip0 * from_operand(dy[0]));
            float v1 = fmaf(dt, dx[i / 2][i % 2][r + 1], skip1 * from_operand(dy[1]));
            if (a.dx.steps) put_two(by_step + p, v0, v1, count, paired);
            else put_two(by_token + p, v0, v1, count, paired);
        }
    }
}

// sums += weight (rows states) of a strip and the side's blocks of states: what the states give to dC (rows: dY, r, S), or to
// dB (X, f dt, S'). `dots` += scale coefficients . (rows states), by row.
DEVICE void state_gradients(float (&sums)[SIDE_STATES][2][4], const operand* rows, const operand* states, const operand* coefficients,
                            const float* weight, const float* scale, float* dots, int h, int strip, int side, bool first) {
    int row0 = strip * 16;
    float dot[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i0 = 0; i0 < SIDE_STATES; i0 += AT_ONCE) {
        float part[AT_ONCE][2][4];
        clear(part);
#pragma unroll 1
        for (int k = 0; k < SEGMENT; k += K_STEP) {
            Left r;
            left(r, rows, WIDTH_STRIDE, row0, h * SEGMENT + k);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                int n = ((i0 + i) * 2 + side) * 16;
                if (i0 + i >= SIDE_STATES || n >= STATES) continue;
                Right state[2];
                right_transposed(state, states, STATE_STRIDE, n, h * SEGMENT + k);
                multiply(part[i][0], r, state[0]);
                multiply(part[i][1], r, state[1]);
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int n = ((i0 + i) * 2 + side) * 16;
            if (i0 + i >= SIDE_STATES || n >= STATES) continue;
#pragma unroll
            for (int v = 0; v < 8; v++) {
                int row = row0 + sum_row(v % 4);
                float value = part[i][v / 4][v % 4];
                float with = from_operand(coefficients[row * STATE_STRIDE + n + sum_column(v / 4, v % 4)]);
                dot[v % 4 / 2] = fmaf(value, with, dot[v % 4 / 2]);
                sums[i0 + i][v / 4][v % 4] = fmaf(weight[row], value, sums[i0 + i][v / 4][v % 4]);
            }
        }
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        int at = row0 + sum_row(row * 2);
        add_to_row(&dots[at], dot[row] * scale[at], first);
    }
}

// S . S' of a head, the warp's share.
DEVICE void state_products(Gradients& w, int h, bool first) {
    float sum = 0.0f;
    for (int i = (int)threadIdx.x; i < SEGMENT * STATES; i += THREADS) {
        int at = (h * SEGMENT + i / STATES) * STATE_STRIDE + i % STATES;
        sum = fmaf(from_operand(w.before[at]), from_operand(w.behind[at]), sum);
    }
    sum = warp_sum<32>(sum);
    float* to = &w.sums[h].across[warp_id()];
    if (lane_id() == 0) *to = first ? sum : *to + sum;
}

// ddt of a head's steps and its parts of dA and the bias, by a whole warp.
//
// The gradient of the log of the decay over step t: of every pair s < t <= q P(q, s), which is the sum over q >= t of what
// q received less what it gave; of q >= t what it has of the state before; of s < t what the state behind has of it; and
// e S . S'.
DEVICE void step_gradients(const Arguments& a, const Gradients& w, const Sequence& s, int head, int chunk, int h) {
    const int each = CHUNK / 32;
    const Decays& d = w.decays[h];
    const Sums& sums = w.sums[h];
    int lane = lane_id();
    long long parameter = (long long)s.k * a.heads + head;
    float rate = a.a[parameter], across = 0.0f;
    for (int i = 0; i < THREADS / 32; i++) across += sums.across[i];
    // In the lane's steps: what counts from a step back, what counts behind it.
    float direct[each], behind[each], later[each];
    double fed = 0.0, left = 0.0;
#pragma unroll
    for (int i = 0; i < each; i++) {
        int q = lane * each + i;
        float received = 0.0f, given = sums.given[0][q] + sums.given[1][q];
        for (int strip = 0; strip <= q / 16; strip++) received += sums.received[strip][q];
        float out = sums.behind[0][q] + sums.behind[1][q];
        direct[i] = given + out;
        behind[i] = d.dt[q] * out;
        later[i] = received - d.dt[q] * given + (sums.before[0][q] + sums.before[1][q]);
        fed += (double)behind[i];
        left += (double)later[i];
    }
    double ahead = fed, rest = left;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        double up = __shfl_up_sync(FULL_WARP, ahead, by), down = __shfl_down_sync(FULL_WARP, rest, by);
        if (lane >= by) ahead += up;
        if (lane + by < 32) rest += down;
    }
    // Of the steps of lanes before; of this lane's and those behind.
    ahead -= fed;
    float da = 0.0f, dbias = 0.0f;
#pragma unroll
    for (int i = 0; i < each; i++) {
        int q = lane * each + i, read = w.steps.read[q];
        float decays = (float)(ahead + rest + (double)(d.whole * across));
        ahead += (double)behind[i];
        rest -= (double)later[i];
        float ddt = fmaf(rate, decays, direct[i]) * d.slope[q];
        da = fmaf(d.dt[q], decays, da);
        dbias += ddt;
        if (read < 0) continue;
        if (a.ddt.steps) a.ddt.steps[(s.index * a.steps + chunk * CHUNK + q) * a.heads + head] = ddt;
        else put(a.ddt.rows + s.b * a.ddt.batch + s.k * a.ddt.direction + read * a.ddt.token + head, ddt);
    }
    da = warp_sum<32>(da);
    dbias = warp_sum<32>(dbias);
    long long part = ((long long)s.b * a.chunks + chunk) * a.directions * a.heads + parameter;
    if (lane > 0) return;
    a.da_parts[part] = da;
    if (a.dbias_parts) a.dbias_parts[part] = dbias;
}

// The part of dD: sums over the steps of dY x, by channel or by head. All threads must come.
DEVICE void skip_gradients(const Arguments& a, Gradients& w, const Sequence& s, const Slab& slab, int chunk) {
    // Threads of a channel take its steps in turn.
    const int turns = THREADS / WIDTH;
    int tid = (int)threadIdx.x, channel = tid % WIDTH, turn = tid / WIDTH;
    float sum = 0.0f;
    for (int q = turn; turn < turns && q < CHUNK; q += turns)
        sum = fmaf(from_operand(w.dy[q * WIDTH_STRIDE + channel]), from_operand(w.x[q * WIDTH_STRIDE + channel]), sum);
    w.shares[tid] = sum;
    __syncthreads();
    long long part = (((long long)s.b * a.chunks + chunk) * a.directions + s.k) * a.heads;
    if (a.d_per_head) {
        if (tid >= slab.count) return;
        sum = 0.0f;
        for (int i = 0; i < turns * SEGMENT; i++) sum += w.shares[i / SEGMENT * WIDTH + tid * SEGMENT + i % SEGMENT];
        float* to = &a.dd_parts[part + slab.head + tid];
        *to = slab.piece == 0 ? sum : *to + sum;
        return;
    }
    int head = channel / SEGMENT, p = channel % SEGMENT;
    if (turn > 0 || head >= slab.count || p >= slab.width) return;
    for (int i = 1; i < turns; i++) sum += w.shares[i * WIDTH + channel];
    a.dd_parts[part * HEADDIM + slab.channel + head * HEADDIM + p] = sum;
}

// dB and dC of a strip: what the scores' gradients give, with what the states gave.
DEVICE void coefficient_gradients(float (&db)[SIDE_STATES][2][4], float (&dc)[SIDE_STATES][2][4], const Gradients& w, int strip, int side) {
    const int stride = CHUNK + GAP;
#pragma unroll 1
    for (int k = 0; k < CHUNK; k += K_STEP) {
        // Scores are those of steps q >= s.
        bool later = k / 16 >= strip, earlier = k / 16 <= strip;
        Left to, from;
        if (later) left(to, w.dscores, stride, strip * 16, k);
        if (earlier) left_transposed(from, w.dscores, stride, strip * 16, k, nullptr);
#pragma unroll
        for (int i = 0; i < SIDE_STATES; i++) {
            int n = (i * 2 + side) * 16;
            if (n >= STATES) continue;
            Right rows[2];
            if (later) {
                right_transposed(rows, w.c, STATE_STRIDE, n, k);
                multiply(db[i][0], to, rows[0]);
                multiply(db[i][1], to, rows[1]);
            }
            if (earlier) {
                right_transposed(rows, w.b, STATE_STRIDE, n, k);
                multiply(dc[i][0], from, rows[0]);
                multiply(dc[i][1], from, rows[1]);
            }
        }
    }
}

DEVICE void store_coefficients(const Arguments& a, float* to, float (&sums)[SIDE_STATES][2][4], const Steps& steps, const Sequence& s,
                               int group, int part, int chunk, int strip, int side) {
    long long rows = a.coefficients_by_token ? a.tokens : a.steps;
#pragma unroll
    for (int r = 0; r < 4; r += 2) {
        int q = strip * 16 + sum_row(r), read = steps.read[q];
        if (read < 0) continue;
        long long at = s.index * rows + (a.coefficients_by_token ? read : chunk * CHUNK + q);
        float* row = to + ((at * a.groups + group) * a.parts + part) * D_STATE;
#pragma unroll
        for (int i = 0; i < SIDE_STATES * 2; i++) {
            int n = (i / 2 * 2 + side) * 16 + sum_column(i % 2, 0);
            put_two(row + n, sums[i / 2][i % 2][r], sums[i / 2][i % 2][r + 1], D_STATE - n, D_STATE % 2 == 0 && n < D_STATE);
        }
    }
}

// A block owns a chunk of one group and `strip` of its slabs. Grid: parts of a group fastest, then groups, chunks,
// directions, samples.
KERNEL __launch_bounds__(THREADS) ssd_backward(Arguments a) {
    DYNAMIC_SHARED(shared);
    Gradients& w = *(Gradients*)shared;
    long long at = blockIdx.x;
    int part = (int)(at % a.parts);
    at /= a.parts;
    int group = (int)(at % a.groups);
    at /= a.groups;
    int chunk = (int)(at % a.chunks);
    Sequence s = sequence_of(a, at / a.chunks);
    int warp = warp_id(), strip = warp % STRIPS, side = warp / STRIPS;

    if (warp == 0) load_steps(a, s, chunk * CHUNK, w.steps);
    __syncthreads();
    load_coefficients<THREADS>(a, w.b, a.b, s, group, w.steps.read);
    load_coefficients<THREADS>(a, w.c, a.c, s, group, w.steps.read);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    // B C^T: (s, q), of the steps q >= s.
    float scores[STRIPS][2][4], dscores[SIDE_STRIPS][2][4], db[SIDE_STATES][2][4], dc[SIDE_STATES][2][4];
    clear(scores);
    clear(dscores);
    clear(db);
    clear(dc);
#pragma unroll 1
    for (int k = 0; k < STATES; k += K_STEP) {
        Left b;
        left(b, w.b, STATE_STRIDE, strip * 16, k);
#pragma unroll
        for (int i = 0; i < STRIPS; i++) {
            if (i < strip) continue;
            Right c[2];
            right(c, w.c, STATE_STRIDE, i * 16, k);
            multiply(scores[i][0], b, c[0]);
            multiply(scores[i][1], b, c[1]);
        }
    }

    int end = min(a.slabs, (part + 1) * a.strip);
#pragma unroll 1
    for (int index = part * a.strip; index < end; index++) {
        Slab slab = slab_of(a, group, index);
        bool first = slab.piece == 0;
        __syncthreads();
        load_channels<THREADS>(a, w.x, a.x, s, slab, w.steps.read);
        load_gradients<THREADS>(a, w.dy, s, slab, w.steps);
        long long states = slab_at(a, s, slab, a.chunks, chunk);
        load_slab<THREADS>(w.before, a.checkpoints + states);
        load_slab<THREADS>(w.behind, a.behind + states);
        copy_commit();
        for (int h = warp; h < slab.count; h += THREADS / 32) find_decays(a, s, slab.head + h, w.steps, w.decays[h]);
        if (a.z.data) gate_gradients(a, w, s, slab, chunk);
        copy_wait<0>();
        __syncthreads();
#pragma unroll 1
        for (int h = 0; h < slab.count; h++) {
            Sums& sums = w.sums[h];
            const Decays& d = w.decays[h];
            // An mma wants the lanes side by side.
            __syncwarp();
            score_gradients(w, h, strip, side, scores, dscores, first);
            __syncwarp();
            input_gradients(a, w, s, slab, chunk, h, strip, side, scores);
            __syncwarp();
            state_gradients(db, w.x, w.behind, w.b, d.weight, d.fall, sums.behind[side], h, strip, side, first);
            __syncwarp();
            state_gradients(dc, w.dy, w.before, w.c, d.rise, d.rise, sums.before[side], h, strip, side, first);
            state_products(w, h, first);
        }
        if (a.dd_parts) skip_gradients(a, w, s, slab, chunk);
        __syncthreads();
        if (index % PIECES == PIECES - 1)
            for (int h = warp; h < slab.count; h += THREADS / 32) step_gradients(a, w, s, slab.head + h, chunk, h);
    }

    // Blocks before the strip's are never read.
#pragma unroll
    for (int i = 0; i < STRIPS; i++) {
        if (i % 2 != side || i < strip) continue;
#pragma unroll
        for (int v = 0; v < 8; v++)
            w.dscores[(strip * 16 + sum_row(v % 4)) * (CHUNK + GAP) + i * 16 + sum_column(v / 4, v % 4)] =
                to_operand(dscores[i / 2][v / 4][v % 4]);
    }
    __syncthreads();
    coefficient_gradients(db, dc, w, strip, side);
    store_coefficients(a, a.db_parts, db, w.steps, s, group, part, chunk, strip, side);
    store_coefficients(a, a.dc_parts, dc, w.steps, s, group, part, chunk, strip, side);
}

KERNEL __launch_bounds__(WALKERS, BLOCKS) ssd_walk_backward(Arguments a) {
    DYNAMIC_SHARED(shared);
    Walk& w = *(Walk*)shared;
    walk<true, false>(a, w, [&](const Sequence& s, const Slab& slab, int chunk) {
        save_slab<WALKERS>(a.behind + slab_at(a, s, slab, a.chunks, chunk), w.state);
    });
}

KERNEL __launch_bounds__(WALKERS, BLOCKS) ssd_states_backward(Arguments a) {
    DYNAMIC_SHARED(shared);
    walk<true, true>(a, *(Walk*)shared, [](const Sequence&, const Slab&, int) {});
}

KERNEL __launch_bounds__(WALKERS) ssd_carry_backward(Arguments a) {
    carry_over<true>(a);
}
