/* The proof on NVIDIA's cards, through the driver's library alone: no toolkit is needed in the image.

   Everything that a device will need is reserved when it is opened and the kernels are compiled then, so
   that no timed phase waits for either. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include "prover.h"
#include "kernels_ptx.h" /* made from kernels_61.ptx and kernels_80.ptx when this is built */

enum { WIDTH = 128, BLOCK = 256, ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76 };

typedef u64 Memory;
typedef void *Handle;

static struct {
    int (*cuInit)(unsigned);
    int (*cuDeviceGetCount)(int *);
    int (*cuDeviceGet)(int *, int);
    int (*cuDeviceGetName)(char *, int, int);
    int (*cuDeviceGetUuid_v2)(u8 *, int);
    int (*cuDeviceTotalMem_v2)(size_t *, int);
    int (*cuDeviceGetAttribute)(int *, int, int);
    int (*cuDevicePrimaryCtxRetain)(Handle *, int);
    int (*cuCtxSetCurrent)(Handle);
    int (*cuCtxSynchronize)(void);
    int (*cuModuleLoadData)(Handle *, const void *);
    int (*cuModuleGetFunction)(Handle *, Handle, const char *);
    int (*cuMemAlloc_v2)(Memory *, size_t);
    int (*cuMemcpyHtoD_v2)(Memory, const void *, size_t);
    int (*cuMemcpyDtoH_v2)(void *, Memory, size_t);
    int (*cuLaunchKernel)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle,
                          void **, void **);
} cuda;

static const struct { const char *name; size_t at; } NEEDED[] = {
#define NEED(name) {#name, offsetof(__typeof__(cuda), name)}
    NEED(cuInit), NEED(cuDeviceGetCount), NEED(cuDeviceGet), NEED(cuDeviceGetName), NEED(cuDeviceGetUuid_v2),
    NEED(cuDeviceTotalMem_v2), NEED(cuDeviceGetAttribute), NEED(cuDevicePrimaryCtxRetain), NEED(cuCtxSetCurrent),
    NEED(cuCtxSynchronize), NEED(cuModuleLoadData), NEED(cuModuleGetFunction), NEED(cuMemAlloc_v2),
    NEED(cuMemcpyHtoD_v2), NEED(cuMemcpyDtoH_v2), NEED(cuLaunchKernel),
};

enum { FILL_A, FILL_W, PRODUCT, SEGMENTS, ROW_LEAVES, CHUNKS, PAIRS, TAKE, Z_OF_B, Y_OF_S, ONE_ROW, KERNELS };
static const char *const NAMES[KERNELS] = {"fill_a", "fill_w", "product", "hash_segments", "hash_rows", "hash_chunks",
                                           "hash_pairs", "take_roots", "z_of_b", "y_of_s", "one_row"};

struct device {
    struct shape shape;
    struct key { u32 w[8]; } key;
    Handle context, kernels[KERNELS];
    u32 stripes;
    int failed; /* the first error; later calls do nothing */
    Memory w, a, c, segments, s, trees, y, y_trees, roots, r, z;
};

/* --- the driver ----------------------------------------------------------------------------- */

static int cuda_count(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    int count = 0;
    if (!library) return 0;
    for (size_t i = 0; i < sizeof NEEDED / sizeof *NEEDED; i++) {
        void *found = dlsym(library, NEEDED[i].name);
        if (!found && !strcmp(NEEDED[i].name, "cuDeviceGetUuid_v2")) found = dlsym(library, "cuDeviceGetUuid");
        if (!found) return 0;
        memcpy((char *)&cuda + NEEDED[i].at, &found, sizeof found);
    }
    return cuda.cuInit(0) || cuda.cuDeviceGetCount(&count) ? 0 : count;
}

static void tried(struct device *d, int result)
{
    if (!d->failed) d->failed = result;
}

static Memory reserve(struct device *d, u64 size)
{
    Memory memory = 0;
    if (!d->failed) tried(d, cuda.cuMemAlloc_v2(&memory, size));
    return memory;
}

static void grid(struct device *d, int kernel, u32 across, u32 down, void **arguments)
{
    if (!d->failed)
        tried(d, cuda.cuLaunchKernel(d->kernels[kernel], across, down, 1, BLOCK, 1, 1, 0, NULL, arguments, NULL));
}

