/* The GPU's part of the proof; docs/proof.md says what is computed and why.

   Two forms are made from this file: with tensor cores (compute capability 8.0 and later) and with
   dp4a (6.1 to 7.5). `make kernels` writes both as PTX, which every newer driver compiles for its card.
   W is B transposed: W[x * n + k] = B[k][x], so that both operands lie along k. */
#include "sha256.h"

#define PRIME 0x7fffffff
#define TILE 128
#define INDEX (blockIdx.x * blockDim.x + threadIdx.x)

#ifndef QUBIX_EMULATED
#define SHARED(type, name, size) __shared__ __align__(16) type name size
static __device__ __forceinline__ int dot4(int a, int b, int sum) { return __dp4a(a, b, sum); }
/* Signed bytes by unsigned ones. */
static __device__ __forceinline__ int dot4_mixed(int a, u32 b, int sum)
{
    int out;
    asm("dp4a.s32.u32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(sum));
    return out;
}
static __device__ __forceinline__ long long from_lane(long long v, int by)
{
    return __shfl_xor_sync(0xffffffffu, v, by);
}
#if __CUDA_ARCH__ >= 800
static __device__ __forceinline__ void mma(int d[4], const u32 a[4], const u32 b[2])
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void copy_later(s8 *to, const s8 *from)
{
    u32 at = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}
static __device__ __forceinline__ void copies_end(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
static __device__ __forceinline__ void copies_wait(int more)
{
    if (more) asm volatile("cp.async.wait_group 1;" ::: "memory");
    else asm volatile("cp.async.wait_group 0;" ::: "memory");
}
#endif
#endif

struct key { u32 w[8]; };

/* A[row - first][32 t ..] for `rows` rows: one thread for 32 bytes. */
extern "C" __global__ void fill_a(s8 *a, struct key key, u32 first, u32 rows, u32 n)
{
    u32 id = INDEX, per = n / STREAM_BYTES, h[8];
    if (id >= rows * per) return;
    sha_stream(h, key.w, TAG_A, first + id / per, id % per);
    u32 *out = (u32 *)a + (u64)id * 8;
    for (int i = 0; i < 8; i++) out[i] = sha_swap(h[i]);
}

/* W from the rows of B: threads beside each other write bytes beside each other. */
extern "C" __global__ void fill_w(s8 *w, struct key key, u32 n)
{
    u32 id = INDEX, k = id % n, t = id / n, h[8];
    if (t >= n / STREAM_BYTES) return;
    sha_stream(h, key.w, TAG_B, k, t);
    for (u32 i = 0; i < STREAM_BYTES; i++)
        w[(u64)(t * STREAM_BYTES + i) * n + k] = (s8)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* C = A * W^T of one stripe, exact, and S = bits 8 to 15 of C. Grid (n / TILE, rows / TILE), 256 threads. */
#ifdef QUBIX_MMA
#define STEP 64
#define PITCH 80 /* bytes from row to row in shared memory: no two lanes of a fragment meet in a bank */

static __device__ __forceinline__ void load_tile(s8 *to, const s8 *from, u32 n)
{
    for (u32 i = threadIdx.x; i < TILE * STEP / 16; i += 256)
        copy_later(to + i / 4 * PITCH + i % 4 * 16, from + (u64)(i / 4) * n + i % 4 * 16);
}

static __device__ __forceinline__ u32 word(const s8 *at) { return *(const u32 *)at; }

extern "C" __global__ void __launch_bounds__(256) product(const s8 *a, const s8 *w, int *c, s8 *s, u32 n)
{
    SHARED(s8, as, [2][TILE * PITCH]);
    SHARED(s8, ws, [2][TILE * PITCH]);
    u32 warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    u32 row0 = warp / 4 * 64, col0 = warp % 4 * 32;
    int sums[4][4][4] = {};
    a += (u64)blockIdx.y * TILE * n;
    w += (u64)blockIdx.x * TILE * n;
    load_tile(as[0], a, n);
    load_tile(ws[0], w, n);
    copies_end();
    for (u32 k = 0, stage = 0; k < n; k += STEP, stage ^= 1) {
        int more = k + STEP < n;
        if (more) {
            load_tile(as[stage ^ 1], a + k + STEP, n);
            load_tile(ws[stage ^ 1], w + k + STEP, n);
            copies_end();
        }
        copies_wait(more);
        __syncthreads();
#pragma unroll
        for (u32 kk = 0; kk < STEP; kk += 32) {
            u32 fa[4][4], fw[4][2];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const s8 *at = as[stage] + (row0 + i * 16 + group) * PITCH + kk + quad * 4;
                fa[i][0] = word(at);
                fa[i][1] = word(at + 8 * PITCH);
                fa[i][2] = word(at + 16);
                fa[i][3] = word(at + 8 * PITCH + 16);
            }
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const s8 *at = ws[stage] + (col0 + j * 8 + group) * PITCH + kk + quad * 4;
                fw[j][0] = word(at);
                fw[j][1] = word(at + 16);
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) mma(sums[i][j], fa[i], fw[j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                int *v = sums[i][j] + 2 * half;
                u64 at = (u64)(blockIdx.y * TILE + row0 + i * 16 + half * 8 + group) * n +
                         blockIdx.x * TILE + col0 + j * 8 + quad * 2;
                c[at] = v[0];
                c[at + 1] = v[1];
                *(unsigned short *)(s + at) = (unsigned short)((v[0] >> 8 & 0xff) | (v[1] & 0xff00));
            }
}
#else
#define STEP 32

extern "C" __global__ void __launch_bounds__(256) product(const s8 *a, const s8 *w, int *c, s8 *s, u32 n)
{
    SHARED(int, as, [STEP / 4][TILE]);
    SHARED(int, ws, [STEP / 4][TILE]);
    u32 row = threadIdx.x / 2, half = threadIdx.x % 2, down = threadIdx.x / 16 * 8, along = threadIdx.x % 16 * 8;
    int sums[8][8] = {};
    a += (u64)blockIdx.y * TILE * n;
    w += (u64)blockIdx.x * TILE * n;
    for (u32 k = 0; k < n; k += STEP) {
        const int *from_a = (const int *)(a + (u64)row * n + k) + half * 4;
        const int *from_w = (const int *)(w + (u64)row * n + k) + half * 4;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            as[half * 4 + i][row] = from_a[i];
            ws[half * 4 + i][row] = from_w[i];
        }
        __syncthreads();
#pragma unroll
        for (u32 kk = 0; kk < STEP / 4; kk++)
#pragma unroll
            for (u32 i = 0; i < 8; i++)
#pragma unroll
                for (u32 j = 0; j < 8; j++)
                    sums[i][j] = dot4(as[kk][down + i], ws[kk][along + j], sums[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++)
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            u64 at = (u64)(blockIdx.y * TILE + down + i) * n + blockIdx.x * TILE + along + j;
            c[at] = sums[i][j];
            s[at] = (s8)(sums[i][j] >> 8);
        }
}
#endif

/* Digests of 256 numbers of C each, in the order in which they lie. */
extern "C" __global__ void hash_segments(const int *c, u32 *digests, u32 count)
{
    u32 id = INDEX;
    if (id < count) sha_words(digests + (u64)id * 8, (const u32 *)c + (u64)id * SEGMENT_WORDS, SEGMENT_WORDS, 1);
}

/* A row's digest, from those of its segments, into the leaves of its stripe's tree (a heap: root at 1). */
extern "C" __global__ void hash_rows(const u32 *digests, u32 *tree, u32 rows, u32 segments)
{
    u32 id = INDEX;
    if (id < rows) sha_words(tree + (u64)(rows + id) * 8, digests + (u64)id * segments * 8, segments * 8, 0);
}

/* The leaves of the trees over y, 16 numbers each; every stripe has a tree of `leaves` leaves. */
extern "C" __global__ void hash_chunks(const u32 *y, u32 *trees, u32 leaves, u32 count)
{
    u32 id = INDEX;
    if (id >= count) return;
    u32 *out = trees + ((u64)(id / leaves) * 2 * leaves + leaves + id % leaves) * 8;
    sha_words(out, y + (u64)id * CHUNK_WORDS, CHUNK_WORDS, 1);
}

/* One level of many trees: nodes `level` to 2 * level - 1 of each, from their children. */
extern "C" __global__ void hash_pairs(u32 *trees, u32 leaves, u32 level, u32 count)
{
    u32 id = INDEX;
    if (id >= count) return;
    u32 *tree = trees + (u64)(id / level) * 2 * leaves * 8;
    u32 node = level + id % level;
    sha_words(tree + (u64)node * 8, tree + (u64)node * 16, 16, 0);
}

extern "C" __global__ void take_roots(const u32 *trees, u32 *roots, u32 leaves, u32 count)
{
    u32 id = INDEX;
    if (id < count * 8) roots[id] = trees[((u64)(id / 8) * 2 * leaves + 1) * 8 + id % 8];
}

/* z[k] = sum over x of B[k][x] * r[x], modulo the prime. */
extern "C" __global__ void z_of_b(const s8 *w, const u32 *r, u32 *z, u32 n)
{
    u32 k = INDEX;
    long long sum = 0;
    if (k >= n) return;
#pragma unroll 8
    for (u32 x = 0; x < n; x++) sum += (long long)w[(u64)x * n + k] * r[x];
    sum %= PRIME;
    z[k] = (u32)(sum < 0 ? sum + PRIME : sum);
}

/* y[row] = sum over x of S[row][x] * r[x], modulo the prime: a warp for ROWS rows at once.
   `planes`: for each four numbers of r four words, the lowest bytes of all four first. */
#define ROWS 4

extern "C" __global__ void y_of_s(const s8 *s, const u32 *planes, u32 *y, u32 rows, u32 n)
{
    u32 lane = threadIdx.x % 32, first = INDEX / 32 * ROWS;
    int sums[ROWS][4] = {};
    if (first >= rows) return;
    for (u32 at = lane; at < n / 4; at += 32) {
        const u32 *p = planes + (u64)at * 4;
        u32 p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3];
#pragma unroll
        for (u32 i = 0; i < ROWS; i++) {
            int v = ((const int *)(s + (u64)(first + i) * n))[at];
            sums[i][0] = dot4_mixed(v, p0, sums[i][0]);
            sums[i][1] = dot4_mixed(v, p1, sums[i][1]);
            sums[i][2] = dot4_mixed(v, p2, sums[i][2]);
            sums[i][3] = dot4_mixed(v, p3, sums[i][3]);
        }
    }
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
        long long sum = sums[i][0] + (long long)sums[i][1] * 256 + (long long)sums[i][2] * 65536 +
                        (long long)sums[i][3] * 16777216;
        for (int by = 16; by; by /= 2) sum += from_lane(sum, by);
        sum %= PRIME;
        if (lane == 0) y[first + i] = (u32)(sum < 0 ? sum + PRIME : sum);
    }
}

/* c[x] = sum over k of A's row * W[x][k]: one row of C once more, for an opening. A warp for each x. */
extern "C" __global__ void one_row(const s8 *a, const s8 *w, int *c, u32 n)
{
    u32 lane = threadIdx.x % 32, x = INDEX / 32;
    if (x >= n) return;
    int sum = 0;
    for (u32 at = lane; at < n / 4; at += 32)
        sum = dot4(((const int *)a)[at], ((const int *)(w + (u64)x * n))[at], sum);
    long long all = sum;
    for (int by = 16; by; by /= 2) all += from_lane(all, by);
    if (lane == 0) c[x] = (int)all;
}
