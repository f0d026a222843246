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

// The more places are taken, the more a new lease must deposit: twice as much after each 256. So small
// leases are welcome, and filling all 4,096 places locks 16,776,960 QU.
constexpr uint64 QUBIX_CROWD = 256;

// A tick lasts 0.2 to 1.5 s. In the last tick of a window the leader of the tick orders its calls, so
// both windows must be several ticks wide. 8,000,000 ticks are at least 18 days.
constexpr uint32 QUBIX_MIN_DEADLINE_TICKS = 32;
constexpr uint32 QUBIX_MAX_DEADLINE_TICKS = 8000000;
constexpr uint32 QUBIX_MIN_CHALLENGE_TICKS = 16;
constexpr uint32 QUBIX_MAX_CHALLENGE_TICKS = 100000;

// Each signature that a call has checked costs the reserve 16 QU, so so much must be attached for each. It
// comes back, unless the signature is wrong: then it is burned into the reserve.
constexpr sint64 QUBIX_SIGNATURE_BOND = 100;

constexpr uint64 QUBIX_PROVIDERS = 1024;
constexpr sint64 QUBIX_MIN_STAKE = 1000000;
constexpr uint32 QUBIX_REPORTER_PERCENT = 25; // of a slashed stake; the rest is burned

// A lease that paid so much counts as completed and gives its caller a ticket: the right to one rating
// and one dispute, until the end of the next epoch. A purchase gives one too, as its proof. Those are kept
// apart, so that nobody can buy all the tickets of others' leases away.
constexpr uint64 QUBIX_TICKETS = 1024;
constexpr uint64 QUBIX_PURCHASES = 1024;
constexpr sint64 QUBIX_MIN_TICKET = 10000;
constexpr uint32 QUBIX_ROYALTY_PERCENT = 2;
constexpr uint64 QUBIX_LEASE_TICKET = 1;
constexpr uint64 QUBIX_PURCHASE_TICKET = 2;

constexpr uint64 QUBIX_DISPUTES = 64;
constexpr sint64 QUBIX_DISPUTE_BOND = 100000;
constexpr uint32 QUBIX_DISPUTE_TICKS = 600000;
constexpr uint32 QUBIX_ARBITERS = 3;
constexpr uint32 QUBIX_FOR_CALLER = 1;
constexpr uint32 QUBIX_FOR_PROVIDER = 2;

constexpr uint32 QUBIX_BATCH_OPEN = 8;
constexpr uint32 QUBIX_BATCH_REDEEM = 9;

constexpr uint64 QUBIX_CAPACITY = 4096;
constexpr uint32 QUBIX_SWEEP_TICKS = 16;
constexpr uint64 QUBIX_CLEANUP_PERCENT = 50;

// First word of what a voucher signs, so that the signature fits nothing else. Bytes: QubixVch.
constexpr uint64 QUBIX_VOUCHER_TAG = 7521950877802984785ULL;

