// Sums in a fixed order, in place of atomic additions.
//
// sum_parts: out[c] = sum_p parts[p, c], the last step of a gradient of parameters. Bytes: 4 (parts + 1) columns; one
// addition a value.
//
// sum_visits: out[b, p, g, :] = sum over the visits v of token p in group g of rows[b, v, :], where an order visits a token
// twice or not at all, or where directions share an output. Bytes a channel: 4 for each visit, one element for each token.
//
// sum_coefficients: dB or dC from the parts that blocks of channels left, by token or by visit. Bytes a value: 4 for each part.
#include "rows.cuh"

#define THREADS 256
#define COLUMNS 32

struct PartsArguments {
    const float* parts;  // (count, columns)
    float* out;          // (columns)
    int count, columns;
};

// A block of 256: 32 columns by 8 shares of the parts. Grid: columns / 32.
KERNEL __launch_bounds__(THREADS) sum_parts(PartsArguments a) {
    __shared__ float shares[THREADS / COLUMNS][COLUMNS];
    int column = (int)(blockIdx.x * COLUMNS + threadIdx.x % COLUMNS);
    int share = (int)(threadIdx.x / COLUMNS);
    float sum = 0.0f;
    if (column < a.columns)
        for (int p = share; p < a.count; p += THREADS / COLUMNS) sum += a.parts[(long long)p * a.columns + column];
    shares[share][threadIdx.x % COLUMNS] = sum;
    __syncthreads();
    if (share > 0 || column >= a.columns) return;
    for (int i = 1; i < THREADS / COLUMNS; i++) sum += shares[i][threadIdx.x];
    a.out[column] = sum;
}

struct VisitsArguments {
    const float* rows;   // (B, visited, D)
    const int* starts;   // (B or 1, groups, L + 1): where a token's visits begin in `visits`
    const int* visits;   // (B or 1, visited): rows, those of a token side by side
    element* out;        // (B, L, groups, D)
    long long out_batch, out_token, out_group;
    int batch, tokens, groups, channels;
    int visited;         // rows of a sample
    int listed;          // entries of `visits` of a sample
    int per_sample;
    int aligned;         // every row of `rows` and `out` begins at a multiple of 16 bytes
};

// A thread owns VECTOR channels of a token. Grid: tokens by vectors / 256, groups, samples.
KERNEL __launch_bounds__(THREADS) sum_visits(VisitsArguments a) {
    int vectors = (a.channels + VECTOR - 1) / VECTOR;
    long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (at >= (long long)a.tokens * vectors) return;
    int token = (int)(at / vectors), d = (int)(at % vectors) * VECTOR, g = (int)blockIdx.y;
    int count = min(VECTOR, a.channels - d);
    bool whole = a.aligned && count == VECTOR;
    for (int b = (int)blockIdx.z; b < a.batch; b += (int)gridDim.z) {
        int sample = a.per_sample ? b : 0;
        const int* starts = a.starts + ((long long)sample * a.groups + g) * (a.tokens + 1) + token;
        const int* visits = a.visits + (long long)sample * a.listed;
        float sum[VECTOR], row[VECTOR];
        fill(sum, 0.0f);
        for (int i = starts[0]; i < starts[1]; i++) {
            load_floats(a.rows + ((long long)b * a.visited + visits[i]) * a.channels + d, row, count, whole);
#pragma unroll
            for (int j = 0; j < VECTOR; j++) sum[j] += row[j];
        }
        store_part(a.out + b * a.out_batch + token * a.out_token + g * a.out_group + d, sum, count, whole);
    }
}

struct CoefficientArguments {
    const float* parts;  // (B, K, rows, G, parts, N)
    // Where rows are steps: as in VisitsArguments, each direction a group. Null where rows are tokens.
    const int* starts;
    const int* visits;
    element* out;        // (B, L, K, G, N)
    long long out_batch, out_token, out_direction, out_group;
    int batch, tokens, directions, groups, states;
    int rows, count;     // of a direction; parts of a row
    int per_sample;
};

// A thread owns one value. Grid: B K L G N / 256.
KERNEL __launch_bounds__(THREADS) sum_coefficients(CoefficientArguments a) {
    long long at = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (at >= (long long)a.batch * a.directions * a.tokens * a.groups * a.states) return;
    int n = (int)(at % a.states), g = (int)(at / a.states % a.groups);
    long long rest = at / a.states / a.groups;
    int token = (int)(rest % a.tokens);
    long long sequence = rest / a.tokens;
    int k = (int)(sequence % a.directions), b = (int)(sequence / a.directions), sample = a.per_sample ? b : 0;
    const int* starts = a.starts ? a.starts + ((long long)sample * a.directions + k) * (a.tokens + 1) + token : nullptr;
    int first = starts ? starts[0] : 0, last = starts ? starts[1] : 1;
    float sum = 0.0f;
    for (int visit = first; visit < last; visit++) {
        long long row = sequence * a.rows + token;
        if (starts) row = (long long)b * a.directions * a.rows + a.visits[(long long)sample * a.directions * a.rows + visit];
        const float* part = a.parts + (row * a.groups + g) * a.count * a.states + n;
        for (int i = 0; i < a.count; i++) sum += part[(long long)i * a.states];
    }
    put(a.out + b * a.out_batch + token * a.out_token + k * a.out_direction + g * a.out_group + n, sum);
}
