// What every kernel needs of CUDA, with no header of the toolkit: element types, the elementary functions, the warp, the
// tensor cores and asynchronous copies.
//
// A kernel is `extern "C" __global__ void name(Arguments a)`: one plain struct by value, mirrored by a #[repr(C)] struct in
// Rust. What is exact to the problem is a macro given on the command line; `DTYPE` is the element type of activations:
// 0 f32, 1 bf16, 2 f16. Arithmetic is f32.
//
// The same source is compiled as C++ by the tests (EMULATED, see tests/cuda/emulate.hpp), which then define the built-ins
// of CUDA themselves; what is inline PTX here has a portable form beside it.
#pragma once

#ifndef DTYPE
#define DTYPE 0
#endif

#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void

#define FULL_WARP 0xffffffffu

// Shared memory whose size the launch gives, as bytes aligned to 128: DYNAMIC_SHARED(name) declares `name`.
#ifdef EMULATED
#define DYNAMIC_SHARED(name) unsigned char* name = emulate::dynamic_shared
#else
extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
#define DYNAMIC_SHARED(name) unsigned char* name = dynamic_shared_memory
#endif

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// ---- element types -------------------------------------------------------------------------------------------------

DEVICE float from_bf16(u16 bits) {
    return __uint_as_float((u32)bits << 16);
}

