// Depthwise causal convolution along K orders: y_t = act(bias + sum_w weight[w] x_{t - W + 1 + w}), act = SiLU or identity,
// x_t the row of the token visited at step t, y_t written to that token's row. A reset puts zeros before its step, a blank
// step feeds zeros, before the first step stand the W - 1 rows of the initial state.
//
// WIDTH is W. x, y and their gradients are `element`, parameters and states f32. A thread owns N channels and walks `span`
// steps of one order, the last W - 1 rows in registers: in any order a row is read once and written once, but for the W - 1
// rows before each span (in the backward also those behind it).
//
// Floors, for e bytes an element, M = B K T D:
//   forward   2 e M bytes (x shared by K directions is read from the cache but once), (2 W + 8) M operations
//   backward  3 e M bytes (x, dy, dx), (6 W + 14) M operations
//   step      2 e M + 8 W B D bytes, (2 W + 8) M operations
// At W = 4 in bf16 that is 4 operations a byte forward and 6 backward: bandwidth, not arithmetic, is the floor.
#include "rows.cuh"

#define THREADS 128
#define PAST (WIDTH - 1)
// Channels of a thread: 16 bytes of them in the forward; fewer in the backward, whose sums take the registers.
#define FORWARD_CHANNELS VECTOR
#define BACKWARD_CHANNELS 4
// Blocks that shall fit on a multiprocessor beside each other, without spilled registers.
#define FORWARD_BLOCKS 3
#define BACKWARD_BLOCKS (DTYPE == 0 ? 3 : 4)
// Steps whose rows are on their way at once.
#define FORWARD_AHEAD 4
#define BACKWARD_AHEAD 2

struct ForwardArguments {
    const element* x;             // (B, L, K, D)
    const float* weight;          // (K, D, W)
    const float* bias;            // (K, D), or null
    const float* initial;         // (B, K, D, W - 1), or null: zeros
    const int* read;              // (K, T) or (B, K, T): token of each step, BLANK or, behind the last step, END
    const int* written;           // likewise: token that each step writes, or BLANK; null: the one that is read
    const unsigned char* resets;  // likewise, or null
    element* y;                   // (B, L, K, D): stored at each step's token. Or null, and
    float* y_steps;               // (B, K, T, D): stored at each step
    float* final_state;           // (B, K, D, W - 1), or null
    long long x_batch, x_token, x_direction;
    long long y_batch, y_token, y_direction;
    int batch, directions, channels, steps;
    int span;                     // steps of a thread, at least W - 1
    int lanes;                    // threads of a block that lie side by side along the channels
    int per_sample, silu;
    int aligned;                  // every row begins at a multiple of 16 bytes
};

// What a thread works on: channels d to d + count of steps from to from + span of direction k.
struct Place {
    int k, d, count, from;
    bool whole, active;
};

template <int N>
DEVICE Place place(int channels, int steps, int span, int lanes, int aligned) {
    int vectors = (channels + N - 1) / N;
    int across = (vectors + lanes - 1) / lanes;
    int vector = (int)(blockIdx.x % across) * lanes + (int)threadIdx.x % lanes;
    int row = (int)threadIdx.x / lanes, rows = THREADS / lanes;
    long long from = ((long long)(blockIdx.x / across) * rows + row) * span;
    Place p;
    p.k = (int)blockIdx.y;
    p.d = vector * N;
    p.count = min(N, channels - p.d);
    p.whole = aligned && p.count == N;
    p.active = vector < vectors && row < rows && (from == 0 || from < steps);
    p.from = p.active ? (int)from : 0;
    return p;
}

// Taps and bias of the channels.
template <int N>
DEVICE void load_taps(const float* weight, const float* bias, const Place& p, int channels, float (&taps)[WIDTH][N],
                      float (&start)[N]) {
    int at = p.k * channels + p.d;
#pragma unroll
    for (int i = 0; i < N; i++) {
#pragma unroll
        for (int w = 0; w < WIDTH; w++) taps[w][i] = i < p.count ? weight[(long long)(at + i) * WIDTH + w] : 0.0f;
        start[i] = bias && i < p.count ? bias[at + i] : 0.0f;
    }
}

// The W - 1 rows before a step, oldest first. Of an initial state, which is f32, they do not fit in an element.
template <int N>
struct Window {
    float row[PAST][N];

    __device__ __forceinline__ void clear(int rows) {
#pragma unroll
        for (int i = 0; i < PAST; i++)
            if (i < rows) fill(row[i], 0.0f);
    }

    // Drops the oldest row and appends one.
    __device__ __forceinline__ void push(const float (&next)[N]) {
#pragma unroll
        for (int j = 0; j < N; j++) {
#pragma unroll
            for (int i = 0; i + 1 < PAST; i++) row[i][j] = row[i + 1][j];
            row[PAST - 1][j] = next[j];
        }
    }

