// What contracts reach through `qpi`, and the C functions by which the host is driven from outside.
#pragma once

#include "machine.h"

namespace host
{
using K12Function = void (*)(const uint8* input, unsigned size, uint8* output, unsigned outputSize);
using VerifyFunction = bool (*)(const uint8* publicKey, const uint8* digest, const uint8* signature);
inline K12Function k12Function = nullptr;
inline VerifyFunction verifyFunction = nullptr;
inline thread_local Machine* running = nullptr; // whose state mut() marks as changed

// Takes what has passed since then out of the time of the code that is running. That time is added when
// the code returns: until then the number may lie below zero, which unsigned arithmetic bears.
uint64 leaveOut(uint64 begun)
{
    const uint64 passed = nanosecondsNow() - begun;
    running->cost.nanoseconds -= passed;
    return passed;
}

id k12(const void* data, uint64 size)
{
    id digest;
    const uint64 begun = nanosecondsNow();
    k12Function(static_cast<const uint8*>(data), static_cast<unsigned>(size), digest.bytes, sizeof digest);
    Cost& cost = running->cost;
    cost.hashes++;
    cost.hashedBytes += size;
    cost.hashNanoseconds += leaveOut(begun);
    return digest;
}

bool verify(const id& signer, const id& digest, const void* signature)
{
    const uint64 begun = nanosecondsNow();
    const bool valid = verifyFunction(signer.bytes, digest.bytes, static_cast<const uint8*>(signature));
    running->cost.signatures++;
    leaveOut(begun);
    return valid;
}

void start(Machine& machine)
{
    running = &machine;
    machine.cost = {};
}

void touch(uint32 index) { running->find(index)->changed = true; }
void* stateOf(const Frame& frame, uint32 index) { return frame.machine.find(index)->state; }
uint32 tickOf(const Frame& frame) { return frame.machine.tick; }
uint16 epochOf(const Frame& frame) { return frame.machine.epoch; }

// A digest of all balances, at this moment; of nothing but the first tick before there are any. A node
// hashes them as a tree, at the end of each tick: it is good only for telling chains apart.
id spectrumDigestOf(const Frame& frame)
{
    const Spectrum& spectrum = frame.machine.spectrum;
    if (!spectrum.capacity) return k12(&frame.machine.tick, sizeof frame.machine.tick);
    return k12(spectrum.slots, spectrum.capacity * sizeof(Entity));
}

DateAndTime timeOf(const Frame& frame) { return DateAndTime(frame.machine.time); }
bool isContract(const Frame& frame, const id& key) { return frame.machine.isContract(key); }

bool entity(const Frame& frame, const id& key, Entity& result)
{
    const Entity* const found = frame.machine.spectrum.find(key);
    setMemory(result, 0);
    result.publicKey = key;
    if (found) result = *found;
    return found;
}

// An index without a contract means the own one, as on a node.
Contract& contractOrSelf(const Frame& frame, uint32 index)
{
    Contract* const contract = index ? frame.machine.find(index) : nullptr;
    return *(contract ? contract : frame.machine.find(frame.index));
}

sint64 reserveOf(const Frame& frame, uint32 index) { return contractOrSelf(frame, index).reserve; }

sint64 transfer(const Frame& frame, const id& to, sint64 amount, uint8 type)
{
    Machine& machine = frame.machine;
    if (machine.inIncomingTransfer && machine.isContract(to)) return INVALID_AMOUNT;
    if (amount < 0 || amount > MAX_TRANSFER) return REFUSED_AMOUNT;
    Entity* const payer = machine.spectrum.find(frame.self());
    if (!payer) return -amount;
    const sint64 remaining = balanceOf(payer) - amount;
    if (remaining < 0) return remaining;
    machine.decrease(*payer, amount);
    machine.increase(to, amount);
    if (machine.isContract(to))
        machine.notifyIncoming(Frame{machine, static_cast<uint32>(to.u64._0), frame.originator, frame.self(), 0},
                               frame.self(), amount, type);
    return remaining;
}

sint64 burn(const Frame& frame, sint64 amount, uint32 index)
{
    Machine& machine = frame.machine;
    if (amount < 0 || amount > MAX_TRANSFER) return REFUSED_AMOUNT;
    Entity* const payer = machine.spectrum.find(frame.self());
    if (!payer) return -amount;
    const sint64 remaining = balanceOf(payer) - amount;
    if (remaining < 0) return remaining;
    machine.decrease(*payer, amount);
    machine.destroyed += amount;
    contractOrSelf(frame, index).reserve += amount;
    return remaining;
}

// No shares are modelled, so nobody receives the money.
bool distributeDividends(const Frame& frame, sint64 perShare)
{
    Machine& machine = frame.machine;
    if (machine.inIncomingTransfer || perShare < 0 || perShare > MAX_TRANSFER / NUMBER_OF_COMPUTORS) return false;
    Entity* const payer = machine.spectrum.find(frame.self());
    const sint64 total = perShare * NUMBER_OF_COMPUTORS;
    if (!payer || balanceOf(payer) < total) return false;
    machine.decrease(*payer, total);
    machine.destroyed += total;
    return true;
}

// The whole machine as bytes, in this order: Head, for each contract ContractHead and its state (filled up
// to eight bytes), entities.
struct Head
{
    uint64 magic;
    uint32 contracts, tick;
    uint64 epoch, time, tickTime;
    sint64 destroyed;
    uint64 entities;
};

struct ContractHead
{
    uint64 index, stateSize;
    sint64 reserve;
};

constexpr uint64 SNAPSHOT_MAGIC = 0x3154534F48584251ULL; // "QBXHOST1"
constexpr uint64 filled(uint64 size) { return (size + 7) & ~7ULL; }

inline uint64 snapshotSize(const Machine& machine, uint64 entities)
{
    uint64 size = sizeof(Head) + entities * sizeof(Entity);
    for (uint32 i = 0; i < machine.count; ++i) size += sizeof(ContractHead) + filled(machine.contracts[i]->stateSize);
    return size;
}

inline void writeSnapshot(const Machine& machine, uint8* to)
{
    const Head head{SNAPSHOT_MAGIC, machine.count, machine.tick, machine.epoch, machine.time, machine.tickTime,
                    machine.destroyed, machine.spectrum.count};
    const auto put = [&to](const void* from, uint64 size) {
        memcpy(to, from, size);
        memset(to + size, 0, filled(size) - size);
        to += filled(size);
    };
    put(&head, sizeof head);
    for (uint32 i = 0; i < machine.count; ++i)
    {
        const Contract& contract = *machine.contracts[i];
        const ContractHead contractHead{contract.index, contract.stateSize, contract.reserve};
        put(&contractHead, sizeof contractHead);
        put(contract.state, contract.stateSize);
    }
    for (uint64 i = 0; i < machine.spectrum.capacity; ++i)
        if (machine.spectrum.used[i]) put(&machine.spectrum.slots[i], sizeof(Entity));
}

// Nothing is changed unless the bytes fit these contracts exactly.
inline bool readSnapshot(Machine& machine, const uint8* from, uint64 size)
{
    Head head;
    if (size < sizeof head) return false;
    memcpy(&head, from, sizeof head);
    if (head.magic != SNAPSHOT_MAGIC || head.contracts != machine.count || head.entities > size / sizeof(Entity)
        || size != snapshotSize(machine, head.entities))
        return false;
    const uint8* at = from + sizeof head;
    for (uint32 i = 0; i < machine.count; ++i)
    {
        ContractHead contractHead;
        memcpy(&contractHead, at, sizeof contractHead);
        const Contract& contract = *machine.contracts[i];
        if (contractHead.index != contract.index || contractHead.stateSize != contract.stateSize) return false;
        at += sizeof contractHead + filled(contract.stateSize);
    }
    at = from + sizeof head;
    for (uint32 i = 0; i < machine.count; ++i)
    {
        ContractHead contractHead;
        memcpy(&contractHead, at, sizeof contractHead);
        machine.contracts[i]->reserve = contractHead.reserve;
        memcpy(machine.contracts[i]->state, at + sizeof contractHead, contractHead.stateSize);
        at += sizeof contractHead + filled(contractHead.stateSize);
    }
    machine.spectrum.clear();
    for (uint64 i = 0; i < head.entities; ++i, at += sizeof(Entity))
    {
        Entity entity;
        memcpy(&entity, at, sizeof entity);
        machine.spectrum.findOrAdd(entity.publicKey) = entity;
    }
    machine.tick = head.tick;
    machine.epoch = static_cast<uint16>(head.epoch);
    machine.time = head.time;
    machine.tickTime = head.tickTime;
    machine.destroyed = head.destroyed;
    return true;
}
}

