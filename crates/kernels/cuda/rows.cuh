// A few channels of a row, whole or in part, aligned or not: what kernels over (..., channels) read and write.
#pragma once

#include "common.cuh"

// Steps of an order, as `Tables` in Rust gives them to a kernel.
#define BLANK -1
#define END -2

// A processor reads whole vectors anywhere, a card only where they are aligned.
#ifdef EMULATED
#define EXPECT_ALIGNED(at, bytes) \
    if ((uintptr_t)(at) % (bytes)) emulate::fail("reads or writes %d bytes at an odd address", (int)(bytes))
#else
#define EXPECT_ALIGNED(at, bytes)
#endif

// N elements as they lie in memory.
template <int N>
struct Packed {
    u32 bits[N * (int)sizeof(element) / 4];

    __device__ __forceinline__ float get(int i) const {
#if DTYPE == 0
        return __uint_as_float(bits[i]);
#elif DTYPE == 1
        return from_bf16((u16)(bits[i / 2] >> i % 2 * 16));
#else
        return from_f16((u16)(bits[i / 2] >> i % 2 * 16));
#endif
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < N * (int)sizeof(element) / 4; i++) bits[i] = 0;
    }
};

// `count` channels, the others 0. `whole`: all N are there, and their address is a multiple of their size.
template <int N>
DEVICE void load_packed(const element* from, Packed<N>& to, int count, bool whole) {
    if (whole) {
        EXPECT_ALIGNED(from, sizeof(to));
        if (sizeof(to) == 16) {
            uint4 v = *(const uint4*)from;
            to.bits[0] = v.x, to.bits[1] = v.y, to.bits[2 % (sizeof(to) / 4)] = v.z, to.bits[3 % (sizeof(to) / 4)] = v.w;
        } else {
            uint2 v = *(const uint2*)from;
            to.bits[0] = v.x, to.bits[1] = v.y;
        }
        return;
    }
    to.clear();
#pragma unroll
    for (int i = 0; i < N; i++) {
#if DTYPE == 0
        if (i < count) to.bits[i] = __float_as_uint(from[i]);
#else
        if (i < count) to.bits[i / 2] |= (u32)from[i] << i % 2 * 16;
#endif
    }
}

template <int N>
DEVICE void load_part(const element* from, float (&to)[N], int count, bool whole) {
    Packed<N> v;
    load_packed(from, v, count, whole);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = v.get(i);
}

template <int N>
DEVICE void store_part(element* to, const float (&from)[N], int count, bool whole) {
    if (whole) {
        EXPECT_ALIGNED(to, N * sizeof(element));
#if DTYPE == 0
        float4 v;
        v.x = from[0], v.y = from[1], v.z = from[2], v.w = from[3];
        *(float4*)to = v;
#else
        u32 v[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; i++) v[i] = pack(from[2 * i], from[2 * i + 1]);
        if (N == 8) {
            uint4 all;
            all.x = v[0], all.y = v[1], all.z = v[2 % (N / 2)], all.w = v[3 % (N / 2)];
            *(uint4*)to = all;
        } else {
            uint2 all;
            all.x = v[0], all.y = v[1];
            *(uint2*)to = all;
        }
#endif
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i < count) to[i] = narrow(from[i]);
}

// As above, of rows that are f32 whatever the activations are.
template <int N>
DEVICE void load_floats(const float* from, float (&to)[N], int count, bool whole) {
    if (whole) {
        EXPECT_ALIGNED(from, 16);
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 v = *(const float4*)(from + i);
            to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = i < count ? from[i] : 0.0f;
}

template <int N>
DEVICE void store_floats(float* to, const float (&from)[N], int count, bool whole) {
    if (whole) {
        EXPECT_ALIGNED(to, 16);
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 v;
            v.x = from[i], v.y = from[i + 1], v.z = from[i + 2], v.w = from[i + 3];
            *(float4*)(to + i) = v;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i < count) to[i] = from[i];
}

template <int N>
DEVICE void fill(float (&v)[N], float value) {
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = value;
}

// d silu(x) / dx, with s = sigmoid(x).
DEVICE float silu_slope(float x, float s) {
    return s * fmaf(x, 1.0f - s, 1.0f);
}
