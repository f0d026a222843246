// The chain around the contracts: who owns how much, states, execution-fee reserves, tick, epoch, and the
// rules by which money moves and code runs.
#pragma once

#include "qpi.h"

#include <time.h>

namespace host
{
inline uint64 nanosecondsNow()
{
    timespec now;
    timespec_get(&now, TIME_UTC);
    return static_cast<uint64>(now.tv_sec) * 1000000000ULL + static_cast<uint64>(now.tv_nsec);
}

// What contracts used since the host was last told to run something. Nothing here depends on it.
struct Cost
{
    uint64 nanoseconds; // in the code of contracts, hashing and checks of signatures left out
    uint64 hashes, hashedBytes, hashNanoseconds, signatures;
};

constexpr sint64 MAX_TRANSFER = 1000000000000000;
constexpr sint64 REFUSED_AMOUNT = -MAX_TRANSFER - 1;

// Entities by public key: open addressing, never more than half full, nothing is ever removed.
struct Spectrum
{
    Entity* slots;
    uint8* used;
    uint64 capacity, count;

    void release()
    {
        free(slots);
        free(used);
    }

    uint64 slotOf(const id& key) const
    {
        uint64 hash = key.u64._0 ^ key.u64._1 ^ key.u64._2 ^ key.u64._3;
        hash = (hash ^ hash >> 32) * 0x9E3779B97F4A7C15ULL;
        uint64 slot = hash >> 32 & (capacity - 1);
        while (used[slot] && !(slots[slot].publicKey == key)) slot = (slot + 1) & (capacity - 1);
        return slot;
    }

    Entity* find(const id& key) const
    {
        const uint64 slot = capacity ? slotOf(key) : 0;
        return capacity && used[slot] ? &slots[slot] : nullptr;
    }

    Entity& findOrAdd(const id& key)
    {
        if (2 * (count + 1) > capacity) grow();
        const uint64 slot = slotOf(key);
        if (!used[slot])
        {
            used[slot] = 1;
            slots[slot].publicKey = key;
            ++count;
        }
        return slots[slot];
    }

    void clear()
    {
        if (!capacity) return;
        memset(static_cast<void*>(slots), 0, capacity * sizeof(Entity));
        memset(used, 0, capacity);
        count = 0;
    }

    void grow()
    {
        Spectrum bigger{};
        bigger.capacity = capacity ? 2 * capacity : 64;
        bigger.slots = static_cast<Entity*>(calloc(bigger.capacity, sizeof(Entity)));
        bigger.used = static_cast<uint8*>(calloc(bigger.capacity, 1));
        if (!bigger.slots || !bigger.used) abort();
        for (uint64 i = 0; i < capacity; ++i)
            if (used[i]) bigger.findOrAdd(slots[i].publicKey) = slots[i];
        release();
        *this = bigger;
    }
};

inline sint64 balanceOf(const Entity* entity) { return entity ? entity->incomingAmount - entity->outgoingAmount : 0; }

struct Contract
{
    uint32 index;
    uint64 stateSize;
    void* state;
    sint64 reserve;
    bool changed; // its state was opened for writing since the tick began
    Register functions, procedures;
    Entry initialize, beginEpoch, endEpoch, beginTick, endTick, incomingTransfer;
};

// Made of zeroed memory.
struct Machine
{
    static constexpr uint32 CAPACITY = 64;
    Contract* contracts[CAPACITY]; // in the order of their indexes
    uint32 count;
    uint32 tick;
    uint16 epoch;
    uint64 time;     // what now() shows: the time of the previous tick
    uint64 tickTime; // the time of this tick
    sint64 destroyed;
    bool inIncomingTransfer;
    Cost cost;
    uint32 depth; // of entries that run within each other: the outermost is timed
    Spectrum spectrum;
    uint8* output; // of the last procedure or function called from outside
    uint64 outputSize;

    void release()
    {
        spectrum.release();
        for (uint32 i = 0; i < count; ++i)
        {
            free(contracts[i]->state);
            free(contracts[i]);
        }
        free(output);
    }

    template <typename Type, uint32 index> void deploy()
    {
        using State = ContractState<typename Type::StateData, index>;
        static_assert(sizeof(State) <= MAX_STATE, "The state is too large.");
        auto* const contract = static_cast<Contract*>(calloc(1, sizeof(Contract)));
        if (!contract || count == CAPACITY) abort();
        contract->index = index;
        contract->stateSize = sizeof(State);
        contract->state = calloc(1, sizeof(State));
        if (!contract->state) abort();
        Registration registration{contract->functions, contract->procedures};
        Type::registerAll(registration);
        if constexpr (requires { &Type::onInitialize; }) contract->initialize = Entry::of<&Type::onInitialize>(0);
        if constexpr (requires { &Type::onBeginEpoch; }) contract->beginEpoch = Entry::of<&Type::onBeginEpoch>(0);
        if constexpr (requires { &Type::onEndEpoch; }) contract->endEpoch = Entry::of<&Type::onEndEpoch>(0);
        if constexpr (requires { &Type::onBeginTick; }) contract->beginTick = Entry::of<&Type::onBeginTick>(0);
        if constexpr (requires { &Type::onEndTick; }) contract->endTick = Entry::of<&Type::onEndTick>(0);
        if constexpr (requires { &Type::onIncomingTransfer; })
            contract->incomingTransfer = Entry::of<&Type::onIncomingTransfer>(0);
        contracts[count++] = contract;
    }

    Contract* find(uint64 index) const
    {
        for (uint32 i = 0; i < count; ++i)
            if (contracts[i]->index == index) return contracts[i];
        return nullptr;
    }

