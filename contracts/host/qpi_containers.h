// Containers a contract can keep in its state: fixed capacity (a power of two), plain bytes, no pointers.
#pragma once

#include "qpi_types.h"

namespace host
{
QPI::id k12(const void* data, QPI::uint64 size);
}

namespace QPI
{
constexpr bool isPowerOfTwo(uint64 n) { return n && !(n & (n - 1)); }

template <typename T, uint64 L> struct Array
{
    static_assert(isPowerOfTwo(L), "The capacity of an Array must be a power of two.");

    static constexpr uint64 capacity() { return L; }
    const T& get(uint64 index) const { return values[index & (L - 1)]; }
    void set(uint64 index, const T& value) { values[index & (L - 1)] = value; }
    template <typename From> void setMem(const From& from) { copyMemory(values, from); }
    void setAll(const T& value) { setRange(0, L, value); }
    void setRange(uint64 begin, uint64 end, const T& value)
    {
        for (uint64 i = begin; i < end; ++i) set(i, value);
    }

private:
    T values[L];
};

template <uint64 L> struct BitArray
{
    static_assert(isPowerOfTwo(L), "The capacity of a BitArray must be a power of two.");

    static constexpr uint64 capacity() { return L; }
    bit get(uint64 index) const { return word(index) >> (index & 63) & 1; }
    void set(uint64 index, bit value)
    {
        uint64& target = words[index >> 6 & (wordCount - 1)];
        target = (target & ~(1ULL << (index & 63))) | static_cast<uint64>(value) << (index & 63);
    }
    void setAll(bit value) { memset(words, value ? 255 : 0, sizeof words); }

private:
    static constexpr uint64 wordCount = (L + 63) / 64;
    uint64 word(uint64 index) const { return words[index >> 6 & (wordCount - 1)]; }
    uint64 words[wordCount];
};

template <typename Key> struct HashFunction
{
    static uint64 hash(const Key& key) { return host::k12(&key, sizeof key).u64._0; }
};

template <> struct HashFunction<id>
{
    static uint64 hash(const id& key) { return key.u64._0; }
};

// Open addressing with linear probing. Two bits a slot say empty, taken or removed; a removed slot is
// zeroed, goes on being probed over, and is taken again by the first new key that passes it.
template <typename Element, typename Key, uint64 L, typename Hash> class HashSlots
{
    static_assert(isPowerOfTwo(L), "The capacity of a hash container must be a power of two.");

public:
    static constexpr uint64 capacity() { return L; }
    uint64 population() const { return taken; }
    bool contains(const Key& key) const { return getElementIndex(key) != NULL_INDEX; }
    bool isEmptySlot(sint64 index) const { return flag(index & (L - 1)) != TAKEN; }
    const Key& key(sint64 index) const { return elements[index & (L - 1)].key; }
    bool needsCleanup(uint64 percent = 50) const { return removals > percent * L / 100; }
    void reset() { memset(static_cast<void*>(this), 0, sizeof *this); }

    sint64 getElementIndex(const Key& key) const
    {
        uint64 index = Hash::hash(key) & (L - 1);
        for (uint64 probed = 0; probed < L; ++probed, index = (index + 1) & (L - 1))
        {
            if (flag(index) == EMPTY) return NULL_INDEX;
            if (flag(index) == TAKEN && elements[index].key == key) return static_cast<sint64>(index);
        }
        return NULL_INDEX;
    }

    sint64 nextElementIndex(sint64 index) const
    {
        for (uint64 next = index < 0 ? 0 : static_cast<uint64>(index) + 1; next < L; ++next)
            if (flag(next) == TAKEN) return static_cast<sint64>(next);
        return NULL_INDEX;
    }

    void removeByIndex(sint64 index)
    {
        const uint64 slot = index & (L - 1);
        if (flag(slot) != TAKEN) return;
        memset(static_cast<void*>(&elements[slot]), 0, sizeof(Element));
        setFlag(slot, REMOVED);
        --taken;
        ++removals;
    }

    void cleanupIfNeeded(uint64 percent = 50)
    {
        if (needsCleanup(percent)) cleanup();
    }

    void cleanup()
    {
        if (!removals) return;
        auto* const old = static_cast<HashSlots*>(malloc(sizeof *this));
        if (!old) abort();
        memcpy(static_cast<void*>(old), static_cast<const void*>(this), sizeof *this);
        reset();
        for (sint64 i = old->nextElementIndex(-1); i != NULL_INDEX; i = old->nextElementIndex(i))
        {
            const sint64 slot = claim(old->elements[i].key);
            if (slot != NULL_INDEX) elements[slot] = old->elements[i];
        }
        free(old);
    }

protected:
    // The slot of this key, a new one if need be; NULL_INDEX if the key is new and all slots are taken.
    sint64 claim(const Key& key)
    {
        uint64 index = Hash::hash(key) & (L - 1);
        sint64 free = NULL_INDEX;
        for (uint64 probed = 0; probed < L; ++probed, index = (index + 1) & (L - 1))
        {
            const uint64 state = flag(index);
            if (state == TAKEN && elements[index].key == key) return static_cast<sint64>(index);
            if (state != TAKEN && free == NULL_INDEX) free = static_cast<sint64>(index);
            if (state == EMPTY) break;
        }
        if (free == NULL_INDEX) return NULL_INDEX;
        elements[free].key = key;
        setFlag(free, TAKEN);
        ++taken;
        return free;
    }

    Element elements[L];

private:
    static constexpr uint64 EMPTY = 0, TAKEN = 1, REMOVED = 2;
    uint64 flag(uint64 slot) const { return flags[slot >> 5] >> ((slot & 31) << 1) & 3; }
    void setFlag(uint64 slot, uint64 value)
    {
        const uint64 shift = (slot & 31) << 1;
        flags[slot >> 5] = (flags[slot >> 5] & ~(3ULL << shift)) | value << shift;
    }

    uint64 flags[(L * 2 + 63) / 64];
    uint64 taken;
    uint64 removals; // since the last cleanup; taking a removed slot again does not lower it
};

template <typename Key, typename Value> struct HashMapElement
{
    Key key;
    Value value;
};

template <typename Key, typename Value, uint64 L, typename Hash = HashFunction<Key>>
class HashMap : public HashSlots<HashMapElement<Key, Value>, Key, L, Hash>
{
public:
    const Value& value(sint64 index) const { return this->elements[index & (L - 1)].value; }

