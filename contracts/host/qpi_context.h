// The `qpi` object: what a contract may ask and order while it runs.
#pragma once

#include "qpi_containers.h"

namespace host
{
struct Machine;

// One running function or procedure: whose it is and who called it.
struct Frame
{
    Machine& machine;
    QPI::uint32 index;
    QPI::id originator;
    QPI::id invocator;
    QPI::sint64 reward;

    QPI::id self() const { return QPI::id(index, 0, 0, 0); }
};

bool verify(const QPI::id& signer, const QPI::id& digest, const void* signature);
void touch(QPI::uint32 index);

QPI::uint32 tickOf(const Frame&);
QPI::uint16 epochOf(const Frame&);
QPI::DateAndTime timeOf(const Frame&);
QPI::id spectrumDigestOf(const Frame&);
bool isContract(const Frame&, const QPI::id&);
bool entity(const Frame&, const QPI::id&, QPI::Entity&);
QPI::sint64 reserveOf(const Frame&, QPI::uint32 index);

QPI::sint64 transfer(const Frame&, const QPI::id& to, QPI::sint64 amount, QPI::uint8 type);
QPI::sint64 burn(const Frame&, QPI::sint64 amount, QPI::uint32 index);
bool distributeDividends(const Frame&, QPI::sint64 perShare);
void* stateOf(const Frame&, QPI::uint32 index);
}

namespace QPI
{
struct QpiContextFunctionCall
{
    id invocator() const { return frame.invocator; }
    id originator() const { return frame.originator; }
    sint64 invocationReward() const { return frame.reward; }
    uint32 tick() const { return host::tickOf(frame); }
    uint16 epoch() const { return host::epochOf(frame); }
    DateAndTime now() const { return host::timeOf(frame); }
    uint8 year() const { return static_cast<uint8>(now().getYear() - 2000); }
    uint8 month() const { return now().getMonth(); }
    uint8 day() const { return now().getDay(); }
    uint8 hour() const { return now().getHour(); }
    uint8 minute() const { return now().getMinute(); }
    uint8 second() const { return now().getSecond(); }
    uint16 millisecond() const { return now().getMillisec(); }
    id getPrevSpectrumDigest() const { return host::spectrumDigestOf(frame); }
    bit isContractId(const id& entity) const { return host::isContract(frame, entity); }
    bit getEntity(const id& key, Entity& entity) const { return host::entity(frame, key, entity); }
    sint64 queryFeeReserve(uint32 index = 0) const { return host::reserveOf(frame, index); }

    template <typename T> id K12(const T& data) const { return host::k12(&data, sizeof data); }
    bit signatureValidity(const id& signer, const id& digest, const Array<sint8, 64>& signature) const
    {
        return host::verify(signer, digest, &signature);
    }

    // Used by the host only.
    explicit QpiContextFunctionCall(const host::Frame& running) : frame(running) {}
    const host::Frame frame;
};

struct QpiContextProcedureCall : QpiContextFunctionCall
{
    using QpiContextFunctionCall::QpiContextFunctionCall;

    sint64 transfer(const id& to, sint64 amount) const
    {
        return host::transfer(frame, to, amount, TransferType::qpiTransfer);
    }
    sint64 burn(sint64 amount, uint32 index = 0) const { return host::burn(frame, amount, index); }
    bool distributeDividends(sint64 perShare) const { return host::distributeDividends(frame, perShare); }
};

// The whole state of one contract: get() to read, mut() to write, which marks it as changed.
template <typename T, uint32 index> struct ContractState
{
    const T& get() const { return data; }
    T& mut()
    {
        host::touch(index);
        return data;
    }

private:
    T data;
};

// Zeroed memory for locals: a contract never sees anything uninitialised.
template <typename T> struct Zeroed
{
    T& operator*() { return *reinterpret_cast<T*>(bytes); }
    alignas(T) uint8 bytes[sizeof(T)] = {};
};

struct ContractBase {};
}
