// Teams: the threads that own a row, or a group of channels of one, together.
#pragma once

#include "rows.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)

// A team's place in the grid, and its channels: those at lane VECTOR, then every lanes VECTOR on.
struct Team {
    int lanes, lane, index, count;
};

DEVICE Team team(int lanes) {
    Team t;
    t.lanes = lanes;
    t.lane = (int)threadIdx.x % lanes;
    t.index = (int)threadIdx.x / lanes;
    t.count = THREADS / lanes;
    return t;
}

// Sum of a value over the team, in every thread. All threads of the block must come.
DEVICE float team_sum(const Team& t, float value, float* shared) {
    value = warp_sum<32>(value);
    if (t.lanes == 32) return value;
    __syncthreads();
    if (lane_id() == 0) shared[warp_id()] = value;
    __syncthreads();
    int warps = t.lanes / 32, first = t.index * warps;
    float sum = 0.0f;
    for (int w = 0; w < warps; w++) sum += shared[first + w];
    return sum;
}

// Where a team adds up the gradients of the parameters: each place belongs to one thread.
DEVICE float* team_parts(const Team& t, float* dynamic, float* parts, int roomy, int group, long long channels,
                         int first, int& step) {
    step = roomy ? group : (int)channels;
    float* mine = roomy ? dynamic + (long long)t.index * 2 * group
                        : parts + (long long)blockIdx.x * 2 * channels + first;
    for (int d = t.lane * VECTOR; d < group; d += t.lanes * VECTOR)
        for (int i = d; i < min(d + VECTOR, group); i++) mine[i] = mine[step + i] = 0.0f;
    return mine;
}

// The teams' sums to `parts`, in the order of the teams.
DEVICE void block_parts(const Team& t, const float* dynamic, float* parts, int roomy, int group, long long channels,
                        int first) {
    if (!roomy) return;
    __syncthreads();
    float* out = parts + (long long)blockIdx.x * 2 * channels + first;
    for (int i = (int)threadIdx.x; i < 2 * group; i += THREADS) {
        float sum = 0.0f;
        for (int other = 0; other < t.count; other++) sum += dynamic[(long long)other * 2 * group + i];
        out[i < group ? i : channels + i - group] = sum;
    }
}