    // Index of the element, new or overwritten; NULL_INDEX if the key is new and the map is full.
    sint64 set(const Key& key, const Value& value)
    {
        const sint64 index = this->claim(key);
        if (index != NULL_INDEX) this->elements[index].value = value;
        return index;
    }

    bool get(const Key& key, Value& value) const
    {
        const sint64 index = this->getElementIndex(key);
        if (index != NULL_INDEX) value = this->elements[index].value;
        return index != NULL_INDEX;
    }

    bool replace(const Key& key, const Value& value)
    {
        const sint64 index = this->getElementIndex(key);
        if (index != NULL_INDEX) this->elements[index].value = value;
        return index != NULL_INDEX;
    }

    sint64 removeByKey(const Key& key)
    {
        const sint64 index = this->getElementIndex(key);
        if (index != NULL_INDEX) this->removeByIndex(index);
        return index;
    }
};

template <typename Key> struct HashSetElement
{
    Key key;
};

template <typename Key, uint64 L, typename Hash = HashFunction<Key>>
class HashSet : public HashSlots<HashSetElement<Key>, Key, L, Hash>
{
public:
    sint64 add(const Key& key) { return this->claim(key); }

    sint64 remove(const Key& key)
    {
        const sint64 index = this->getElementIndex(key);
        if (index != NULL_INDEX) this->removeByIndex(index);
        return index;
    }
};
}
