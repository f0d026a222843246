using namespace QPI;

// A probe of sizes, offsets, padding and what the host does to short and long input.

struct LAYOUT2
{
};

struct LAYOUT : public ContractBase
{
    struct Empty
    {
    };
    struct IdShort
    {
        id a;
        uint16 b;
    };
    struct ShortId
    {
        uint16 a;
        id b;
    };
    struct ByteLong
    {
        uint8 a;
        uint64 b;
    };
    struct Bits
    {
        bit a;
        uint32 b;
        bit c;
    };
    struct Mixed
    {
        id a;
        uint64 b;
        uint32 c;
        uint16 d;
        bit e;
        sint8 f;
    };
    struct WordIdBit
    {
        uint32 a;
        id b;
        bit c;
    };
    struct ByteId
    {
        uint8 a;
        id b;
    };
    struct ByteWide
    {
        uint8 a;
        uint128 b;
    };
    struct ByteShorts
    {
        uint8 a;
        Array<uint16, 4> b;
    };

    struct StateData
    {
        HashMap<id, uint64, 64> map;
    };

    struct Sizes_input
    {
    };
    struct Sizes_output
    {
        Array<uint32, 32> sizes;
    };
    PUBLIC_FUNCTION(Sizes)
    {
        output.sizes.set(0, sizeof(id));
        output.sizes.set(1, sizeof(bit));
        output.sizes.set(2, sizeof(sint8));
        output.sizes.set(3, sizeof(uint128));
        output.sizes.set(4, sizeof(Empty));
        output.sizes.set(5, sizeof(NoData));
        output.sizes.set(6, sizeof(BitArray<2>));
        output.sizes.set(7, sizeof(BitArray<64>));
        output.sizes.set(8, sizeof(BitArray<128>));
        output.sizes.set(9, sizeof(Array<uint16, 4>));
        output.sizes.set(10, sizeof(Array<id, 8>));
        output.sizes.set(11, sizeof(IdShort));
        output.sizes.set(12, sizeof(ShortId));
        output.sizes.set(13, sizeof(ByteLong));
        output.sizes.set(14, sizeof(Bits));
        output.sizes.set(15, sizeof(Mixed));
        output.sizes.set(16, sizeof(WordIdBit));
        output.sizes.set(17, sizeof(ByteId));
        output.sizes.set(18, sizeof(ByteWide));
        output.sizes.set(19, sizeof(ByteShorts));
        output.sizes.set(20, sizeof(HashMap<id, uint64, 64>));
        output.sizes.set(21, sizeof(HashMap<id, uint8, 2>));
        output.sizes.set(22, sizeof(HashSet<id, 64>));
    }

    struct Offsets_input
    {
    };
    typedef Mixed Offsets_output;
    PUBLIC_FUNCTION(Offsets)
    {
        output.a = id(1, 2, 3, 4);
        output.b = 5;
        output.c = 6;
        output.d = 7;
        output.e = true;
        output.f = -2;
    }

    struct Echo_input
    {
        uint64 a;
        uint64 b;
    };
    typedef Echo_input Echo_output;
    PUBLIC_FUNCTION(Echo)
    {
        output = input;
    }
    typedef Echo_input EchoCall_input;
    typedef Echo_input EchoCall_output;
    PUBLIC_PROCEDURE(EchoCall)
    {
        output = input;
    }

    struct Digest_input
    {
        uint8 fill;
    };
    struct Digest_output
    {
        id digest;
    };
    struct Digest_locals
    {
        ByteLong padded;
    };
    PUBLIC_FUNCTION_WITH_LOCALS(Digest)
    {
        setMemory(locals.padded, input.fill);
        locals.padded.a = 1;
        locals.padded.b = 2;
        output.digest = qpi.K12(locals.padded);
    }

    struct Verify_input
    {
        id signer;
        id digest;
        Array<sint8, 64> signature;
    };
    struct Verify_output
    {
        bit valid;
    };
    PUBLIC_FUNCTION(Verify)
    {
        output.valid = qpi.signatureValidity(input.signer, input.digest, input.signature);
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_FUNCTION(Sizes, 1);
        REGISTER_USER_FUNCTION(Offsets, 2);
        REGISTER_USER_FUNCTION(Echo, 3);
        REGISTER_USER_FUNCTION(Digest, 4);
        REGISTER_USER_FUNCTION(Verify, 5);
        REGISTER_USER_PROCEDURE(EchoCall, 1);
    }
};