// Two floats as a pair of bf16, the first in the low half; nearest, ties to even.
DEVICE u32 pack_bf16(float low, float high) {
#ifdef EMULATED
    return (u32)emulate::to_bf16(low) | (u32)emulate::to_bf16(high) << 16;
#else
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

DEVICE u16 to_bf16(float value) {
    return (u16)pack_bf16(value, 0.0f);
}

DEVICE float from_f16(u16 bits) {
#ifdef EMULATED
    return emulate::from_f16(bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
}

DEVICE u16 to_f16(float value) {
#ifdef EMULATED
    return emulate::to_f16(value);
#else
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#endif
}

// Two floats as a pair of f16, the first in the low half.
DEVICE u32 pack_f16(float low, float high) {
#ifdef EMULATED
    return (u32)emulate::to_f16(low) | (u32)emulate::to_f16(high) << 16;
#else
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

// Some rows may be f32 whatever the activations are.
DEVICE float widen(float value) { return value; }
#if DTYPE == 0
typedef float element;
DEVICE element narrow(float value) { return value; }
#elif DTYPE == 1
typedef u16 element;
DEVICE float widen(element value) { return from_bf16(value); }
DEVICE element narrow(float value) { return to_bf16(value); }
DEVICE u32 pack(float low, float high) { return pack_bf16(low, high); }
#else
typedef u16 element;
DEVICE float widen(element value) { return from_f16(value); }
DEVICE element narrow(float value) { return to_f16(value); }
DEVICE u32 pack(float low, float high) { return pack_f16(low, high); }
#endif

// Elements in 16 bytes.
#define VECTOR ((int)(16 / sizeof(element)))

// 16 bytes at an address that is a multiple of 16.
DEVICE void load_vector(const element* from, float (&to)[VECTOR]) {
    union { uint4 bits; element part[VECTOR]; } v;
    v.bits = *(const uint4*)from;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) to[i] = widen(v.part[i]);
}

DEVICE void store_vector(element* to, const float (&from)[VECTOR]) {
    union { uint4 bits; element part[VECTOR]; } v;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v.part[i] = narrow(from[i]);
    *(uint4*)to = v.bits;
}

// Rows of outputs may be f32 whatever the activations are.
DEVICE void put(float* to, float value) { *to = value; }
DEVICE float get(const float* from) { return *from; }
#if DTYPE != 0
DEVICE void put(element* to, float value) { *to = narrow(value); }
DEVICE float get(const element* from) { return widen(*from); }
#endif

// ---- elementary functions ------------------------------------------------------------------------------------------
// Error against f64: exp2 2^-22 (the hardware's; exact at 0, so a decay of 1 stays 1), flushed to 0 below 2^-126;
// sigmoid and softplus about 6 units in the last place, as on the CPU.

#define LOG2_E 1.44269504088896340736f
#define LOG2_E_REST 1.9259630335009e-8f
#define LN_2 0.693147180559945309417f

DEVICE float exp2_fast(float x) {
#ifdef EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

DEVICE float reciprocal(float x) {
#ifdef EMULATED
    return 1.0f / x;
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// x between two bounds; NaN stays NaN.
DEVICE float clamp(float x, float low, float high) {
#ifdef EMULATED
    return x < low ? low : x > high ? high : x;
#else
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(low));
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(y), "f"(high));
    return y;
#endif
}

// e^x, the rounding error of x log2(e) carried along so that large |x| lose nothing.
DEVICE float exp_fast(float x) {
    x = clamp(x, -105.0f, 90.0f);
    float t = x * LOG2_E;
    float rest = fmaf(x, LOG2_E_REST, fmaf(x, LOG2_E, -t));
    return exp2_fast(t) * fmaf(rest, LN_2, 1.0f);
}

DEVICE float sigmoid(float x) {
    return reciprocal(1.0f + exp_fast(-x));
}

DEVICE float silu(float x) {
    return x * sigmoid(x);
}

// ln(1 + e^x) and its derivative sigmoid(x), for one exponential: max(x, 0) + 2 atanh(y / (2 + y)), y = e^-|x|.
DEVICE float softplus(float x, float& slope) {
    float y = exp_fast(-fabsf(x));
    float s = y * reciprocal(y + 2.0f);
    float q = s * s;
    // Minimax polynomial of 2 atanh(s) / s - 2 in q on [0, 1/9], relative error 4.5e-9.
    float low = fmaf(0.66666416f, q, 2.0f);
    float high = fmaf(fmaf(0.28011988f, q, 0.28001805f), q, 0.40021527f);
    slope = (x > 0.0f ? 1.0f : y) * reciprocal(1.0f + y);
    return fmaf(s, fmaf(high, q * q, low), x > 0.0f ? x : 0.0f);
}

DEVICE float softplus(float x) {
    float slope;
    return softplus(x, slope);
}

// ---- the warp ------------------------------------------------------------------------------------------------------

DEVICE int lane_id() { return (int)(threadIdx.x & 31); }
DEVICE int warp_id() { return (int)(threadIdx.x >> 5); }

// Sum over aligned runs of `width` lanes (a power of two), in every lane, always in the same order.
template <int width>
DEVICE float warp_sum(float value) {
#pragma unroll
    for (int step = width / 2; step > 0; step /= 2) value += __shfl_xor_sync(FULL_WARP, value, step);
    return value;
}

// Sums `count` values over runs of `run` lanes `stride` apart (all powers of two) and spreads the sums over the run, which
// takes half the shuffles each round: the lane at place j of its run (j = lane / stride % run) gets the sums of count / run
// values, those from j count / run on, as the first of `values`; if there are fewer values than lanes, that of the value
// j count / run.
template <int count, int run, int stride>
DEVICE void warp_spread_sum(float* values) {
    if constexpr (run > 1) {
        const int half = count / 2, flip = run / 2 * stride;
        if constexpr (count > 1) {
            bool upper = (lane_id() & flip) != 0;
#pragma unroll
            for (int i = 0; i < half; i++) {
                float give = upper ? values[i] : values[i + half];
                float keep = upper ? values[i + half] : values[i];
                values[i] = keep + __shfl_xor_sync(FULL_WARP, give, flip);
            }
            warp_spread_sum<half, run / 2, stride>(values);
        } else {
            values[0] += __shfl_xor_sync(FULL_WARP, values[0], flip);
            warp_spread_sum<1, run / 2, stride>(values);
        }
    }
}

// ---- tensor cores --------------------------------------------------------------------------------------------------
// d += a b. Fragments as PTX lays them out, with g = lane / 4 and t = lane % 4:
//   m16n8k16: a[0..4] hold the pairs (row g | g+8 | g | g+8, columns 2t, 2t+1 | same | +8 | +8),
//             b[0..2] the pairs (rows 2t, 2t+1 | +8, column g);
//   m16n8k8:  a[0..4] (row g | g+8 | g | g+8, column t | t | t+4 | t+4), b[0..2] (row t | t+4, column g);
//   d[0..4]   (row g | g | g+8 | g+8, column 2t | 2t+1 | 2t | 2t+1).

DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulate::mma_16x8x16(d, a, b, emulate::from_bf16);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

DEVICE void mma_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulate::mma_16x8x16(d, a, b, emulate::from_f16);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// a and b hold f32 bits rounded by to_tf32.
DEVICE void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulate::mma_16x8x8(d, a, b);
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// To the 10 bits of mantissa of tf32: nearest, ties away from zero.
DEVICE u32 to_tf32(float value) {
#ifdef EMULATED
    u32 bits = __float_as_uint(value);
    return value == value ? (bits + 0x1000u) & 0xffffe000u : bits;
#else
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#endif
}

#if DTYPE == 1
DEVICE void mma_element(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { mma_bf16(d, a, b); }
#elif DTYPE == 2
DEVICE void mma_element(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { mma_f16(d, a, b); }
#endif

// Four 8x8 matrices of 16-bit values from shared memory: lane i gives the address of row i % 8 of matrix i / 8 (16 bytes,
// aligned); lane l receives (row l / 4, columns 2 (l % 4) and the next) of matrix j in to[j]; `transposed`: of its transpose.
DEVICE void load_matrices(u32 (&to)[4], const void* row) {
#ifdef EMULATED
    emulate::load_matrices(to, row, false);
#else
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
#endif
}

DEVICE void load_matrices_transposed(u32 (&to)[4], const void* row) {
#ifdef EMULATED
    emulate::load_matrices(to, row, true);
#else
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
#endif
}

// ---- asynchronous copies -------------------------------------------------------------------------------------------

// 16 bytes from global to shared memory, both aligned to 16; zeros, and nothing read, unless `valid`. A thread sees its
// own copies after copy_wait; the others after a barrier behind that.
DEVICE void copy_async(void* to, const void* from, bool valid) {
#ifdef EMULATED
    emulate::copy_async(to, from, valid);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
        :: "r"((u32)__cvta_generic_to_shared(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
#endif
}

// Closes a group of copies.
DEVICE void copy_commit() {
#ifdef EMULATED
    emulate::copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `left` of the youngest groups are under way.
template <int left>
DEVICE void copy_wait() {
#ifdef EMULATED
    emulate::copy_wait(left);
#else
    asm volatile("cp.async.wait_group %0;" :: "n"(left) : "memory");
#endif
}

// Asks for the line of an address that will be read.
DEVICE void prefetch(const void* at) {
#ifdef EMULATED
    emulate::touch(at);
#else
    asm volatile("prefetch.global.L2 [%0];" :: "l"(at));
#endif
}
