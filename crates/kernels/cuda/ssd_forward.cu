#include "ssd.cuh"

// Blocks of 16 steps whose scores are made at once.
#define AT_ONCE (STRIPS < 4 ? STRIPS : 4)

// Two neighbouring values to a row; `pair`: both are there, at a multiple of their size.
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

DEVICE void get_two(const element* from, float (&v)[2], int count, bool pair) {
#if DTYPE != 0
    if (pair) {
        u32 both = *(const u32*)from;
        v[0] = widen((element)both), v[1] = widen((element)(both >> 16));
        return;
    }
#endif
    v[0] = count > 0 ? widen(from[0]) : 0.0f;
    v[1] = count > 1 ? widen(from[1]) : 0.0f;
}

// y of a strip of 16 steps, from the state before the chunk.
DEVICE void outputs(const Arguments& a, const Walk& w, const Sequence& s, const Slab& slab, int chunk) {
    int strip = warp_id(), q0 = strip * 16;
    float y[CHANNEL_BLOCKS][2][4];
#pragma unroll
    for (int i = 0; i < CHANNEL_BLOCKS * 8; i++) y[i / 8][i / 4 % 2][i % 4] = 0.0f;

    // r C S^T
#pragma unroll 1
    for (int k = 0; k < STATES; k += K_STEP) {
        Left c;
        left(c, w.asked, STATE_STRIDE, q0, k);
#pragma unroll
        for (int i = 0; i < CHANNEL_BLOCKS; i++) {
            Right state[2];
            right(state, w.state, STATE_STRIDE, i * 16, k);
            multiply(y[i][0], c, state[0]);
            multiply(y[i][1], c, state[1]);
        }
    }
#pragma unroll
    for (int i = 0; i < CHANNEL_BLOCKS; i++) {
        const Decays& d = w.decays[i * 16 / SEGMENT];
#pragma unroll
        for (int v = 0; v < 8; v++) y[i][v / 4][v % 4] *= d.rise[q0 + sum_row(v % 4)];
    }

    // (C B^T o L dt) X
#pragma unroll 1
    for (int j0 = 0; j0 <= strip; j0 += AT_ONCE) {
        float scores[AT_ONCE][2][4];
#pragma unroll
        for (int i = 0; i < AT_ONCE * 8; i++) scores[i / 8][i / 4 % 2][i % 4] = 0.0f;
#pragma unroll 1
        for (int k = 0; k < STATES; k += K_STEP) {
            Left c;
            left(c, w.asked, STATE_STRIDE, q0, k);
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                if (j0 + j > strip) continue;
                Right b[2];
                right(b, w.fed, STATE_STRIDE, (j0 + j) * 16, k);
                multiply(scores[j][0], c, b[0]);
                multiply(scores[j][1], c, b[1]);
            }
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            if (j0 + j > strip) continue;
            int s0 = (j0 + j) * 16;
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                const Decays& d = w.decays[h];
                float masked[2][4];
#pragma unroll
                for (int v = 0; v < 8; v++) {
                    int from = s0 + sum_column(v / 4, v % 4);
                    float passed = decay_between(d, w.steps, q0 + sum_row(v % 4), from);
                    masked[v / 4][v % 4] = scores[j][v / 4][v % 4] * passed * d.dt[from];
                }
                Left m[K_STEPS];
                left_of_sums(m, masked);
#pragma unroll
                for (int i = 0; i < SEGMENT / 16; i++)
                    multiply_sums(y[h * SEGMENT / 16 + i], m, w.rows, WIDTH_STRIDE, h * SEGMENT + i * 16, s0);
            }
        }
    }

    // + D x, times the gate.
    long long parameters = (long long)s.k * a.heads;
#pragma unroll
    for (int i = 0; i < CHANNEL_BLOCKS * 2; i++) {
        int column = i * 8 + sum_column(0, 0), head = column / SEGMENT, p = column % SEGMENT;
        int count = head < slab.count ? slab.width - p : 0;
        bool pair = HEADDIM % 2 == 0 && (a.aligned & 1) && count > 1;
        if (count <= 0) continue;
        int channel = slab.channel + head * HEADDIM + p;
        float skip[2] = {0.0f, 0.0f};
        if (a.d && a.d_per_head) skip[0] = skip[1] = a.d[parameters + slab.head + head];
        else if (a.d) {
            skip[0] = a.d[parameters * HEADDIM + channel];
            if (count > 1) skip[1] = a.d[parameters * HEADDIM + channel + 1];
        }
#pragma unroll
        for (int row = 0; row < 2; row++) {
            int q = q0 + sum_row(row * 2), t = chunk * CHUNK + q, read = w.steps.read[q], written = w.steps.written[q];
            if (read < 0) continue;
            const operand* x = &w.rows[q * WIDTH_STRIDE + column];
            float v[2];
#pragma unroll
            for (int e = 0; e < 2; e++) v[e] = fmaf(skip[e], from_operand(x[e]), y[i / 2][i % 2][row * 2 + e]);
            long long at_step = (s.index * a.steps + t) * a.heads * HEADDIM + channel;
            if (a.ungated) put_two(a.ungated + at_step, v[0], v[1], count, pair);
            if (written < 0) continue;
            if (a.z.data) {
                float gate[2];
                get_two(base(a.z, s) + read * a.z.token + channel, gate, count, pair);
                v[0] *= silu(gate[0]), v[1] *= silu(gate[1]);
            }
            if (a.y.steps) put_two(a.y.steps + at_step, v[0], v[1], count, pair);
            else put_two(a.y.rows + s.b * a.y.batch + s.k * a.y.direction + written * a.y.token + channel, v[0], v[1], count, pair);
        }
    }
}

KERNEL __launch_bounds__(WALKERS) ssd_forward(Arguments a) {
    DYNAMIC_SHARED(shared);
    Walk& w = *(Walk*)shared;
    walk<false, false>(a, w, [&](const Sequence& s, const Slab& slab, int chunk) {
        if (a.checkpoints) save_slab<WALKERS>(a.checkpoints + slab_at(a, s, slab, a.chunks, chunk), w.state);
        outputs(a, w, s, slab, chunk);
    });
}

KERNEL __launch_bounds__(WALKERS) ssd_states(Arguments a) {
    DYNAMIC_SHARED(shared);
    walk<false, true>(a, *(Walk*)shared, [](const Sequence&, const Slab&, int) {});
}

KERNEL __launch_bounds__(WALKERS) ssd_carry(Arguments a) {
    carry_over<false>(a);
}
