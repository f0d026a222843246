using namespace QPI;

// The contract of qubix: one-way payment channels between a caller, who deposits, and a provider, who is
// paid by signed vouchers of a rising cumulative amount; a registry of providers with a stake that proof
// of double letting takes away; ratings, disputes and purchases. contracts/README.md tells the whole story.

constexpr uint32 QUBIX_FEE_BASIS_POINTS = 500;
constexpr uint32 QUBIX_BASIS_POINTS = 10000;
constexpr uint32 QUBIX_BURN_PERCENT = 20;
constexpr uint32 QUBIX_SHARES = 676;

constexpr sint64 QUBIX_MIN_DEPOSIT = 1;
constexpr sint64 QUBIX_MAX_DEPOSIT = 1000000000000000; // the most one transfer can carry

// A tick lasts 0.2 to 1.5 s. In the last tick of a window the leader of the tick orders its calls, so
// both windows must be several ticks wide. 8,000,000 ticks are at least 18 days.
constexpr uint32 QUBIX_MIN_DEADLINE_TICKS = 32;
constexpr uint32 QUBIX_MAX_DEADLINE_TICKS = 8000000;
constexpr uint32 QUBIX_MIN_CHALLENGE_TICKS = 16;
constexpr uint32 QUBIX_MAX_CHALLENGE_TICKS = 100000;

// Each signature that a call has checked costs the reserve 16 QU, so so much must be attached for each. It
// comes back, unless the signature is wrong: then it is burned into the reserve.
constexpr sint64 QUBIX_SIGNATURE_BOND = 100;

constexpr uint32 QUBIX_BATCH_OPEN = 8;
constexpr uint32 QUBIX_BATCH_REDEEM = 9;

constexpr uint64 QUBIX_CAPACITY = 4096;
constexpr uint32 QUBIX_SWEEP_TICKS = 16;
constexpr uint64 QUBIX_CLEANUP_PERCENT = 50;

// First word of what a voucher signs, so that the signature fits nothing else. Bytes: QubixVch.
constexpr uint64 QUBIX_VOUCHER_TAG = 7521950877802984785ULL;

constexpr uint32 QUBIX_OK = 0;
constexpr uint32 QUBIX_UNKNOWN_ESCROW = 1;
constexpr uint32 QUBIX_NOT_CALLER = 2;
constexpr uint32 QUBIX_NOT_PROVIDER = 3;
constexpr uint32 QUBIX_BAD_PARTY = 4;
constexpr uint32 QUBIX_BAD_DEPOSIT = 5;
constexpr uint32 QUBIX_BAD_DEADLINE = 6;
constexpr uint32 QUBIX_BAD_CHALLENGE = 7;
constexpr uint32 QUBIX_FULL = 8;
constexpr uint32 QUBIX_ALREADY_OPEN = 9;
constexpr uint32 QUBIX_CLOSING = 10;
constexpr uint32 QUBIX_TOO_LATE = 11;
constexpr uint32 QUBIX_TOO_EARLY = 12;
constexpr uint32 QUBIX_NOT_RISING = 13;
constexpr uint32 QUBIX_ABOVE_DEPOSIT = 14;
constexpr uint32 QUBIX_BAD_SIGNATURE = 15;
constexpr uint32 QUBIX_TRANSFER_FAILED = 16;
constexpr uint32 QUBIX_BAD_NETWORK = 17;
constexpr uint32 QUBIX_BAD_BURN = 18;
constexpr uint32 QUBIX_NEEDS_BOND = 19;
constexpr uint32 QUBIX_BAD_COUNT = 20;

struct QUBIX2
{
};

struct QUBIX : public ContractBase
{
    struct Channel
    {
        id caller;
        id provider;
        sint64 deposit;
        sint64 paid;           // cumulative and gross: the fee is a part of it
        uint32 deadlineTick;   // first tick in which nothing can be redeemed any more
        uint32 closeTick;      // 0 = open, else the same for a close asked for by the caller
        uint32 challengeTicks;
        uint32 openTick;
        uint32 burnBasisPoints; // of what the provider would get; burned instead
        uint32 unused;
    };

