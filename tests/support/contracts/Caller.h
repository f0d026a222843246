using namespace QPI;

// A probe that calls other contracts, and watches in which order the contracts' events run.

struct CALLER2
{
};

struct CALLER : public ContractBase
{
    struct StateData
    {
        uint64 quietBeginTicks;   // what QUIET had counted when the same event ran here
        uint64 quietEndTicks;
        uint64 quietBeginEpochs;
        uint64 quietEndEpochs;
        uint32 moneyError;
        uint32 beginTickTick;
    };

    struct Invoke_input
    {
        sint64 reward;
    };
    struct Invoke_output
    {
        QUIET::Seen seen;
        uint32 error;
    };
    struct Invoke_locals
    {
        QUIET::Call_input none;
    };

    struct Ask_input
    {
    };
    struct Ask_output
    {
        QUIET::Seen seen;
        uint32 error;
    };
    struct Ask_locals
    {
        QUIET::Who_input none;
    };

    struct Pay_input
    {
        sint64 reward;
    };
    struct Pay_output
    {
        MONEY::Burn_output burned;
        uint32 error;
    };
    struct Pay_locals
    {
        MONEY::Burn_input nothing;
    };

    struct State_input
    {
    };
    typedef StateData State_output;

    PUBLIC_PROCEDURE_WITH_LOCALS(Invoke)
    {
        INVOKE_OTHER_CONTRACT_PROCEDURE(QUIET, Call, locals.none, output.seen, input.reward);
        output.error = interContractCallError;
    }

    typedef Ask_input AskInProcedure_input;
    typedef Ask_output AskInProcedure_output;
    typedef Ask_locals AskInProcedure_locals;
    PUBLIC_PROCEDURE_WITH_LOCALS(AskInProcedure)
    {
        CALL_OTHER_CONTRACT_FUNCTION(QUIET, Who, locals.none, output.seen);
        output.error = interContractCallError;
    }

    PUBLIC_FUNCTION_WITH_LOCALS(Ask)
    {
        CALL_OTHER_CONTRACT_FUNCTION(QUIET, Who, locals.none, output.seen);
        output.error = interContractCallError;
    }

    PUBLIC_PROCEDURE_WITH_LOCALS(Pay)
    {
        INVOKE_OTHER_CONTRACT_PROCEDURE_E(MONEY, Burn, locals.nothing, output.burned, input.reward, paymentError);
        output.error = paymentError;
    }

    PUBLIC_FUNCTION(State)
    {
        output = state.get();
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_PROCEDURE(Invoke, 1);
        REGISTER_USER_PROCEDURE(AskInProcedure, 2);
        REGISTER_USER_PROCEDURE(Pay, 3);
        REGISTER_USER_FUNCTION(Ask, 1);
        REGISTER_USER_FUNCTION(State, 2);
    }

    struct Look_locals
    {
        QUIET::Counts_input none;
        QUIET::Counts_output counts;
    };
    typedef Look_locals BEGIN_TICK_locals;
    typedef Look_locals END_TICK_locals;
    typedef Look_locals BEGIN_EPOCH_locals;
    typedef Look_locals END_EPOCH_locals;

    BEGIN_TICK_WITH_LOCALS()
    {
        CALL_OTHER_CONTRACT_FUNCTION(QUIET, Counts, locals.none, locals.counts);
        state.mut().quietBeginTicks = locals.counts.beginTicks;
        state.mut().beginTickTick = qpi.tick();
    }

    END_TICK_WITH_LOCALS()
    {
        CALL_OTHER_CONTRACT_FUNCTION(QUIET, Counts, locals.none, locals.counts);
        state.mut().quietEndTicks = locals.counts.endTicks;
    }

    BEGIN_EPOCH_WITH_LOCALS()
    {
        CALL_OTHER_CONTRACT_FUNCTION(QUIET, Counts, locals.none, locals.counts);
        state.mut().quietBeginEpochs = locals.counts.beginEpochs;
    }

    END_EPOCH_WITH_LOCALS()
    {
        CALL_OTHER_CONTRACT_FUNCTION(QUIET, Counts, locals.none, locals.counts);
        state.mut().quietEndEpochs = locals.counts.endEpochs;
    }
};
