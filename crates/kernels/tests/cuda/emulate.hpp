// CUDA on a CPU, for tests: a kernel is compiled as C++ behind this header and its launches are executed by one thread.
//
// The threads of a block are fibres. One runs until it meets a barrier or a warp operation, then the next one runs, in an
// order that the launch gives: forward or backward, each warp going as far as it can before the next one starts; or
// shuffled, anew at every pass over the block, all warps side by side. Blocks are taken one after the other in the same
// order. A correct kernel gives the same bits in every order; one that lacks a barrier reads what has not been written
// yet, or what has been overwritten already, in some of them. Shared memory is filled with NaN before each block.
//
// What is an error (and not undefined, as on a GPU): a barrier or warp operation that not all threads of the block or the
// mask reach, threads that meet at two different barriers, an address outside shared memory or outside the
// memory the tests allocated by `emulate_allocate` (both end, or begin, at a page that may not be touched).
//
// What it does not show: caches, timing, weak ordering of memory between blocks, bank conflicts, registers.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define EMULATED 1
#define __device__
#define __global__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
// Statically sized shared memory lies in one section of the library, so that it can be filled with NaN.
#define __shared__ static __attribute__((section("emulated_shared"), aligned(16)))

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(8) int2 { int x, y; };
struct __align__(16) int4 { int x, y, z, w; };
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

template <class To, class From>
inline To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned v) { return emulated_bits<float>(v); }
inline float __int_as_float(int v) { return emulated_bits<float>(v); }
inline unsigned __float_as_uint(float v) { return emulated_bits<unsigned>(v); }
inline int __float_as_int(float v) { return emulated_bits<int>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz((unsigned)v); }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

namespace emulate {

// ---- fibres --------------------------------------------------------------------------------------------------------
// Entered through ucontext, switched by _setjmp and _longjmp, which make no system call.

enum class State { Ready, Barrier, Warp, Done };

struct Copy { void* to; const void* from; bool valid; };

struct Fibre {
    jmp_buf jump;
    ucontext_t context;
    unsigned char* stack;
    uint3 thread;
    State state;
    bool started;
    int line;            // of the barrier it waits at
    Copy copies[4096];   // not yet made, in order
    int ends[64];        // where each group of them ends
    int copy_count, group_count;
};

struct Warp {
    unsigned mask, arrived;
    const void* operation;
    const void* in[32];
    void* out[32];
};

constexpr int most_threads = 1024;
constexpr size_t page = 4096;
constexpr size_t guard = 256 * page;
constexpr size_t stack_size = 64 * page;

static Fibre* fibres;
static Warp warps[most_threads / 32];
static Fibre* current;
static jmp_buf scheduler;
static bool failed;
static char message[512];
static unsigned char* dynamic_shared;
static bool late_copies;
static int threads_waiting, threads_in_block, barrier_line;

typedef void (*Call)(const void*);
static Call call;
static const void* call_context;

__attribute__((noinline)) static void yield() {
    if (_setjmp(current->jump) == 0) _longjmp(scheduler, 1);
}

// Gives the launch up.
[[noreturn]] __attribute__((format(printf, 1, 2))) static void fail(const char* format, ...) {
    int used = snprintf(message, sizeof message, "block (%u, %u, %u), thread (%u, %u, %u): ", blockIdx.x, blockIdx.y, blockIdx.z,
                        threadIdx.x, threadIdx.y, threadIdx.z);
    va_list list;
    va_start(list, format);
    vsnprintf(message + used, sizeof message - used, format, list);
    va_end(list);
    failed = true;
    _longjmp(scheduler, 1);
}

static void enter() {
    call(call_context);
    if (current->copy_count > 0) fail("ends with copies under way");
    current->state = State::Done;
    _longjmp(scheduler, 1);
}

static int index_of(const Fibre* fibre) { return (int)(fibre - fibres); }

// ---- barriers and warp operations ----------------------------------------------------------------------------------

inline void block_barrier(int line) {
    if (threads_waiting > 0 && barrier_line != line)
        fail("waits at the barrier of line %d, others wait at that of line %d", line, barrier_line);
    barrier_line = line;
    if (++threads_waiting == threads_in_block) {
        threads_waiting = 0;
        for (int i = 0; i < threads_in_block; i++) fibres[i].state = State::Ready;
        // The one that came last does not go on first: the order of the launch holds after the barrier too.
    } else {
        current->state = State::Barrier;
        current->line = line;
    }
    yield();
}

// All lanes of `mask` meet; the last one runs `operation` over what they gave.
inline void warp_operation(unsigned mask, void (*operation)(const Warp&), const void* in, void* out) {
    int at = index_of(current), lane = at % 32;
    Warp& warp = warps[at / 32];
    if (!(mask >> lane & 1)) fail("calls a warp operation whose mask %08x lacks its lane", mask);
    if (warp.arrived != 0 && (warp.mask != mask || warp.operation != (const void*)operation))
        fail("meets its warp in another operation or with another mask (%08x, others %08x)", mask, warp.mask);
    warp.mask = mask;
    warp.operation = (const void*)operation;
    warp.in[lane] = in;
    warp.out[lane] = out;
    warp.arrived |= 1u << lane;
    if (warp.arrived == mask) {
        warp.arrived = 0;
        if (operation) operation(warp);
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1) fibres[at / 32 * 32 + i].state = State::Ready;
    } else {
        current->state = State::Warp;
    }
    yield();
}

