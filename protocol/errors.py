"""The error tree. Every error a person or a program can meet has one stable code.

QubixError                      exit  code
  UsageError                       2
    JobFileInvalid                    job.invalid
    ConfigInvalid                     config.invalid
    SeedInvalid                       wallet.seed_invalid
    PassphraseWrong                   wallet.passphrase_wrong
    FilesInvalid                      job.files_invalid
    QueryInvalid                      query.invalid
    ScheduleInvalid                   schedule.invalid
  NotFound                         3
    LeaseUnknown                      lease.unknown
    NoOffer                           market.no_offer
    PortClosed                        tunnel.port_closed
    FileMissing                       files.missing
  Refused                          4
    PriceAboveLimit                   quote.price_above_limit
    QuoteChanged                      quote.changed
    QuoteExpired                      quote.expired
    CapacityTaken                     quote.capacity_taken
    ShopCloses                        quote.shop_closes
    QuoteDeclined                     quote.declined
    AskedTooOften                     peer.asked_too_often
    RelayRefused                      relay.refused
      RelayFull                         relay.full
      RelayAllowanceUsed                relay.allowance_used
      RelayTargetAway                   relay.target_away
    RelayNotForRent                   relay.not_for_rent
    TooManyStreams                    tunnel.too_many
    JobNotRunning                     tunnel.not_running
    LeaseEnded                        tunnel.lease_ended
    NotAFile                          files.not_a_file
    FileDenied                        files.denied
    PeerRefused                       (the code the peer gave)
  MachineError                     5
    DaemonUnreachable                 daemon.unreachable
    VersionMismatch                   daemon.version
    AlreadyRunning                    daemon.already_running
    PortBusy                          net.port_busy
    EngineUnreachable                 runner.engine_unreachable
    ImageUnavailable                  runner.image_unavailable
      WrongArchitecture                 image.wrong_architecture
      CudaTooNew                        image.cuda_too_new
      GpuMissing                        image.gpu_missing
      ImageNotHere                      image.not_here
      ImageBroken                       image.broken
    StartFailed                       runner.start_failed
    JobMissing                        runner.job_missing
    InternetUnavailable               runner.no_internet
    TunnelUnavailable                 tunnel.unavailable
    FileChanged                       files.changed
    DiskFull                          disk.full
    LedgerBroken                      ledger.broken
    MirrorUnavailable                 mirror.unavailable
    KeystoreBroken                    wallet.keystore_broken
    CompilerMissing                   devnet.compiler_missing
  MoneyError                       6
    BalanceTooLow                     wallet.balance_too_low
    ChainUnreachable                  chain.unreachable
    ChainDisagrees                    chain.disagrees
    VoucherInvalid                    voucher.invalid
    FundingFailed                     chain.funding_failed
    PaymentFailed                     wallet.payment_failed
  JobFailed                        7  job.failed
  WireError                        8
    MessageInvalid                    wire.message_invalid
    MessageTooLarge                   wire.message_too_large
    SignatureInvalid                  wire.signature_invalid
    PeerUnreachable                   net.peer_unreachable
    StreamBroken                      net.stream_broken
"""

from __future__ import annotations

from typing import ClassVar


class QubixError(Exception):
    """Base of all errors meant to be read. `str(error)` is one clear sentence."""

    code: ClassVar[str] = "internal.error"
    exit_code: ClassVar[int] = 1


class UsageError(QubixError):
    """The person asked for something that cannot be asked."""

    code = "usage.error"
    exit_code = 2


class JobFileInvalid(UsageError):
    """A job file that says something wrong: `problem` is what, `field` where, if it is about one field."""

    code = "job.invalid"

    def __init__(self, sentence: str, field: str = "", problem: str = "") -> None:
        super().__init__(sentence)
        self.field = field
        self.problem = problem or sentence


class ConfigInvalid(UsageError):
    code = "config.invalid"


class SeedInvalid(UsageError):
    code = "wallet.seed_invalid"


class PassphraseWrong(UsageError):
    code = "wallet.passphrase_wrong"


class FilesInvalid(UsageError):
    """Job files that cannot be packed or unpacked: bad names, too many, too large, not as announced."""

    code = "job.files_invalid"


class QueryInvalid(UsageError):
    """A filter or sort keys of the market that cannot be read: `text[position]` is where it goes wrong."""

    code = "query.invalid"

    def __init__(self, sentence: str, text: str = "", position: int = 0) -> None:
        super().__init__(sentence + _pointer(text, position))
        self.text = text
        self.position = position


class ScheduleInvalid(UsageError):
    """A schedule of opening hours that cannot be read: `text[position]` is where it goes wrong."""

    code = "schedule.invalid"

    def __init__(self, sentence: str, text: str = "", position: int = 0) -> None:
        super().__init__(sentence + _pointer(text, position))
        self.text = text
        self.position = position


def _pointer(text: str, position: int) -> str:
    """The line and a mark below the character; nothing for no line."""
    start = max(0, position - 60)
    shown = "".join(char if char.isprintable() else " " for char in text[start : position + 60])
    return f"\n  {shown}\n  {' ' * (position - start)}^" if text else ""


class NotFound(QubixError):
    code = "not_found"
    exit_code = 3


class LeaseUnknown(NotFound):
    code = "lease.unknown"


class NoOffer(NotFound):
    code = "market.no_offer"


class PortClosed(NotFound):
    """Nothing inside the job listens where a tunnel should lead."""

    code = "tunnel.port_closed"


class FileMissing(NotFound):
    """The job's workspace has no such name."""

    code = "files.missing"


