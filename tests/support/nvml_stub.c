/* A machine's NVML for tests: answers what a state file says, read anew at each call.

   The file (named by QUBIX_NVML_STATE) has lines "key=value"; tests/support/nvml.py writes it and says what
   the keys mean. Signatures, structures and numbers are those of NVIDIA's NVML API reference.
   A handle holds the card, the slice and how often the driver had been started when it was given out. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OK 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define TIMEOUT 10
#define LIBRARY_MISMATCH 18
#define LOST 15
#define NO_INSTANCE 0xFFFFFFFFu

typedef unsigned int u32;
typedef unsigned long long u64;

static int opened;        /* how often more initialised than shut down */
static long started = -1; /* which start of the driver this library was initialised with */
static int events_seen;

int stub_opened(void) { return opened; }

/* The state ---------------------------------------------------------------------------------- */

static int get(const char *key, char *value, size_t size) {
    const char *path = getenv("QUBIX_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (!strncmp(line, key, length) && line[length] == '=') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static u64 number(const char *key, u64 otherwise) {
    char value[64];
    return get(key, value, sizeof value) ? strtoull(value, NULL, 0) : otherwise;
}

static int driver(void) {
    char word[16];
    struct timespec nap = {0, 2000000};
    while (get("driver", word, sizeof word) && !strcmp(word, "silent")) nanosleep(&nap, NULL);
    if (!get("driver", word, sizeof word) || !strcmp(word, "down")) return DRIVER_NOT_LOADED;
    return strcmp(word, "mismatch") ? OK : LIBRARY_MISMATCH;
}

/* Handles ------------------------------------------------------------------------------------ */

static int card_of(void *handle) { return (int)((uintptr_t)handle & 0xFF) - 1; }
static int slice_of(void *handle) { return (int)((uintptr_t)handle >> 8 & 0xFF) - 1; }

static void *handle_of(int card, int slice) {
    return (void *)((uintptr_t)(card + 1) | (uintptr_t)(slice + 1) << 8 | (uintptr_t)(started & 0xFFFF) << 16);
}

/* "card.1.used" or "card.1.slice.0.used" */
static const char *key_of(void *handle, const char *name) {
    static _Thread_local char key[96];
    if (slice_of(handle) < 0) snprintf(key, sizeof key, "card.%d.%s", card_of(handle), name);
    else snprintf(key, sizeof key, "card.%d.slice.%d.%s", card_of(handle), slice_of(handle), name);
    return key;
}

/* 0 or why this handle is not answered. */
static int fault(void *handle) {
    char key[32];
    int wrong = driver();
    if (wrong) return wrong;
    if (!opened || (long)number("started", 1) != started || handle != handle_of(card_of(handle), slice_of(handle)))
        return UNINITIALIZED;
    snprintf(key, sizeof key, "card.%d.lost", card_of(handle));
    return number(key, 0) ? LOST : OK;
}

static int tell(void *handle, const char *name, u32 *value) {
    char told[64];
    int wrong = fault(handle);
    if (wrong) return wrong;
    if (!get(key_of(handle, name), told, sizeof told)) return NOT_SUPPORTED;
    *value = (u32)strtoul(told, NULL, 0);
    return OK;
}

static int tell_text(void *handle, const char *name, char *value, u32 size) {
    int wrong = fault(handle);
    if (wrong) return wrong;
    return get(key_of(handle, name), value, size) ? OK : NOT_SUPPORTED;
}

/* The library -------------------------------------------------------------------------------- */

int nvmlInitWithFlags(u32 flags) {
    int wrong = driver();
    (void)flags;
    if (wrong) return wrong;
    if (opened++ == 0) started = (long)number("started", 1);
    return OK;
}

int nvmlShutdown(void) {
    if (!opened) return UNINITIALIZED;
    opened--;
    return OK;
}

const char *nvmlErrorString(int error) { (void)error; return "an error of the stub"; }

int nvmlSystemGetDriverVersion(char *text, u32 size) {
    return get("driver_version", text, size) ? OK : NOT_SUPPORTED;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = (int)number("cuda", 12040);
    return OK;
}

int nvmlDeviceGetCount_v2(u32 *count) {
    *count = (u32)number("cards", 0);
    return driver();
}

int nvmlDeviceGetHandleByIndex_v2(u32 index, void **handle) {
    *handle = handle_of((int)index, -1);
    return fault(*handle);
}

/* One card ----------------------------------------------------------------------------------- */

int nvmlDeviceGetUUID(void *h, char *text, u32 size) { return tell_text(h, "uuid", text, size); }
int nvmlDeviceGetName(void *h, char *text, u32 size) { return tell_text(h, "model", text, size); }
int nvmlDeviceGetPowerUsage(void *h, u32 *milliwatts) { return tell(h, "milliwatts", milliwatts); }
int nvmlDeviceGetCurrPcieLinkGeneration(void *h, u32 *value) { return tell(h, "pcie_now", value); }
int nvmlDeviceGetMaxPcieLinkGeneration(void *h, u32 *value) { return tell(h, "pcie_most", value); }
int nvmlDeviceGetCurrPcieLinkWidth(void *h, u32 *value) { return tell(h, "lanes_now", value); }
int nvmlDeviceGetMaxPcieLinkWidth(void *h, u32 *value) { return tell(h, "lanes_most", value); }
int nvmlDeviceGetRetiredPagesPendingStatus(void *h, u32 *value) { return tell(h, "pages_pending", value); }
int nvmlDeviceGetMaxMigDeviceCount(void *h, u32 *value) { return tell(h, "slices", value); }
int nvmlDeviceGetGpuInstanceId(void *h, u32 *value) { return tell(h, "instance", value); }

int nvmlDeviceGetTemperature(void *h, u32 sensor, u32 *celsius) {
    return sensor ? INVALID_ARGUMENT : tell(h, "celsius", celsius);
}

int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) {
    *major = (int)number(key_of(h, "capability"), 89) / 10;
    *minor = (int)number(key_of(h, "capability"), 89) % 10;
    return fault(h);
}

