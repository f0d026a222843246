// A stand-in for NVIDIA's driver library (libcuda.so.1) on a machine without a GPU.
//
// It runs the real kernels.cu, compiled for the processor: a block's threads are fibers that take turns at
// every barrier, and the tensor instruction is worked out from its lanes' registers as PTX describes them.
// Time is counted, not spent: by operations and bytes, per physical card, into the file QUBIX_STUB_CLOCK,
// which tests take for their clock. Its cards can be made to cheat:
//   QUBIX_STUB_DEVICES     how many there are said to be
//   QUBIX_STUB_CARDS       how many there really are: devices share them in turn
//   QUBIX_STUB_SAME        "1": all with one UUID
//   QUBIX_STUB_MEMORY      bytes that a card says it has
//   QUBIX_STUB_KEPT        bytes of S that a card really keeps: the rest is computed anew for every pass
//   QUBIX_STUB_OPERATIONS  a second; QUBIX_STUB_BANDWIDTH bytes a second
//   QUBIX_STUB_SKIP        of so many rows of C one is left out
#define QUBIX_EMULATED
#include <mutex>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define SHARED(type, name, size) static type name size
struct Index { unsigned x, y; };
static Index blockIdx, blockDim, threadIdx;

// --- fibers ------------------------------------------------------------------------------------

enum { THREADS = 256, STACK = 1 << 16 };
static ucontext_t home, fibers[THREADS];
static char stacks[THREADS][STACK];
static unsigned running, turn[THREADS]; // turn: which of two sets of registers is being exchanged
static bool finished[THREADS];
static void (*body)(void **);
static void **arguments;

static void barrier() { swapcontext(&fibers[running], &home); }
static void __syncthreads() { barrier(); }

static void fiber()
{
    body(arguments);
    finished[running] = true;
    barrier();
}

static void run_block(bool meets)
{
    if (!meets) {
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) body(arguments);
        return;
    }
    for (unsigned i = 0; i < blockDim.x; i++) {
        finished[i] = false;
        turn[i] = 0;
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = stacks[i];
        fibers[i].uc_stack.ss_size = STACK;
        fibers[i].uc_link = &home;
        makecontext(&fibers[i], fiber, 0);
    }
    for (bool left = true; left;) {
        left = false;
        for (running = 0; running < blockDim.x; running++) {
            if (finished[running]) continue;
            threadIdx.x = running;
            swapcontext(&home, &fibers[running]);
            left = left || !finished[running];
        }
    }
}

// --- what the kernels ask of a card ----------------------------------------------------------------

static long long exchanged[2][THREADS];
static unsigned fragments[2][THREADS][6];

static int dot4(int a, int b, int sum)
{
    for (int i = 0; i < 4; i++) sum += (signed char)(a >> 8 * i) * (signed char)(b >> 8 * i);
    return sum;
}

static int dot4_mixed(int a, unsigned b, int sum)
{
    for (int i = 0; i < 4; i++) sum += (signed char)(a >> 8 * i) * (int)(b >> 8 * i & 255);
    return sum;
}

static long long from_lane(long long value, int by)
{
    unsigned set = turn[running]++ & 1, self = running;
    exchanged[set][self] = value;
    barrier();
    return exchanged[set][self ^ (unsigned)by];
}

static int byte_of(unsigned word, unsigned i) { return (signed char)(word >> 8 * i); }

// mma.m16n8k32, signed bytes: PTX, "Matrix Fragments for mma.m16n8k32". Registers 0-3 are A's, 4-5 are B's.
static void mma(int d[4], const unsigned a[4], const unsigned b[2])
{
    unsigned set = turn[running]++ & 1, self = running, warp = self & ~31u, lane = self & 31;
    memcpy(fragments[set][self], a, 16);
    memcpy(fragments[set][self] + 4, b, 8);
    barrier();
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++) {
            const unsigned *from_a = fragments[set][warp + row % 8 * 4 + k % 16 / 4];
            const unsigned *from_b = fragments[set][warp + col * 4 + k % 16 / 4];
            d[i] += byte_of(from_a[row / 8 + k / 16 * 2], k % 4) * byte_of(from_b[4 + k / 16], k % 4);
        }
    }
}

