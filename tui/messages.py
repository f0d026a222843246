"""What the app tells the screen that is shown; handle them as `on_lease_changed` and so on."""

from __future__ import annotations

from textual.message import Message

from protocol.control import LeaseView
from protocol.control_wallet import WalletView
from protocol.control_watch import MarketPulse, NoticeView
from tui.link import LinkState


class LinkChanged(Message):
    """The daemon came, or went."""

    def __init__(self, state: LinkState) -> None:
        self.state: LinkState = state
        super().__init__()


class LeaseChanged(Message):
    """A lease is new or not as it was."""

    def __init__(self, lease: LeaseView) -> None:
        self.lease = lease
        super().__init__()


class WalletChanged(Message):
    """Something moved in the wallet."""

    def __init__(self, wallet: WalletView) -> None:
        self.wallet = wallet
        super().__init__()


class MarketChanged(Message):
    """Offers came, changed or went; ask again for what is shown, not more often than needed."""

    def __init__(self, pulse: MarketPulse) -> None:
        self.pulse = pulse
        super().__init__()


class Noticed(Message):
    """Something happened that a person wants to hear of anywhere. The app shows it as a toast, too."""

    def __init__(self, notice: NoticeView) -> None:
        self.notice = notice
        super().__init__()


class Ticked(Message):
    """A second has gone by: for ages and running costs."""
