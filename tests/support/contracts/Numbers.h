using namespace QPI;

// A probe of the arithmetic.

struct NUMBERS2
{
};

struct NUMBERS : public ContractBase
{
    struct StateData
    {
    };

    struct Signed_input
    {
        sint64 a;
        sint64 b;
    };
    struct Signed_output
    {
        sint64 quotient;
        sint64 remainder;
        sint64 sum;
        sint64 product;
    };
    PUBLIC_FUNCTION(Signed)
    {
        output.quotient = div<sint64>(input.a, input.b);
        output.remainder = mod<sint64>(input.a, input.b);
        output.sum = sadd(input.a, input.b);
        output.product = smul(input.a, input.b);
    }

    struct Unsigned_input
    {
        uint64 a;
        uint64 b;
    };
    struct Unsigned_output
    {
        uint64 quotient;
        uint64 remainder;
        uint64 sum;
        uint64 product;
        uint64 wrappedSum;
        uint64 wrappedProduct;
    };
    PUBLIC_FUNCTION(Unsigned)
    {
        output.quotient = div<uint64>(input.a, input.b);
        output.remainder = mod<uint64>(input.a, input.b);
        output.sum = sadd(input.a, input.b);
        output.product = smul(input.a, input.b);
        output.wrappedSum = input.a + input.b;
        output.wrappedProduct = input.a * input.b;
    }

    struct Small_input
    {
        sint32 a;
        sint32 b;
        uint32 c;
        uint32 d;
    };
    struct Small_output
    {
        sint32 sum;
        sint32 product;
        uint32 unsignedSum;
        uint32 unsignedProduct;
    };
    PUBLIC_FUNCTION(Small)
    {
        output.sum = sadd(input.a, input.b);
        output.product = smul(input.a, input.b);
        output.unsignedSum = sadd(input.c, input.d);
        output.unsignedProduct = smul(input.c, input.d);
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_FUNCTION(Signed, 1);
        REGISTER_USER_FUNCTION(Unsigned, 2);
        REGISTER_USER_FUNCTION(Small, 3);
    }
};