static void copy_later(signed char *to, const signed char *from) { memcpy(to, from, 16); }
static void copies_end() {}
static void copies_wait(int) {}

#include "kernels.cu"

// --- launching -------------------------------------------------------------------------------------

template <unsigned...> struct Places {};
template <unsigned count, unsigned... at> struct Count : Count<count - 1, count - 1, at...> {};
template <unsigned... at> struct Count<0, at...> { typedef Places<at...> type; };

template <auto kernel, class... Types, unsigned... at>
static void call_with(void (*)(Types...), void **from, Places<at...>) { kernel(*(Types *)from[at]...); }

template <class... Types> constexpr unsigned count_of(void (*)(Types...)) { return sizeof...(Types); }

template <auto kernel> static void call(void **from)
{
    call_with<kernel>(kernel, from, typename Count<count_of(kernel)>::type());
}

struct Kernel { const char *name; void (*call)(void **); bool meets; };
static Kernel KERNELS[] = {
    {"fill_a", call<fill_a>, false}, {"fill_w", call<fill_w>, false}, {"product", call<product>, true},
    {"hash_segments", call<hash_segments>, false}, {"hash_rows", call<hash_rows>, false},
    {"hash_chunks", call<hash_chunks>, false}, {"hash_pairs", call<hash_pairs>, false},
    {"take_roots", call<take_roots>, false}, {"z_of_b", call<z_of_b>, false}, {"y_of_s", call<y_of_s>, true},
    {"one_row", call<one_row>, true},
};

static double setting(const char *name, double usual)
{
    const char *text = getenv(name);
    return text ? atof(text) : usual;
}

enum { MAX_DEVICES = 16, MAX_LOST = 4096 };
static struct Device {
    struct key key;
    unsigned first, rows; // of the last fill_a
    struct Lost { unsigned first; unsigned y; void *a, *w, *c, *s; unsigned rows, n; } lost[MAX_LOST];
    unsigned lost_count;
    signed char *begin; // of S
} devices[MAX_DEVICES];
static double spent[MAX_DEVICES];
static std::mutex one_at_a_time;
static thread_local int current;

static int card_of(int device) { return device % (int)setting("QUBIX_STUB_CARDS", MAX_DEVICES); }

static void spend(double seconds)
{
    spent[card_of(current)] += seconds;
    double most = 0;
    for (double one : spent) most = one > most ? one : most;
    const char *path = getenv("QUBIX_STUB_CLOCK");
    FILE *file = path ? fopen(path, "r+b") : NULL;
    if (!file) return;
    fwrite(&most, sizeof most, 1, file);
    fclose(file);
}

static void run(const Kernel *kernel, unsigned across, unsigned down, unsigned threads, void **with)
{
    body = kernel->call;
    arguments = with;
    blockDim.x = threads;
    for (blockIdx.y = 0; blockIdx.y < down; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < across; blockIdx.x++) run_block(kernel->meets);
}

static void multiply(unsigned rows, void **with)
{
    unsigned n = *(unsigned *)with[4], skip = (unsigned)setting("QUBIX_STUB_SKIP", 0);
    run(&KERNELS[2], n / 128, rows / 128, 256, with);
    spend(2.0 * rows * n * n * (skip ? 1.0 - 1.0 / skip : 1.0) / setting("QUBIX_STUB_OPERATIONS", 1e12));
    for (unsigned row = 0; skip && row < rows; row += skip) {
        memset(*(int **)with[2] + (u64)row * n, 0, (u64)n * 4);
        memset(*(signed char **)with[3] + (u64)row * n, 0, n);
    }
}

static void product_of(Device *d, unsigned down, void **with)
{
    unsigned n = *(unsigned *)with[4];
    signed char *s = *(signed char **)with[3];
    if (!d->first) {
        d->begin = s;
        d->lost_count = 0;
    }
    multiply(down * 128, with);
    if (s - d->begin + (u64)down * 128 * n <= setting("QUBIX_STUB_KEPT", 1e18)) return;
    d->lost[d->lost_count++] = {d->first, 0, *(void **)with[0], *(void **)with[1], *(void **)with[2], s, down * 128, n};
    memset(s, 0, (u64)down * 128 * n); // there is no room for it
}

