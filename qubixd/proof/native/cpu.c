/* The proof on a processor: stripes are shared out among threads, each stripe wholly by one of them.

   A and W are kept as 16-bit numbers: the multiply-add of pairs that x86 has since SSE2, and its wider
   forms, take them so, and other processors multiply them as well. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "prover.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

typedef int16_t s16;
typedef void (*Dots)(const s16 *a, const s16 *w, u32 n, int out[16]);

struct device {
    struct shape shape;
    u32 key[8];
    u32 stripes; /* of the last work */
    s16 *w;      /* n * n */
    s8 *s;       /* stripes * stripe_rows * n */
    u32 *trees;  /* stripes * 2 * stripe_rows * 8 */
    u32 *y;      /* passes * stripes * stripe_rows */
    u32 *roots;
    const u32 *r;
    u32 pass;
    Dots dots;
    atomic_uint next;
    atomic_int failed;
};

/* --- 4 rows by 4 rows, along n -------------------------------------------------------------- */

static void dots_plain(const s16 *a, const s16 *w, u32 n, int out[16])
{
    for (u32 i = 0; i < 4; i++) {
        const s16 *x = a + i * n;
        int s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (u32 k = 0; k < n; k++) {
            int v = x[k];
            s0 += v * w[k];
            s1 += v * w[n + k];
            s2 += v * w[2 * n + k];
            s3 += v * w[3 * n + k];
        }
        out[i * 4] = s0, out[i * 4 + 1] = s1, out[i * 4 + 2] = s2, out[i * 4 + 3] = s3;
    }
}

#ifdef __x86_64__
__attribute__((target("avx2"))) static void dots_avx2(const s16 *a, const s16 *w, u32 n, int out[16])
{
    for (u32 half = 0; half < 4; half += 2) { /* two rows of A at once: eight sums stay in registers */
        __m256i sums[8];
        for (int i = 0; i < 8; i++) sums[i] = _mm256_setzero_si256();
        const s16 *x = a + half * n;
        for (u32 k = 0; k < n; k += 16) {
            __m256i x0 = _mm256_loadu_si256((const __m256i *)(x + k));
            __m256i x1 = _mm256_loadu_si256((const __m256i *)(x + n + k));
            for (int j = 0; j < 4; j++) {
                __m256i v = _mm256_loadu_si256((const __m256i *)(w + (u32)j * n + k));
                sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(x0, v));
                sums[4 + j] = _mm256_add_epi32(sums[4 + j], _mm256_madd_epi16(x1, v));
            }
        }
        for (int i = 0; i < 8; i++) {
            int part[8], sum = 0;
            _mm256_storeu_si256((__m256i *)part, sums[i]);
            for (int l = 0; l < 8; l++) sum += part[l];
            out[half * 4 + (u32)i] = sum;
        }
    }
}

__attribute__((target("avx512f,avx512vnni"))) static void dots_vnni(const s16 *a, const s16 *w, u32 n, int out[16])
{
    __m512i sums[16];
    for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_si512();
    for (u32 k = 0; k < n; k += 32) {
        __m512i x[4];
        for (u32 i = 0; i < 4; i++) x[i] = _mm512_loadu_si512(a + i * n + k);
        for (u32 j = 0; j < 4; j++) {
            __m512i v = _mm512_loadu_si512(w + j * n + k);
            for (u32 i = 0; i < 4; i++) sums[i * 4 + j] = _mm512_dpwssd_epi32(sums[i * 4 + j], x[i], v);
        }
    }
    for (int i = 0; i < 16; i++) out[i] = _mm512_reduce_add_epi32(sums[i]);
}

static u64 enabled_state(void)
{
    u32 low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (u64)high << 32 | low;
}