    // The escrow id is the K12 of this. Padding would be hashed too: there is none (104 bytes).
    struct EscrowKey
    {
        id caller;
        id provider;
        id terms;
        uint32 contractIndex;
        uint32 openTick;
    };

    // The caller signs the K12 of this (48 bytes, no padding).
    struct Voucher
    {
        uint64 tag;
        id escrow;
        sint64 cumulative;
    };

    // What Open and OpenMany ask for.
    struct Lease
    {
        id provider;
        id terms;
        sint64 deposit;
        uint32 deadlineTick;
        uint32 challengeTicks;
        uint32 burnBasisPoints;
        uint32 unused;
    };

    // At every tick: balance of the contract = openBalance + feesUndistributed.
    struct Totals
    {
        sint64 openBalance;       // deposits of open channels less what was paid out of them
        sint64 feesUndistributed;
        sint64 feesBurned;
        sint64 feesCollected;     // ever, money that came unasked included
        sint64 sharesBurned;      // of the providers' parts
        sint64 volume;            // gross amount redeemed, ever
        uint64 opened;
        uint64 closed;
    };

    struct StateData
    {
        HashMap<id, Channel, QUBIX_CAPACITY> channels;
        Totals totals;
        uint64 network; // tells this network from all others
    };

    struct Open_input
    {
        id provider;
        id terms;
        uint32 deadlineTick;
        uint32 challengeTicks;
        uint64 network;
        uint32 burnBasisPoints;
        uint32 unused;
    };
    struct Open_output
    {
        id escrow;
        uint32 code;
    };

    struct TopUp_input
    {
        id escrow;
    };
    struct TopUp_output
    {
        uint32 code;
    };

    struct Redeem_input
    {
        id escrow;
        sint64 cumulative;
        Array<sint8, 64> signature;
    };
    struct Redeem_output
    {
        uint32 code;
    };

    struct Close_input
    {
        id escrow;
        sint64 cumulative;
        Array<sint8, 64> signature;
    };
    struct Close_output
    {
        uint32 code;
    };

    struct RequestClose_input
    {
        id escrow;
    };
    struct RequestClose_output
    {
        uint32 code;
        uint32 closeTick;
    };

    struct Finalize_input
    {
        id escrow;
    };
    struct Finalize_output
    {
        uint32 code;
    };

    struct OpenMany_input
    {
        Array<Lease, 8> leases;
        uint64 network;
        uint32 count;
        uint32 unused;
    };
    struct OpenMany_output
    {
        uint32 code;
        uint32 refused; // which lease the code is about
        Array<id, 8> escrows;
    };

    // Arrays have a power of two, and nine vouchers fit into an input.
    struct RedeemMany_input
    {
        Array<Redeem_input, 8> vouchers;
        Redeem_input ninth;
        uint32 count;
        uint32 unused;
    };
    struct RedeemMany_output
    {
        uint32 code;
        uint32 redeemed;
        Array<uint32, 16> codes;
    };

    struct GetEscrow_input
    {
        id escrow;
    };
    struct GetEscrow_output
    {
        uint32 exists;
        uint32 tick;
        Channel channel;
    };

    struct GetInfo_input
    {
    };
    struct GetInfo_output
    {
        uint32 contractIndex;
        uint32 tick;
        uint32 feeBasisPoints;
        uint32 capacity;
        uint32 minDeadlineTicks;
        uint32 maxDeadlineTicks;
        uint32 minChallengeTicks;
        uint32 maxChallengeTicks;
        uint64 network;
        Totals totals;
    };

protected:

    // Fee kept of a cumulative paid amount, without overflow: paid = 10000 q + r.
    struct FeeOf_input
    {
        sint64 paid;
    };
    struct FeeOf_output
    {
        sint64 fee;
    };
    PRIVATE_FUNCTION(FeeOf)
    {
        output.fee = div<sint64>(input.paid, QUBIX_BASIS_POINTS) * QUBIX_FEE_BASIS_POINTS
            + div<sint64>(mod<sint64>(input.paid, QUBIX_BASIS_POINTS) * QUBIX_FEE_BASIS_POINTS, QUBIX_BASIS_POINTS);
    }