    // The pre-activation of channel j of the step that reads `value`.
    __device__ __forceinline__ float sum(const float (&taps)[WIDTH][N], float start, float value, int j) const {
#pragma unroll
        for (int w = 0; w < PAST; w++) start = fmaf(taps[w][j], row[w][j], start);
        return fmaf(taps[PAST][j], value, start);
    }

    // The rows that stand before step p.from. `initial` is the state of the thread's first channel, or null.
    __device__ __forceinline__ void load(const element* x, long long x_token, const int* read,
                                         const unsigned char* resets, const float* initial, const Place& p) {
        clear(PAST);
#pragma unroll
        for (int i = 0; i < PAST; i++) {
            int t = p.from - PAST + i;
            if (t < 0) {
#pragma unroll
                for (int j = 0; j < N; j++)
                    if (initial && j < p.count) row[i][j] = initial[j * PAST + i];
                continue;
            }
            if (resets && resets[t]) clear(i);
            int token = read[t];
            if (token >= 0) load_part(x + token * x_token, row[i], p.count, p.whole);
        }
    }
};

// Grid: spans by vectors, directions, samples (in turns if there are fewer blocks).
KERNEL __launch_bounds__(THREADS, FORWARD_BLOCKS) causal_conv1d_forward(ForwardArguments a) {
    const int N = FORWARD_CHANNELS, AHEAD = FORWARD_AHEAD;
    Place p = place<N>(a.channels, a.steps, a.span, a.lanes, a.aligned);
    if (!p.active) return;
    float taps[WIDTH][N], start[N];
    load_taps(a.weight, a.bias, p, a.channels, taps, start);
    int to = min(p.from + a.span, a.steps);
    for (int b = (int)blockIdx.z; b < a.batch; b += (int)gridDim.z) {
        long long path = ((long long)(a.per_sample ? b * a.directions : 0) + p.k) * a.steps;
        long long own = (long long)b * a.directions + p.k;
        const int* read = a.read + path;
        const int* written = (a.written ? a.written : a.read) + path;
        const unsigned char* resets = a.resets ? a.resets + path : nullptr;
        const element* x = a.x + b * a.x_batch + p.k * a.x_direction + p.d;
        long long state = (own * a.channels + p.d) * PAST;
        if (p.from > 0 && read[p.from] == END) continue;
        Window<N> window;
        window.load(x, a.x_token, read, resets, a.initial ? a.initial + state : nullptr, p);
        int t = p.from;
        bool ended = false;
        while (t < to && !ended) {
            int token[AHEAD], target[AHEAD];
            Packed<N> rows[AHEAD];
#pragma unroll
            for (int q = 0; q < AHEAD; q++) {
                token[q] = t + q < to ? read[t + q] : END;
                target[q] = t + q < to ? written[t + q] : BLANK;
            }
#pragma unroll
            for (int q = 0; q < AHEAD; q++) {
                rows[q].clear();
                if (token[q] >= 0) load_packed(x + token[q] * a.x_token, rows[q], p.count, p.whole);
            }
#pragma unroll
            for (int q = 0; q < AHEAD; q++) {
                ended = ended || token[q] == END;
                if (ended) continue;
                if (resets && resets[t]) window.clear(PAST);
                float row[N];
#pragma unroll
                for (int j = 0; j < N; j++) row[j] = rows[q].get(j);
                if (target[q] >= 0) {
                    float y[N];
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        y[j] = window.sum(taps, start[j], row[j], j);
                        if (a.silu) y[j] = silu(y[j]);
                    }
                    if (a.y_steps)
                        store_floats(a.y_steps + (own * a.steps + t) * a.channels + p.d, y, p.count, p.whole);
                    else
                        store_part(a.y + b * a.y_batch + target[q] * a.y_token + p.k * a.y_direction + p.d, y,
                                   p.count, p.whole);
                }
                window.push(row);
                t++;
            }
        }
        if (a.final_state && (t == a.steps || read[t] == END)) {
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int i = 0; i < PAST; i++)
                    if (j < p.count) a.final_state[state + j * PAST + i] = window.row[i][j];
        }
    }
}

struct BackwardArguments {
    const element* x;
    const float* weight;
    const float* bias;
    const float* initial;
    const int* read;
    const int* written;
    const unsigned char* resets;
    const element* dy;    // (B, L, K, D)
    const float* dfinal;  // (B, K, D, W - 1), or null
    element* dx;          // (B, L, K, D): stored at each step's token. Or null, and
    float* dx_steps;      // (B, K, T, D): stored at each step
    float* parts;         // (parts, K, W + 1, D): shares of the gradients of the taps and, last, the bias
    float* dinitial;      // (B, K, D, W - 1), or null
    long long x_batch, x_token, x_direction;
    long long dy_batch, dy_token, dy_direction;
    long long dx_batch, dx_token, dx_direction;
    int batch, directions, channels, steps;
    int span, lanes;
    int per_sample, silu;
    int aligned;
};