#define HOST_API extern "C" __attribute__((visibility("default")))

HOST_API void host_set_crypto(void* k12, void* verify)
{
    host::k12Function = reinterpret_cast<host::K12Function>(k12);
    host::verifyFunction = reinterpret_cast<host::VerifyFunction>(verify);
}

HOST_API host::Machine* host_new(uint32_t tick, uint16_t epoch, uint64_t time, int64_t reserve)
{
    auto* const machine = static_cast<host::Machine*>(calloc(1, sizeof(host::Machine)));
    if (!machine) abort();
    host::running = machine;
    host::deployAll(*machine);
    machine->tick = tick;
    machine->epoch = epoch;
    machine->time = machine->tickTime = time;
    for (uint32_t i = 0; i < machine->count; ++i) machine->contracts[i]->reserve = reserve;
    machine->construct();
    return machine;
}

HOST_API void host_free(host::Machine* machine)
{
    machine->release();
    free(machine);
}

HOST_API uint32_t host_tick(host::Machine* machine) { return machine->tick; }
HOST_API uint16_t host_epoch(host::Machine* machine) { return machine->epoch; }
HOST_API int64_t host_destroyed(host::Machine* machine) { return machine->destroyed; }

HOST_API void host_credit(host::Machine* machine, const QPI::id* owner, int64_t amount)
{
    machine->increase(*owner, amount);
}

