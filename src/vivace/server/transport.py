"""What the server speaks below HTTP: which versions, and whether encrypted. Values only."""

from dataclasses import dataclass, field
from pathlib import Path

from vivace.stream.network import NetworkConfig


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """How connections are made.

    Args:
        http2: also speak HTTP/2: over TLS where the client offers it, in clear text to clients that know beforehand.
        certificate: PEM file with the certificate chain; None: no TLS.
        key: PEM file with its private key; None: it is in the certificate's file.
        network: when a reader's connection is poor, and what is done then.
    """

    http2: bool = False
    certificate: Path | None = None
    key: Path | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)

    @property
    def scheme(self) -> str:
        """Of URLs."""
        return "http" if self.certificate is None else "https"


CLEAR_TEXT = TransportConfig()
"""HTTP/1.1 without TLS."""