struct pci { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *h, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    return tell(h, "bus", &pci->bus);
}

struct memory { u64 total, free, used; };
struct memory_2 { u32 version; u64 total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo(void *h, struct memory *memory) {
    memory->total = number(key_of(h, "total"), 0);
    memory->used = number(key_of(h, "used"), 0) + number(key_of(h, "reserved"), 0);
    memory->free = memory->total - memory->used;
    return fault(h);
}

int nvmlDeviceGetMemoryInfo_v2(void *h, struct memory_2 *memory) {
    if (number("old", 0)) return NOT_SUPPORTED;
    memory->total = number(key_of(h, "total"), 0);
    memory->used = number(key_of(h, "used"), 0);
    memory->reserved = number(key_of(h, "reserved"), 0);
    memory->free = memory->total - memory->used - memory->reserved;
    return fault(h);
}

struct utilization { u32 gpu, memory; };

int nvmlDeviceGetUtilizationRates(void *h, struct utilization *use) {
    use->memory = 0;
    return tell(h, "use", &use->gpu);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *h, u64 *reasons) {
    *reasons = number(key_of(h, "reasons"), 0);
    return fault(h);
}

int nvmlDeviceGetTotalEccErrors(void *h, u32 kind, u32 counter, u64 *count) {
    u32 value = 0;
    int wrong = tell(h, kind == 1 && counter == 0 ? "ecc" : "ecc_other", &value);
    *count = value;
    return wrong;
}

int nvmlDeviceGetRemappedRows(void *h, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    *corrected = *uncorrected = 0;
    *failed = (u32)number(key_of(h, "rows_failed"), 0);
    return tell(h, "rows_pending", pending);
}

struct field { u32 id, scope; int64_t when, took; u32 kind, result; union { u64 wide; u32 narrow; } value; };

int nvmlDeviceGetFieldValues(void *h, int count, struct field *fields) {
    for (int i = 0; i < count; i++)
        fields[i].result = fields[i].id == 230 ? (u32)tell(h, "needs", &fields[i].value.narrow) : NOT_SUPPORTED;
    return fault(h);
}

/* Processes: "card.0.process.N=PID BYTES compute|graphics|both" ------------------------------- */

struct process { u32 pid; u64 bytes; u32 instance, compute_instance; };

static int processes(void *h, u32 *count, struct process *list, const char *kind) {
    u32 room = *count, found = 0;
    char name[24], value[96], word[16];
    int wrong = fault(h);
    if (wrong) return wrong;
    for (int i = 0; i < 32; i++) {
        struct process one = {0, 0, NO_INSTANCE, NO_INSTANCE};
        snprintf(name, sizeof name, "process.%d", i);
        if (!get(key_of(h, name), value, sizeof value)) break;
        if (sscanf(value, "%u %llu %15s", &one.pid, &one.bytes, word) != 3) return INVALID_ARGUMENT;
        if (strcmp(word, kind) && strcmp(word, "both")) continue;
        if (found < room && list) list[found] = one;
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *h, u32 *count, struct process *list) {
    return processes(h, count, list, "compute");
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h, u32 *count, struct process *list) {
    return processes(h, count, list, "graphics");
}

/* MIG ---------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(void *h, u32 *now, u32 *next) {
    int wrong = tell(h, "mig", now);
    *next = *now;
    return wrong;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *h, u32 index, void **slice) {
    char text[96];
    *slice = handle_of(card_of(h), (int)index);
    return get(key_of(*slice, "uuid"), text, sizeof text) ? fault(h) : NOT_FOUND;
}

/* Events: "xid.N=CARD NUMBER INSTANCE", each told once to a set that was told to listen to the card -- */

static u32 listening; /* a bit for each card */

struct event { void *device; u64 kind, data; u32 instance, compute_instance; };

int nvmlEventSetCreate(void **set) {
    *set = &listening;
    listening = 0;
    return driver();
}

int nvmlEventSetFree(void *set) { return set == &listening ? OK : INVALID_ARGUMENT; }

int nvmlDeviceGetSupportedEventTypes(void *h, u64 *kinds) {
    *kinds = number(key_of(h, "events"), 8 | 4 | 1);
    return fault(h);
}

int nvmlDeviceRegisterEvents(void *h, u64 kinds, void *set) {
    if (set != &listening || kinds != 8) return INVALID_ARGUMENT;
    listening |= 1u << card_of(h);
    return fault(h);
}

int nvmlEventSetWait_v2(void *set, struct event *event, u32 milliseconds) {
    char key[24], value[96];
    int card, wrong = driver();
    struct timespec nap = {0, (long)milliseconds * 1000000};
    if (wrong || set != &listening) return wrong ? wrong : INVALID_ARGUMENT;
    for (;;) {
        snprintf(key, sizeof key, "xid.%d", events_seen);
        if (!get(key, value, sizeof value)) break;
        if (sscanf(value, "%d %llu %u", &card, &event->data, &event->instance) != 3) return INVALID_ARGUMENT;
        events_seen++;
        if (!(listening >> card & 1)) continue;
        event->device = handle_of(card, -1);
        event->kind = 8;
        event->compute_instance = event->instance == NO_INSTANCE ? NO_INSTANCE : 0;
        return OK;
    }
    nanosleep(&nap, NULL);
    return TIMEOUT;
}