    // What a provider is paid of a cumulative amount, and what of its part is burned. Both never fall as
    // the amount rises, and paid = fee + burned + net.
    struct PartsOf_input
    {
        sint64 paid;
        uint32 burnBasisPoints;
        uint32 unused;
    };
    struct PartsOf_output
    {
        sint64 fee;
        sint64 burned;
        sint64 net;
    };
    struct PartsOf_locals
    {
        FeeOf_input amount;
        FeeOf_output kept;
    };
    PRIVATE_FUNCTION_WITH_LOCALS(PartsOf)
    {
        locals.amount.paid = input.paid;
        CALL(FeeOf, locals.amount, locals.kept);
        output.fee = locals.kept.fee;
        output.net = input.paid - output.fee;
        output.burned = div<sint64>(output.net, QUBIX_BASIS_POINTS) * input.burnBasisPoints
            + div<sint64>(mod<sint64>(output.net, QUBIX_BASIS_POINTS) * input.burnBasisPoints, QUBIX_BASIS_POINTS);
        output.net -= output.burned;
    }

    struct ReturnReward_input
    {
        sint64 burned; // for bad signatures, at most what is attached
    };
    struct ReturnReward_output
    {
    };
    PRIVATE_PROCEDURE(ReturnReward)
    {
        if (input.burned > 0)
        {
            qpi.burn(input.burned);
        }
        if (qpi.invocationReward() > input.burned)
        {
            qpi.transfer(qpi.invocator(), qpi.invocationReward() - input.burned);
        }
    }

    struct CheckOpen_input
    {
        Lease lease;
        id escrow;
        uint64 network;
    };
    struct CheckOpen_output
    {
        uint32 code;
    };
    // A contract can be no party: nobody holds its key, and for some such ids signatures can be forged.
    // So every payment goes to a user, no code of others runs within ours.
    PRIVATE_FUNCTION(CheckOpen)
    {
        output.code = QUBIX_OK;
        if (input.network != state.get().network)
        {
            output.code = QUBIX_BAD_NETWORK;
        }
        else if (isZero(input.lease.provider) || input.lease.provider == qpi.invocator()
            || qpi.isContractId(input.lease.provider) || qpi.isContractId(qpi.invocator()))
        {
            output.code = QUBIX_BAD_PARTY;
        }
        else if (input.lease.deposit < QUBIX_MIN_DEPOSIT || input.lease.deposit > QUBIX_MAX_DEPOSIT)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        else if (input.lease.deadlineTick < qpi.tick() + QUBIX_MIN_DEADLINE_TICKS
            || input.lease.deadlineTick > qpi.tick() + QUBIX_MAX_DEADLINE_TICKS)
        {
            output.code = QUBIX_BAD_DEADLINE;
        }
        else if (input.lease.challengeTicks < QUBIX_MIN_CHALLENGE_TICKS
            || input.lease.challengeTicks > QUBIX_MAX_CHALLENGE_TICKS)
        {
            output.code = QUBIX_BAD_CHALLENGE;
        }
        else if (input.lease.burnBasisPoints > QUBIX_BASIS_POINTS)
        {
            output.code = QUBIX_BAD_BURN;
        }
        else if (state.get().channels.contains(input.escrow))
        {
            output.code = QUBIX_ALREADY_OPEN;
        }
        else if (state.get().channels.population() >= QUBIX_CAPACITY)
        {
            output.code = QUBIX_FULL;
        }
    }

    struct EscrowOf_input
    {
        id provider;
        id terms;
    };
    struct EscrowOf_output
    {
        id escrow;
    };
    struct EscrowOf_locals
    {
        EscrowKey key;
    };
    PRIVATE_FUNCTION_WITH_LOCALS(EscrowOf)
    {
        locals.key.caller = qpi.invocator();
        locals.key.provider = input.provider;
        locals.key.terms = input.terms;
        locals.key.contractIndex = SELF_INDEX;
        locals.key.openTick = qpi.tick();
        output.escrow = qpi.K12(locals.key);
    }

