using namespace QPI;

// A probe that moves its money as told and writes down what comes in.

struct MONEY2
{
};

struct MONEY : public ContractBase
{
    struct Incoming
    {
        id source;
        id invocator;
        id originator;
        sint64 amount;
        sint64 reward;
        sint64 balance; // own balance while POST_INCOMING_TRANSFER runs
        uint64 count;   // of procedures and notifications so far
        uint32 type;
    };

    struct StateData
    {
        Incoming last;
        uint64 count;
        uint64 procedureAt; // count when a procedure last ran
        sint64 reply;       // if not 0, POST_INCOMING_TRANSFER sends this to replyTo
        id replyTo;
        sint64 replied;
        bit dividendsWithin;
    };

    struct Move_input
    {
        id to;
        sint64 amount;
    };
    struct Move_output
    {
        sint64 result;
        sint64 balance;
        bit known; // before the move
    };
    struct Move_locals
    {
        Entity entity;
    };

    struct Burn_input
    {
        sint64 amount;
        uint32 index;
    };
    struct Burn_output
    {
        sint64 result;
        sint64 reserve;
    };

    struct Dividends_input
    {
        sint64 perShare;
    };
    struct Dividends_output
    {
        bit done;
    };

    struct SetReply_input
    {
        id to;
        sint64 amount;
    };
    struct SetReply_output
    {
    };

    struct State_input
    {
    };
    typedef StateData State_output;

    PUBLIC_PROCEDURE_WITH_LOCALS(Move)
    {
        state.mut().count += 1;
        state.mut().procedureAt = state.get().count;
        output.known = qpi.getEntity(input.to, locals.entity);
        output.result = qpi.transfer(input.to, input.amount);
        qpi.getEntity(SELF, locals.entity);
        output.balance = locals.entity.incomingAmount - locals.entity.outgoingAmount;
    }

    PUBLIC_PROCEDURE(Burn)
    {
        output.result = qpi.burn(input.amount, input.index);
        output.reserve = qpi.queryFeeReserve(input.index);
    }

    PUBLIC_PROCEDURE(Dividends)
    {
        output.done = qpi.distributeDividends(input.perShare);
    }

    PUBLIC_PROCEDURE(SetReply)
    {
        state.mut().replyTo = input.to;
        state.mut().reply = input.amount;
    }

    PUBLIC_FUNCTION(State)
    {
        output = state.get();
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_PROCEDURE(Move, 1);
        REGISTER_USER_PROCEDURE(Burn, 2);
        REGISTER_USER_PROCEDURE(Dividends, 3);
        REGISTER_USER_PROCEDURE(SetReply, 4);
        REGISTER_USER_FUNCTION(State, 1);
    }

    struct POST_INCOMING_TRANSFER_locals
    {
        Entity entity;
    };
    POST_INCOMING_TRANSFER_WITH_LOCALS()
    {
        state.mut().count += 1;
        qpi.getEntity(SELF, locals.entity);
        state.mut().last.source = input.sourceId;
        state.mut().last.amount = input.amount;
        state.mut().last.type = input.type;
        state.mut().last.invocator = qpi.invocator();
        state.mut().last.originator = qpi.originator();
        state.mut().last.reward = qpi.invocationReward();
        state.mut().last.balance = locals.entity.incomingAmount - locals.entity.outgoingAmount;
        state.mut().last.count = state.get().count;
        if (state.get().reply != 0)
        {
            state.mut().replied = qpi.transfer(state.get().replyTo, state.get().reply);
            state.mut().dividendsWithin = qpi.distributeDividends(0);
        }
    }
};
