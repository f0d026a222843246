using namespace QPI;

// A probe of the hash containers: eight slots, every operation by hand.

constexpr uint32 MAPS_SET = 0;
constexpr uint32 MAPS_GET = 1;
constexpr uint32 MAPS_REMOVE = 2;
constexpr uint32 MAPS_NEXT = 3;
constexpr uint32 MAPS_CLEANUP = 4;
constexpr uint32 MAPS_KEY_AT = 5;
constexpr uint32 MAPS_REPLACE = 6;
constexpr uint32 MAPS_RESET = 7;
constexpr uint32 MAPS_ADD_TO_SET = 8;
constexpr uint32 MAPS_REMOVE_FROM_SET = 9;
constexpr uint32 MAPS_SET_HASHED = 10;

struct MAPS2
{
};

struct MAPS : public ContractBase
{
    struct StateData
    {
        HashMap<id, uint64, 8> map;
        HashSet<id, 8> set;
        HashMap<uint64, uint64, 8> hashed;
    };

    struct Do_input
    {
        uint32 what;
        uint64 value;  // of SET and REPLACE, percent of CLEANUP, what GET starts from
        sint64 index;
        id key;
    };
    struct Do_output
    {
        sint64 index;
        uint64 value;
        id key;
        uint64 population;
        bit found;
        bit needsCleanup;
    };

    PUBLIC_PROCEDURE(Do)
    {
        output.value = input.value;
        if (input.what == MAPS_SET)
        {
            output.index = state.mut().map.set(input.key, input.value);
        }
        if (input.what == MAPS_GET)
        {
            output.found = state.get().map.get(input.key, output.value);
            output.index = state.get().map.getElementIndex(input.key);
        }
        if (input.what == MAPS_REMOVE)
        {
            output.index = state.mut().map.removeByKey(input.key);
        }
        if (input.what == MAPS_NEXT)
        {
            output.index = state.get().map.nextElementIndex(input.index);
        }
        if (input.what == MAPS_CLEANUP)
        {
            state.mut().map.cleanupIfNeeded(input.value);
        }
        if (input.what == MAPS_KEY_AT)
        {
            output.key = state.get().map.key(input.index);
            output.value = state.get().map.value(input.index);
            output.found = state.get().map.isEmptySlot(input.index);
        }
        if (input.what == MAPS_REPLACE)
        {
            output.found = state.mut().map.replace(input.key, input.value);
        }
        if (input.what == MAPS_RESET)
        {
            state.mut().map.reset();
        }
        if (input.what == MAPS_ADD_TO_SET)
        {
            output.index = state.mut().set.add(input.key);
        }
        if (input.what == MAPS_REMOVE_FROM_SET)
        {
            output.index = state.mut().set.remove(input.key);
        }
        if (input.what == MAPS_SET_HASHED)
        {
            output.index = state.mut().hashed.set(input.key.u64._0, input.value);
        }
        output.population = state.get().map.population();
        output.needsCleanup = state.get().map.needsCleanup(50);
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_PROCEDURE(Do, 1);
    }
};
