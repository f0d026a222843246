// The words in which a contract is written. CONTRACT_INDEX and CONTRACT_STATE_TYPE are defined around the
// inclusion of each contract.
#pragma once

#include "qpi_context.h"

namespace host
{
using namespace QPI;

constexpr uint64 MAX_INPUT = 1024, MAX_OUTPUT = 65535, MAX_LOCALS = 32 * 1024, MAX_STATE = 1ULL << 30;

using Code = void (*)(const Frame&, void* state, void* input, void* output, void* locals);

// Turns a contract's typed member into one that takes raw memory.
template <auto member> struct Raw;
template <typename Qpi, typename State, typename Input, typename Output, typename Locals,
          void (*member)(const Qpi&, State&, Input&, Output&, Locals&)>
struct Raw<member>
{
    static constexpr uint64 inputSize = sizeof(Input), outputSize = sizeof(Output), localsSize = sizeof(Locals);
    static void run(const Frame& frame, void* state, void* input, void* output, void* locals)
    {
        member(Qpi(frame), *static_cast<State*>(state), *static_cast<Input*>(input),
               *static_cast<Output*>(output), *static_cast<Locals*>(locals));
    }
};

struct Entry
{
    uint16 type;
    uint64 inputSize, outputSize, localsSize;
    Code code;

    template <auto member> static Entry of(uint16 type)
    {
        using R = Raw<member>;
        static_assert(R::outputSize <= MAX_OUTPUT, "The output is too large.");
        static_assert(R::localsSize <= MAX_LOCALS, "The locals are too large.");
        return {type, R::inputSize, R::outputSize, R::localsSize, &R::run};
    }
};

struct Register
{
    static constexpr uint32 CAPACITY = 128;
    Entry entries[CAPACITY];
    uint32 count = 0;

    void add(const Entry& entry)
    {
        if (count == CAPACITY) abort();
        entries[count++] = entry;
    }
    const Entry* find(uint16 type) const
    {
        for (uint32 i = 0; i < count; ++i)
            if (entries[i].type == type) return &entries[i];
        return nullptr;
    }
};

struct Registration
{
    Register& functions;
    Register& procedures;
};

// Runs a procedure of another contract. The reward moves first; what cannot be paid becomes 0.
template <typename Other, typename State, typename Input, typename Output, typename Locals>
InterContractCallError invoke(const QpiContextProcedureCall& qpi, sint64 reward,
                              void (*procedure)(const QpiContextProcedureCall&, State&, Input&, Output&, Locals&),
                              Input& input, Output& output)
{
    const Frame& caller = qpi.frame;
    if (reserveOf(caller, Other::contractIndex) <= 0) return CallErrorInsufficientFees;
    const id callee(Other::contractIndex, 0, 0, 0);
    if (transfer(caller, callee, reward, TransferType::procedureInvocationByOtherContract) < 0) reward = 0;
    Zeroed<Locals> locals;
    const Frame frame{caller.machine, Other::contractIndex, caller.originator, caller.self(), reward};
    procedure(QpiContextProcedureCall(frame), *static_cast<State*>(stateOf(frame, frame.index)), input, output,
              *locals);
    return NoCallError;
}

// Calls a function of another contract. Its reserve is not looked at.
template <typename Other, typename State, typename Input, typename Output, typename Locals>
InterContractCallError call(const QpiContextFunctionCall& qpi,
                            void (*function)(const QpiContextFunctionCall&, const State&, Input&, Output&, Locals&),
                            Input& input, Output& output)
{
    const Frame& caller = qpi.frame;
    Zeroed<Locals> locals;
    const Frame frame{caller.machine, Other::contractIndex, caller.originator, caller.self(), caller.reward};
    function(QpiContextFunctionCall(frame), *static_cast<const State*>(stateOf(frame, frame.index)), input, output,
             *locals);
    return NoCallError;
}
}

#define SELF id(CONTRACT_INDEX, 0, 0, 0)
#define SELF_INDEX CONTRACT_INDEX
#define STATIC_ASSERT(condition, identifier) static_assert(condition, #identifier);

#define HOST_STATE QPI::ContractState<CONTRACT_STATE_TYPE::StateData, CONTRACT_INDEX>
#define HOST_MEMBER(name, Qpi, State, Input, Output, Locals) \
    static void name([[maybe_unused]] const QPI::Qpi& qpi, [[maybe_unused]] State& state, \
                     [[maybe_unused]] Input& input, [[maybe_unused]] Output& output, \
                     [[maybe_unused]] Locals& locals)
