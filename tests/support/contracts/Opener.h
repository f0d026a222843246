using namespace QPI;

// A probe with a higher index than the escrow's: a contract that tries to be a party of a channel, and
// one that sends it money it did not ask for.

struct OPENER2
{
};

struct OPENER : public ContractBase
{
    struct StateData
    {
    };

    struct Try_input
    {
        QUBIX::Open_input open;
        sint64 reward;
    };
    typedef QUBIX::Open_output Try_output;

    struct Give_input
    {
        id to;
        sint64 amount;
    };
    struct Give_output
    {
        sint64 left;
    };

    PUBLIC_PROCEDURE(Try)
    {
        INVOKE_OTHER_CONTRACT_PROCEDURE(QUBIX, Open, input.open, output, input.reward);
    }

    PUBLIC_PROCEDURE(Give)
    {
        output.left = qpi.transfer(input.to, input.amount);
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_PROCEDURE(Try, 1);
        REGISTER_USER_PROCEDURE(Give, 2);
    }
};
