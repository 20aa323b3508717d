// One token of the selective scan, the state updated in place (see selective_scan.cuh for the equations).
//
// Floors: 8 N bytes a channel for the state, whatever the element type, beside 4 elements for u, delta, z and y: at N = 16 in
// bf16 136 bytes, and 24 exponentials at most (the softplus of a channel is computed by each share). Bandwidth is the
// floor by far; on an H200 that of mamba-2.8b (D = 5120) for one sample is 0.2 us, less than a launch takes.
#include "selective_scan.cuh"

struct StepArguments {
    const element* u;      // (B, D), and so delta, z, y
    const delta_element* delta;
    const element* z;      // or null
    const element* b;      // (B, G, N)
    const element* c;      // (B, G, N)
    const float* a;        // (D, N)
    const float* d;        // (D), or null
    const float* bias;     // (D), or null
    float* state;          // (B, D, N), contiguous
    element* y;
    long long u_batch, delta_batch, z_batch, b_batch, b_group, c_batch, c_group, y_batch;
    int batch, channels, groups, softplus;
    int aligned;           // the state and A begin at a multiple of 16 bytes
};

#define WHOLE (D_STATE % 4 == 0 && STATES % 4 == 0)

// A thread's share of N f32 values.
DEVICE void load_quads(float (&to)[STATES], const float* from, bool whole) {
    if (!WHOLE || !whole) return load_states(to, from, true);
    load_share(to, from + (int)threadIdx.x % SPLIT * STATES);
}

DEVICE void store_quads(float* to, const float (&from)[STATES], bool whole) {
    if (!WHOLE || !whole) return store_states(to, from, true);
    to += (int)threadIdx.x % SPLIT * STATES;
#pragma unroll
    for (int i = 0; i + 3 < STATES; i += 4) *(float4*)(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
}

// SPLIT threads own a channel. Grid: blocks of CHANNELS channels fastest, then samples.
KERNEL __launch_bounds__(THREADS) selective_scan_step(StepArguments a) {
    int blocks = (a.channels + CHANNELS - 1) / CHANNELS;
    int channel = (int)(blockIdx.x % blocks) * CHANNELS + (int)threadIdx.x / SPLIT;
    long long sample = blockIdx.x / blocks;
    bool active = channel < a.channels;
    if (!active) channel = a.channels - 1;
    // A last share may hold states that do not exist.
    bool whole = a.aligned && ((int)threadIdx.x % SPLIT + 1) * STATES <= D_STATE;
    int group = channel / (a.channels / a.groups);

    float dt = widen(a.delta[sample * a.delta_batch + channel]), u = widen(a.u[sample * a.u_batch + channel]);
    if (a.bias) dt += a.bias[channel];
    if (a.softplus) dt = softplus(dt);
    float* state = a.state + (sample * a.channels + channel) * D_STATE;
    float h[STATES], decay[STATES], y = 0.0f;
    load_quads(h, state, whole);
    load_quads(decay, a.a + (long long)channel * D_STATE, whole);
    const element* b = a.b + sample * a.b_batch + group * a.b_group;
    const element* c = a.c + sample * a.c_batch + group * a.c_group;
    int n = (int)threadIdx.x % SPLIT * STATES;
#pragma unroll
    for (int i = 0; i < STATES; i++) {
        if (n + i >= D_STATE) continue;
        h[i] = fmaf(exp2_fast(dt * (decay[i] * LOG2_E)), h[i], dt * u * widen(b[n + i]));
        y = fmaf(h[i], widen(c[n + i]), y);
    }
    y = warp_sum<SPLIT>(y);
    if (!active) return;
    store_quads(state, h, whole);
    if (n > 0) return;
    if (a.d) y = fmaf(a.d[channel], u, y);
    if (a.z) y *= silu(widen(a.z[sample * a.z_batch + channel]));
    put(a.y + sample * a.y_batch + channel, y);
}