#define HOST_FUNCTION(name) \
    HOST_MEMBER(name, QpiContextFunctionCall, const HOST_STATE, name##_input, name##_output, name##_locals)
#define HOST_PROCEDURE(name) \
    HOST_MEMBER(name, QpiContextProcedureCall, HOST_STATE, name##_input, name##_output, name##_locals)
#define HOST_SYSTEM(name, member, Input) \
    public: HOST_MEMBER(member, QpiContextProcedureCall, HOST_STATE, Input, QPI::NoData, name##_locals)
#define HOST_NO_LOCALS(name) typedef QPI::NoData name##_locals;

#define PUBLIC_FUNCTION_WITH_LOCALS(name) public: HOST_FUNCTION(name)
#define PUBLIC_FUNCTION(name) public: HOST_NO_LOCALS(name) HOST_FUNCTION(name)
#define PRIVATE_FUNCTION_WITH_LOCALS(name) protected: HOST_FUNCTION(name)
#define PRIVATE_FUNCTION(name) protected: HOST_NO_LOCALS(name) HOST_FUNCTION(name)
#define PUBLIC_PROCEDURE_WITH_LOCALS(name) public: HOST_PROCEDURE(name)
#define PUBLIC_PROCEDURE(name) public: HOST_NO_LOCALS(name) HOST_PROCEDURE(name)
#define PRIVATE_PROCEDURE_WITH_LOCALS(name) protected: HOST_PROCEDURE(name)
#define PRIVATE_PROCEDURE(name) protected: HOST_NO_LOCALS(name) HOST_PROCEDURE(name)

#define INITIALIZE_WITH_LOCALS() HOST_SYSTEM(INITIALIZE, onInitialize, QPI::NoData)
#define INITIALIZE() public: typedef QPI::NoData INITIALIZE_locals; HOST_SYSTEM(INITIALIZE, onInitialize, QPI::NoData)
#define BEGIN_EPOCH_WITH_LOCALS() HOST_SYSTEM(BEGIN_EPOCH, onBeginEpoch, QPI::NoData)
#define BEGIN_EPOCH() public: typedef QPI::NoData BEGIN_EPOCH_locals; HOST_SYSTEM(BEGIN_EPOCH, onBeginEpoch, QPI::NoData)
#define END_EPOCH_WITH_LOCALS() HOST_SYSTEM(END_EPOCH, onEndEpoch, QPI::NoData)
#define END_EPOCH() public: typedef QPI::NoData END_EPOCH_locals; HOST_SYSTEM(END_EPOCH, onEndEpoch, QPI::NoData)
#define BEGIN_TICK_WITH_LOCALS() HOST_SYSTEM(BEGIN_TICK, onBeginTick, QPI::NoData)
#define BEGIN_TICK() public: typedef QPI::NoData BEGIN_TICK_locals; HOST_SYSTEM(BEGIN_TICK, onBeginTick, QPI::NoData)
#define END_TICK_WITH_LOCALS() HOST_SYSTEM(END_TICK, onEndTick, QPI::NoData)
#define END_TICK() public: typedef QPI::NoData END_TICK_locals; HOST_SYSTEM(END_TICK, onEndTick, QPI::NoData)
#define POST_INCOMING_TRANSFER_WITH_LOCALS() \
    HOST_SYSTEM(POST_INCOMING_TRANSFER, onIncomingTransfer, QPI::PostIncomingTransfer_input)
#define POST_INCOMING_TRANSFER() \
    public: typedef QPI::NoData POST_INCOMING_TRANSFER_locals; HOST_SYSTEM(POST_INCOMING_TRANSFER, onIncomingTransfer, QPI::PostIncomingTransfer_input)

#define REGISTER_USER_FUNCTIONS_AND_PROCEDURES() \
    public: static constexpr QPI::uint32 contractIndex = CONTRACT_INDEX; \
    static void registerAll([[maybe_unused]] host::Registration& registration)
#define REGISTER_USER_FUNCTION(name, type) \
    static_assert(type >= 1 && type <= 65535, "An input type is 1 to 65535."); \
    registration.functions.add(host::Entry::of<&CONTRACT_STATE_TYPE::name>(type))
#define REGISTER_USER_PROCEDURE(name, type) \
    static_assert(type >= 1 && type <= 65535, "An input type is 1 to 65535."); \
    static_assert(sizeof(name##_input) <= host::MAX_INPUT, "The input is too large."); \
    registration.procedures.add(host::Entry::of<&CONTRACT_STATE_TYPE::name>(type))

#define CALL(name, in, out) \
    do \
    { \
        static_assert(sizeof(name##_locals) <= host::MAX_LOCALS, "The locals are too large."); \
        QPI::Zeroed<name##_locals> calledLocals; \
        name(qpi, state, in, out, *calledLocals); \
    } while (0)

#define CALL_OTHER_CONTRACT_FUNCTION_E(Other, function, in, out, error) \
    static_assert(Other::contractIndex < CONTRACT_INDEX, "Only contracts with a lower index can be called."); \
    [[maybe_unused]] InterContractCallError error = host::call<Other>(qpi, &Other::function, in, out)
#define CALL_OTHER_CONTRACT_FUNCTION(Other, function, in, out) \
    CALL_OTHER_CONTRACT_FUNCTION_E(Other, function, in, out, interContractCallError)
#define INVOKE_OTHER_CONTRACT_PROCEDURE_E(Other, procedure, in, out, reward, error) \
    static_assert(Other::contractIndex < CONTRACT_INDEX, "Only contracts with a lower index can be called."); \
    [[maybe_unused]] InterContractCallError error = host::invoke<Other>(qpi, reward, &Other::procedure, in, out)
#define INVOKE_OTHER_CONTRACT_PROCEDURE(Other, procedure, in, out, reward) \
    INVOKE_OTHER_CONTRACT_PROCEDURE_E(Other, procedure, in, out, reward, interContractCallError)