    struct PutChannel_input
    {
        Lease lease;
        id escrow;
    };
    struct PutChannel_output
    {
    };
    struct PutChannel_locals
    {
        Channel channel;
    };
    // All checks are done, the money is here.
    PRIVATE_PROCEDURE_WITH_LOCALS(PutChannel)
    {
        locals.channel.caller = qpi.invocator();
        locals.channel.provider = input.lease.provider;
        locals.channel.deposit = input.lease.deposit;
        locals.channel.deadlineTick = input.lease.deadlineTick;
        locals.channel.challengeTicks = input.lease.challengeTicks;
        locals.channel.openTick = qpi.tick();
        locals.channel.burnBasisPoints = input.lease.burnBasisPoints;
        state.mut().channels.set(input.escrow, locals.channel);
        state.mut().totals.openBalance += input.lease.deposit;
        state.mut().totals.opened += 1;
    }

    struct Pay_input
    {
        id escrow;
        Channel channel;
        sint64 cumulative;
        sint64 bond; // what is attached and not yet burned
        Array<sint8, 64> signature;
    };
    struct Pay_output
    {
        uint32 code;
        uint32 unused;
        sint64 burned; // of the bond
    };
    struct Pay_locals
    {
        Voucher voucher;
        PartsOf_input amount;
        PartsOf_output before;
        PartsOf_output after;
        sint64 gross;
        sint64 fee;
        sint64 burned;
    };
    // The signature is checked last: it is what costs.
    PRIVATE_PROCEDURE_WITH_LOCALS(Pay)
    {
        if (qpi.tick() >= (input.channel.closeTick > 0 ? input.channel.closeTick : input.channel.deadlineTick))
        {
            output.code = QUBIX_TOO_LATE;
            return;
        }
        if (input.cumulative <= input.channel.paid)
        {
            output.code = QUBIX_NOT_RISING;
            return;
        }
        if (input.cumulative > input.channel.deposit)
        {
            output.code = QUBIX_ABOVE_DEPOSIT;
            return;
        }
        if (input.bond < QUBIX_SIGNATURE_BOND)
        {
            output.code = QUBIX_NEEDS_BOND;
            return;
        }
        locals.voucher.tag = QUBIX_VOUCHER_TAG;
        locals.voucher.escrow = input.escrow;
        locals.voucher.cumulative = input.cumulative;
        if (!qpi.signatureValidity(input.channel.caller, qpi.K12(locals.voucher), input.signature))
        {
            output.code = QUBIX_BAD_SIGNATURE;
            output.burned = QUBIX_SIGNATURE_BOND;
            return;
        }

        locals.amount.burnBasisPoints = input.channel.burnBasisPoints;
        locals.amount.paid = input.channel.paid;
        CALL(PartsOf, locals.amount, locals.before);
        locals.amount.paid = input.cumulative;
        CALL(PartsOf, locals.amount, locals.after);
        locals.gross = input.cumulative - input.channel.paid;
        locals.fee = locals.after.fee - locals.before.fee;
        locals.burned = locals.after.burned - locals.before.burned;
        if (qpi.transfer(input.channel.provider, locals.after.net - locals.before.net) < 0)
        {
            output.code = QUBIX_TRANSFER_FAILED;
            return;
        }
        if (locals.burned > 0)
        {
            qpi.burn(locals.burned);
        }

        input.channel.paid = input.cumulative;
        state.mut().channels.set(input.escrow, input.channel);
        state.mut().totals.openBalance -= locals.gross;
        state.mut().totals.volume += locals.gross;
        state.mut().totals.feesUndistributed += locals.fee;
        state.mut().totals.feesCollected += locals.fee;
        state.mut().totals.sharesBurned += locals.burned;
        output.code = QUBIX_OK;
    }

