// The SSD, forward (see ssd.cuh for the equations, slabs and chunks).
//
// A block carries the state of one slab in registers from chunk to chunk, so that states never travel through memory but
// as checkpoints for a backward. Long sequences with few heads are cut into spans, so that the whole card works:
//   1. ssd_states    every span but the last, from a zero state: what it leaves, and the decay over it
//   2. ssd_carry     the spans in turn: state = decay state + what the span leaves
//   3. ssd_forward   every span from the right state: y, checkpoints, final state
// With one span only the third is launched. (A launch of every chunk for itself, states through memory, would be chunks =
// spans; the host cuts only as far as the card needs.)
//
// A warp owns a strip of 16 steps: it makes the scores C B^T of the strip and earlier steps in registers, masks them by the
// decays of each head, and uses them at once as the left operand of the product with X. Blocks of 16 x 16 above the
// diagonal are left out.
//
// Floors on an H200 (4.2 TB/s; 989 Tflop/s in bf16, of which mma.sync reaches about two thirds) for a layer of
// mamba2-2.7b, H = 80, P = 64, N = 128, G = 1, at 2,048 tokens of one sample in bf16:
//   bytes    x, z, y 63 MB, dt, B and C 1.4 MB: 15 us. For a backward 21 MB of y before the gate and 42 MB of checkpoints
//            besides: 30 us
//   flops    multiply-adds of a step and head at Q = 64: C S^T and the state N P = 8,192 each, scores and X
//            5/8 Q (N + P) = 7,680; in all 7.9 Gflop: 8 us, by mma.sync 12 us
// What the design costs beside them: with 5 spans (80 blocks do not fill 132 multiprocessors) x, B and dt are read a second
// time for 4/5 of the steps (17 MB, 4 us) with a third of the products; each block reads B and C for itself, 84 MB from the
// second-level cache (about 15 us if nothing else ran); scores are made for each head though a group shares them (0.4 of the
// flops of the chunk), against keeping them in memory, which would cost 8 KB a chunk and head. 40 exponentials a step and head
// are 2 us. Nothing of this is measured.
#include "ssd_walk.cuh"

// Blocks of 16 steps whose scores are made at once.
#define AT_ONCE (DTYPE == 0 ? 1 : 2)

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
        for (int v = 0; v < 8; v++) y[i][v / 4][v % 4] = weighted(y[i][v / 4][v % 4], d.rise[q0 + sum_row(v % 4)]);
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
                // Keeps the compiler from loading for several blocks at once, for which registers do not suffice.
                __syncwarp();
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
    __syncwarp();
    bool paired = HEADDIM % 2 == 0 && (a.aligned & 1);
#pragma unroll
    for (int r = 0; r < 4; r += 2) {
        int q = q0 + sum_row(r), read = w.steps.read[q], written = w.steps.written[q];
        if (read < 0) continue;
        long long at_step = (s.index * a.steps + chunk * CHUNK + q) * a.heads * HEADDIM + slab.channel;
        const element* z = base(a.z, s) + read * a.z.token + slab.channel;
        element* to = a.y.rows + s.b * a.y.batch + s.k * a.y.direction + written * a.y.token + slab.channel;
#pragma unroll
        for (int i = 0; i < CHANNEL_BLOCKS * 2; i++) {
            int h = i * 8 / SEGMENT, p = i * 8 % SEGMENT + sum_column(0, 0), count = h < slab.count ? slab.width - p : 0;
            if (count <= 0) continue;
            const operand* x = &w.rows[q * WIDTH_STRIDE + i * 8 + sum_column(0, 0)];
            float skip0, skip1, gate0, gate1;
            skip_of(a, s, slab, h, p, skip0, skip1);
            float v0 = fmaf(skip0, from_operand(x[0]), y[i / 2][i % 2][r]);
            float v1 = fmaf(skip1, from_operand(x[1]), y[i / 2][i % 2][r + 1]);
            if (a.ungated) put_two(a.ungated + at_step + h * HEADDIM + p, v0, v1, count, paired);
            if (written < 0) continue;
            if (a.z.data) {
                get_two(z + h * HEADDIM + p, gate0, gate1, count, paired);
                v0 *= silu(gate0), v1 *= silu(gate1);
            }
            if (a.y.steps) put_two(a.y.steps + at_step + h * HEADDIM + p, v0, v1, count, paired);
            else put_two(to + h * HEADDIM + p, v0, v1, count, paired);
        }
    }
}

KERNEL __launch_bounds__(WALKERS, BLOCKS) ssd_forward(Arguments a) {
    DYNAMIC_SHARED(shared);
    Walk& w = *(Walk*)shared;
    walk<false, false>(a, w, [&](const Sequence& s, const Slab& slab, int chunk) {
        if (a.checkpoints) save_slab<WALKERS>(a.checkpoints + slab_at(a, s, slab, a.chunks, chunk), w.state);
        outputs(a, w, s, slab, chunk);
    });
}

KERNEL __launch_bounds__(WALKERS, BLOCKS) ssd_states(Arguments a) {
    DYNAMIC_SHARED(shared);
    walk<false, true>(a, *(Walk*)shared, [](const Sequence&, const Slab&, int) {});
}

KERNEL __launch_bounds__(WALKERS) ssd_carry(Arguments a) {
    carry_over<false>(a);
}
