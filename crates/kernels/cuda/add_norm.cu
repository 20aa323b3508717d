// A block's residual addition and its norm in one, forward and backward:
//
//   s = x scale + residual, y = norm(s) weight + bias
//
// norm(s) = s / rms(s) (Zhang & Sennrich, arXiv 1910.07467), or with LAYER (s - mean) / deviation (Ba et al., arXiv
// 1607.06450). `scale` (stochastic depth) is one number a row; residual and scale may be absent.
//
// x, y and their gradients are `element`, and so is the stream s, unless STREAM_F32 says that it is f32; statistics and
// parameters are f32. A team of `lanes` threads (a power of two from 32 to a block) owns a row and reads it two or three
// times: once from memory, then from the cache.
//
// Floors, for e bytes an element and r a value of the stream, M = rows times channels:
//   forward   (2 e + 2 r) M bytes (x, residual, y, s), 8 M operations
//   backward  (2 e + 3 r) M bytes (s, dy, ds, dx, dresidual), 14 M operations
// Less than 2 operations a byte in bf16: bandwidth is the floor.
#include "teams.cuh"

#ifndef STREAM_F32
#define STREAM_F32 0
#endif
#ifndef LAYER
#define LAYER 0
#endif

#if STREAM_F32
typedef float stream;
#define load_stream load_floats
#define store_stream store_floats
#else
typedef element stream;
#define load_stream load_part
#define store_stream store_part
#endif

struct ForwardArguments {
    const element* x;        // (rows, D)
    const stream* residual;  // (rows, D), or null
    const float* scale;      // (rows), or null
    const float* weight;     // (D)
    const float* bias;       // (D), or null
    element* y;              // (rows, D)
    stream* sum;             // (rows, D), or null
    float* mean;             // (rows), of LAYER, or null
    float* rstd;             // (rows), or null
    long long x_row, residual_row, y_row, sum_row;
    long long rows;
    int channels, lanes;
    float eps;
    int aligned;
};

// Channels d to d + count of s.
DEVICE void load_sum(const ForwardArguments& a, long long row, int d, int count, bool whole, float (&v)[VECTOR]) {
    load_part(a.x + row * a.x_row + d, v, count, whole);
    float scale = a.scale ? a.scale[row] : 1.0f;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v[i] *= scale;
    if (!a.residual) return;
    float residual[VECTOR];
    load_stream(a.residual + row * a.residual_row + d, residual, count, whole);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v[i] += residual[i];
}

// Grid: rows / teams.
KERNEL __launch_bounds__(THREADS, 4) add_norm_forward(ForwardArguments a) {
    __shared__ float shared[WARPS];
    Team me = team(a.lanes);
    long long row = (long long)blockIdx.x * me.count + me.index;
    bool there = row < a.rows;
    int size = there ? a.channels : 0;
    if (!there) row = 0;
    float v[VECTOR], mean = 0.0f, squares = 0.0f;
#if LAYER
    for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
        int count = min(VECTOR, size - d);
        load_sum(a, row, d, count, a.aligned && count == VECTOR, v);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) mean += v[i];
    }
    mean = team_sum(me, mean, shared) / (float)a.channels;
#endif
    for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
        int count = min(VECTOR, size - d);
        load_sum(a, row, d, count, a.aligned && count == VECTOR, v);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            float centred = i < count ? v[i] - mean : 0.0f;
            squares = fmaf(centred, centred, squares);
        }
    }
    squares = team_sum(me, squares, shared);
    float rstd = rsqrtf(squares / (float)a.channels + a.eps);
    if (there && me.lane == 0) {
        if (a.rstd) a.rstd[row] = rstd;
        if (LAYER && a.mean) a.mean[row] = mean;
    }
    for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
        int count = min(VECTOR, size - d);
        bool whole = a.aligned && count == VECTOR;
        float weight[VECTOR], bias[VECTOR];
        load_sum(a, row, d, count, whole, v);
        if (a.sum) store_stream(a.sum + row * a.sum_row + d, v, count, whole);
        load_floats(a.weight + d, weight, count, whole);
        fill(bias, 0.0f);
        if (a.bias) load_floats(a.bias + d, bias, count, whole);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] = fmaf((v[i] - mean) * rstd, weight[i], bias[i]);
        store_part(a.y + row * a.y_row + d, v, count, whole);
    }
}