    struct Refund_input
    {
        id escrow;
        Channel channel;
    };
    struct Refund_output
    {
        uint32 code;
    };
    struct Refund_locals
    {
        sint64 amount;
    };
    PRIVATE_PROCEDURE_WITH_LOCALS(Refund)
    {
        locals.amount = input.channel.deposit - input.channel.paid;
        if (locals.amount > 0 && qpi.transfer(input.channel.caller, locals.amount) < 0)
        {
            output.code = QUBIX_TRANSFER_FAILED;
            return;
        }
        state.mut().channels.removeByKey(input.escrow);
        state.mut().totals.openBalance -= locals.amount;
        state.mut().totals.closed += 1;
        output.code = QUBIX_OK;
    }

public:

    struct Open_locals
    {
        EscrowOf_input key;
        EscrowOf_output escrow;
        CheckOpen_input check;
        CheckOpen_output checked;
        PutChannel_input put;
        PutChannel_output done;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // The attached amount is the deposit.
    PUBLIC_PROCEDURE_WITH_LOCALS(Open)
    {
        locals.put.lease.provider = input.provider;
        locals.put.lease.terms = input.terms;
        locals.put.lease.deposit = qpi.invocationReward();
        locals.put.lease.deadlineTick = input.deadlineTick;
        locals.put.lease.challengeTicks = input.challengeTicks;
        locals.put.lease.burnBasisPoints = input.burnBasisPoints;
        locals.key.provider = input.provider;
        locals.key.terms = input.terms;
        CALL(EscrowOf, locals.key, locals.escrow);
        locals.put.escrow = locals.escrow.escrow;

        locals.check.lease = locals.put.lease;
        locals.check.escrow = locals.put.escrow;
        locals.check.network = input.network;
        CALL(CheckOpen, locals.check, locals.checked);
        output.code = locals.checked.code;
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        CALL(PutChannel, locals.put, locals.done);
        output.escrow = locals.put.escrow;
    }

    struct OpenMany_locals
    {
        Array<id, 8> escrows;
        EscrowOf_input key;
        EscrowOf_output escrow;
        CheckOpen_input check;
        CheckOpen_output checked;
        PutChannel_input put;
        PutChannel_output done;
        ReturnReward_input none;
        ReturnReward_output nothing;
        sint64 left;
        uint32 index;
        uint32 other;
    };
    // All leases or none. The attached amount is the sum of the deposits, exactly.
    PUBLIC_PROCEDURE_WITH_LOCALS(OpenMany)
    {
        output.code = QUBIX_OK;
        if (input.count < 1 || input.count > QUBIX_BATCH_OPEN)
        {
            output.code = QUBIX_BAD_COUNT;
        }
        else if (state.get().channels.population() + input.count > QUBIX_CAPACITY)
        {
            output.code = QUBIX_FULL;
        }
        locals.check.network = input.network;
        locals.left = qpi.invocationReward();
        for (locals.index = 0; locals.index < input.count && output.code == QUBIX_OK; ++locals.index)
        {
            locals.check.lease = input.leases.get(locals.index);
            locals.key.provider = locals.check.lease.provider;
            locals.key.terms = locals.check.lease.terms;
            CALL(EscrowOf, locals.key, locals.escrow);
            locals.check.escrow = locals.escrow.escrow;
            CALL(CheckOpen, locals.check, locals.checked);
            output.code = locals.checked.code;
            output.refused = locals.index;
            for (locals.other = 0; locals.other < locals.index; ++locals.other)
            {
                if (locals.escrows.get(locals.other) == locals.check.escrow)
                {
                    output.code = QUBIX_ALREADY_OPEN;
                }
            }
            locals.escrows.set(locals.index, locals.check.escrow);
            locals.left -= output.code == QUBIX_OK ? locals.check.lease.deposit : 0;
        }
        if (output.code == QUBIX_OK && locals.left != 0)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        for (locals.index = 0; locals.index < input.count; ++locals.index)
        {
            locals.put.lease = input.leases.get(locals.index);
            locals.put.escrow = locals.escrows.get(locals.index);
            CALL(PutChannel, locals.put, locals.done);
        }
        output.refused = 0;
        output.escrows = locals.escrows;
    }