    // Any index up to the highest one counts as a contract, whether or not there is code behind it.
    bool isContract(const id& key) const
    {
        return !key.u64._1 && !key.u64._2 && !key.u64._3 && count && key.u64._0 <= contracts[count - 1]->index;
    }

    void increase(const id& key, sint64 amount)
    {
        if (isZero(key))
        {
            destroyed += amount;
            return;
        }
        Entity& entity = spectrum.findOrAdd(key);
        entity.incomingAmount += amount;
        entity.numberOfIncomingTransfers++;
        entity.latestIncomingTransferTick = tick;
    }

    void decrease(Entity& entity, sint64 amount)
    {
        entity.outgoingAmount += amount;
        entity.numberOfOutgoingTransfers++;
        entity.latestOutgoingTransferTick = tick;
    }

    // Runs an entry with input cut or padded to its size. Returns the output for the caller to free.
    uint8* run(const Entry& entry, const Frame& frame, const void* input, uint64 size)
    {
        const auto aligned = [](uint64 n) { return (n + 15) & ~15ULL; };
        const uint64 inputAt = aligned(entry.outputSize), localsAt = inputAt + aligned(entry.inputSize);
        auto* const memory = static_cast<uint8*>(calloc(1, localsAt + aligned(entry.localsSize)));
        if (!memory) abort();
        if (size) memcpy(memory + inputAt, input, size < entry.inputSize ? size : entry.inputSize);
        const uint64 begun = depth++ ? 0 : nanosecondsNow();
        entry.code(frame, find(frame.index)->state, memory + inputAt, memory, memory + localsAt);
        if (!--depth) cost.nanoseconds += nanosecondsNow() - begun;
        return memory;
    }

    void runSystem(const Entry& entry, uint32 index)
    {
        if (entry.code) free(run(entry, Frame{*this, index, id::zero(), id::zero(), 0}, nullptr, 0));
    }

    void keepOutput(uint8* memory, uint64 size)
    {
        free(output);
        output = memory;
        outputSize = size;
    }

    void notifyIncoming(const Frame& frame, const id& source, sint64 amount, uint8 type)
    {
        Contract* const contract = find(frame.index);
        if (!contract || !contract->incomingTransfer.code || amount <= 0) return;
        const bool before = inIncomingTransfer;
        inIncomingTransfer = true;
        const PostIncomingTransfer_input input{source, amount, type};
        free(run(contract->incomingTransfer, frame, &input, sizeof input));
        inIncomingTransfer = before;
    }

    // One transaction. False: it has no effect at all, as one that its source cannot afford.
    bool apply(const id& source, const id& destination, sint64 amount, uint16 type, const void* input, uint64 size)
    {
        keepOutput(nullptr, 0);
        Entity* const payer = spectrum.find(source);
        const sint64 balance = balanceOf(payer);
        if (isContract(source) || isZero(source) || balance <= 0 || amount < 0 || amount > MAX_TRANSFER
            || amount > balance || size > MAX_INPUT)
            return false;
        decrease(*payer, amount);
        increase(destination, amount);
        Contract* const contract = isContract(destination) ? find(destination.u64._0) : nullptr;
        if (!contract) return true;
        if (contract->reserve <= 0)
        {
            if (amount > 0)
            {
                decrease(*spectrum.find(destination), amount);
                increase(source, amount);
            }
            return true;
        }
        const Entry* const procedure = contract->procedures.find(type);
        notifyIncoming(Frame{*this, contract->index, id::zero(), id::zero(), 0}, source, amount,
                       procedure ? TransferType::procedureTransaction : TransferType::standardTransaction);
        if (procedure)
            keepOutput(run(*procedure, Frame{*this, contract->index, source, source, amount}, input, size),
                       procedure->outputSize);
        return true;
    }

    bool query(uint32 index, uint16 type, const void* input, uint64 size)
    {
        keepOutput(nullptr, 0);
        Contract* const contract = find(index);
        const Entry* const function = contract ? contract->functions.find(type) : nullptr;
        if (!function) return false;
        keepOutput(run(*function, Frame{*this, index, id::zero(), id::zero(), 0}, input, size), function->outputSize);
        return true;
    }

    // What begins runs from the lowest index up, what ends from the highest down. Without a reserve a
    // contract sleeps through ticks, but not through a change of epoch.
    void construct()
    {
        for (uint32 i = 0; i < count; ++i) runSystem(contracts[i]->initialize, contracts[i]->index);
        for (uint32 i = 0; i < count; ++i) runSystem(contracts[i]->beginEpoch, contracts[i]->index);
    }

    void beginTick(uint32 newTick, uint64 newTime)
    {
        tick = newTick;
        time = tickTime;
        if (newTime > tickTime) tickTime = newTime;
        for (uint32 i = 0; i < count; ++i) contracts[i]->changed = false;
        for (uint32 i = 0; i < count; ++i)
            if (contracts[i]->reserve > 0) runSystem(contracts[i]->beginTick, contracts[i]->index);
    }

    void endTick()
    {
        for (uint32 i = count; i-- > 0;)
            if (contracts[i]->reserve > 0) runSystem(contracts[i]->endTick, contracts[i]->index);
    }

    void changeEpoch()
    {
        for (uint32 i = count; i-- > 0;) runSystem(contracts[i]->endEpoch, contracts[i]->index);
        ++epoch;
        for (uint32 i = 0; i < count; ++i) runSystem(contracts[i]->beginEpoch, contracts[i]->index);
    }
};
}