struct BackwardArguments {
    const stream* sum;     // (rows, D): s of the forward
    const float* scale;    // (rows), or null
    const float* weight;   // (D)
    const float* mean;     // (rows), of LAYER
    const float* rstd;     // (rows)
    const element* dy;     // (rows, D)
    const stream* dsum;    // (rows, D): gradient of s as it is used elsewhere, or null
    element* dx;           // (rows, D)
    stream* dresidual;     // (rows, D), or null
    float* parts;          // (blocks, 2, D): shares of the gradients of weight and bias
    long long sum_row, dy_row, dsum_row, dx_row, dresidual_row;
    long long rows;
    int channels, lanes;
    int aligned;
    int roomy;             // whether 8 D bytes of shared memory a team were given; else one team, and `parts` serves
};

// ds = rstd (dy w - mean(dy w) - xhat mean(dy w xhat)) + dsum, the middle term of LAYER only; dx = ds scale.
// Grid: parts; teams take rows in turns.
KERNEL __launch_bounds__(THREADS, 3) add_norm_backward(BackwardArguments a) {
    __shared__ float shared[WARPS];
    DYNAMIC_SHARED(dynamic);
    Team me = team(a.lanes);
    int step;
    float* sums = team_parts(me, (float*)dynamic, a.parts, a.roomy, a.channels, a.channels, 0, step);
    for (long long base = (long long)blockIdx.x * me.count; base < a.rows; base += (long long)gridDim.x * me.count) {
        bool there = base + me.index < a.rows;
        long long row = there ? base + me.index : 0;
        int size = there ? a.channels : 0;
        const stream* sum = a.sum + row * a.sum_row;
        const element* dy = a.dy + row * a.dy_row;
        float rstd = there ? a.rstd[row] : 0.0f, mean = LAYER && there ? a.mean[row] : 0.0f;
        float scale = a.scale && there ? a.scale[row] : 1.0f;
        float v[VECTOR], dv[VECTOR], weight[VECTOR];
        float shift = 0.0f, slope = 0.0f;
        for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
            int count = min(VECTOR, size - d);
            bool whole = a.aligned && count == VECTOR;
            load_stream(sum + d, v, count, whole);
            load_part(dy + d, dv, count, whole);
            load_floats(a.weight + d, weight, count, whole);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                float hat = (v[i] - mean) * rstd, scaled = dv[i] * weight[i];
                shift += scaled;
                slope = fmaf(scaled, hat, slope);
            }
        }
        shift = LAYER ? team_sum(me, shift, shared) / (float)a.channels : 0.0f;
        slope = team_sum(me, slope, shared) / (float)a.channels;
        for (int d = me.lane * VECTOR; d < size; d += me.lanes * VECTOR) {
            int count = min(VECTOR, size - d);
            bool whole = a.aligned && count == VECTOR;
            float more[VECTOR];
            load_stream(sum + d, v, count, whole);
            load_part(dy + d, dv, count, whole);
            load_floats(a.weight + d, weight, count, whole);
            fill(more, 0.0f);
            if (a.dsum) load_stream(a.dsum + row * a.dsum_row + d, more, count, whole);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) {
                float hat = (v[i] - mean) * rstd;
                if (i < count) {
                    sums[d + i] = fmaf(dv[i], hat, sums[d + i]);
                    sums[step + d + i] += dv[i];
                }
                more[i] += rstd * (fmaf(dv[i], weight[i], -shift) - hat * slope);
                v[i] = more[i] * scale;
            }
            store_part(a.dx + row * a.dx_row + d, v, count, whole);
            if (a.dresidual) store_stream(a.dresidual + row * a.dresidual_row + d, more, count, whole);
        }
    }
    block_parts(me, (const float*)dynamic, a.parts, a.roomy, a.channels, a.channels, 0);
}
