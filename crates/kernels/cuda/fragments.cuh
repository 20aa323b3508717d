// Products of tiles in shared memory on the tensor cores, with f32 sums, for every element type:
//
//   bf16  tiles of bf16, m16n8k16
//   f32   tiles of f32, m16n8k8 in tf32, each product from three (big big + big rest + rest big): about 2^-21 of the
//         operands, which is what the CPU keeps; one tf32 product alone would leave 2^-11
//   f16   tiles of f32, m16n8k8 in tf32, one product: tf32 holds an f16 exactly and has the range of f32. In m16n8k16.f16
//         what stands between two products (states, sums over channels, gradients scaled against underflow) would pass
//         65504 and become infinite
//
// A fragment is what a warp holds of one operand of an mma (common.cuh shows the lanes); a block is 16 x 16.
#pragma once

#include "rows.cuh"

#if DTYPE == 1
typedef u16 operand;
// Depth of one mma, and elements between the rows of a tile, for which eight rows lie in different banks.
#define K_STEP 16
#define GAP 8
DEVICE operand to_operand(float value) { return to_bf16(value); }
DEVICE void put_operands(operand* to, float v0, float v1) { *(u32*)to = pack_bf16(v0, v1); }
DEVICE float from_operand(operand value) { return from_bf16(value); }
#else
typedef float operand;
#define K_STEP 8
#define GAP 4
DEVICE operand to_operand(float value) { return value; }
DEVICE void put_operands(operand* to, float v0, float v1) { *(float2*)to = make_float2(v0, v1); }
DEVICE float from_operand(operand value) { return value; }
#endif

// mma steps of a block.
#define K_STEPS (16 / K_STEP)

// 16 rows of the left operand, K_STEP deep.
struct Left {
    u32 v[4];
#if DTYPE == 0
    u32 rest[4];
#endif
};

// 8 columns of the right operand, K_STEP deep.
struct Right {
    u32 v[2];
#if DTYPE == 0
    u32 rest[2];
#endif
};

#if DTYPE != 1
template <class Fragment>
DEVICE void set(Fragment& f, int i, float value) {
    f.v[i] = to_tf32(value);
#if DTYPE == 0
    f.rest[i] = to_tf32(value - __uint_as_float(f.v[i]));
#endif
}
#endif

DEVICE void multiply(float (&d)[4], const Left& a, const Right& b) {
#if DTYPE == 1
    mma_bf16(d, a.v, b.v);
#else
#if DTYPE == 0
    mma_tf32(d, a.rest, b.v);
    mma_tf32(d, a.v, b.rest);
#endif
    mma_tf32(d, a.v, b.v);
#endif
}

// Rows m to m + 15 and columns k to k + K_STEP - 1 of a tile.
DEVICE void left(Left& a, const operand* tile, int stride, int m, int k) {
    int lane = lane_id();
#if DTYPE == 1
    load_matrices(a.v, tile + (m + lane % 16) * stride + k + lane / 16 * 8);
#else
    const operand* at = tile + (m + lane / 4) * stride + k + lane % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) set(a, i, at[i % 2 * 8 * stride + i / 2 * 4]);
#endif
}

// A value, 0 where its weight is: what a weight of 0 shuts out may be NaN.
DEVICE float weighted(float value, float weight) { return weight == 0.0f ? 0.0f : value * weight; }

// The same of the tile's transpose: rows k to k + K_STEP - 1, columns m to m + 15. Column k is multiplied by weight[k].
DEVICE void left_transposed(Left& a, const operand* tile, int stride, int m, int k, const float* weight) {
    int lane = lane_id(), t = lane % 4;
#if DTYPE == 1
    load_matrices_transposed(a.v, tile + (k + lane / 16 * 8 + lane % 8) * stride + m + lane / 8 % 2 * 8);
    if (!weight) return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float* w = weight + k + i / 2 * 8 + 2 * t;
        a.v[i] = pack_bf16(weighted(from_bf16((u16)a.v[i]), w[0]), weighted(from_bf16((u16)(a.v[i] >> 16)), w[1]));
    }