    struct TopUp_locals
    {
        Channel channel;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // The attached amount is added to the deposit. The deadline stays.
    PUBLIC_PROCEDURE_WITH_LOCALS(TopUp)
    {
        output.code = QUBIX_OK;
        if (!state.get().channels.get(input.escrow, locals.channel))
        {
            output.code = QUBIX_UNKNOWN_ESCROW;
        }
        else if (qpi.invocator() != locals.channel.caller)
        {
            output.code = QUBIX_NOT_CALLER;
        }
        else if (locals.channel.closeTick > 0)
        {
            output.code = QUBIX_CLOSING;
        }
        else if (qpi.tick() >= locals.channel.deadlineTick)
        {
            output.code = QUBIX_TOO_LATE;
        }
        else if (qpi.invocationReward() < QUBIX_MIN_DEPOSIT
            || qpi.invocationReward() > QUBIX_MAX_DEPOSIT - locals.channel.deposit)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }

        locals.channel.deposit += qpi.invocationReward();
        state.mut().channels.set(input.escrow, locals.channel);
        state.mut().totals.openBalance += qpi.invocationReward();
    }

    struct Redeem_locals
    {
        Pay_input pay;
        Pay_output paid;
        ReturnReward_input bond;
        ReturnReward_output nothing;
    };
    // By anyone: a new provider has no QU to send a transaction with. The money goes to the provider.
    PUBLIC_PROCEDURE_WITH_LOCALS(Redeem)
    {
        output.code = QUBIX_UNKNOWN_ESCROW;
        if (state.get().channels.get(input.escrow, locals.pay.channel))
        {
            locals.pay.escrow = input.escrow;
            locals.pay.cumulative = input.cumulative;
            locals.pay.signature = input.signature;
            locals.pay.bond = qpi.invocationReward();
            CALL(Pay, locals.pay, locals.paid);
            output.code = locals.paid.code;
            locals.bond.burned = locals.paid.burned;
        }
        CALL(ReturnReward, locals.bond, locals.nothing);
    }

    struct RedeemMany_locals
    {
        Redeem_input voucher;
        Pay_input pay;
        Pay_output paid;
        ReturnReward_input bond;
        ReturnReward_output nothing;
        uint32 index;
    };
    // Each voucher is judged alone, in the order they come, and needs a bond of its own.
    PUBLIC_PROCEDURE_WITH_LOCALS(RedeemMany)
    {
        output.code = QUBIX_OK;
        if (input.count < 1 || input.count > QUBIX_BATCH_REDEEM)
        {
            output.code = QUBIX_BAD_COUNT;
        }
        else if (qpi.invocationReward() < QUBIX_SIGNATURE_BOND * input.count)
        {
            output.code = QUBIX_NEEDS_BOND;
        }
        for (locals.index = 0; output.code == QUBIX_OK && locals.index < input.count; ++locals.index)
        {
            locals.voucher = input.ninth;
            if (locals.index < input.vouchers.capacity())
            {
                locals.voucher = input.vouchers.get(locals.index);
            }
            locals.paid.code = QUBIX_UNKNOWN_ESCROW;
            locals.paid.burned = 0;
            if (state.get().channels.get(locals.voucher.escrow, locals.pay.channel))
            {
                locals.pay.escrow = locals.voucher.escrow;
                locals.pay.cumulative = locals.voucher.cumulative;
                locals.pay.signature = locals.voucher.signature;
                locals.pay.bond = QUBIX_SIGNATURE_BOND;
                CALL(Pay, locals.pay, locals.paid);
            }
            output.codes.set(locals.index, locals.paid.code);
            output.redeemed += locals.paid.code == QUBIX_OK ? 1 : 0;
            locals.bond.burned += locals.paid.burned;
        }
        CALL(ReturnReward, locals.bond, locals.nothing);
    }