// s_t = dy_t act'(pre_t); dx_t = sum_j weight[W - 1 - j] s_{t + j}; dweight[w] = sum_t s_t x_{t - W + 1 + w}.
// A thread goes W - 1 steps beyond its span, for what they give to its own steps. Grid as in the forward; block (i, _, z)
// makes part z (blocks of spans) + i / (blocks of vectors).
KERNEL __launch_bounds__(THREADS, BACKWARD_BLOCKS) causal_conv1d_backward(BackwardArguments a) {
    const int N = BACKWARD_CHANNELS, AHEAD = BACKWARD_AHEAD;
    __shared__ float shared[THREADS * N];
    Place p = place<N>(a.channels, a.steps, a.span, a.lanes, a.aligned);
    float taps[WIDTH][N], start[N], sums[WIDTH + 1][N];
#pragma unroll
    for (int w = 0; w <= WIDTH; w++) fill(sums[w], 0.0f);
    if (p.active) load_taps(a.weight, a.bias, p, a.channels, taps, start);
    int to = min(p.from + a.span, a.steps);
    for (int b = (int)blockIdx.z; p.active && b < a.batch; b += (int)gridDim.z) {
        long long path = ((long long)(a.per_sample ? b * a.directions : 0) + p.k) * a.steps;
        long long own = (long long)b * a.directions + p.k;
        const int* read = a.read + path;
        const int* written = (a.written ? a.written : a.read) + path;
        const unsigned char* resets = a.resets ? a.resets + path : nullptr;
        const element* x = a.x + b * a.x_batch + p.k * a.x_direction + p.d;
        const element* dy = a.dy + b * a.dy_batch + p.k * a.dy_direction + p.d;
        long long state = (own * a.channels + p.d) * PAST;
        if (p.from > 0 && read[p.from] == END) continue;
        Window<N> window, after;  // after: dx of the last W - 1 steps as far as it is known
        window.load(x, a.x_token, read, resets, a.initial ? a.initial + state : nullptr, p);
        after.clear(PAST);
        int alive = PAST;           // steps before this one that no reset cuts off
        int end = 0x7fffffff;       // steps of the order, once they are known
        for (int first = p.from; first < to + PAST; first += AHEAD) {
            int token[AHEAD], target[AHEAD];
            Packed<N> rows[AHEAD], slopes[AHEAD];
#pragma unroll
            for (int q = 0; q < AHEAD; q++) {
                int t = first + q;
                bool there = t < a.steps && t < to + PAST;
                token[q] = there ? read[t] : END;
                target[q] = there ? written[t] : BLANK;
            }
#pragma unroll
            for (int q = 0; q < AHEAD; q++) {
                rows[q].clear();
                slopes[q].clear();
                if (token[q] >= 0) load_packed(x + token[q] * a.x_token, rows[q], p.count, p.whole);
                if (target[q] >= 0) load_packed(dy + target[q] * a.dy_token, slopes[q], p.count, p.whole);
            }
#pragma unroll
            for (int q = 0; q < AHEAD; q++) {
                int t = first + q;
                if (t >= to + PAST) continue;
                bool reset = token[q] != END && resets && resets[t];
                if (token[q] == END) end = min(end, t);
                alive = reset ? 0 : min(alive + 1, PAST);
                if (reset) window.clear(PAST);
                float row[N], now[N];
#pragma unroll
                for (int j = 0; j < N; j++) row[j] = rows[q].get(j);
                fill(now, 0.0f);
                if (target[q] >= 0) {
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        float s = slopes[q].get(j);
                        if (a.silu) {
                            float sum = window.sum(taps, start[j], row[j], j);
                            s *= silu_slope(sum, sigmoid(sum));
                        }
                        float counted = t < to ? s : 0.0f;  // the others are counted by the span that holds them
#pragma unroll
                        for (int w = 0; w < PAST; w++) {
                            sums[w][j] = fmaf(counted, window.row[w][j], sums[w][j]);
                            if (alive >= PAST - w) after.row[w][j] = fmaf(taps[w][j], s, after.row[w][j]);
                        }
                        sums[PAST][j] = fmaf(counted, row[j], sums[PAST][j]);
                        sums[WIDTH][j] += counted;
                        now[j] = taps[PAST][j] * s;
                    }
                }
                // Step t - W + 1 is done.
                int done = t - PAST;
                if (done >= p.from || (p.from == 0 && done < 0)) {
                    float whole[N];
#pragma unroll
                    for (int j = 0; j < N; j++) whole[j] = after.row[0][j];
                    // One of the last W - 1 inputs: the final state holds it.
                    bool last = a.dfinal && t >= end && done < end;
                    for (int r = max(done + 1, 0); last && r < end; r++) last = !(resets && resets[r]);
                    if (last) {
#pragma unroll
                        for (int j = 0; j < N; j++)
                            if (j < p.count) whole[j] += a.dfinal[state + j * PAST + t - end];
                    }
                    int from = done < 0 ? BLANK : read[done];
                    if (done < 0) {
#pragma unroll
                        for (int j = 0; j < N; j++)
                            if (a.dinitial && j < p.count) a.dinitial[state + j * PAST + t] = whole[j];
                    } else if (from >= 0 && a.dx_steps) {
                        store_floats(a.dx_steps + (own * a.steps + done) * a.channels + p.d, whole, p.count, p.whole);
                    } else if (from >= 0) {
                        store_part(a.dx + b * a.dx_batch + from * a.dx_token + p.k * a.dx_direction + p.d, whole,
                                   p.count, p.whole);
                    }
                }
                after.push(now);
                window.push(row);
            }
        }
    }
    // The block's sums, over the threads that hold the same channels.
    int rows = THREADS / a.lanes, lane = (int)threadIdx.x % a.lanes, row = (int)threadIdx.x / a.lanes;
    int vectors = (a.channels + N - 1) / N, across = (vectors + a.lanes - 1) / a.lanes;
    long long part = (long long)blockIdx.z * (gridDim.x / across) + blockIdx.x / across;
    float* out = a.parts + (part * a.directions + p.k) * (WIDTH + 1) * a.channels + p.d;