#else
    const operand* at = tile + (k + t) * stride + m + lane / 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
        set(a, i, weighted(at[i / 2 * 4 * stride + i % 2 * 8], weight ? weight[k + t + i / 2 * 4] : 1.0f));
#endif
}

// Columns n to n + 15 of the right operand, which are rows of the tile.
DEVICE void right(Right (&b)[2], const operand* tile, int stride, int n, int k) {
    int lane = lane_id();
#if DTYPE == 1
    u32 v[4];
    load_matrices(v, tile + (n + lane / 16 * 8 + lane % 8) * stride + k + lane / 8 % 2 * 8);
    b[0].v[0] = v[0], b[0].v[1] = v[1], b[1].v[0] = v[2], b[1].v[1] = v[3];
#else
    const operand* at = tile + (n + lane / 4) * stride + k + lane % 4;
#pragma unroll
    for (int i = 0; i < 4; i++) set(b[i / 2], i % 2, at[i / 2 * 8 * stride + i % 2 * 4]);
#endif
}

// Columns n to n + 15 of the right operand, which are columns of the tile.
DEVICE void right_transposed(Right (&b)[2], const operand* tile, int stride, int n, int k) {
    int lane = lane_id();
#if DTYPE == 1
    u32 v[4];
    load_matrices_transposed(v, tile + (k + lane / 8 % 2 * 8 + lane % 8) * stride + n + lane / 16 * 8);
    b[0].v[0] = v[0], b[0].v[1] = v[1], b[1].v[0] = v[2], b[1].v[1] = v[3];
#else
    const operand* at = tile + (k + lane % 4) * stride + n + lane / 4;
#pragma unroll
    for (int i = 0; i < 4; i++) set(b[i / 2], i % 2, at[i % 2 * 4 * stride + i / 2 * 8]);
#endif
}

// A 16 x 16 block of sums as the left operand of the next product. In tf32 a lane holds other columns of it than the mma
// wants; since a sum may be taken in any order, the columns are renamed here and the rows in right_of_sums.
DEVICE void left_of_sums(Left (&a)[K_STEPS], const float (&sums)[2][4]) {
#if DTYPE == 1
#pragma unroll
    for (int i = 0; i < 4; i++) a[0].v[i] = pack_bf16(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
#else
#pragma unroll
    for (int j = 0; j < K_STEPS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) set(a[j], i, sums[j][i % 2 * 2 + i / 2]);
#endif
}

// As right_transposed, of step j of a block that begins at row k.
DEVICE void right_of_sums(Right (&b)[2], const operand* tile, int stride, int n, int k, int j) {
#if DTYPE == 1
    right_transposed(b, tile, stride, n, k);
#else
    int lane = lane_id();
    const operand* at = tile + (k + j * 8 + lane % 4 * 2) * stride + n + lane / 4;
#pragma unroll
    for (int i = 0; i < 4; i++) set(b[i / 2], i % 2, at[i % 2 * stride + i / 2 * 8]);
#endif
}

// to (16 x 16) += a block of sums times rows k to k + 15, columns n to n + 15 of a tile.
DEVICE void multiply_sums(float (&to)[2][4], const Left (&a)[K_STEPS], const operand* tile, int stride, int n, int k) {
#pragma unroll
    for (int j = 0; j < K_STEPS; j++) {
        Right b[2];
        right_of_sums(b, tile, stride, n, k, j);
        multiply(to[0], a[j], b[0]);
        multiply(to[1], a[j], b[1]);
    }
}

// Row and column, within a block, of value i of tile half of a block of sums.
DEVICE int sum_row(int i) { return lane_id() / 4 + i / 2 * 8; }
DEVICE int sum_column(int half, int i) { return half * 8 + lane_id() % 4 * 2 + i % 2; }

// VECTOR values to an address that is a multiple of 16 bytes, in shared memory.
DEVICE void store_operands(operand* to, const float (&from)[VECTOR]) {
#if DTYPE == 2
#pragma unroll
    for (int i = 0; i < VECTOR; i += 4) *(float4*)(to + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
#else
    store_vector((element*)to, from);
#endif
}