/* One thread for each of `count`. */
static void launch(struct device *d, int kernel, u64 count, void **arguments)
{
    grid(d, kernel, (u32)((count + BLOCK - 1) / BLOCK), 1, arguments);
}

#define ARGUMENTS(...) ((void *[]){__VA_ARGS__})

static void fetch(struct device *d, void *to, Memory from, u64 size)
{
    if (!d->failed) tried(d, cuda.cuMemcpyDtoH_v2(to, from, size)); /* waits for the kernels before it */
}

static const char *outcome(struct device *d)
{
    return d->failed ? "the GPU's driver reports an error" : NULL;
}

/* --- opening -------------------------------------------------------------------------------- */

static void compile(struct device *d, int card)
{
    int major = 0, minor = 0;
    Handle module = NULL;
    tried(d, cuda.cuDeviceGetAttribute(&major, ATTRIBUTE_MAJOR, card));
    tried(d, cuda.cuDeviceGetAttribute(&minor, ATTRIBUTE_MINOR, card));
    tried(d, cuda.cuDevicePrimaryCtxRetain(&d->context, card));
    if (!d->failed) tried(d, cuda.cuCtxSetCurrent(d->context));
    if (!d->failed) tried(d, cuda.cuModuleLoadData(&module, major >= 8 ? KERNELS_80 : KERNELS_61));
    for (int i = 0; i < KERNELS && !d->failed; i++)
        tried(d, cuda.cuModuleGetFunction(&d->kernels[i], module, NAMES[i]));
}

static void reserve_all(struct device *d)
{
    u64 n = d->shape.n, stripe = d->shape.stripe_rows, rows = stripe * d->shape.stripes;
    d->w = reserve(d, n * n);
    d->a = reserve(d, stripe * n);
    d->c = reserve(d, stripe * n * 4);
    d->segments = reserve(d, stripe * n / SEGMENT_WORDS * 32);
    d->s = reserve(d, rows * n);
    d->trees = reserve(d, rows * 2 * 32);
    d->y = reserve(d, rows * 4 * d->shape.passes);
    d->y_trees = reserve(d, rows / CHUNK_WORDS * 2 * 32);
    d->roots = reserve(d, (u64)d->shape.stripes * 32);
    d->r = reserve(d, n * 4);
    d->z = reserve(d, n * 4);
}

static struct device *cuda_open(int index, const struct shape *shape, struct identity *who, const char **fault)
{
    struct device *d = calloc(1, sizeof *d);
    size_t memory = 0;
    int card = 0;
    *fault = "the memory for the proof cannot be had";
    if (!d) return NULL;
    d->shape = *shape;
    memset(who, 0, sizeof *who);
    tried(d, cuda.cuDeviceGet(&card, index));
    tried(d, cuda.cuDeviceGetName(who->name, sizeof who->name, card));
    tried(d, cuda.cuDeviceGetUuid_v2(who->uuid, card));
    tried(d, cuda.cuDeviceTotalMem_v2(&memory, card));
    who->memory = memory;
    compile(d, card);
    if (d->failed) *fault = "the GPU cannot be used: its driver does not take the program";
    else reserve_all(d);
    return d->failed ? NULL : d;
}

/* --- the phases ----------------------------------------------------------------------------- */

static void levels(struct device *d, Memory trees, u32 leaves, u32 many)
{
    for (u32 level = leaves / 2; level; level /= 2) {
        u32 count = level * many;
        launch(d, PAIRS, count, ARGUMENTS(&trees, &leaves, &level, &count));
    }
}

static void roots_of(struct device *d, Memory trees, u32 leaves, u32 *roots)
{
    u32 many = d->stripes;
    levels(d, trees, leaves, many);
    launch(d, TAKE, (u64)many * 8, ARGUMENTS(&trees, &d->roots, &leaves, &many));
    fetch(d, roots, d->roots, (u64)many * 32);
}

static void one_stripe(struct device *d, u32 stripe)
{
    u32 n = d->shape.n, rows = d->shape.stripe_rows, first = stripe * rows;
    u32 per_row = n / SEGMENT_WORDS, segments = rows * per_row;
    Memory s = d->s + (u64)first * n, tree = d->trees + (u64)first * 2 * 32;
    launch(d, FILL_A, (u64)rows * n / STREAM_BYTES, ARGUMENTS(&d->a, &d->key, &first, &rows, &n));
    grid(d, PRODUCT, n / WIDTH, rows / WIDTH, ARGUMENTS(&d->a, &d->w, &d->c, &s, &n));
    launch(d, SEGMENTS, segments, ARGUMENTS(&d->c, &d->segments, &segments));
    launch(d, ROW_LEAVES, rows, ARGUMENTS(&d->segments, &tree, &rows, &per_row));
}