class Refused(QubixError):
    """One side of a deal said no before money moved."""

    code = "refused"
    exit_code = 4


class PriceAboveLimit(Refused):
    code = "quote.price_above_limit"


class QuoteChanged(Refused):
    code = "quote.changed"


class QuoteExpired(Refused):
    code = "quote.expired"


class CapacityTaken(Refused):
    code = "quote.capacity_taken"


class ShopCloses(Refused):
    """The provider's schedule closes before the rented time would be over."""

    code = "quote.shop_closes"


class QuoteDeclined(Refused):
    """The person saw the terms and said no."""

    code = "quote.declined"


class RelayNotForRent(Refused):
    """The node relays for nobody, or takes no money for it."""

    code = "relay.not_for_rent"


class TooManyStreams(Refused):
    """More tunnels into one job than it may have at a time."""

    code = "tunnel.too_many"


class JobNotRunning(Refused):
    """The lease is there, and its job does not run now: not yet, paused, or no more."""

    code = "tunnel.not_running"


class LeaseEnded(Refused):
    """A tunnel ends with the lease of its job."""

    code = "tunnel.lease_ended"


class NotAFile(Refused):
    """A link, a pipe, a device, or a directory where a file should be, or the other way round."""

    code = "files.not_a_file"


class FileDenied(Refused):
    """The provider's machine may not read or write there."""

    code = "files.denied"


class PeerRefused(Refused):
    """The peer answered with a refusal; `refusal_code` is the code it gave."""

    code = "peer.refused"

    def __init__(self, refusal_code: str, message: str) -> None:
        super().__init__(message)
        self.refusal_code = refusal_code


class AskedTooOften(Refused):
    code = "peer.asked_too_often"


class RelayRefused(Refused):
    """A relay does not carry what it was asked to carry."""

    code = "relay.refused"


class RelayFull(RelayRefused):
    code = "relay.full"


class RelayAllowanceUsed(RelayRefused):
    """One end has sent and received today what the relay carries for nothing."""

    code = "relay.allowance_used"


class RelayTargetAway(RelayRefused):
    """Who is wanted has no place at that relay now."""

    code = "relay.target_away"


class MachineError(QubixError):
    """Something of this machine is missing, full, dead or taken."""

    code = "machine.error"
    exit_code = 5


class DaemonUnreachable(MachineError):
    code = "daemon.unreachable"


class VersionMismatch(MachineError):
    """Front end and daemon do not speak the same version of the control API."""

    code = "daemon.version"


class AlreadyRunning(MachineError):
    code = "daemon.already_running"


class PortBusy(MachineError):
    code = "net.port_busy"


class EngineUnreachable(MachineError):
    code = "runner.engine_unreachable"


class ImageUnavailable(MachineError):
    code = "runner.image_unavailable"


class WrongArchitecture(ImageUnavailable):
    """The image is for other processors than this machine's."""

    code = "image.wrong_architecture"


class CudaTooNew(ImageUnavailable):
    """The image needs a newer CUDA than this machine's driver supports."""

    code = "image.cuda_too_new"


class GpuMissing(ImageUnavailable):
    """The image needs a driver that this machine does not have."""

    code = "image.gpu_missing"


class ImageNotHere(ImageUnavailable):
    """An image that is built where it is used has not been built here."""

    code = "image.not_here"


class ImageBroken(ImageUnavailable):
    """A container of the image ends before a job can begin in it: no shell, or one that dies."""

    code = "image.broken"


class StartFailed(MachineError):
    code = "runner.start_failed"


class JobMissing(MachineError):
    code = "runner.job_missing"


class InternetUnavailable(MachineError):
    code = "runner.no_internet"


class TunnelUnavailable(MachineError):
    """The provider's machine has no way into its own jobs."""

    code = "tunnel.unavailable"


class FileChanged(MachineError):
    """A file changed while it was being copied."""

    code = "files.changed"


class DiskFull(MachineError):
    code = "disk.full"


class LedgerBroken(MachineError):
    code = "ledger.broken"


class MirrorUnavailable(MachineError):
    """The web has no mirror of the market that it can read."""

    code = "mirror.unavailable"


class KeystoreBroken(MachineError):
    code = "wallet.keystore_broken"


class CompilerMissing(MachineError):
    code = "devnet.compiler_missing"


class MoneyError(QubixError):
    code = "money.error"
    exit_code = 6


class BalanceTooLow(MoneyError):
    code = "wallet.balance_too_low"


class ChainUnreachable(MoneyError):
    code = "chain.unreachable"


class ChainDisagrees(MoneyError):
    code = "chain.disagrees"


class VoucherInvalid(MoneyError):
    code = "voucher.invalid"


class FundingFailed(MoneyError):
    code = "chain.funding_failed"


class PaymentFailed(MoneyError):
    """A payment is final and moved no money, or nobody can say whether it did."""

    code = "wallet.payment_failed"


class JobFailed(QubixError):
    """The job itself ended with a non-zero exit code; nothing is wrong with qubix."""

    code = "job.failed"
    exit_code = 7


class WireError(QubixError):
    """Bytes from or to a peer."""

    code = "wire.error"
    exit_code = 8


class MessageInvalid(WireError):
    code = "wire.message_invalid"


class MessageTooLarge(WireError):
    code = "wire.message_too_large"


class SignatureInvalid(WireError):
    code = "wire.signature_invalid"


class PeerUnreachable(WireError):
    code = "net.peer_unreachable"


class StreamBroken(WireError):
    code = "net.stream_broken"