    struct Close_locals
    {
        Pay_input pay;
        Pay_output paid;
        Refund_input refund;
        Refund_output refunded;
        ReturnReward_input bond;
        ReturnReward_output nothing;
    };
    // By the provider: take the last voucher (none needed if cumulative is what was paid), refund the rest.
    PUBLIC_PROCEDURE_WITH_LOCALS(Close)
    {
        output.code = QUBIX_OK;
        if (!state.get().channels.get(input.escrow, locals.pay.channel))
        {
            output.code = QUBIX_UNKNOWN_ESCROW;
        }
        else if (qpi.invocator() != locals.pay.channel.provider)
        {
            output.code = QUBIX_NOT_PROVIDER;
        }
        else if (input.cumulative != locals.pay.channel.paid)
        {
            locals.pay.escrow = input.escrow;
            locals.pay.cumulative = input.cumulative;
            locals.pay.signature = input.signature;
            locals.pay.bond = qpi.invocationReward();
            CALL(Pay, locals.pay, locals.paid);
            output.code = locals.paid.code;
            locals.bond.burned = locals.paid.burned;
        }
        CALL(ReturnReward, locals.bond, locals.nothing);
        if (output.code != QUBIX_OK)
        {
            return;
        }
        locals.refund.escrow = input.escrow;
        locals.refund.channel = locals.pay.channel; // with what Pay has just added to paid
        CALL(Refund, locals.refund, locals.refunded);
        state.mut().channels.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        output.code = locals.refunded.code;
    }

    struct RequestClose_locals
    {
        Channel channel;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // By the caller: from now on the provider has challengeTicks, at most until the deadline.
    PUBLIC_PROCEDURE_WITH_LOCALS(RequestClose)
    {
        CALL(ReturnReward, locals.none, locals.nothing);
        if (!state.get().channels.get(input.escrow, locals.channel))
        {
            output.code = QUBIX_UNKNOWN_ESCROW;
            return;
        }
        if (qpi.invocator() != locals.channel.caller)
        {
            output.code = QUBIX_NOT_CALLER;
            return;
        }
        if (locals.channel.closeTick > 0)
        {
            output.code = QUBIX_CLOSING;
            return;
        }
        if (qpi.tick() >= locals.channel.deadlineTick)
        {
            output.code = QUBIX_TOO_LATE;
            return;
        }
        locals.channel.closeTick = qpi.tick() + locals.channel.challengeTicks;
        if (locals.channel.closeTick > locals.channel.deadlineTick)
        {
            locals.channel.closeTick = locals.channel.deadlineTick;
        }
        state.mut().channels.set(input.escrow, locals.channel);
        output.closeTick = locals.channel.closeTick;
        output.code = QUBIX_OK;
    }

    struct Finalize_locals
    {
        Refund_input refund;
        Refund_output refunded;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // By anyone, once nothing can be redeemed any more. END_TICK does the same a little later.
    PUBLIC_PROCEDURE_WITH_LOCALS(Finalize)
    {
        CALL(ReturnReward, locals.none, locals.nothing);
        if (!state.get().channels.get(input.escrow, locals.refund.channel))
        {
            output.code = QUBIX_UNKNOWN_ESCROW;
            return;
        }
        if (qpi.tick() < (locals.refund.channel.closeTick > 0
            ? locals.refund.channel.closeTick : locals.refund.channel.deadlineTick))
        {
            output.code = QUBIX_TOO_EARLY;
            return;
        }
        locals.refund.escrow = input.escrow;
        CALL(Refund, locals.refund, locals.refunded);
        state.mut().channels.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        output.code = locals.refunded.code;
    }

    PUBLIC_FUNCTION(GetEscrow)
    {
        output.exists = state.get().channels.get(input.escrow, output.channel) ? 1 : 0;
        output.tick = qpi.tick();
    }