static void find_again(Device *d)
{
    for (unsigned i = 0; i < d->lost_count; i++) {
        Device::Lost *one = &d->lost[i];
        void *fill[] = {&one->a, &d->key, &one->first, &one->rows, &one->n};
        run(&KERNELS[0], (one->rows * one->n / 32 + 255) / 256, 1, 256, fill);
        void *with[] = {&one->a, &one->w, &one->c, &one->s, &one->n};
        multiply(one->rows, with);
    }
}

#define API extern "C" __attribute__((visibility("default"))) int

API cuLaunchKernel(void *kernel, unsigned across, unsigned down, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned, void *, void **with, void **)
{
    std::lock_guard<std::mutex> lock(one_at_a_time);
    Device *d = &devices[current];
    Kernel *what = (Kernel *)kernel;
    if (what == &KERNELS[0] && *(unsigned *)with[3] > 1) {
        d->key = *(struct key *)with[1];
        d->first = *(unsigned *)with[2];
    }
    if (what == &KERNELS[9]) {
        find_again(d);
        spend((double)*(unsigned *)with[3] * *(unsigned *)with[4] / setting("QUBIX_STUB_BANDWIDTH", 1e11));
    }
    if (what == &KERNELS[2]) product_of(d, down, with);
    else run(what, across, down, threads, with);
    if (what == &KERNELS[9])
        for (unsigned i = 0; i < d->lost_count; i++) memset(d->lost[i].s, 0, (u64)d->lost[i].rows * d->lost[i].n);
    return 0;
}

// --- the rest of the driver ------------------------------------------------------------------------

API cuInit(unsigned) { return 0; }
API cuDeviceGetCount(int *count) { return *count = (int)setting("QUBIX_STUB_DEVICES", 1), 0; }
API cuDeviceGet(int *device, int index) { return *device = index, 0; }
API cuDeviceGetName(char *name, int size, int) { return snprintf(name, (size_t)size, "NVIDIA Stub"), 0; }

API cuDeviceGetUuid_v2(unsigned char *uuid, int device)
{
    memset(uuid, getenv("QUBIX_STUB_SAME") ? 1 : device + 1, 16);
    return 0;
}

API cuDeviceTotalMem_v2(size_t *size, int) { return *size = (size_t)setting("QUBIX_STUB_MEMORY", 1e12), 0; }

API cuDeviceGetAttribute(int *value, int attribute, int)
{
#ifdef QUBIX_MMA
    *value = attribute == 75 ? 8 : 6;
#else
    *value = attribute == 75 ? 7 : 5;
#endif
    return 0;
}

API cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &devices[device], 0; }
API cuCtxSetCurrent(void *context) { return current = (int)((Device *)context - devices), 0; }
API cuCtxSynchronize() { return 0; }

API cuModuleLoadData(void **module, const void *image)
{
#ifdef QUBIX_MMA
    const char *target = ".target sm_80";
#else
    const char *target = ".target sm_61";
#endif
    *module = (void *)image;
    return strstr((const char *)image, target) ? 0 : 209; // no binary for this card
}

API cuModuleGetFunction(void **function, void *module, const char *name)
{
    char entry[128];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    for (Kernel &one : KERNELS)
        if (!strcmp(one.name, name) && strstr((const char *)module, entry)) return *function = &one, 0;
    return 500; // not found
}

API cuMemAlloc_v2(u64 *address, size_t size)
{
    static double reserved[MAX_DEVICES];
    std::lock_guard<std::mutex> lock(one_at_a_time);
    reserved[current] += (double)size;
    if (reserved[current] > setting("QUBIX_STUB_MEMORY", 1e12)) return 2; // out of memory
    *address = (u64)aligned_alloc(256, (size + 255) & ~(size_t)255);
    return *address ? 0 : 2;
}

API cuMemcpyHtoD_v2(u64 to, const void *from, size_t size) { return memcpy((void *)to, from, size), 0; }
API cuMemcpyDtoH_v2(void *to, u64 from, size_t size) { return memcpy(to, (void *)from, size), 0; }