HOST_API int host_entity(host::Machine* machine, const QPI::id* owner, QPI::Entity* result)
{
    const QPI::Entity* const found = machine->spectrum.find(*owner);
    if (found) *result = *found;
    return found != nullptr;
}

HOST_API int host_reserve(host::Machine* machine, uint32_t index, int64_t* reserve)
{
    const host::Contract* const contract = machine->find(index);
    if (contract) *reserve = contract->reserve;
    return contract != nullptr;
}

HOST_API int host_set_reserve(host::Machine* machine, uint32_t index, int64_t reserve)
{
    host::Contract* const contract = machine->find(index);
    if (contract) contract->reserve = reserve;
    return contract != nullptr;
}

HOST_API int host_changed(host::Machine* machine, uint32_t index)
{
    const host::Contract* const contract = machine->find(index);
    return contract && contract->changed;
}

HOST_API void host_begin_tick(host::Machine* machine, uint32_t tick, uint64_t time)
{
    host::start(*machine);
    machine->beginTick(tick, time);
}

HOST_API int host_apply(host::Machine* machine, const QPI::id* source, const QPI::id* destination, int64_t amount,
                        uint16_t type, const void* input, uint64_t size)
{
    host::start(*machine);
    return machine->apply(*source, *destination, amount, type, input, size);
}

HOST_API void host_end_tick(host::Machine* machine)
{
    host::start(*machine);
    machine->endTick();
}

HOST_API void host_change_epoch(host::Machine* machine)
{
    host::start(*machine);
    machine->changeEpoch();
}

HOST_API int host_query(host::Machine* machine, uint32_t index, uint16_t type, const void* input, uint64_t size)
{
    host::start(*machine);
    return machine->query(index, type, input, size);
}

HOST_API void host_cost(const host::Machine* machine, host::Cost* result) { *result = machine->cost; }

// Output of the last host_apply or host_query; valid until the next one.
HOST_API const void* host_output(host::Machine* machine, uint64_t* size)
{
    *size = machine->outputSize;
    return machine->output;
}

HOST_API const void* host_state(host::Machine* machine, uint32_t index, uint64_t* size)
{
    const host::Contract* const contract = machine->find(index);
    *size = contract ? contract->stateSize : 0;
    return contract ? contract->state : nullptr;
}

HOST_API uint64_t host_snapshot_size(host::Machine* machine)
{
    return host::snapshotSize(*machine, machine->spectrum.count);
}

HOST_API void host_snapshot_write(host::Machine* machine, void* to)
{
    host::writeSnapshot(*machine, static_cast<uint8_t*>(to));
}

HOST_API int host_snapshot_read(host::Machine* machine, const void* from, uint64_t size)
{
    return host::readSnapshot(*machine, static_cast<const uint8_t*>(from), size);
}
