// Types a contract sees. Sizes and alignments are those of a genuine node: id has the alignment of its
// 64-bit words, padding is the usual one of C.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The C++ standard library has this overload of div. It is why a contract's plain div(a, b) on 64-bit
// integers does not compile where nodes are built on Linux, and div<sint64>(a, b) does.
lldiv_t div(long long, long long);

namespace QPI
{
using sint8 = signed char;
using uint8 = unsigned char;
using sint16 = signed short;
using uint16 = unsigned short;
using sint32 = signed int;
using uint32 = unsigned int;
using sint64 = signed long long;
using uint64 = unsigned long long;

constexpr sint64 NULL_INDEX = -1;
constexpr sint64 INVALID_AMOUNT = INT64_MIN;

#define NULL_ID id::zero()
#define NUMBER_OF_COMPUTORS 676

struct bit
{
    bit(bool value = false) : byte(value) {}
    operator bool() const { return byte != 0; }

    char byte;
};

struct uint128
{
    uint64 low;
    uint64 high;
};

union id
{
    struct { uint64 _0, _1, _2, _3; } u64;
    struct { sint64 _0, _1, _2, _3; } i64;
    struct { uint32 _0, _1, _2, _3, _4, _5, _6, _7; } u32;
    uint8 bytes[32];

    id() = default;
    id(uint64 a, uint64 b, uint64 c, uint64 d) : u64{a, b, c, d} {}
    static id zero() { return id(0, 0, 0, 0); }

    friend bool operator==(const id& a, const id& b)
    {
        return a.u64._0 == b.u64._0 && a.u64._1 == b.u64._1 && a.u64._2 == b.u64._2 && a.u64._3 == b.u64._3;
    }
};

inline bool isZero(const id& value) { return value == id::zero(); }

struct Entity
{
    id publicKey;
    sint64 incomingAmount, outgoingAmount;
    uint32 numberOfIncomingTransfers, numberOfOutgoingTransfers;
    uint32 latestIncomingTransferTick, latestOutgoingTransferTick;
};

namespace TransferType
{
constexpr uint8 standardTransaction = 0;
constexpr uint8 procedureTransaction = 1;
constexpr uint8 qpiTransfer = 2;
constexpr uint8 qpiDistributeDividends = 3;
constexpr uint8 revenueDonation = 4;
constexpr uint8 ipoBidRefund = 5;
constexpr uint8 procedureInvocationByOtherContract = 6;
}

enum InterContractCallError : uint8
{
    NoCallError = 0,
    CallErrorContractInErrorState = 1,
    CallErrorInsufficientFees = 2,
    CallErrorAllocationFailed = 3,
    CallErrorContractInactive = 4,
};

struct PostIncomingTransfer_input
{
    id sourceId;
    sint64 amount;
    uint8 type;
};

struct NoData {};

// Date and time packed into one word, most significant first: year, month 4, day 5, hour 5, minute 6,
// second 6, millisecond 10, microsecond 10 bits.
struct DateAndTime
{
    DateAndTime() : value(0) {}
    explicit DateAndTime(uint64 packed) : value(packed) {}

    uint16 getYear() const { return static_cast<uint16>(value >> 46); }
    uint8 getMonth() const { return value >> 42 & 15; }
    uint8 getDay() const { return value >> 37 & 31; }
    uint8 getHour() const { return value >> 32 & 31; }
    uint8 getMinute() const { return value >> 26 & 63; }
    uint8 getSecond() const { return value >> 20 & 63; }
    uint16 getMillisec() const { return value >> 10 & 1023; }

    friend bool operator==(const DateAndTime&, const DateAndTime&) = default;
    friend bool operator<(const DateAndTime& a, const DateAndTime& b) { return a.value < b.value; }
    friend bool operator>(const DateAndTime& a, const DateAndTime& b) { return a.value > b.value; }

    uint64 value;
};

// Integer arithmetic that never divides by zero and, where the name starts with s, clamps.
template <typename T> constexpr T div(T a, T b) { return b ? a / b : T(0); }
template <typename T> constexpr T mod(T a, T b) { return b ? a % b : T(0); }

inline sint64 sadd(sint64 a, sint64 b)
{
    sint64 sum;
    return __builtin_add_overflow(a, b, &sum) ? (a < 0 ? INT64_MIN : INT64_MAX) : sum;
}

inline uint64 sadd(uint64 a, uint64 b)
{
    uint64 sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

inline sint32 sadd(sint32 a, sint32 b)
{
    sint32 sum;
    return __builtin_add_overflow(a, b, &sum) ? (a < 0 ? INT32_MIN : INT32_MAX) : sum;
}

inline uint32 sadd(uint32 a, uint32 b)
{
    uint32 sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT32_MAX : sum;
}

inline sint64 smul(sint64 a, sint64 b)
{
    sint64 product;
    return __builtin_mul_overflow(a, b, &product) ? ((a < 0) == (b < 0) ? INT64_MAX : INT64_MIN) : product;
}

inline uint64 smul(uint64 a, uint64 b)
{
    uint64 product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

inline sint32 smul(sint32 a, sint32 b)
{
    sint32 product;
    return __builtin_mul_overflow(a, b, &product) ? ((a < 0) == (b < 0) ? INT32_MAX : INT32_MIN) : product;
}

inline uint32 smul(uint32 a, uint32 b)
{
    uint32 product;
    return __builtin_mul_overflow(a, b, &product) ? UINT32_MAX : product;
}

template <typename To, typename From> void copyMemory(To& to, const From& from)
{
    static_assert(sizeof(To) == sizeof(From), "copyMemory() needs two objects of one size.");
    memcpy(static_cast<void*>(&to), &from, sizeof(To));
}

template <typename T> void setMemory(T& object, uint8 value)
{
    memset(static_cast<void*>(&object), value, sizeof(T));
}
}