    PUBLIC_FUNCTION(GetInfo)
    {
        output.contractIndex = SELF_INDEX;
        output.tick = qpi.tick();
        output.feeBasisPoints = QUBIX_FEE_BASIS_POINTS;
        output.capacity = QUBIX_CAPACITY;
        output.minDeadlineTicks = QUBIX_MIN_DEADLINE_TICKS;
        output.maxDeadlineTicks = QUBIX_MAX_DEADLINE_TICKS;
        output.minChallengeTicks = QUBIX_MIN_CHALLENGE_TICKS;
        output.maxChallengeTicks = QUBIX_MAX_CHALLENGE_TICKS;
        output.network = state.get().network;
        output.totals = state.get().totals;
    }

    REGISTER_USER_FUNCTIONS_AND_PROCEDURES()
    {
        REGISTER_USER_FUNCTION(GetEscrow, 1);
        REGISTER_USER_FUNCTION(GetInfo, 2);

        REGISTER_USER_PROCEDURE(Open, 1);
        REGISTER_USER_PROCEDURE(TopUp, 2);
        REGISTER_USER_PROCEDURE(Redeem, 3);
        REGISTER_USER_PROCEDURE(Close, 4);
        REGISTER_USER_PROCEDURE(RequestClose, 5);
        REGISTER_USER_PROCEDURE(Finalize, 6);
        REGISTER_USER_PROCEDURE(OpenMany, 7);
        REGISTER_USER_PROCEDURE(RedeemMany, 8);
    }

    // Two networks never hold the same balances, so this tells them apart.
    INITIALIZE()
    {
        state.mut().network = qpi.getPrevSpectrumDigest().u64._0;
    }

    // Money nobody called a procedure with goes back. What cannot be sent back (from another contract,
    // dividends, donations) joins the fees. Rewards of procedures are the business of the procedure.
    POST_INCOMING_TRANSFER()
    {
        if (input.type == TransferType::procedureTransaction
            || input.type == TransferType::procedureInvocationByOtherContract)
        {
            return;
        }
        if (input.type == TransferType::standardTransaction && qpi.transfer(input.sourceId, input.amount) >= 0)
        {
            return;
        }
        state.mut().totals.feesUndistributed += input.amount;
        state.mut().totals.feesCollected += input.amount;
    }

    struct END_TICK_locals
    {
        Refund_input refund;
        Refund_output refunded;
        sint64 index;
        uint32 lastTick;
        bit removed;
    };
    // Expiry without anyone acting. Reads only, unless there is something to refund.
    END_TICK_WITH_LOCALS()
    {
        if (mod<uint32>(qpi.tick(), QUBIX_SWEEP_TICKS) != 0)
        {
            return;
        }
        locals.index = state.get().channels.nextElementIndex(NULL_INDEX);
        while (locals.index != NULL_INDEX)
        {
            locals.refund.channel = state.get().channels.value(locals.index);
            locals.lastTick = locals.refund.channel.closeTick > 0
                ? locals.refund.channel.closeTick : locals.refund.channel.deadlineTick;
            if (qpi.tick() >= locals.lastTick)
            {
                locals.refund.escrow = state.get().channels.key(locals.index);
                CALL(Refund, locals.refund, locals.refunded);
                locals.removed = true;
            }
            locals.index = state.get().channels.nextElementIndex(locals.index);
        }
        if (locals.removed)
        {
            state.mut().channels.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        }
    }

    struct END_EPOCH_locals
    {
        sint64 burned;
        sint64 perShare;
    };
    // A part of the fees feeds the reserve that this contract runs on, the rest goes to the shares. What
    // does not divide by the shares stays for the next epoch.
    END_EPOCH_WITH_LOCALS()
    {
        locals.burned = div<sint64>(state.get().totals.feesUndistributed * QUBIX_BURN_PERCENT, 100);
        if (locals.burned > 0 && qpi.burn(locals.burned) >= 0)
        {
            state.mut().totals.feesUndistributed -= locals.burned;
            state.mut().totals.feesBurned += locals.burned;
        }
        locals.perShare = div<sint64>(state.get().totals.feesUndistributed, QUBIX_SHARES);
        if (locals.perShare > 0 && qpi.distributeDividends(locals.perShare))
        {
            state.mut().totals.feesUndistributed -= locals.perShare * QUBIX_SHARES;
        }
    }
};