static Dots best_dots(void)
{
    u32 a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return dots_plain;
    u64 state = enabled_state();
    if ((state & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return dots_plain;
    if ((state & 0xe6) == 0xe6 && (b >> 16 & 1) && (c >> 11 & 1)) return dots_vnni;
    return b >> 5 & 1 ? dots_avx2 : dots_plain;
}
#else
static Dots best_dots(void) { return dots_plain; }
#endif

/* --- threads -------------------------------------------------------------------------------- */

static void share_out(struct device *d, u32 threads, void *(*part)(void *))
{
    pthread_t more[MAX_THREADS];
    u32 begun = 0;
    atomic_store(&d->next, 0);
    atomic_store(&d->failed, 0);
    while (begun + 1 < threads && !pthread_create(&more[begun], NULL, part, d)) begun++;
    part(d);
    while (begun) pthread_join(more[--begun], NULL);
}

static void widen(s16 *out, const u32 h[8])
{
    for (int i = 0; i < STREAM_BYTES; i++) out[i] = (s8)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void fill_rows(struct device *d, s16 *a, u32 first, u32 rows)
{
    u32 n = d->shape.n, h[8];
    for (u32 row = 0; row < rows; row++)
        for (u32 t = 0; t < n / STREAM_BYTES; t++) {
            sha_stream(h, d->key, TAG_A, first + row, t);
            widen(a + (u64)row * n + t * STREAM_BYTES, h);
        }
}

static void *fill_part(void *self) /* 32 rows of B a turn: they become columns of W, a whole line of cache each */
{
    struct device *d = self;
    u32 n = d->shape.n, h[8];
    s16 values[STREAM_BYTES];
    for (u32 part; (part = atomic_fetch_add(&d->next, 1)) < n / 32;)
        for (u32 t = 0; t < n / STREAM_BYTES; t++)
            for (u32 k = part * 32; k < part * 32 + 32; k++) {
                sha_stream(h, d->key, TAG_B, k, t);
                widen(values, h);
                for (u32 i = 0; i < STREAM_BYTES; i++) d->w[(u64)(t * STREAM_BYTES + i) * n + k] = values[i];
            }
    return NULL;
}

static void multiply(struct device *d, const s16 *a, int *c, s8 *s)
{
    u32 n = d->shape.n;
    int sums[16];
    for (u32 x = 0; x < n; x += 4)
        for (u32 row = 0; row < d->shape.stripe_rows; row += 4) {
            d->dots(a + (u64)row * n, d->w + (u64)x * n, n, sums);
            for (u32 i = 0; i < 16; i++) {
                u64 at = (u64)(row + i / 4) * n + x + i % 4;
                c[at] = sums[i];
                s[at] = (s8)(sums[i] >> 8);
            }
        }
}

static void leaf_of(const int *c, u32 n, u32 *leaf)
{
    u32 segments[MAX_N / SEGMENT_WORDS * 8], count = n / SEGMENT_WORDS;
    for (u32 i = 0; i < count; i++) sha_words(segments + i * 8, (const u32 *)c + i * SEGMENT_WORDS, SEGMENT_WORDS, 1);
    sha_words(leaf, segments, count * 8, 0);
}

static void *work_part(void *self)
{
    struct device *d = self;
    u32 n = d->shape.n, rows = d->shape.stripe_rows;
    s16 *a = malloc((u64)rows * n * sizeof *a);
    int *c = malloc((u64)rows * n * sizeof *c);
    if (!a || !c) atomic_store(&d->failed, 1);
    for (u32 stripe; a && c && (stripe = atomic_fetch_add(&d->next, 1)) < d->stripes;) {
        u32 *tree = d->trees + (u64)stripe * 2 * rows * 8;
        fill_rows(d, a, stripe * rows, rows);
        multiply(d, a, c, d->s + (u64)stripe * rows * n);
        for (u32 row = 0; row < rows; row++) leaf_of(c + (u64)row * n, n, tree + (rows + row) * 8);
        build_tree(tree, rows);
        memcpy(d->roots + stripe * 8, tree + 8, 32);
    }
    free(a);
    free(c);
    return NULL;
}

static void chunk_root(const u32 *y, u32 rows, u32 *root)
{
    u32 tree[MAX_STRIPE / CHUNK_WORDS * 2 * 8], leaves = rows / CHUNK_WORDS;
    for (u32 i = 0; i < leaves; i++) sha_words(tree + (leaves + i) * 8, y + i * CHUNK_WORDS, CHUNK_WORDS, 1);
    build_tree(tree, leaves);
    memcpy(root, tree + 8, 32);
}

static u32 reduced(int64_t sum)
{
    sum %= PRIME_R;
    return (u32)(sum < 0 ? sum + PRIME_R : sum);
}

static u32 *y_of(struct device *d, u32 pass, u32 stripe)
{
    return d->y + ((u64)pass * d->shape.stripes + stripe) * d->shape.stripe_rows;
}

static void *pass_part(void *self)
{
    struct device *d = self;
    u32 n = d->shape.n, rows = d->shape.stripe_rows;
    for (u32 stripe; (stripe = atomic_fetch_add(&d->next, 1)) < d->stripes;) {
        u32 *y = y_of(d, d->pass, stripe);
        for (u32 row = 0; row < rows; row++) {
            const s8 *s = d->s + ((u64)stripe * rows + row) * n;
            int64_t sum = 0;
            for (u32 x = 0; x < n; x++) sum += (int64_t)s[x] * d->r[x];
            y[row] = reduced(sum);
        }
        chunk_root(y, rows, d->roots + stripe * 8);
    }
    return NULL;
}

/* --- the kind ------------------------------------------------------------------------------- */

static int cpu_count(void) { return 1; }

static struct device *cpu_open(int index, const struct shape *shape, struct identity *who, const char **fault)
{
    struct device *d = index ? NULL : calloc(1, sizeof *d);
    u64 rows = (u64)shape->stripes * shape->stripe_rows, n = shape->n;
    *fault = "the memory for the proof cannot be had";
    if (!d) return NULL;
    d->shape = *shape;
    d->dots = best_dots();
    d->w = malloc(n * n * sizeof *d->w);
    d->s = malloc(rows * n);
    d->trees = malloc(rows * 2 * 32);
    d->y = malloc(rows * shape->passes * sizeof *d->y);
    if (!d->w || !d->s || !d->trees || !d->y) return NULL;
    memset(who, 0, sizeof *who);
    strcpy(who->name, d->dots == dots_plain ? "CPU" : "CPU with vectors");
    return d;
}

static const char *cpu_work(struct device *d, const u32 key[8], u32 stripes, u32 threads, u32 *roots)
{
    memcpy(d->key, key, 32);
    d->stripes = stripes;
    d->roots = roots;
    d->shape.threads = threads;
    share_out(d, threads, fill_part);
    share_out(d, threads, work_part);
    return atomic_load(&d->failed) ? "the memory for the proof cannot be had" : NULL;
}

static const char *cpu_pass(struct device *d, u32 pass, const u32 *r, u32 *roots)
{
    d->r = r;
    d->pass = pass;
    d->roots = roots;
    share_out(d, d->shape.threads, pass_part);
    return NULL;
}

static const char *cpu_inner(struct device *d, const u32 *r, u32 *z)
{
    u32 n = d->shape.n;
    int64_t *sums = calloc(n, sizeof *sums);
    if (!sums) return "the memory for the proof cannot be had";
    for (u32 x = 0; x < n; x++)
        for (u32 k = 0; k < n; k++) sums[k] += (int64_t)d->w[(u64)x * n + k] * r[x];
    for (u32 k = 0; k < n; k++) z[k] = reduced(sums[k]);
    free(sums);
    return NULL;
}

static const char *cpu_row(struct device *d, u32 row, int *c, u32 *path)
{
    u32 n = d->shape.n, rows = d->shape.stripe_rows;
    s16 a[MAX_N];
    fill_rows(d, a, row, 1);
    for (u32 x = 0; x < n; x++) {
        int sum = 0;
        for (u32 k = 0; k < n; k++) sum += a[k] * d->w[(u64)x * n + k];
        c[x] = sum;
    }
    path_of(d->trees + (u64)(row / rows) * 2 * rows * 8, rows, row % rows, path);
    return NULL;
}

static const char *cpu_stripe(struct device *d, u32 pass, u32 stripe, u32 *y)
{
    memcpy(y, y_of(d, pass, stripe), d->shape.stripe_rows * sizeof *y);
    return NULL;
}

const struct kind cpu_kind = {cpu_count, cpu_open, cpu_work, cpu_pass, cpu_inner, cpu_row, cpu_stripe};
