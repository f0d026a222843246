using namespace QPI;

// A probe without POST_INCOMING_TRANSFER: says who called, counts ticks and epochs, keeps its money.

struct QUIET2
{
};

struct QUIET : public ContractBase
{
    struct Seen
    {
        id invocator;
        id originator;
        sint64 reward;
        uint64 now;
        uint32 tick;
        uint32 epoch;
    };

    struct StateData
    {
        Seen last;
        Seen beginTick;
        Seen endTick;
        uint64 beginTicks;
        uint64 endTicks;
        uint64 beginEpochs;
        uint64 endEpochs;
        uint64 initialized;
        uint64 beginEpochsAtInitialize;
    };

    struct Keep_input
    {
    };
    struct Keep_output
    {
    };

    struct Who_input
    {
    };
    typedef Seen Who_output;

    struct Call_input
    {
    };
    typedef Seen Call_output;

    struct Counts_input
    {
    };
    typedef StateData Counts_output;

    PUBLIC_PROCEDURE(Keep)
    {
    }

    PUBLIC_FUNCTION(Who)
    {
        output.invocator = qpi.invocator();
        output.originator = qpi.originator();
        output.reward = qpi.invocationReward();
        copyMemory(output.now, qpi.now());
        output.tick = qpi.tick();
        output.epoch = qpi.epoch();
    }

    struct Call_locals
    {
        Who_input none;
    };
    PUBLIC_PROCEDURE_WITH_LOCALS(Call)
    {
        CALL(Who, locals.none, output);
        state.mut().last = output;
    }

    PUBLIC_FUNCTION(Counts)
    {
        output = state.get();
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_PROCEDURE(Keep, 1);
        REGISTER_USER_PROCEDURE(Call, 2);
        REGISTER_USER_FUNCTION(Who, 1);
        REGISTER_USER_FUNCTION(Counts, 2);
    }

    INITIALIZE()
    {
        state.mut().initialized += 1;
        state.mut().beginEpochsAtInitialize = state.get().beginEpochs;
    }

    BEGIN_EPOCH()
    {
        state.mut().beginEpochs += 1;
    }

    END_EPOCH()
    {
        state.mut().endEpochs += 1;
    }

    struct BEGIN_TICK_locals
    {
        Who_input none;
    };
    BEGIN_TICK_WITH_LOCALS()
    {
        state.mut().beginTicks += 1;
        CALL(Who, locals.none, state.mut().beginTick);
    }

    struct END_TICK_locals
    {
        Who_input none;
    };
    END_TICK_WITH_LOCALS()
    {
        state.mut().endTicks += 1;
        CALL(Who, locals.none, state.mut().endTick);
    }
};