template <class T> struct Shuffle { T value; int from; };

template <class T>
inline T shuffle(unsigned mask, T value, int from) {
    Shuffle<T> in = {value, from};
    T out = value;
    warp_operation(mask, [](const Warp& warp) {
        for (int lane = 0; lane < 32; lane++) {
            if (!(warp.mask >> lane & 1)) continue;
            int from = ((const Shuffle<T>*)warp.in[lane])->from;
            if (!(warp.mask >> from & 1)) fail("shuffles from lane %d, which its mask %08x lacks", from, warp.mask);
            *(T*)warp.out[lane] = ((const Shuffle<T>*)warp.in[from])->value;
        }
    }, &in, &out);
    return out;
}

inline int lane() { return index_of(current) % 32; }

// ---- copies --------------------------------------------------------------------------------------------------------
// Made at once, or as late as allowed.

inline void make(const Copy& copy) {
    if (copy.valid) memcpy(copy.to, copy.from, 16);
    else memset(copy.to, 0, 16);
}

inline void copy_async(void* to, const void* from, bool valid) {
    if ((uintptr_t)to % 16 || (valid && (uintptr_t)from % 16)) fail("copies 16 bytes from or to an odd address");
    if (current->copy_count == 4096) fail("has too many copies under way");
    Copy copy = {to, from, valid};
    current->copies[current->copy_count++] = copy;
    if (!late_copies) make(copy);
}

inline void copy_commit() {
    if (current->group_count == 64) fail("has too many groups of copies under way");
    current->ends[current->group_count++] = current->copy_count;
}

inline void copy_wait(int left) {
    Fibre& fibre = *current;
    int groups = fibre.group_count - left;
    if (groups <= 0) return;
    int made = fibre.ends[groups - 1];
    if (late_copies) for (int i = 0; i < made; i++) make(fibre.copies[i]);
    fibre.copy_count -= made;
    memmove(fibre.copies, fibre.copies + made, fibre.copy_count * sizeof(Copy));
    fibre.group_count -= groups;
    for (int i = 0; i < fibre.group_count; i++) fibre.ends[i] = fibre.ends[i + groups] - made;
}

// A prefetch of an address that may not be read would not fail on a GPU, but serves nothing.
inline void touch(const void* at) { (void)*(const volatile unsigned char*)at; }

// ---- half precision ------------------------------------------------------------------------------------------------

inline float from_bf16(unsigned short bits) { return emulated_bits<float>((unsigned)bits << 16); }

inline unsigned short to_bf16(float value) {
    unsigned bits = emulated_bits<unsigned>(value);
    if (value != value) return 0x7fff;
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

inline float from_f16(unsigned short bits) {
    unsigned sign = (unsigned)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 31) return emulated_bits<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) return emulated_bits<float>(sign | emulated_bits<unsigned>((float)mantissa * 0x1p-24f));
    return emulated_bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