static const char *cuda_work(struct device *d, const u32 key[8], u32 stripes, u32 threads, u32 *roots)
{
    u32 n = d->shape.n;
    (void)threads;
    memcpy(d->key.w, key, 32);
    d->stripes = stripes;
    tried(d, cuda.cuCtxSetCurrent(d->context));
    launch(d, FILL_W, (u64)n * n / STREAM_BYTES, ARGUMENTS(&d->w, &d->key, &n));
    for (u32 stripe = 0; stripe < stripes; stripe++) one_stripe(d, stripe);
    roots_of(d, d->trees, d->shape.stripe_rows, roots);
    return outcome(d);
}

static Memory y_at(struct device *d, u32 pass, u32 stripe)
{
    return d->y + ((u64)pass * d->shape.stripes + stripe) * d->shape.stripe_rows * 4;
}

/* Bytes of four neighbours together, the lowest ones first: so the kernel multiplies four at a time. */
static void planes_of(const u32 *r, u32 n, u32 *planes)
{
    for (u32 at = 0; at < n; at += 4)
        for (u32 plane = 0; plane < 4; plane++) {
            u32 word = 0;
            for (u32 i = 0; i < 4; i++) word |= (r[at + i] >> (8 * plane) & 0xff) << (8 * i);
            planes[at + plane] = word;
        }
}

static void upload(struct device *d, const u32 *words)
{
    tried(d, cuda.cuCtxSetCurrent(d->context));
    if (!d->failed) tried(d, cuda.cuMemcpyHtoD_v2(d->r, words, (size_t)d->shape.n * 4));
}

static const char *cuda_pass(struct device *d, u32 pass, const u32 *r, u32 *roots)
{
    u32 planes[MAX_N], n = d->shape.n, rows = d->stripes * d->shape.stripe_rows;
    u32 leaves = d->shape.stripe_rows / CHUNK_WORDS, chunks = rows / CHUNK_WORDS;
    Memory y = y_at(d, pass, 0);
    planes_of(r, n, planes);
    upload(d, planes);
    launch(d, Y_OF_S, (u64)rows / 4 * 32, ARGUMENTS(&d->s, &d->r, &y, &rows, &n));
    launch(d, CHUNKS, chunks, ARGUMENTS(&y, &d->y_trees, &leaves, &chunks));
    roots_of(d, d->y_trees, leaves, roots);
    return outcome(d);
}

static const char *cuda_inner(struct device *d, const u32 *r, u32 *z)
{
    u32 n = d->shape.n;
    upload(d, r);
    launch(d, Z_OF_B, n, ARGUMENTS(&d->w, &d->r, &d->z, &n));
    fetch(d, z, d->z, (u64)n * 4);
    return outcome(d);
}

static const char *cuda_row(struct device *d, u32 row, int *c, u32 *path)
{
    u32 n = d->shape.n, rows = d->shape.stripe_rows, one = 1;
    Memory tree = d->trees + (u64)(row / rows) * rows * 2 * 32;
    tried(d, cuda.cuCtxSetCurrent(d->context));
    launch(d, FILL_A, n / STREAM_BYTES, ARGUMENTS(&d->a, &d->key, &row, &one, &n));
    launch(d, ONE_ROW, (u64)n * 32, ARGUMENTS(&d->a, &d->w, &d->c, &n));
    fetch(d, c, d->c, (u64)n * 4);
    for (u32 node = rows + row % rows; node > 1; node /= 2, path += 8)
        fetch(d, path, tree + (u64)(node ^ 1) * 32, 32);
    return outcome(d);
}

static const char *cuda_stripe(struct device *d, u32 pass, u32 stripe, u32 *y)
{
    fetch(d, y, y_at(d, pass, stripe), (u64)d->shape.stripe_rows * 4);
    return outcome(d);
}

const struct kind cuda_kind = {cuda_count, cuda_open, cuda_work, cuda_pass, cuda_inner, cuda_row, cuda_stripe};