#pragma unroll
    for (int w = 0; w <= WIDTH; w++) {
#pragma unroll
        for (int j = 0; j < N; j++) shared[j * THREADS + threadIdx.x] = sums[w][j];
        __syncthreads();
        if (row == 0) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                float sum = sums[w][j];
                for (int r = 1; r < rows; r++) sum += shared[j * THREADS + r * a.lanes + lane];
                if (j < p.count) out[(long long)w * a.channels + j] = sum;
            }
        }
        __syncthreads();
    }
}

struct StepArguments {
    const element* x;      // (B, L, D): the tokens to come
    const float* weight;   // (D, W)
    const float* bias;     // (D), or null
    float* state;          // (B, D, S): the last S inputs, oldest first; S >= W - 1
    const int* seen;       // (B), or null. Else the state is a circular buffer that has seen so many tokens
    element* y;            // (B, L, D)
    long long x_batch, x_token, y_batch, y_token;
    int batch, tokens, channels, room;
    int silu;
};

// A thread owns a channel of a sample. Grid: channels / 256, samples.
KERNEL __launch_bounds__(THREADS, 8) causal_conv1d_step(StepArguments a) {
    int d = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (d >= a.channels) return;
    float taps[WIDTH];
#pragma unroll
    for (int w = 0; w < WIDTH; w++) taps[w] = a.weight[(long long)d * WIDTH + w];
    float start = a.bias ? a.bias[d] : 0.0f;
    for (int b = (int)blockIdx.y; b < a.batch; b += (int)gridDim.y) {
        float* state = a.state + ((long long)b * a.channels + d) * a.room;
        // Where the next input goes in the buffer; without one the inputs stand before its end.
        int seen = a.seen ? (a.seen[b] % a.room + a.room) % a.room : 0;
        float window[PAST];
#pragma unroll
        for (int i = 0; i < PAST; i++) window[i] = state[(seen - PAST + i + a.room) % a.room];
        for (int t = 0; t < a.tokens; t++) {
            float row = widen(a.x[b * a.x_batch + t * a.x_token + d]);
            float sum = start;
#pragma unroll
            for (int w = 0; w < PAST; w++) sum = fmaf(taps[w], window[w], sum);
            sum = fmaf(taps[PAST], row, sum);
            a.y[b * a.y_batch + t * a.y_token + d] = narrow(a.silu ? silu(sum) : sum);
#pragma unroll
            for (int i = 0; i + 1 < PAST; i++) window[i] = window[i + 1];
            window[PAST - 1] = row;
            if (a.seen) state[(seen + t % a.room) % a.room] = row;
        }
        if (a.seen) continue;
        for (int i = 0; i < a.room; i++) {
            int from = i + a.tokens - a.room;
            state[i] = from < 0 ? state[i + a.tokens] : widen(a.x[b * a.x_batch + from * a.x_token + d]);
        }
    }
}