inline unsigned short to_f16(float value) {
    unsigned bits = emulated_bits<unsigned>(value), sign = bits >> 16 & 0x8000;
    float size = fabsf(value);
    if (value != value) return 0x7fff;
    if (size >= 65520.0f) return (unsigned short)(sign | 0x7c00);
    if (size < 0x1p-14f) return (unsigned short)(sign | (unsigned)rintf(size * 0x1p24f));
    unsigned magnitude = bits & 0x7fffffffu;
    magnitude += 0xfffu + (magnitude >> 13 & 1);
    return (unsigned short)(sign | ((magnitude >> 13) - (112u << 10)));
}

// ---- tensor cores --------------------------------------------------------------------------------------------------

struct Fragments { float* d; const unsigned* a; const unsigned* b; float (*widen)(unsigned short); };

// d (16 x 8) += a (16 x k) b (k x 8), summed over k in order.
inline void multiply(const Warp& warp, int k, const float (*a)[16], const float (*b)[8]) {
    for (int lane = 0; lane < 32; lane++) {
        float* d = ((const Fragments*)warp.in[lane])->d;
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = d[i];
            for (int j = 0; j < k; j++) sum += a[row][j] * b[j][column];
            d[i] = sum;
        }
    }
}

inline void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], float (*widen)(unsigned short)) {
    Fragments in = {d, a, b, widen};
    warp_operation(~0u, [](const Warp& warp) {
        float a[16][16], b[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const Fragments& f = *(const Fragments*)warp.in[lane];
            for (int i = 0; i < 8; i++)
                a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] = f.widen((unsigned short)(f.a[i / 2] >> i % 2 * 16));
            for (int i = 0; i < 4; i++)
                b[lane % 4 * 2 + i % 2 + i / 2 * 8][lane / 4] = f.widen((unsigned short)(f.b[i / 2] >> i % 2 * 16));
        }
        multiply(warp, 16, a, b);
    }, &in, nullptr);
}

inline void mma_16x8x8(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Fragments in = {d, a, b, nullptr};
    warp_operation(~0u, [](const Warp& warp) {
        auto tf32 = [](unsigned bits) { return emulated_bits<float>(bits & 0xffffe000u); };
        float a[16][16], b[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const Fragments& f = *(const Fragments*)warp.in[lane];
            for (int i = 0; i < 4; i++) a[lane / 4 + i % 2 * 8][lane % 4 + i / 2 * 4] = tf32(f.a[i]);
            for (int i = 0; i < 2; i++) b[lane % 4 + i * 4][lane / 4] = tf32(f.b[i]);
        }
        multiply(warp, 8, a, b);
    }, &in, nullptr);
}

struct Rows { const void* row; bool transposed; };

inline void load_matrices(unsigned (&to)[4], const void* row, bool transposed) {
    if ((uintptr_t)row % 16) fail("loads a row of a matrix from an odd address");
    Rows in = {row, transposed};
    warp_operation(~0u, [](const Warp& warp) {
        for (int lane = 0; lane < 32; lane++) {
            bool transposed = ((const Rows*)warp.in[lane])->transposed;
            for (int j = 0; j < 4; j++) {
                unsigned pair = 0;
                for (int i = 0; i < 2; i++) {
                    int row = lane / 4, column = lane % 4 * 2 + i;
                    if (transposed) { int swap = row; row = column; column = swap; }
                    const unsigned short* from = (const unsigned short*)((const Rows*)warp.in[j * 8 + row])->row;
                    pair |= (unsigned)from[column] << i * 16;
                }
                ((unsigned*)warp.out[lane])[j] = pair;
            }
        }
    }, &in, to);
}

// ---- memory --------------------------------------------------------------------------------------------------------

inline size_t usable(size_t size) { return (size + page - 1) / page * page; }