// First word of what an occupancy receipt signs. Bytes: QubixRct.
constexpr uint64 QUBIX_RECEIPT_TAG = 8386637608211608913ULL;

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
constexpr uint32 QUBIX_UNKNOWN_PROVIDER = 21;
constexpr uint32 QUBIX_ALREADY_REGISTERED = 22;
constexpr uint32 QUBIX_EXITING = 23;
constexpr uint32 QUBIX_NO_TICKET = 24;
constexpr uint32 QUBIX_BAD_STARS = 25;
constexpr uint32 QUBIX_ALREADY_DONE = 26;
constexpr uint32 QUBIX_BAD_RECEIPTS = 27;
constexpr uint32 QUBIX_NOT_ARBITER = 28;
constexpr uint32 QUBIX_UNKNOWN_DISPUTE = 29;
constexpr uint32 QUBIX_BAD_VERDICT = 30;
constexpr uint32 QUBIX_CHANGED = 31;

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

    struct Provider
    {
        id peerKey;
        id metadata;        // digest of what the provider says about itself off chain
        sint64 stake;
        sint64 volume;      // gross, of its ended leases
        uint64 stars;       // sum of all ratings
        uint32 ratings;
        uint32 completed;   // leases ended after they paid QUBIX_MIN_TICKET
        uint32 disputed;
        uint32 failed;      // disputes lost
        uint32 sinceTick;
        uint32 exitEpoch;   // 0 = stays; else the stake comes back at the end of this epoch
    };

    // A ticket's key is the K12 of this (104 bytes, no padding).
    struct TicketKey
    {
        uint64 kind;
        id subject;         // escrow or item
        id holder;          // caller or buyer
        id provider;        // or seller
    };
    struct Ticket
    {
        sint64 amount;      // what the lease paid, gross, or the price
        uint32 epoch;
        uint16 rated;
        uint16 disputed;
    };

    // What a provider signs the K12 of when a lease of a whole GPU has ended (88 bytes, no padding): it was
    // taken from a tick on, until another, which was free again.
    struct Receipt
    {
        uint64 tag;
        uint64 network;
        id gpu;
        id escrow;
        uint32 fromTick;
        uint32 untilTick;
    };

    struct DisputeCase
    {
        id caller;
        id provider;
        id evidence;
        sint64 bond;
        uint32 untilTick;
        uint32 unused;
        Array<uint32, 4> verdicts; // of each arbiter, 0 = none yet
    };

    struct Rotation
    {
        id candidate;
        uint32 slot;
        uint32 asked;
    };

    // At every tick: balance of the contract = openBalance + stakes + bonds + feesUndistributed.
    struct Totals
    {
        sint64 openBalance;       // deposits of open channels less what was paid out of them
        sint64 stakes;
        sint64 bonds;             // of disputes
        sint64 feesUndistributed;
        sint64 feesBurned;
        sint64 feesCollected;     // ever, money that came unasked included
        sint64 sharesBurned;      // of the providers' parts
        sint64 stakesBurned;
        sint64 volume;            // gross amount redeemed, ever
        uint64 opened;
        uint64 closed;
    };

    struct StateData
    {
        HashMap<id, Channel, QUBIX_CAPACITY> channels;
        HashMap<id, Provider, QUBIX_PROVIDERS> providers;
        HashMap<id, Ticket, QUBIX_TICKETS> tickets;
        HashMap<id, Ticket, QUBIX_PURCHASES> purchases;
        HashMap<id, DisputeCase, QUBIX_DISPUTES> disputes; // by escrow
        Array<id, 4> arbiters;
        Array<Rotation, 4> rotations;
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
        sint64 deposit;      // as it is before
        uint32 deadlineTick; // as it is to be
        uint32 unused;
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

    struct Register_input
    {
        id peerKey;
        id metadata;
        uint64 network;
    };
    struct Register_output
    {
        uint32 code;
    };

    struct Update_input
    {
        id peerKey;
        id metadata;
        uint64 network;
    };
    struct Update_output
    {
        uint32 code;
    };

    struct Exit_input
    {
        uint64 network;
    };
    struct Exit_output
    {
        uint32 code;
        uint32 exitEpoch;
    };

    struct Rate_input
    {
        id escrow;
        id provider;
        uint32 stars;
        uint32 unused;
    };
    struct Rate_output
    {
        uint32 code;
    };

    struct Slash_input
    {
        id provider;
        id gpu;
        id firstEscrow;
        id secondEscrow;
        uint32 firstFromTick;
        uint32 firstUntilTick;
        uint32 secondFromTick;
        uint32 secondUntilTick;
        Array<sint8, 64> firstSignature;
        Array<sint8, 64> secondSignature;
    };
    struct Slash_output
    {
        uint32 code;
        uint32 unused;
        sint64 slashed;
    };

    struct OpenDispute_input
    {
        id escrow;
        id provider;
        id evidence;
    };
    struct OpenDispute_output
    {
        uint32 code;
        uint32 untilTick;
    };

    struct Decide_input
    {
        id escrow;
        uint32 verdict;
        uint32 unused;
    };
    struct Decide_output
    {
        uint32 code;
        uint32 decided;
    };

    struct Rotate_input
    {
        id candidate;
        uint64 network;
        uint32 slot;
        uint32 unused;
    };
    struct Rotate_output
    {
        uint32 code;
        uint32 rotated;
    };

    struct Buy_input
    {
        id seller;
        id item;
        uint64 network;
    };
    struct Buy_output
    {
        uint32 code;
    };

    struct GetProvider_input
    {
        id provider;
    };
    struct GetProvider_output
    {
        uint32 exists;
        uint32 tick;
        Provider provider;
    };

    struct GetTicket_input
    {
        uint64 kind;
        id subject;
        id holder;
        id provider;
    };
    struct GetTicket_output
    {
        uint32 exists;
        uint32 tick;
        Ticket ticket;
    };

    struct GetDispute_input
    {
        id escrow;
    };
    struct GetDispute_output
    {
        uint32 exists;
        uint32 tick;
        DisputeCase dispute;
    };

    struct GetArbiters_input
    {
    };
    struct GetArbiters_output
    {
        Array<id, 4> arbiters;
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

    struct TicketOf_input
    {
        uint64 kind;
        id subject;
        id holder;
        id provider;
    };
    struct TicketOf_output
    {
        id key;
    };
    struct TicketOf_locals
    {
        TicketKey key;
    };
    PRIVATE_FUNCTION_WITH_LOCALS(TicketOf)
    {
        locals.key.kind = input.kind;
        locals.key.subject = input.subject;
        locals.key.holder = input.holder;
        locals.key.provider = input.provider;
        output.key = qpi.K12(locals.key);
    }

    struct ArbiterSlot_input
    {
    };
    struct ArbiterSlot_output
    {
        uint32 slot; // QUBIX_ARBITERS: the invocator is none
    };
    PRIVATE_FUNCTION(ArbiterSlot)
    {
        output.slot = 0;
        while (output.slot < QUBIX_ARBITERS && state.get().arbiters.get(output.slot) != qpi.invocator())
        {
            output.slot += 1;
        }
    }

    struct CheckOpen_input
    {
        Lease lease;
        uint64 network;
        uint64 before; // leases that the same call opens before this one
    };
    struct CheckOpen_output
    {
        uint32 code;
    };
    // All that can be said of a lease without hashing anything, so that a refusal costs little.
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
        else if (state.get().channels.population() + input.before >= QUBIX_CAPACITY
            || input.lease.deposit < QUBIX_MIN_DEPOSIT
                << div<uint64>(state.get().channels.population() + input.before, QUBIX_CROWD))
        {
            output.code = QUBIX_FULL;
        }
    }

    struct NewEscrow_input
    {
        id provider;
        id terms;
    };
    struct NewEscrow_output
    {
        id escrow;
        uint32 code;
    };
    struct NewEscrow_locals
    {
        EscrowKey key;
        TicketOf_input ticketOf;
        TicketOf_output ticketKey;
    };
    // The id of a lease that opens now, if it is free. One that left a ticket is used up: a second lease
    // under it, possible in the same tick only, would be rated and disputed again, over what the first one's
    // dispute still holds.
    PRIVATE_FUNCTION_WITH_LOCALS(NewEscrow)
    {
        locals.key.caller = qpi.invocator();
        locals.key.provider = input.provider;
        locals.key.terms = input.terms;
        locals.key.contractIndex = SELF_INDEX;
        locals.key.openTick = qpi.tick();
        output.escrow = qpi.K12(locals.key);
        locals.ticketOf.kind = QUBIX_LEASE_TICKET;
        locals.ticketOf.subject = output.escrow;
        locals.ticketOf.holder = qpi.invocator();
        locals.ticketOf.provider = input.provider;
        CALL(TicketOf, locals.ticketOf, locals.ticketKey);
        output.code = state.get().channels.contains(output.escrow)
            || state.get().tickets.contains(locals.ticketKey.key) ? QUBIX_ALREADY_OPEN : QUBIX_OK;
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
        Provider provider;
        Ticket ticket;
        TicketOf_input ticketOf;
        TicketOf_output ticketKey;
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

        // Only what paid counts: else anybody could fill a stranger's record, or all tickets, for nothing.
        if (input.channel.paid < QUBIX_MIN_TICKET
            || !state.get().providers.get(input.channel.provider, locals.provider))
        {
            return;
        }
        locals.provider.completed += 1;
        locals.provider.volume += input.channel.paid;
        state.mut().providers.set(input.channel.provider, locals.provider);
        if (state.get().tickets.population() < QUBIX_TICKETS)
        {
            locals.ticket.amount = input.channel.paid;
            locals.ticket.epoch = qpi.epoch();
            locals.ticketOf.kind = QUBIX_LEASE_TICKET;
            locals.ticketOf.subject = input.escrow;
            locals.ticketOf.holder = input.channel.caller;
            locals.ticketOf.provider = input.channel.provider;
            CALL(TicketOf, locals.ticketOf, locals.ticketKey);
            state.mut().tickets.set(locals.ticketKey.key, locals.ticket);
        }
    }

public:

    struct Open_locals
    {
        CheckOpen_input check;
        CheckOpen_output checked;
        NewEscrow_input key;
        NewEscrow_output fresh;
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
        locals.check.lease = locals.put.lease;
        locals.check.network = input.network;
        CALL(CheckOpen, locals.check, locals.checked);
        output.code = locals.checked.code;
        if (output.code == QUBIX_OK)
        {
            locals.key.provider = input.provider;
            locals.key.terms = input.terms;
            CALL(NewEscrow, locals.key, locals.fresh);
            output.code = locals.fresh.code;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        locals.put.escrow = locals.fresh.escrow;
        CALL(PutChannel, locals.put, locals.done);
        output.escrow = locals.put.escrow;
    }

    struct OpenMany_locals
    {
        Array<id, 8> escrows;
        CheckOpen_input check;
        CheckOpen_output checked;
        NewEscrow_input key;
        NewEscrow_output fresh;
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
        output.code = input.count < 1 || input.count > QUBIX_BATCH_OPEN ? QUBIX_BAD_COUNT : QUBIX_OK;
        locals.check.network = input.network;
        locals.left = qpi.invocationReward();
        for (locals.index = 0; locals.index < input.count && output.code == QUBIX_OK; ++locals.index)
        {
            locals.check.lease = input.leases.get(locals.index);
            locals.check.before = locals.index;
            CALL(CheckOpen, locals.check, locals.checked);
            output.code = locals.checked.code;
            output.refused = locals.index;
            locals.left -= output.code == QUBIX_OK ? locals.check.lease.deposit : 0;
        }
        if (output.code == QUBIX_OK && locals.left != 0)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        for (locals.index = 0; locals.index < input.count && output.code == QUBIX_OK; ++locals.index)
        {
            locals.key.provider = input.leases.get(locals.index).provider;
            locals.key.terms = input.leases.get(locals.index).terms;
            CALL(NewEscrow, locals.key, locals.fresh);
            output.code = locals.fresh.code;
            output.refused = locals.index;
            for (locals.other = 0; locals.other < locals.index; ++locals.other)
            {
                if (locals.escrows.get(locals.other) == locals.fresh.escrow)
                {
                    output.code = QUBIX_ALREADY_OPEN;
                }
            }
            locals.escrows.set(locals.index, locals.fresh.escrow);
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
    // The attached amount is added to the deposit, and the deadline may move to later, which is only ever to
    // the provider's good. Who tops up says what the deposit is before. A deposit never falls, so a call that
    // was sent twice is taken once.
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
        else if (input.deposit != locals.channel.deposit)
        {
            output.code = QUBIX_CHANGED;
        }
        else if (qpi.invocationReward() < QUBIX_MIN_DEPOSIT
            || qpi.invocationReward() > QUBIX_MAX_DEPOSIT - locals.channel.deposit)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        else if (input.deadlineTick < locals.channel.deadlineTick
            || input.deadlineTick > qpi.tick() + QUBIX_MAX_DEADLINE_TICKS)
        {
            output.code = QUBIX_BAD_DEADLINE;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }

        locals.channel.deposit += qpi.invocationReward();
        locals.channel.deadlineTick = input.deadlineTick;
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

    struct Register_locals
    {
        Provider provider;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // The attached amount is the stake.
    PUBLIC_PROCEDURE_WITH_LOCALS(Register)
    {
        output.code = QUBIX_OK;
        if (input.network != state.get().network)
        {
            output.code = QUBIX_BAD_NETWORK;
        }
        else if (qpi.isContractId(qpi.invocator()))
        {
            output.code = QUBIX_BAD_PARTY;
        }
        else if (qpi.invocationReward() < QUBIX_MIN_STAKE || qpi.invocationReward() > QUBIX_MAX_DEPOSIT)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        else if (state.get().providers.contains(qpi.invocator()))
        {
            output.code = QUBIX_ALREADY_REGISTERED;
        }
        else if (state.get().providers.population() >= QUBIX_PROVIDERS)
        {
            output.code = QUBIX_FULL;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        locals.provider.peerKey = input.peerKey;
        locals.provider.metadata = input.metadata;
        locals.provider.stake = qpi.invocationReward();
        locals.provider.sinceTick = qpi.tick();
        state.mut().providers.set(qpi.invocator(), locals.provider);
        state.mut().totals.stakes += qpi.invocationReward();
    }

    struct Update_locals
    {
        Provider provider;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // What is attached joins the stake.
    PUBLIC_PROCEDURE_WITH_LOCALS(Update)
    {
        output.code = QUBIX_OK;
        if (input.network != state.get().network)
        {
            output.code = QUBIX_BAD_NETWORK;
        }
        else if (!state.get().providers.get(qpi.invocator(), locals.provider))
        {
            output.code = QUBIX_UNKNOWN_PROVIDER;
        }
        else if (locals.provider.exitEpoch > 0)
        {
            output.code = QUBIX_EXITING;
        }
        else if (qpi.invocationReward() > QUBIX_MAX_DEPOSIT - locals.provider.stake)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        locals.provider.peerKey = input.peerKey;
        locals.provider.metadata = input.metadata;
        locals.provider.stake += qpi.invocationReward();
        state.mut().providers.set(qpi.invocator(), locals.provider);
        state.mut().totals.stakes += qpi.invocationReward();
    }

    struct Exit_locals
    {
        Provider provider;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // The stake comes back at the end of the next epoch. Until then receipts can still slash it.
    PUBLIC_PROCEDURE_WITH_LOCALS(Exit)
    {
        CALL(ReturnReward, locals.none, locals.nothing);
        if (input.network != state.get().network)
        {
            output.code = QUBIX_BAD_NETWORK;
            return;
        }
        if (!state.get().providers.get(qpi.invocator(), locals.provider))
        {
            output.code = QUBIX_UNKNOWN_PROVIDER;
            return;
        }
        if (locals.provider.exitEpoch > 0)
        {
            output.code = QUBIX_EXITING;
            return;
        }
        locals.provider.exitEpoch = qpi.epoch() + 1;
        state.mut().providers.set(qpi.invocator(), locals.provider);
        output.exitEpoch = locals.provider.exitEpoch;
        output.code = QUBIX_OK;
    }

    struct Rate_locals
    {
        Provider provider;
        Ticket ticket;
        TicketOf_input ticketOf;
        TicketOf_output ticketKey;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // By the caller of a lease that has ended and paid enough.
    PUBLIC_PROCEDURE_WITH_LOCALS(Rate)
    {
        CALL(ReturnReward, locals.none, locals.nothing);
        if (input.stars < 1 || input.stars > 5)
        {
            output.code = QUBIX_BAD_STARS;
            return;
        }
        locals.ticketOf.kind = QUBIX_LEASE_TICKET;
        locals.ticketOf.subject = input.escrow;
        locals.ticketOf.holder = qpi.invocator();
        locals.ticketOf.provider = input.provider;
        CALL(TicketOf, locals.ticketOf, locals.ticketKey);
        if (!state.get().tickets.get(locals.ticketKey.key, locals.ticket))
        {
            output.code = QUBIX_NO_TICKET;
            return;
        }
        if (locals.ticket.rated > 0)
        {
            output.code = QUBIX_ALREADY_DONE;
            return;
        }
        if (!state.get().providers.get(input.provider, locals.provider))
        {
            output.code = QUBIX_UNKNOWN_PROVIDER;
            return;
        }
        locals.ticket.rated = 1;
        locals.provider.ratings += 1;
        locals.provider.stars += input.stars;
        state.mut().tickets.set(locals.ticketKey.key, locals.ticket);
        state.mut().providers.set(input.provider, locals.provider);
        output.code = QUBIX_OK;
    }

    struct Slash_locals
    {
        Provider provider;
        Receipt first;
        Receipt second;
        ReturnReward_input bond;
        ReturnReward_output nothing;
        sint64 reward;
    };
    // By anyone who holds two receipts that cannot both be true. Both lie in the past and in the time since
    // the provider registered, so a proof works once and says nothing about a lease that ended early.
    PUBLIC_PROCEDURE_WITH_LOCALS(Slash)
    {
        output.code = QUBIX_OK;
        if (!state.get().providers.get(input.provider, locals.provider))
        {
            output.code = QUBIX_UNKNOWN_PROVIDER;
        }
        else if (input.firstEscrow == input.secondEscrow
            || input.firstFromTick < locals.provider.sinceTick || input.secondFromTick < locals.provider.sinceTick
            || input.firstUntilTick > qpi.tick() || input.secondUntilTick > qpi.tick()
            || input.firstFromTick >= input.firstUntilTick || input.secondFromTick >= input.secondUntilTick
            || input.firstFromTick >= input.secondUntilTick || input.secondFromTick >= input.firstUntilTick)
        {
            output.code = QUBIX_BAD_RECEIPTS;
        }
        else if (qpi.invocationReward() < 2 * QUBIX_SIGNATURE_BOND)
        {
            output.code = QUBIX_NEEDS_BOND;
        }
        else
        {
            locals.first.tag = QUBIX_RECEIPT_TAG;
            locals.first.network = state.get().network;
            locals.first.gpu = input.gpu;
            locals.second = locals.first;
            locals.first.escrow = input.firstEscrow;
            locals.first.fromTick = input.firstFromTick;
            locals.first.untilTick = input.firstUntilTick;
            locals.second.escrow = input.secondEscrow;
            locals.second.fromTick = input.secondFromTick;
            locals.second.untilTick = input.secondUntilTick;
            if (!qpi.signatureValidity(input.provider, qpi.K12(locals.first), input.firstSignature)
                || !qpi.signatureValidity(input.provider, qpi.K12(locals.second), input.secondSignature))
            {
                output.code = QUBIX_BAD_SIGNATURE;
                locals.bond.burned = 2 * QUBIX_SIGNATURE_BOND;
            }
        }
        CALL(ReturnReward, locals.bond, locals.nothing);
        if (output.code != QUBIX_OK)
        {
            return;
        }

        locals.reward = div<sint64>(locals.provider.stake, 100) * QUBIX_REPORTER_PERCENT;
        if (qpi.transfer(qpi.invocator(), locals.reward) < 0)
        {
            output.code = QUBIX_TRANSFER_FAILED;
            return;
        }
        qpi.burn(locals.provider.stake - locals.reward);
        output.slashed = locals.provider.stake;
        state.mut().providers.removeByKey(input.provider);
        state.mut().providers.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        state.mut().totals.stakes -= locals.provider.stake;
        state.mut().totals.stakesBurned += locals.provider.stake - locals.reward;
    }

    struct OpenDispute_locals
    {
        Provider provider;
        Ticket ticket;
        TicketOf_input ticketOf;
        TicketOf_output ticketKey;
        DisputeCase dispute;
        ReturnReward_input none;
        ReturnReward_output nothing;
    };
    // By the caller of a lease that has ended and paid enough; attached is the bond. It moves no money but
    // the bond: what was paid was signed for, and a stake falls to proof only.
    PUBLIC_PROCEDURE_WITH_LOCALS(OpenDispute)
    {
        locals.ticketOf.kind = QUBIX_LEASE_TICKET;
        locals.ticketOf.subject = input.escrow;
        locals.ticketOf.holder = qpi.invocator();
        locals.ticketOf.provider = input.provider;
        CALL(TicketOf, locals.ticketOf, locals.ticketKey);
        output.code = QUBIX_OK;
        if (qpi.invocationReward() != QUBIX_DISPUTE_BOND)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        else if (!state.get().tickets.get(locals.ticketKey.key, locals.ticket))
        {
            output.code = QUBIX_NO_TICKET;
        }
        else if (locals.ticket.disputed > 0 || state.get().disputes.contains(input.escrow))
        {
            output.code = QUBIX_ALREADY_DONE;
        }
        else if (!state.get().providers.get(input.provider, locals.provider))
        {
            output.code = QUBIX_UNKNOWN_PROVIDER;
        }
        else if (state.get().disputes.population() >= QUBIX_DISPUTES)
        {
            output.code = QUBIX_FULL;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        locals.dispute.caller = qpi.invocator();
        locals.dispute.provider = input.provider;
        locals.dispute.evidence = input.evidence;
        locals.dispute.bond = qpi.invocationReward();
        locals.dispute.untilTick = qpi.tick() + QUBIX_DISPUTE_TICKS;
        locals.ticket.disputed = 1;
        locals.provider.disputed += 1;
        state.mut().disputes.set(input.escrow, locals.dispute);
        state.mut().tickets.set(locals.ticketKey.key, locals.ticket);
        state.mut().providers.set(input.provider, locals.provider);
        state.mut().totals.bonds += qpi.invocationReward();
        output.untilTick = locals.dispute.untilTick;
    }

    struct EndDispute_input
    {
        id escrow;
        id winner;
        sint64 bond;
    };
    struct EndDispute_output
    {
        uint32 code;
    };
    PRIVATE_PROCEDURE(EndDispute)
    {
        if (qpi.transfer(input.winner, input.bond) < 0)
        {
            output.code = QUBIX_TRANSFER_FAILED;
            return;
        }
        state.mut().disputes.removeByKey(input.escrow);
        state.mut().totals.bonds -= input.bond;
        output.code = QUBIX_OK;
    }

    struct Decide_locals
    {
        ArbiterSlot_input who;
        ArbiterSlot_output arbiter;
        DisputeCase dispute;
        Provider provider;
        EndDispute_input end;
        EndDispute_output ended;
        ReturnReward_input none;
        ReturnReward_output nothing;
        uint32 slot;
        uint32 votes;
    };
    // By an arbiter who is no party. The second equal verdict decides who gets the bond.
    PUBLIC_PROCEDURE_WITH_LOCALS(Decide)
    {
        CALL(ReturnReward, locals.none, locals.nothing);
        CALL(ArbiterSlot, locals.who, locals.arbiter);
        if (!state.get().disputes.get(input.escrow, locals.dispute))
        {
            output.code = QUBIX_UNKNOWN_DISPUTE;
            return;
        }
        if (locals.arbiter.slot >= QUBIX_ARBITERS || qpi.invocator() == locals.dispute.caller
            || qpi.invocator() == locals.dispute.provider)
        {
            output.code = QUBIX_NOT_ARBITER;
            return;
        }
        if (qpi.tick() >= locals.dispute.untilTick)
        {
            output.code = QUBIX_TOO_LATE;
            return;
        }
        if (input.verdict != QUBIX_FOR_CALLER && input.verdict != QUBIX_FOR_PROVIDER)
        {
            output.code = QUBIX_BAD_VERDICT;
            return;
        }
        if (locals.dispute.verdicts.get(locals.arbiter.slot) > 0)
        {
            output.code = QUBIX_ALREADY_DONE;
            return;
        }
        locals.dispute.verdicts.set(locals.arbiter.slot, input.verdict);
        for (locals.slot = 0; locals.slot < QUBIX_ARBITERS; ++locals.slot)
        {
            locals.votes += locals.dispute.verdicts.get(locals.slot) == input.verdict ? 1 : 0;
        }
        if (locals.votes < 2)
        {
            state.mut().disputes.set(input.escrow, locals.dispute);
            output.code = QUBIX_OK;
            return;
        }
        locals.end.escrow = input.escrow;
        locals.end.winner = locals.dispute.provider;
        locals.end.bond = locals.dispute.bond;
        if (input.verdict == QUBIX_FOR_CALLER)
        {
            locals.end.winner = locals.dispute.caller;
        }
        CALL(EndDispute, locals.end, locals.ended);
        output.code = locals.ended.code;
        if (output.code != QUBIX_OK)
        {
            return;
        }
        state.mut().disputes.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        output.decided = input.verdict;
        if (input.verdict == QUBIX_FOR_CALLER && state.get().providers.get(locals.dispute.provider, locals.provider))
        {
            locals.provider.failed += 1;
            state.mut().providers.set(locals.dispute.provider, locals.provider);
        }
    }

    struct Rotate_locals
    {
        ArbiterSlot_input who;
        ArbiterSlot_output arbiter;
        Rotation rotation;
        Rotation empty;
        ReturnReward_input none;
        ReturnReward_output nothing;
        uint32 slot;
        uint32 votes;
    };
    // By an arbiter. The second who asks for the same candidate in the same place puts it there.
    PUBLIC_PROCEDURE_WITH_LOCALS(Rotate)
    {
        CALL(ReturnReward, locals.none, locals.nothing);
        CALL(ArbiterSlot, locals.who, locals.arbiter);
        if (input.network != state.get().network)
        {
            output.code = QUBIX_BAD_NETWORK;
            return;
        }
        if (locals.arbiter.slot >= QUBIX_ARBITERS)
        {
            output.code = QUBIX_NOT_ARBITER;
            return;
        }
        if (input.slot >= QUBIX_ARBITERS)
        {
            output.code = QUBIX_BAD_COUNT;
            return;
        }
        output.code = isZero(input.candidate) || qpi.isContractId(input.candidate) ? QUBIX_BAD_PARTY : QUBIX_OK;
        for (locals.slot = 0; locals.slot < QUBIX_ARBITERS; ++locals.slot)
        {
            if (state.get().arbiters.get(locals.slot) == input.candidate)
            {
                output.code = QUBIX_BAD_PARTY;
            }
            locals.rotation = state.get().rotations.get(locals.slot);
            locals.votes += locals.slot != locals.arbiter.slot && locals.rotation.asked > 0
                && locals.rotation.slot == input.slot && locals.rotation.candidate == input.candidate ? 1 : 0;
        }
        if (output.code != QUBIX_OK)
        {
            return;
        }
        if (locals.votes < 1)
        {
            locals.rotation.candidate = input.candidate;
            locals.rotation.slot = input.slot;
            locals.rotation.asked = 1;
            state.mut().rotations.set(locals.arbiter.slot, locals.rotation);
            return;
        }
        state.mut().arbiters.set(input.slot, input.candidate);
        state.mut().rotations.setAll(locals.empty);
        output.rotated = 1;
    }

    struct Buy_locals
    {
        Ticket ticket;
        TicketOf_input ticketOf;
        TicketOf_output ticketKey;
        ReturnReward_input none;
        ReturnReward_output nothing;
        sint64 royalty;
    };
    // The attached amount is the price of a digital item. The ticket is what the seller looks for before it
    // hands the item out; it also keeps a purchase that was sent twice from being paid twice.
    PUBLIC_PROCEDURE_WITH_LOCALS(Buy)
    {
        locals.ticketOf.kind = QUBIX_PURCHASE_TICKET;
        locals.ticketOf.subject = input.item;
        locals.ticketOf.holder = qpi.invocator();
        locals.ticketOf.provider = input.seller;
        CALL(TicketOf, locals.ticketOf, locals.ticketKey);
        output.code = QUBIX_OK;
        if (input.network != state.get().network)
        {
            output.code = QUBIX_BAD_NETWORK;
        }
        else if (isZero(input.seller) || input.seller == qpi.invocator()
            || qpi.isContractId(input.seller) || qpi.isContractId(qpi.invocator()))
        {
            output.code = QUBIX_BAD_PARTY;
        }
        else if (qpi.invocationReward() < QUBIX_MIN_TICKET || qpi.invocationReward() > QUBIX_MAX_DEPOSIT)
        {
            output.code = QUBIX_BAD_DEPOSIT;
        }
        else if (state.get().purchases.contains(locals.ticketKey.key))
        {
            output.code = QUBIX_ALREADY_DONE;
        }
        else if (state.get().purchases.population() >= QUBIX_PURCHASES)
        {
            output.code = QUBIX_FULL;
        }
        locals.royalty = div<sint64>(qpi.invocationReward() * QUBIX_ROYALTY_PERCENT, 100);
        if (output.code == QUBIX_OK && qpi.transfer(input.seller, qpi.invocationReward() - locals.royalty) < 0)
        {
            output.code = QUBIX_TRANSFER_FAILED;
        }
        if (output.code != QUBIX_OK)
        {
            CALL(ReturnReward, locals.none, locals.nothing);
            return;
        }
        locals.ticket.amount = qpi.invocationReward();
        locals.ticket.epoch = qpi.epoch();
        state.mut().purchases.set(locals.ticketKey.key, locals.ticket);
        state.mut().totals.feesUndistributed += locals.royalty;
        state.mut().totals.feesCollected += locals.royalty;
    }

    struct Sweep_input
    {
    };
    struct Sweep_output
    {
    };
    struct Sweep_locals
    {
        Refund_input refund;
        Refund_output refunded;
        DisputeCase dispute;
        EndDispute_input end;
        EndDispute_output ended;
        sint64 index;
        uint32 lastTick;
        bit removed;
    };
    // Expiry without anyone acting. Reads only, unless there is something to give back.
    PRIVATE_PROCEDURE_WITH_LOCALS(Sweep)
    {
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
        // A dispute that nobody decided leaves everything as it was.
        locals.removed = false;
        locals.index = state.get().disputes.nextElementIndex(NULL_INDEX);
        while (locals.index != NULL_INDEX)
        {
            locals.dispute = state.get().disputes.value(locals.index);
            if (qpi.tick() >= locals.dispute.untilTick)
            {
                locals.end.escrow = state.get().disputes.key(locals.index);
                locals.end.winner = locals.dispute.caller;
                locals.end.bond = locals.dispute.bond;
                CALL(EndDispute, locals.end, locals.ended);
                locals.removed = true;
            }
            locals.index = state.get().disputes.nextElementIndex(locals.index);
        }
        if (locals.removed)
        {
            state.mut().disputes.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        }
    }

    PUBLIC_FUNCTION(GetProvider)
    {
        output.exists = state.get().providers.get(input.provider, output.provider) ? 1 : 0;
        output.tick = qpi.tick();
    }

    struct GetTicket_locals
    {
        TicketOf_input ticketOf;
        TicketOf_output ticketKey;
    };
    PUBLIC_FUNCTION_WITH_LOCALS(GetTicket)
    {
        locals.ticketOf.kind = input.kind;
        locals.ticketOf.subject = input.subject;
        locals.ticketOf.holder = input.holder;
        locals.ticketOf.provider = input.provider;
        CALL(TicketOf, locals.ticketOf, locals.ticketKey);
        output.exists = state.get().tickets.get(locals.ticketKey.key, output.ticket)
            || state.get().purchases.get(locals.ticketKey.key, output.ticket) ? 1 : 0;
        output.tick = qpi.tick();
    }

    PUBLIC_FUNCTION(GetDispute)
    {
        output.exists = state.get().disputes.get(input.escrow, output.dispute) ? 1 : 0;
        output.tick = qpi.tick();
    }

    PUBLIC_FUNCTION(GetArbiters)
    {
        output.arbiters = state.get().arbiters;
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
        REGISTER_USER_FUNCTION(GetProvider, 3);
        REGISTER_USER_FUNCTION(GetTicket, 4);
        REGISTER_USER_FUNCTION(GetDispute, 5);
        REGISTER_USER_FUNCTION(GetArbiters, 6);

        REGISTER_USER_PROCEDURE(Open, 1);
        REGISTER_USER_PROCEDURE(TopUp, 2);
        REGISTER_USER_PROCEDURE(Redeem, 3);
        REGISTER_USER_PROCEDURE(Close, 4);
        REGISTER_USER_PROCEDURE(RequestClose, 5);
        REGISTER_USER_PROCEDURE(Finalize, 6);
        REGISTER_USER_PROCEDURE(OpenMany, 7);
        REGISTER_USER_PROCEDURE(RedeemMany, 8);
        REGISTER_USER_PROCEDURE(Register, 9);
        REGISTER_USER_PROCEDURE(Update, 10);
        REGISTER_USER_PROCEDURE(Exit, 11);
        REGISTER_USER_PROCEDURE(Rate, 12);
        REGISTER_USER_PROCEDURE(Slash, 13);
        REGISTER_USER_PROCEDURE(OpenDispute, 14);
        REGISTER_USER_PROCEDURE(Decide, 15);
        REGISTER_USER_PROCEDURE(Rotate, 16);
        REGISTER_USER_PROCEDURE(Buy, 17);
    }

    // Two networks never hold the same balances, so their digest tells them apart. The arbiters are those of
    // the development network, whose seeds everybody knows: a proposal names others in these three lines.
    INITIALIZE()
    {
        state.mut().network = qpi.getPrevSpectrumDigest().u64._0;
        state.mut().arbiters.set(0, id(15042097578490376852ULL, 8474322123601267014ULL, 11989642543976263505ULL, 11084342162384605750ULL));
        state.mut().arbiters.set(1, id(8929586147232212138ULL, 800398303419594692ULL, 7337947803019147519ULL, 17721858080351604286ULL));
        state.mut().arbiters.set(2, id(3560534469096183860ULL, 1664834121003919446ULL, 14223550695893109144ULL, 13408945632954456468ULL));
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
        Sweep_input none;
        Sweep_output nothing;
    };
    END_TICK_WITH_LOCALS()
    {
        if (mod<uint32>(qpi.tick(), QUBIX_SWEEP_TICKS) == 0)
        {
            CALL(Sweep, locals.none, locals.nothing);
        }
    }

    struct END_EPOCH_locals
    {
        Sweep_input none;
        Sweep_output nothing;
        Provider provider;
        sint64 index;
        sint64 burned;
        sint64 perShare;
    };
    // What is over goes back: here too, because this runs even without a reserve. Stakes of those who left an
    // epoch ago go back, tickets of the last epoch expire. A part of the fees feeds the reserve that this
    // contract runs on, the rest goes to the shares. What does not divide by the shares stays.
    END_EPOCH_WITH_LOCALS()
    {
        CALL(Sweep, locals.none, locals.nothing);
        locals.index = state.get().providers.nextElementIndex(NULL_INDEX);
        while (locals.index != NULL_INDEX)
        {
            locals.provider = state.get().providers.value(locals.index);
            if (locals.provider.exitEpoch > 0 && qpi.epoch() >= locals.provider.exitEpoch
                && qpi.transfer(state.get().providers.key(locals.index), locals.provider.stake) >= 0)
            {
                state.mut().providers.removeByIndex(locals.index);
                state.mut().totals.stakes -= locals.provider.stake;
            }
            locals.index = state.get().providers.nextElementIndex(locals.index);
        }
        state.mut().providers.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        locals.index = state.get().tickets.nextElementIndex(NULL_INDEX);
        while (locals.index != NULL_INDEX)
        {
            if (state.get().tickets.value(locals.index).epoch < qpi.epoch())
            {
                state.mut().tickets.removeByIndex(locals.index);
            }
            locals.index = state.get().tickets.nextElementIndex(locals.index);
        }
        state.mut().tickets.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
        locals.index = state.get().purchases.nextElementIndex(NULL_INDEX);
        while (locals.index != NULL_INDEX)
        {
            if (state.get().purchases.value(locals.index).epoch < qpi.epoch())
            {
                state.mut().purchases.removeByIndex(locals.index);
            }
            locals.index = state.get().purchases.nextElementIndex(locals.index);
        }
        state.mut().purchases.cleanupIfNeeded(QUBIX_CLEANUP_PERCENT);
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
