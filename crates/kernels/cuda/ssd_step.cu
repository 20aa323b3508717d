// One token of the SSD (see ssd.cuh for the equations), in place on the state.
//
// Floors on an H200 for a layer of mamba2-2.7b (H = 80, P = 64, N = 128) and one sample: the state is read and written once,
// 8 H P N = 5.2 MB, which at 4.2 TB/s is 1.25 us (and less where it stays in the cache of 50 MB); everything else is 1% of it.
// Six operations a value: 4 M, nothing. So a thread takes 16 bytes of a channel's state at once, a channel's threads lie
// side by side, and B and C come from the first-level cache.
#include "rows.cuh"

#ifndef HEADDIM
#define HEADDIM 64
#define D_STATE 128
#endif

#define THREADS 128
// Threads of a channel: a power of two, four states each or more.
#define LANES (D_STATE <= 4 ? 1 : D_STATE <= 8 ? 2 : D_STATE <= 16 ? 4 : D_STATE <= 32 ? 8 : D_STATE <= 64 ? 16 : 32)

struct StepArguments {
    const element* x;      // (B, H P), rows x_row apart
    const element* dt;     // (B, H)
    const float* a;        // (H)
    const element* b;      // (B, G, N), samples b_row apart, groups b_group
    const element* c;
    const float* d;        // (H P), or (H) if d_per_head, or null
    const element* z;      // (B, H P), or null
    const float* bias;     // (H), or null
    float* state;          // (B, H, P, N)
    element* y;            // (B, H P)
    long long x_row, dt_row, b_row, b_group, c_row, c_group, z_row, y_row;
    float low, high;       // limits of dt
    int batch, heads, groups, softplus, d_per_head;
};

// Grid: channels / (THREADS / LANES), samples.
KERNEL __launch_bounds__(THREADS) ssd_step(StepArguments a) {
    int channel = (int)blockIdx.x * (THREADS / LANES) + (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    bool active = channel < a.heads * HEADDIM;
    if (!active) channel = 0;
    int head = channel / HEADDIM, group = head / (a.heads / a.groups);
    float rate = a.a[head] * LOG2_E, bias = a.bias ? a.bias[head] : 0.0f;
    float skip = !a.d ? 0.0f : a.d[a.d_per_head ? head : channel];
    for (int sample = (int)blockIdx.y; sample < a.batch; sample += (int)gridDim.y) {
        float dt = widen(a.dt[sample * a.dt_row + head]) + bias, x = widen(a.x[sample * a.x_row + channel]), y = 0.0f;
        if (a.softplus) dt = softplus(dt);
        dt = clamp(dt, a.low, a.high);
        float decay = exp2_fast(dt * rate), input = dt * x;
        const element* b = a.b + sample * a.b_row + group * a.b_group;
        const element* c = a.c + sample * a.c_row + group * a.c_group;
        float* state = a.state + ((long long)sample * a.heads * HEADDIM + channel) * D_STATE;
        for (int n = lane * 4; n < D_STATE; n += LANES * 4) {
            int count = min(4, D_STATE - n);
            bool whole = D_STATE % 4 == 0;
            float s[4];
            load_floats(state + n, s, count, whole);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (i >= count) continue;
                s[i] = fmaf(decay, s[i], input * widen(b[n + i]));
                y = fmaf(s[i], widen(c[n + i]), y);
            }
            if (active) store_floats(state + n, s, count, whole);
        }
        y = fmaf(skip, x, warp_sum<LANES>(y));
        if (!active || lane > 0) continue;
        if (a.z) y *= silu(widen(a.z[sample * a.z_row + channel]));
        put(a.y + sample * a.y_row + channel, y);
    }
}