// `size` bytes that end where memory ends that may be touched (or begin where it begins), filled with ones: NaN in every
// type.
inline void* guarded(size_t size, size_t alignment, bool at_end) {
    size_t inside = usable(size);
    unsigned char* base = (unsigned char*)mmap(nullptr, inside + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) abort();
    base += guard;
    if (inside && mprotect(base, inside, PROT_READ | PROT_WRITE)) abort();
    memset(base, 0xff, inside);
    return at_end ? base + inside - (size + alignment - 1) / alignment * alignment : base;
}

inline void release(void* memory, size_t size) {
    // Wherever it begins, it begins in the first page.
    munmap((unsigned char*)((uintptr_t)memory / page * page) - guard, usable(size) + 2 * guard);
}

// The section exists only if the source declares static shared memory.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __start_emulated_shared[], __stop_emulated_shared[];

static void outside(int, siginfo_t* info, void*) {
    if (!current) {
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    fail("touches the address %p, outside of shared memory and of every buffer (dynamic shared memory begins at %p)", info->si_addr,
         (void*)dynamic_shared);
}

// ---- the launch ----------------------------------------------------------------------------------------------------

// The order in which `n` things are taken; 0 forward, 1 backward, else the seed of a shuffle.
struct Order {
    uint64_t kind;
    uint64_t next() {
        kind = kind * 6364136223846793005ull + 1442695040888963407ull;
        return kind >> 33;
    }
    void fill(int* order, int n) {
        for (int i = 0; i < n; i++) order[i] = kind == 1 ? n - 1 - i : i;
        if (kind > 1) for (int i = n - 1; i > 0; i--) {
            int j = (int)(next() % (uint64_t)(i + 1)), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
    }
};

// Runs a fibre until it waits or ends.
__attribute__((noinline)) static void resume(Fibre& fibre) {
    current = &fibre;
    threadIdx = fibre.thread;
    if (_setjmp(scheduler) != 0) return;
    if (fibre.started) _longjmp(fibre.jump, 1);
    fibre.started = true;
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack;
    fibre.context.uc_stack.ss_size = stack_size;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, enter, 0);
    setcontext(&fibre.context);
}

// Runs every thread of `turn` that is ready, once. True if there was one.
static bool pass(const int* turn, int n) {
    bool moved = false;
    for (int i = 0; i < n && !failed; i++) {
        if (turn[i] >= threads_in_block || fibres[turn[i]].state != State::Ready) continue;
        moved = true;
        resume(fibres[turn[i]]);
    }
    return moved;
}

static void run_block(Order& order) {
    static int turn[most_threads];
    threads_waiting = 0;
    memset(warps, 0, sizeof warps);
    for (int i = 0; i < threads_in_block; i++) {
        Fibre& fibre = fibres[i];
        fibre.state = State::Ready;
        fibre.started = false;
        fibre.copy_count = fibre.group_count = 0;
        unsigned at = (unsigned)i;
        fibre.thread = {at % blockDim.x, at / blockDim.x % blockDim.y, at / (blockDim.x * blockDim.y)};
    }
    for (bool moved = true; moved && !failed;) {
        // Whole warps, so that a pass can take one after the other.
        int whole = (threads_in_block + 31) / 32 * 32;
        order.fill(turn, whole);
        moved = false;
        if (order.kind > 1) moved = pass(turn, whole);
        else for (int warp = 0; warp < whole; warp += 32)
            while (pass(turn + warp, 32)) moved = true;
    }
    int done = 0, barrier = 0, warp = 0, line = 0;
    for (int i = 0; i < threads_in_block; i++) {
        done += fibres[i].state == State::Done;
        warp += fibres[i].state == State::Warp;
        if (fibres[i].state == State::Barrier) { barrier++; line = fibres[i].line; }
    }
    if (failed || done == threads_in_block) return;
    failed = true;
    snprintf(message, sizeof message, "block (%u, %u, %u): %d of %d threads wait at a barrier (line %d), %d in a warp operation, %d have ended",
             blockIdx.x, blockIdx.y, blockIdx.z, barrier, threads_in_block, line, warp, done);
}

}  // namespace emulate

#define __syncthreads() emulate::block_barrier(__LINE__)
inline void __syncwarp(unsigned mask = ~0u) { emulate::warp_operation(mask, nullptr, nullptr, nullptr); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// As in CUDA: `width` lanes (a power of two) form a run; a source outside of it gives the own value.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    int base = emulate::lane() / width * width;
    return emulate::shuffle(mask, value, base + (from & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32) {
    int lane = emulate::lane(), from = lane ^ flip;
    return emulate::shuffle(mask, value, from / width <= lane / width && from < 32 ? from : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int by, int width = 32) {
    int lane = emulate::lane();
    return emulate::shuffle(mask, value, lane % width >= by ? lane - by : lane);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int by, int width = 32) {
    int lane = emulate::lane();
    return emulate::shuffle(mask, value, lane % width + by < width ? lane + by : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned votes = 0;
    emulate::warp_operation(mask, [](const emulate::Warp& warp) {
        unsigned votes = 0;
        for (int i = 0; i < 32; i++)
            if (warp.mask >> i & 1 && *(const int*)warp.in[i]) votes |= 1u << i;
        for (int i = 0; i < 32; i++)
            if (warp.mask >> i & 1) *(unsigned*)warp.out[i] = votes;
    }, &predicate, &votes);
    return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }

template <class T> inline T atomicAdd(T* at, T value) { T old = *at; *at = old + value; return old; }
template <class T> inline T atomicMax(T* at, T value) { T old = *at; *at = old < value ? value : old; return old; }
template <class T> inline T atomicExch(T* at, T value) { T old = *at; *at = value; return old; }
template <class T> inline T atomicCAS(T* at, T expected, T value) { T old = *at; if (old == expected) *at = value; return old; }

extern "C" {

// Memory of the "device": filled with ones, with a page that may not be touched before it or behind it.
void* emulate_allocate(size_t size, int at_end) { return emulate::guarded(size, 16, at_end != 0); }
void emulate_release(void* memory, size_t size) { emulate::release(memory, size); }

// Runs `call(context)`, which calls the kernel, once for every thread. Null if all went well, else what went wrong. Not
// for several threads at once.
const char* emulate_launch(void (*call)(const void*), const void* context, const unsigned* grid, const unsigned* block, size_t shared,
                           uint64_t order, int late_copies) {
    using namespace emulate;
    emulate::call = call;
    call_context = context;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    threads_in_block = (int)(block[0] * block[1] * block[2]);
    emulate::late_copies = late_copies != 0;
    failed = false;
    if (threads_in_block < 1 || threads_in_block > most_threads) return "a block has 1 to 1024 threads";
    if (shared > 232448) return "more dynamic shared memory than any card has";
    // Every module has stacks of its own, and the system only so many mappings for a process: no more than are needed.
    if (!fibres) fibres = (Fibre*)calloc(most_threads, sizeof(Fibre));
    for (int i = 0; i < threads_in_block; i++)
        if (!fibres[i].stack) fibres[i].stack = (unsigned char*)guarded(stack_size, 16, true);
    dynamic_shared = (unsigned char*)guarded(shared, 128, true);
    struct sigaction action = {}, before_segv, before_bus;
    action.sa_sigaction = outside;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
    Order turns = {order};
    uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    int* blocks_in_turn = (int*)malloc((blocks + 1) * sizeof(int));
    turns.fill(blocks_in_turn, (int)blocks);
    for (uint64_t i = 0; i < blocks && !failed; i++) {
        unsigned at = (unsigned)blocks_in_turn[i];
        blockIdx = {at % grid[0], at / grid[0] % grid[1], at / (grid[0] * grid[1])};
        memset(dynamic_shared, 0xff, shared);
        if (__start_emulated_shared) memset(__start_emulated_shared, 0xff, (size_t)(__stop_emulated_shared - __start_emulated_shared));
        run_block(turns);
    }
    current = nullptr;
    free(blocks_in_turn);
    release(dynamic_shared, shared);
    sigaction(SIGSEGV, &before_segv, nullptr);
    sigaction(SIGBUS, &before_bus, nullptr);
    return failed ? message : nullptr;
}

}
